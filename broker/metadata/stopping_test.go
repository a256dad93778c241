package metadata

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestCloseDuringBootstrap: raft's main goroutine ends when the first term cannot be stored, and answers the bootstrap no more; the node closes all the same.
func TestCloseDuringBootstrap(t *testing.T) {
	c := newTestCluster(t, 7)
	n := c.nodes[7]
	if err := n.stable.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- n.bootstrapRaft(context.Background(), []Founder{{n.cfg.Identity.Broker(), n.cfg.Identity.Incarnation()}})
	}()
	c.eventually("raft's main goroutine ends", func() bool {
		return errors.Is(n.raft.RemoveServer("nobody", 0, 200*time.Millisecond).Error(), raft.ErrEnqueueTimeout)
	})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.stop()
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("the bootstrap ended with: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the bootstrap does not end with the node")
	}
	<-closed
}
