package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// transferReady is how long a transfer of leadership waits, at most, until the successor has everything.
	transferReady = 2 * time.Second
	// transferMax bounds the transfer itself. hashicorp/raft refuses proposals while it waits for the successor to be elected, for an election timeout, which is long here.
	transferMax = 3 * time.Second
	// nominationMax is how long a failed leader waits for one voter to stand for election before it asks the next. It says that it does not lead any more only then, so that nobody else stands too.
	nominationMax = 250 * time.Millisecond
)

// nudge makes raft send to all followers again, by proposing a barrier. Nobody waits for it.
func (r *Replica) nudge() {
	if r.raft.State() == raft.Leader {
		r.raft.Barrier(time.Second)
	}
}

// transfer starts a transfer of leadership; proposals wait from now on until undo is called.
func (r *Replica) transfer(ctx context.Context, to *raft.Server) (f raft.Future, undo func(), err error) {
	if !r.seq.pause() {
		return nil, nil, ErrBusy
	}
	if !r.seq.waitDrained(ctx.Done()) {
		r.seq.resume()
		return nil, nil, fmt.Errorf("appends in flight: %w", ctx.Err())
	}
	to, err = r.successor(ctx, to)
	if err != nil {
		r.seq.resume()
		return nil, nil, err
	}
	_, term := r.Leader()
	return &transferFuture{Future: r.raft.LeadershipTransferToServer(to.ID, to.Address), r: r, term: term}, r.seq.resume, nil
}

// successor waits until the given voter, or any, has all entries, so that the transfer itself takes no longer than an election. Whoever lacks some would not be elected.
func (r *Replica) successor(ctx context.Context, to *raft.Server) (*raft.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, transferReady)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		s, any := r.ready(to)
		if s != nil {
			return s, nil
		}
		if !any {
			return nil, errors.New("there is no other voter that could be reached")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("no successor has all records yet: %w", ErrBusy)
		}
	}
}

// ready returns the given voter, or any, if it has all entries and its broker is heard. any is false if that will not come.
func (r *Replica) ready(to *raft.Server) (s *raft.Server, any bool) {
	_, term := r.Leader()
	last := r.raft.LastIndex()
	for _, s := range r.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || s.ID == r.cfg.LocalID || to != nil && s.ID != to.ID || r.group.Gone(s.Address) {
			continue
		}
		if f, ok := r.group.Follower(s.ID, term); ok && f.Match >= last {
			return &s, true
		}
		any = true
	}
	return nil, any
}

// nominate has another voter stand for election, for a leader that has failed while its broker goes on: nobody else would notice before the next round of claims. The one with the most entries is asked
// first, since who lacks one that a quorum has is not elected; if it was not the one, its campaign has at least told the others that there is no leader. Calls that were not answered in time
// are counted in asked; they end with the group.
func (r *Replica) nominate(asked *sync.WaitGroup) {
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.cfg.LocalID), Addr: []byte(r.cfg.LocalAddr)}}
	for _, s := range r.nominees() {
		done := make(chan error, 1)
		asked.Go(func() { done <- r.group.TimeoutNow(s.ID, s.Address, req, &raft.TimeoutNowResponse{}) })
		select {
		case err := <-done:
			if err == nil {
				return
			}
		case <-time.After(nominationMax):
		}
	}
}

// nominees are the voters that could be reached, the one that acknowledged the most entries first.
func (r *Replica) nominees() []raft.Server {
	term := r.raft.CurrentTerm()
	match := func(s raft.Server) uint64 { f, _ := r.group.Follower(s.ID, term); return f.Match }
	servers := slices.DeleteFunc(slices.Clone(r.raft.GetConfiguration().Configuration().Servers), func(s raft.Server) bool {
		return s.ID == r.cfg.LocalID || s.Suffrage != raft.Voter || r.group.Gone(s.Address)
	})
	slices.SortStableFunc(servers, func(a, b raft.Server) int { return cmp.Compare(match(b), match(a)) })
	return servers
}

// transferFuture ends a transfer that takes too long by giving up leadership, since raft has no other way to end it and refuses proposals meanwhile: whoever is elected then goes on.
type transferFuture struct {
	raft.Future
	r    *Replica
	term uint64
}

// Error implements raft.Future. Raft that is shut down does not answer a transfer that it has not begun; the goroutine that asked it stays then.
func (f *transferFuture) Error() error {
	done := make(chan error, 1)
	go func() { done <- f.Future.Error() }()
	timer := time.NewTimer(transferMax)
	defer timer.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-f.r.halted:
			return raft.ErrRaftShutdown
		case <-timer.C:
			f.r.group.StepDown(f.term)
		}
	}
}
