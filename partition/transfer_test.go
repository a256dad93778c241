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

// TestTransferEndsWithRaft: raft that is shut down does not answer a transfer in its queue.
func TestTransferEndsWithRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		r := &Replica{halted: make(chan struct{}), group: &transport.Group{}}
		done := make(chan error, 1)
		go func() { done <- (&transferFuture{Future: waits{answer: never}, r: r}).Error() }()
		synctest.Wait()
		close(r.halted)
		select {
		case err := <-done:
			if !errors.Is(err, raft.ErrRaftShutdown) {
				t.Errorf("the transfer ended with: %v", err)
			}
		case <-time.After(transferMax / 2):
			t.Error("the transfer still waits for raft, which was shut down")
		}
	})
}
