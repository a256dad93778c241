package partition

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Status describes the replica.
func (r *Replica) Status() Status {
	addr, id := r.raft.LeaderWithID()
	s := Status{
		State: r.raft.State(), Ready: r.IsLeader(), Leader: addr, LeaderID: id, Term: r.raft.CurrentTerm(),
		LastIndex: r.raft.LastIndex(), CommitIndex: r.raft.CommitIndex(),
		Bytes: r.log.Size(), LocalID: r.cfg.LocalID,
		Servers: r.raft.GetConfiguration().Configuration().Servers,
	}
	if err := r.failure.Load(); err != nil {
		s.Err = *err
	}
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	s.Followers = r.followers(s)
	s.AppliedIndex = uint64(r.state.applied)
	s.ConfigurationCommitted = slices.Equal(s.Servers, r.state.config.Servers)
	s.LogStart, s.HighWatermark = r.state.logStart, r.state.next
	s.Digest, s.Producers = r.state.digest, r.state.producers.len()
	return s
}

// Follower is what a leader knows of another replica of its group.
type Follower struct {
	Server raft.Server
	// Match is the last entry that it is known to have; 0: it has not answered in this term.
	Match uint64
	// CaughtUp is when it last had all that was committed when it was asked; zero: not in this term.
	CaughtUp time.Time
	// Gone: there is evidence that its broker does not run, or cannot be reached.
	Gone bool
}

// followers lists the other servers of the configuration, if this replica leads.
func (r *Replica) followers(s Status) []Follower {
	if s.State != raft.Leader {
		return nil
	}
	out := make([]Follower, 0, len(s.Servers))
	for _, server := range s.Servers {
		if server.ID == r.cfg.LocalID {
			continue
		}
		f, _ := r.group.Follower(server.ID, s.Term)
		out = append(out, Follower{Server: server, Match: f.Match, CaughtUp: f.CaughtUp, Gone: r.group.Gone(server.Address)})
	}
	return out
}
