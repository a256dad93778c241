package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// configTimeout bounds how long a change waits for raft to be ready for it.
const configTimeout = 5 * time.Second

// step is one change of the Raft configuration, or a transfer of leadership.
type step struct {
	kind   stepKind
	server raft.Server
}

type stepKind uint8

const (
	stepDone stepKind = iota
	stepWait          // nothing to do until somebody has caught up
	stepRemove
	stepAddNonvoter
	stepAddVoter
	stepTransfer
)

// Reconcile moves the group's Raft configuration one step, at most, towards exactly the desired servers, all of them voters, and tells whether it is there. The leader calls it again and again;
// it looks at nothing but the present configuration, so another leader can go on where this one stopped. caughtUp says whether a server has nearly the whole log
// and may vote.
//
// The order keeps the group safe: a server whose address now belongs to another ID is gone for good (its disk is), so it goes first and makes room; missing servers come
// as non-voters and get a vote when they have caught up; a leader that is not wanted hands over; and only when all desired servers vote do others go.
func (r *Replica) Reconcile(ctx context.Context, desired []raft.Server, caughtUp func(raft.Server) bool) (done bool, err error) {
	if len(desired) == 0 {
		return false, fmt.Errorf("%s: reconcile: no servers are desired", r.cfg.Name)
	}
	term, err := r.Serving()
	if err != nil {
		return false, err
	}
	r.state.mu.RLock()
	config, index := r.state.config.Clone(), uint64(r.state.configIndex)
	r.state.mu.RUnlock()
	next := nextStep(config.Servers, desired, r.cfg.LocalID, caughtUp)
	switch next.kind {
	case stepDone:
		return r.confirm(ctx, config, term)
	case stepWait:
		return false, nil
	}
	err = r.changing(ctx, func() (raft.Future, func(), error) { return r.begin(ctx, next, index) })
	if err != nil {
		return false, fmt.Errorf("reconcile: %s %s: %w", next.kind, next.server.ID, err)
	}
	return false, nil
}

// confirm makes sure that the committed configuration is also the latest, and that a quorum of it takes this replica for the leader now.
func (r *Replica) confirm(ctx context.Context, config raft.Configuration, term uint64) (bool, error) {
	if !slices.Equal(r.raft.GetConfiguration().Configuration().Servers, config.Servers) {
		return false, nil
	}
	err := r.changing(ctx, func() (raft.Future, func(), error) {
		return futureFunc(func() error { return r.ConfirmLeader(ctx, term) }), func() {}, nil
	})
	if err != nil {
		return false, fmt.Errorf("reconcile: %w", err)
	}
	return true, nil
}

// futureFunc is a raft.Future that is a function.
type futureFunc func() error

// Error implements raft.Future.
func (f futureFunc) Error() error { return f() }

// String names the step in messages.
func (k stepKind) String() string {
	switch k {
	case stepRemove:
		return "remove"
	case stepAddNonvoter:
		return "add non-voter"
	case stepAddVoter:
		return "add voter"
	case stepTransfer:
		return "transfer leadership to"
	case stepWait:
		return "wait for"
	}
	return "done"
}

// begin takes a step. index is that of the configuration which it was decided on: raft refuses it if there is a newer one.
func (r *Replica) begin(ctx context.Context, s step, index uint64) (raft.Future, func(), error) {
	undo := func() {}
	switch s.kind {
	case stepRemove:
		return r.raft.RemoveServer(s.server.ID, index, configTimeout), undo, nil
	case stepAddNonvoter:
		return r.raft.AddNonvoter(s.server.ID, s.server.Address, index, configTimeout), undo, nil
	case stepAddVoter:
		return r.raft.AddVoter(s.server.ID, s.server.Address, index, configTimeout), undo, nil
	case stepTransfer:
		return r.transfer(ctx, &s.server)
	}
	return nil, nil, errors.New("no such step")
}

// nextStep decides. It is a pure function of its arguments.
func nextStep(current, desired []raft.Server, self raft.ServerID, caughtUp func(raft.Server) bool) step {
	for _, s := range current {
		if s.ID != self && replaced(s, desired) && !lastVoter(current, s) {
			return step{stepRemove, s}
		}
	}
	if s, ok := nextMissing(current, desired); ok {
		return s
	}
	for _, s := range current {
		if s.Suffrage != raft.Voter && !wanted(s, desired) {
			return step{stepRemove, s}
		}
	}
	waiting := step{}
	for _, d := range desired {
		if s, ok := find(current, d.ID); ok && s.Suffrage != raft.Voter {
			if caughtUp(s) {
				return step{stepAddVoter, d}
			}
			waiting = step{stepWait, s}
		}
	}
	if waiting.kind == stepWait {
		return waiting
	}
	return nextSurplus(current, desired, self)
}

// nextMissing adds a server that is not there yet, or gives one a new address.
func nextMissing(current, desired []raft.Server) (step, bool) {
	for _, d := range desired {
		s, ok := find(current, d.ID)
		switch {
		case !ok && addressTaken(current, d.Address):
			continue // by a server that could not go first; its turn comes later
		case !ok:
			return step{stepAddNonvoter, d}, true
		case s.Address != d.Address && s.Suffrage == raft.Voter:
			return step{stepAddVoter, d}, true
		case s.Address != d.Address:
			return step{stepAddNonvoter, d}, true
		}
	}
	return step{}, false
}

// nextSurplus lets go of those who are not wanted: the leader itself hands over to the first desired voter instead. At least one desired server votes here, unless the only voter is a
// server that was replaced, and then nothing can be done.
func nextSurplus(current, desired []raft.Server, self raft.ServerID) step {
	for _, s := range current {
		if s.ID != self && !wanted(s, desired) && !lastVoter(current, s) {
			return step{stepRemove, s}
		}
	}
	if _, ok := find(desired, self); ok {
		return step{}
	}
	for _, d := range desired {
		if s, ok := find(current, d.ID); ok && s.Suffrage == raft.Voter {
			return step{stepTransfer, s}
		}
	}
	return step{stepWait, desired[0]}
}

// replaced says whether the server's address is desired under another ID, and the server itself is not.
func replaced(s raft.Server, desired []raft.Server) bool {
	return !wanted(s, desired) && addressTaken(desired, s.Address)
}

func wanted(s raft.Server, desired []raft.Server) bool {
	_, ok := find(desired, s.ID)
	return ok
}

func find(servers []raft.Server, id raft.ServerID) (raft.Server, bool) {
	for _, s := range servers {
		if s.ID == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

func addressTaken(servers []raft.Server, addr raft.ServerAddress) bool {
	for _, s := range servers {
		if s.Address == addr {
			return true
		}
	}
	return false
}

// lastVoter says whether s is the only voter.
func lastVoter(servers []raft.Server, s raft.Server) bool {
	for _, o := range servers {
		if o.Suffrage == raft.Voter && o.ID != s.ID {
			return false
		}
	}
	return s.Suffrage == raft.Voter
}
