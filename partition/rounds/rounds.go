// Package rounds shares something that is asked for often, and costs a round trip, among all who want it at the same time.
package rounds

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed is the error of Do after Close.
var ErrClosed = errors.New("rounds: closed")

// Rounds does its work in one round after the other, for all who asked before it began: whoever comes while a round is under way gets the next one, since what that one finds may be
// from before the question.
type Rounds[T any] struct {
	work  func(context.Context) (T, error)
	limit time.Duration
	base  context.Context

	mu      sync.Mutex
	next    *round[T] // asked for, and not begun
	running bool      // run is
	closed  bool
	wg      sync.WaitGroup
	stop    context.CancelFunc
}

type round[T any] struct {
	done chan struct{} // closed when the rest is set
	res  T
	err  error
}

// New returns rounds of work, each of which is given the time limit. work must return soon after its context ends.
func New[T any](limit time.Duration, work func(context.Context) (T, error)) *Rounds[T] {
	r := &Rounds[T]{work: work, limit: limit}
	r.base, r.stop = context.WithCancel(context.Background())
	return r
}

// Do returns what a round that begins after the call found, or the error of ctx. Other errors are work's, or ErrClosed.
func (r *Rounds[T]) Do(ctx context.Context) (T, error) {
	var none T
	rd := r.ask()
	if rd == nil {
		return none, ErrClosed
	}
	select {
	case <-rd.done:
		return rd.res, rd.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// ask joins the next round; nil after Close.
func (r *Rounds[T]) ask() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
	}
	if !r.running {
		r.running = true
		r.wg.Go(r.run)
	}
	return r.next
}

func (r *Rounds[T]) run() {
	for {
		r.mu.Lock()
		rd := r.next
		r.next = nil
		r.running = rd != nil
		r.mu.Unlock()
		if rd == nil {
			return
		}
		ctx, cancel := context.WithTimeout(r.base, r.limit)
		rd.res, rd.err = r.work(ctx)
		cancel()
		close(rd.done)
	}
}

// Close ends the round under way and the one that was asked for, and waits for them.
func (r *Rounds[T]) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
}
