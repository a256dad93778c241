package partition_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/partitiontest"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// TestIsolatedLeaderIsNotConfirmed: a leader that was cut off and has been replaced, but does not know, cannot confirm what was read from it.
func TestIsolatedLeaderIsNotConfirmed(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) { cfg.SilentAfter = 500 * time.Millisecond }})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := old.Replica(1).ConfirmLeader(ctx); err != nil {
		t.Fatalf("a leader with a quorum: %v", err)
	}
	for _, follower := range c.Others(old) {
		if err := follower.Replica(1).ConfirmLeader(ctx); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("a follower: %v", err)
		}
	}
	c.Isolate(old)
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	short, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := old.Replica(1).ConfirmLeader(short); !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("the leader that was cut off: %v", err)
	}
	c.Heal()
}
