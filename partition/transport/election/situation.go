package election

import (
	"strconv"

	"github.com/hashicorp/raft"
)

// position is the end of a log.
type position struct{ index, term uint64 }

// ahead is the comparison of section 5.4.1 of the Raft paper.
func (p position) ahead(of position) bool {
	return p.term > of.term || p.term == of.term && p.index > of.index
}

// situation is what a replica sees of its group.
type situation struct {
	state  raft.RaftState
	term   uint64
	leader raft.ServerAddress // "": none known
	stale  bool               // raft believes in a leader although it stands for election: see known
	vacant bool               // no leader is known, or its broker is gone, or says that it does not lead
	voters []raft.Server      // in the configuration's order
	others []raft.Server      // voters but for this one
	quorum int
	ranks  []int // by index in voters: whose turn it is to try, 0 first; -1: its broker is gone
	rank   int   // this replica's; -1: it has no vote
	last   position
}

func (s *situation) rankOf(voter int) int { return s.ranks[voter] }

// look reads raft's state. The parts are read one after the other; who acts on them checks again, and raft in the end.
func (e *Elector) look() *situation {
	s := &situation{state: e.raft.State(), term: e.raft.CurrentTerm(), rank: -1}
	s.leader, s.stale = e.known(s.state)
	s.vacant = s.state != raft.Leader && e.lost(s.leader, s.term)
	if !s.vacant {
		return s
	}
	s.takeTurns(e)
	s.last = lastEntry(e.raft.Stats())
	return s
}

// known is the leader that raft, in a state, believes in. A candidate follows nobody. But raft that was told to stand (TimeoutNow) believes in its old leader again if a heartbeat of that one is handled, beside its main
// goroutine, before the term is raised, and then refuses pre-votes for as long as nobody is elected: such a leader is stale.
func (e *Elector) known(state raft.RaftState) (leader raft.ServerAddress, stale bool) {
	leader, _ = e.raft.LeaderWithID()
	if state == raft.Candidate {
		return "", leader != ""
	}
	return leader, false
}

// takeTurns ranks the voters whose brokers are not gone.
func (s *situation) takeTurns(e *Elector) {
	next := 0
	for _, server := range e.raft.GetConfiguration().Configuration().Servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		s.voters = append(s.voters, server)
		self := server.ID == e.id
		rank := -1
		lost := server.Address == s.leader || e.group.Gone(server.Address) // a leader that is lost has no first claim
		if self || !lost {
			rank = next
			next++
		}
		s.ranks = append(s.ranks, rank)
		if self {
			s.rank = rank
		} else {
			s.others = append(s.others, server)
		}
	}
	s.quorum = len(s.voters)/2 + 1
}

// lastEntry is the end of the log, or of the snapshot if that is further, as raft compares it. raft shows the terms in its statistics only.
func lastEntry(stats map[string]string) position {
	n := func(key string) uint64 { v, _ := strconv.ParseUint(stats[key], 10, 64); return v }
	log := position{index: n("last_log_index"), term: n("last_log_term")}
	snap := position{index: n("last_snapshot_index"), term: n("last_snapshot_term")}
	if log.index >= snap.index {
		return log
	}
	return snap
}
