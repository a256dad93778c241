package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrStopped comes from Start when Shutdown or Kill was called before it was through, or Start before. Make another Broker.
var ErrStopped = errors.New("the broker was stopped")

// life has Start and the stops follow one another: each stop waits until Start has ended, which it makes soon, and nothing starts after a stop.
type life struct {
	mu      sync.Mutex
	stopped bool
	cancel  context.CancelFunc // of Start's context
	started chan struct{}      // closed when Start has ended; nil before it was called
}

// begin is for Start. end must be called when it is through.
func (l *life) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.started != nil {
		return nil, nil, ErrStopped
	}
	ctx, cancel := context.WithCancel(ctx)
	started := make(chan struct{})
	l.cancel, l.started = cancel, started
	return ctx, func() { cancel(); close(started) }, nil
}

// stop makes Start end, after the step that it is in, and waits for that.
func (l *life) stop() {
	l.mu.Lock()
	l.stopped = true
	started := l.started
	if started != nil {
		l.cancel()
	}
	l.mu.Unlock()
	if started != nil {
		<-started
	}
}

// goOn says, between Start's steps, whether it shall.
func (l *life) goOn() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return fmt.Errorf("%w while it started", ErrStopped)
	}
	return nil
}
