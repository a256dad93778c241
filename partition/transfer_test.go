package partition

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// waits is a future that is answered when answer is closed, or never.
type waits struct {
	raft.Future
	answer chan struct{}
}

// Error implements raft.Future.
func (w waits) Error() error {
	<-w.answer
	return nil
}

// TestChangeEndsWithRaft: raft that is shut down does not answer what is in its queues.
func TestChangeEndsWithRaft(t *testing.T) {
	for name, wait := range map[string]func(*Replica, raft.Future) error{
		"transfer": func(r *Replica, f raft.Future) error { return (&transferFuture{Future: f, r: r}).Error() },
		"change":   (*Replica).answer,
	} {
		t.Run(name, func(t *testing.T) { testEndsWithRaft(t, wait) })
	}
}

func testEndsWithRaft(t *testing.T, wait func(*Replica, raft.Future) error) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		r := &Replica{halted: make(chan struct{}), group: &transport.Group{}}
		done := make(chan error, 1)
		go func() { done <- wait(r, waits{answer: never}) }()
		synctest.Wait()
		close(r.halted)
		select {
		case err := <-done:
			if !errors.Is(err, raft.ErrRaftShutdown) {
				t.Errorf("it ended with: %v", err)
			}
		case <-time.After(transferMax / 2):
			t.Error("it still waits for raft, which was shut down")
		}
	})
}
