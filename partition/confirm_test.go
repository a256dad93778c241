package partition_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/partitiontest"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

// TestIsolatedLeaderIsNotConfirmed: a leader that was cut off and has been replaced, but does not know, cannot confirm what was read from it.
func TestIsolatedLeaderIsNotConfirmed(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) { cfg.SilentAfter = 500 * time.Millisecond }})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	term, err := old.Replica(1).Serving()
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Replica(1).ConfirmLeader(ctx, term); err != nil {
		t.Fatalf("a leader with a quorum: %v", err)
	}
	if err := old.Replica(1).ConfirmLeader(ctx, term-1); !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("in another term: %v", err)
	}
	for _, follower := range c.Others(old) {
		if err := follower.Replica(1).ConfirmLeader(ctx, term); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("a follower: %v", err)
		}
	}
	c.Isolate(old)
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	short, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := old.Replica(1).ConfirmLeader(short, term); !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("the leader that was cut off: %v", err)
	}
	c.Heal()
}

// TestLateAnswersConfirmNothing: the answers of followers that still took a leader for theirs, under way while it was cut off and another one was elected, come when it asks again. They are from before.
func TestLateAnswersConfirmNothing(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) {
		cfg.SilentAfter, cfg.ControlTimeout = 500*time.Millisecond, 10*time.Second // connections outlast the cut
	}})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	term, err := old.Replica(1).Serving()
	if err != nil {
		t.Fatal(err)
	}
	c.Deafen(old) // what others send to it waits
	unheard, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if _, err := old.Replica(1).Append(unheard, partition.AppendRequest{Batch: recordtest.Batch(1, 10)}); !errors.Is(err, partition.ErrOutcomeUnknown) {
		t.Errorf("appended without hearing anybody: %v", err)
	}
	c.Isolate(old)
	leader := c.Leader(1, c.Others(old)...)
	appendOne(t, leader.Replica(1))
	again, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	confirmed := make(chan error, 1)
	go func() { confirmed <- old.Replica(1).ConfirmLeader(again, term) }()
	select {
	case err := <-confirmed:
		t.Fatalf("it was not cut off for long, and gave up: %v", err)
	case <-time.After(100 * time.Millisecond): // it has asked, and nobody can hear that
	}
	follower := c.Others(old, leader)[0]
	c.Net.Mend(follower.Server().Address, old.Server().Address)
	if err := <-confirmed; !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("the leader that was cut off: %v", err)
	}
	c.Heal()
}
