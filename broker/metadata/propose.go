package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
)

const (
	// maxCommandBytes bounds an encoded command.
	maxCommandBytes = 16 << 20
	// proposeTimeout bounds a proposal whose caller set no deadline.
	proposeTimeout = 30 * time.Second
	// attemptTimeout bounds one attempt to propose, of as many as the context allows.
	attemptTimeout = 5 * time.Second
	// retryEvery is the pause between attempts while there is no leader.
	retryEvery = 50 * time.Millisecond
)

// errNotProposed wraps errors of attempts that certainly changed nothing.
var errNotProposed = errors.New("not proposed")

// Propose has the command applied once, passing it to the leader and trying again until ctx ends, and returns when this broker's State
// contains it. Trying again is harmless: the state machine recognises a request that it has applied. Without a deadline in ctx it gives up after
// proposeTimeout, as whoever asked may never do.
// Errors: *api.Error of the command itself; ErrNoLeader, ErrOutcomeUnknown, ErrClosed.
func (n *Node) Propose(ctx context.Context, c Command) (Result, error) {
	if err := c.check(n.State()); err != nil {
		return Result{}, err
	}
	data, err := encodeCommand(randomName(), c)
	if err != nil {
		return Result{}, err
	}
	if len(data) > maxCommandBytes {
		return Result{}, api.Errorf(api.CodeInvalidRequest, "the change is too large: %d bytes of at most %d", len(data), maxCommandBytes)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	o, err := n.proposeUntil(ctx, data)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.kind(), err)
	}
	if err := n.waitApplied(ctx, o.Result.Index); err != nil {
		return o.Result, fmt.Errorf("%s: applied, but not yet here: %w", c.kind(), err)
	}
	return o.Result, o.err()
}

func (n *Node) proposeUntil(ctx context.Context, data []byte) (outcome, error) {
	verdict, last := ErrNoLeader, error(nil)
	for {
		o, err := n.attempt(ctx, data)
		if err == nil {
			return o, nil
		}
		if n.ctx.Err() != nil {
			return outcome{}, ErrClosed
		}
		if last = err; !errors.Is(err, errNotProposed) {
			verdict = ErrOutcomeUnknown
		}
		select {
		case <-ctx.Done():
			return outcome{}, fmt.Errorf("%w: %w (last attempt: %w)", verdict, ctx.Err(), last)
		case <-n.ctx.Done():
			return outcome{}, ErrClosed
		case <-time.After(retryEvery):
		}
	}
}

// attempt proposes once, here or at the leader. An error that does not wrap errNotProposed leaves the outcome open.
func (n *Node) attempt(ctx context.Context, data []byte) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if n.IsLeader() {
		return n.applyHere(ctx, data)
	}
	addr, _ := n.raft.LeaderWithID()
	if addr == "" || addr == ServerAddress(n.cfg.Identity.Broker()) {
		return outcome{}, fmt.Errorf("%w: no leader is known", errNotProposed)
	}
	var reply proposeReply
	if err := n.call(ctx, addr, MethodPropose, data, &reply); err != nil {
		return outcome{}, err
	}
	if reply.NotProposed != "" {
		return outcome{}, fmt.Errorf("%w: %s", errNotProposed, reply.NotProposed)
	}
	return reply.Outcome, nil
}

// applyHere proposes as the leader.
func (n *Node) applyHere(ctx context.Context, data []byte) (outcome, error) {
	timeout := attemptTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	f := n.raft.Apply(data, timeout)
	err := waitFuture(ctx, f)
	switch {
	case err == nil:
		o, ok := f.Response().(outcome)
		if !ok {
			return outcome{}, fmt.Errorf("%w: %v", ErrMalformed, f.Response())
		}
		return o, nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return outcome{}, fmt.Errorf("%w: %w", errNotProposed, err)
	default:
		return outcome{}, err
	}
}

// waitFuture waits for a Raft future or the context. A future that is given up ends by itself when its operation does, at the latest
// when Raft shuts down.
func waitFuture(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitApplied waits until this node's state machine has applied the command at index.
func (n *Node) waitApplied(ctx context.Context, index uint64) error {
	for {
		ch := n.fsm.applied.wait()
		if n.fsm.index.Load() >= index {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
		case <-n.ctx.Done():
			return ErrClosed
		}
	}
}

// Sync returns when this broker's State contains everything that was committed when Sync was called. ErrNoLeader, ErrClosed.
func (n *Node) Sync(ctx context.Context) error {
	for {
		index, err := n.committed(ctx)
		if err == nil {
			return n.waitApplied(ctx, index)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w (%w)", ErrNoLeader, ctx.Err(), err)
		case <-n.ctx.Done():
			return ErrClosed
		case <-time.After(retryEvery):
		}
	}
}

// committed asks the leader for the index of the last command that is committed by now.
func (n *Node) committed(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if n.IsLeader() {
		return n.barrier(ctx)
	}
	addr, _ := n.raft.LeaderWithID()
	if addr == "" {
		return 0, ErrNoLeader
	}
	p, err := n.progress(ctx, addr, true)
	return p.Applied, err
}

// barrier makes sure, as the leader, that everything committed is applied here: the barrier is itself committed by the quorum, so
// this node still led when it was called.
func (n *Node) barrier(ctx context.Context) (uint64, error) {
	if err := waitFuture(ctx, n.raft.Barrier(attemptTimeout)); err != nil {
		return 0, err
	}
	return n.fsm.index.Load(), nil
}

// call runs a method on another broker and decodes its answer.
func (n *Node) call(ctx context.Context, to raft.ServerAddress, m method, payload []byte, reply any) error {
	data, err := n.cfg.Transport.Call(ctx, to, m, payload)
	if err != nil {
		return fmt.Errorf("broker %s: %w", to, notProposed(err))
	}
	if err := json.Unmarshal(data, reply); err != nil {
		return fmt.Errorf("broker %s: %w: %w", to, ErrMalformed, err)
	}
	return nil
}
