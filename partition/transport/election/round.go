package election

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// What an Elector does in each round of claims (transport.Claimant), on both sides.

const (
	// Lease is how long a leader goes on without a quorum that agrees with it: a few rounds of claims.
	Lease = 2 * time.Second
	// lagPause is how long a follower that agrees with its leader may stay behind without getting anything, before raft is made to send again. The pause doubles up to
	// lagPauses times; raft's own, rare, attempts remain.
	lagPause  = 400 * time.Millisecond
	lagPauses = 8
	// overtakenFor is how long a leader waits for the votes to be asked for that go with a later term.
	overtakenFor = 800 * time.Millisecond
)

// lag is a follower that lacks entries.
type lag struct {
	match uint64
	since time.Time // when match was first seen, or raft was last made to send
	tries int
}

// Round implements transport.Claimant. On a leader it finds out whether a quorum still agrees, and whether followers wait for what was lost on the way; on a follower, whether
// there is a leader.
func (e *Elector) Round() transport.Claim {
	term := e.raft.CurrentTerm()
	if e.raft.State() != raft.Leader || e.raft.CurrentTerm() != term {
		e.follow(term)
		return transport.Claim{}
	}
	servers := e.raft.GetConfiguration().Configuration().Servers
	if now := e.now(); !e.confirmed(term, servers) && now.Sub(e.yielded) > Lease {
		e.log.Debug("stepping down: no quorum was heard", "term", term)
		e.yielded = now
		e.group.StepDown(term)
	}
	e.push(term, servers)
	return transport.Claim{Term: term, Commit: e.raft.CommitIndex(), Servers: servers}
}

// follow begins with tries if there is no leader and none are under way: whatever was missed is made up for here.
func (e *Elector) follow(term uint64) {
	leader, _ := e.known(e.raft.State())
	if !e.lost(leader, term) {
		return
	}
	e.mu.Lock()
	idle := !e.pending && !e.trying && !e.idle
	e.mu.Unlock()
	if idle {
		e.begin(nil, vacancy, Stagger)
	}
}

// lost tells whether a leader of a term is none.
func (e *Elector) lost(leader raft.ServerAddress, term uint64) bool {
	return leader == "" || leader != e.group.LocalAddr() && (e.group.Gone(leader) || e.group.Disowned(leader, term))
}

// confirmed tells whether a quorum has agreed with this leader within the Lease.
func (e *Elector) confirmed(term uint64, servers []raft.Server) bool {
	voters, fresh := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == e.id {
			fresh++
		} else if silence, known := e.group.Silence(s.ID, term); !known || silence <= Lease {
			fresh++
		}
	}
	return voters == 0 || fresh > voters/2
}

// push has raft send again to followers that are behind, agree with this leader, and get nothing. hashicorp/raft leaves what was lost with a connection, or refused by a replica that was not open yet, until
// the next proposal or CommitTimeout, which is long here.
func (e *Elector) push(term uint64, servers []raft.Server) {
	if e.nudge == nil {
		return
	}
	if e.term != term {
		e.term, e.lags = term, nil
	}
	last, due := e.raft.LastIndex(), false
	for _, s := range servers {
		if s.ID != e.id && e.behind(s.ID, term, last) {
			due = true
		}
	}
	if due {
		e.nudge()
	}
}

// behind says that it is time to send to a follower again.
func (e *Elector) behind(id raft.ServerID, term, last uint64) bool {
	f, _ := e.group.Follower(id, term)
	if f.Match < last {
		if silence, known := e.group.Silence(id, term); known && silence <= Lease/2 {
			return e.lagging(id, f.Match)
		}
	}
	delete(e.lags, id)
	return false
}

// lagging says that it is time to send to a follower again that has as much as match, and is heard.
func (e *Elector) lagging(id raft.ServerID, match uint64) bool {
	now := e.now()
	l := e.lags[id]
	if l == nil {
		if e.lags == nil {
			e.lags = map[raft.ServerID]*lag{}
		}
		e.lags[id] = &lag{match: match, since: now}
		return false
	}
	if l.match != match {
		*l = lag{match: match, since: now}
		return false
	}
	if l.tries >= lagPauses || now.Sub(l.since) < lagPause<<l.tries {
		return false
	}
	l.since = now
	l.tries++
	return true
}

// Following implements transport.Claimant.
func (e *Elector) Following() (term uint64, leader raft.ServerAddress, id raft.ServerID, commit uint64) {
	term = e.raft.CurrentTerm()
	leader, id = e.raft.LeaderWithID()
	return term, leader, id, e.raft.CommitIndex()
}

// LeaderEnded implements transport.Claimant.
func (e *Elector) LeaderEnded() { e.begin(e.look(), 0, Stagger) }

// Overtaken implements transport.Claimant: a leader that hears of a later term follows, as the Raft paper has it. But not at once: who stands for election because leadership is handed to him is in a later term
// before he has asked for votes, and somebody else might be elected meanwhile.
func (e *Elector) Overtaken(term uint64) {
	if e.raft.State() != raft.Leader || e.raft.CurrentTerm() >= term {
		return
	}
	now := e.now()
	e.mu.Lock()
	first := e.overtaken != term
	if first {
		e.overtaken, e.overtook = term, now
	}
	wait := first || now.Sub(e.overtook) < overtakenFor
	e.mu.Unlock()
	if !wait {
		e.group.StepDown(term)
	}
}

// Stuck implements transport.Claimant.
func (e *Elector) Stuck() uint64 {
	if e.raft.State() == raft.Candidate {
		return e.raft.CurrentTerm() + 1
	}
	return 0
}
