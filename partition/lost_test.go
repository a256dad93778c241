package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// lostByPower brings a cluster with flush=os to where a power failure has taken records that were acknowledged: rest lead on with others in their place,
// and ahead, whose replica is up but cut off, has applied what is gone.
func lostByPower(t *testing.T) (c *cluster, ahead *node, rest []*node) {
	c = newCluster(t, 3, func(cfg *Config) { cfg.Settings.Flush = raftlog.DurabilityOS })
	c.fill(10, 50)
	c.waitReplicated()
	ahead, rest = c.leader(), c.followers()
	rest[0].stop()
	c.fill(10, 60)
	c.waitReplicated()
	c.isolate(ahead)
	rest[1].crash(nil)
	for _, n := range rest {
		n.start()
	}
	for range 15 {
		if _, err := c.leader(rest...).rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 70)}); err != nil && !retriable(err) {
			t.Fatal(err)
		}
	}
	return c, ahead, rest
}

// TestPowerLossOfANewGroup: with flush=os all replicas lose all records, and still know who they are.
func TestPowerLossOfANewGroup(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Settings.Flush = raftlog.DurabilityOS })
	c.fill(3, 50)
	for _, n := range c.nodes {
		n.crash(nil)
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.fill(3, 50)
	c.ensureSame()
}

// TestAppliedEntriesReplaced: a replica that has applied what the others have lost must not go on with its state: it no longer fits the log. Opened again, it follows.
func TestAppliedEntriesReplaced(t *testing.T) {
	c, ahead, _ := lostByPower(t)
	c.heal()
	c.eventually("the replica that is ahead fails", func() bool { return ahead.count(EventFailed) == 1 })
	if err := ahead.rep.Status().Err; !errors.Is(err, raftlog.ErrOutOfStep) {
		t.Errorf("the failure is %v", err)
	}
	ahead.discard()
	ahead.start()
	c.ensureSame()
}

// TestCheckpointOfLostEntries: with a checkpoint of what is gone there is nothing to go back to; the replica has to be rebuilt.
func TestCheckpointOfLostEntries(t *testing.T) {
	c, ahead, _ := lostByPower(t)
	ahead.stop()
	c.heal()
	ahead.start()
	c.eventually("the replica that is ahead fails", func() bool { return ahead.count(EventFailed) == 1 })
	var damage *raftlog.DamageError
	if err := ahead.rep.Status().Err; !errors.As(err, &damage) {
		t.Errorf("the failure is %v", err)
	}
}

// TestStateMachineDisagrees: a state that does not fit the log is neither stored nor served.
func TestStateMachineDisagrees(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(3, 50)
	n := c.leader()
	cp, err := n.rep.state.checkpoint(n.rep.state.applied, n.rep.state.appliedTerm)
	if err != nil {
		t.Fatal(err)
	}
	cp.NextOffset++
	n.rep.keeper.save(cp)
	c.eventually("the replica fails", func() bool { return n.count(EventFailed) == 1 })
	if err := n.rep.Status().Err; !errors.Is(err, raftlog.ErrOutOfStep) {
		t.Errorf("the failure is %v", err)
	}
}

// TestInterruptedBootstrap: hashicorp/raft stores the term before the configuration, and with the term alone there it refuses to bootstrap.
func TestInterruptedBootstrap(t *testing.T) {
	c := &cluster{t: t, addrs: map[raft.ServerAddress]string{}, cut: map[raft.ServerAddress]bool{}}
	t.Cleanup(c.shutdown)
	n := c.addNode(1)
	n.disk.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log*", Err: vfs.ErrNoSpace})
	n.start()
	servers := []raft.Server{n.server}
	if err := n.rep.Bootstrap(context.Background(), servers); err == nil {
		t.Fatal("bootstrapped on a full disk")
	}
	n.discard()
	n.start()
	if err := n.rep.Bootstrap(context.Background(), servers); !errors.Is(err, raftlog.ErrNoSpace) {
		t.Fatalf("still on a full disk: %v", err)
	}
	n.discard()
	n.disk.Clear()
	n.start()
	if err := n.rep.Bootstrap(context.Background(), servers); !errors.Is(err, raftlog.ErrOutOfStep) {
		t.Fatalf("with space: %v", err)
	}
	n.discard()
	n.start()
	if err := n.rep.Bootstrap(context.Background(), servers); err != nil {
		t.Fatal(err)
	}
	c.fill(1, 10)
}
