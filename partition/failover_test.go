package partition_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/partitiontest"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// timeout is raft's in these tests: so long that only evidence can explain an election within the bound.
const (
	timeout = 20 * time.Second
	bound   = 6 * time.Second
)

// slowly gives raft timeouts that no test waits for.
func slowly(_ *partitiontest.Broker, c *partition.Config) {
	c.Timing = partition.Timing{Heartbeat: timeout, Election: timeout, Lease: timeout, Commit: timeout}
}

func groups(n int) (ids []transport.GroupID) {
	for i := range n {
		ids = append(ids, transport.GroupID(i+1))
	}
	return ids
}

// promptly fails the test if f takes so long that it may have waited for a timeout.
func promptly(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > bound {
		t.Fatalf("%s: %s, with timeouts of %s", what, took, timeout)
	} else {
		t.Logf("%s: %s", what, took)
	}
}

func allLed(c *partitiontest.Cluster, ids []transport.GroupID, among ...*partitiontest.Broker) {
	for _, g := range ids {
		c.Leader(g, among...)
	}
}

func appendOne(t *testing.T, r *partition.Replica) partition.AppendResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := r.Append(ctx, partition.AppendRequest{Batch: bytes.Clone(recordtest.Batch(1, 100))})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestKilledLeaderIsReplacedAtOnce(t *testing.T) {
	ids := groups(30)
	var c *partitiontest.Cluster
	promptly(t, "the first election of new groups", func() {
		c = partitiontest.New(t, partitiontest.Options{Groups: ids, Configure: slowly})
		allLed(c, ids)
	})
	// The first of the list leads, as nobody takes longer than the others to try.
	for _, g := range ids {
		appendOne(t, c.Leader(g).Replica(g))
	}
	for range 2 {
		victim := c.Leader(1)
		victim.Crash(nil)
		promptly(t, "elections after a crash", func() { allLed(c, ids) })
		for _, g := range ids {
			appendOne(t, c.Leader(g).Replica(g))
		}
		victim.Restart()
		c.WaitReplicated(1)
	}
	for _, g := range ids {
		c.EnsureSame(g)
		if n := len(c.Records(c.Leader(g), g)); n != 3 {
			t.Errorf("group %d has %d records, not 3", g, n)
		}
	}
}

// TestSilentLeaderIsReplaced: nothing is closed, nothing arrives.
func TestSilentLeaderIsReplaced(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) { cfg.SilentAfter = 500 * time.Millisecond }})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	promptly(t, "the election after silence", func() {
		c.Isolate(old)
		appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	})
	c.Heal()
	c.Eventually("the old leader follows", func() bool { return !old.Replica(1).IsLeader() && old.Replica(1).Status().HighWatermark == 2 })
	c.EnsureSame(1)
}

// TestOneFollowersEvidenceIsNotEnough cuts a single link to the leader, for good.
func TestOneFollowersEvidenceIsNotEnough(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	leader := c.Leader(1)
	alone := c.Others(leader)[0]
	_, term := leader.Replica(1).Leader()
	c.Net.Cut(leader.Addr, alone.Addr)
	c.Net.Cut(alone.Addr, leader.Addr)
	alone.Transport.PeerDown(leader.Addr)
	c.Eventually("the follower takes its leader for gone", func() bool { return alone.Transport.Gone(leader.Addr) })
	// More than all the tries of the follower take.
	for start := time.Now(); time.Since(start) < 3500*time.Millisecond; {
		appendOne(t, leader.Replica(1))
	}
	if addr, now := leader.Replica(1).Leader(); addr != leader.Addr || now != term {
		t.Errorf("%s led in term %d, and now %q in term %d", leader.Addr, term, addr, now)
	}
}

// TestLostConnectionsAreNoEvidence: whoever can be reached again is there.
func TestLostConnectionsAreNoEvidence(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	leader := c.Leader(1)
	_, term := leader.Replica(1).Leader()
	for range 30 {
		for _, b := range c.Others(leader) {
			b.Transport.PeerDown(leader.Addr)
		}
		appendOne(t, leader.Replica(1))
	}
	if addr, now := leader.Replica(1).Leader(); addr != leader.Addr || now != term {
		t.Errorf("%s led in term %d, and now %q in term %d", leader.Addr, term, addr, now)
	}
	c.EnsureSame(1)
}

// TestFalseEvidenceMovesLeadershipOnce: the leader refuses connections for a moment, and all others believe it gone. It goes on as a follower, and nothing is lost.
func TestFalseEvidenceMovesLeadershipOnce(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	_, term := old.Replica(1).Leader()
	appendOne(t, old.Replica(1))
	others := c.Others(old)
	address, err := c.Net.Resolve(old.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Net.Place(old.Addr, "127.0.0.1:1") // nobody listens there
	c.Net.Cut(old.Addr, others[0].Addr)  // and it cannot come by itself
	c.Net.Cut(old.Addr, others[1].Addr)
	for _, b := range others {
		b.Transport.PeerDown(old.Addr)
	}
	var next *partitiontest.Broker
	promptly(t, "the election", func() { next = c.Leader(1, others...) })
	c.Net.Place(old.Addr, address)
	c.Heal()
	appendOne(t, next.Replica(1))
	c.Eventually("the old leader follows", func() bool { return old.Replica(1).Status().HighWatermark == 2 })
	for range 200 {
		appendOne(t, next.Replica(1))
	}
	if _, now := next.Replica(1).Leader(); now > term+2 {
		t.Errorf("term %d has become %d", term, now)
	}
	c.EnsureSame(1)
}

func TestAllRestartAtOnce(t *testing.T) {
	ids := groups(10)
	c := partitiontest.New(t, partitiontest.Options{Groups: ids, Configure: slowly})
	for _, g := range ids {
		appendOne(t, c.Leader(g).Replica(g))
	}
	c.CrashAll(nil)
	promptly(t, "elections after a restart of all", func() {
		c.RestartAll()
		allLed(c, ids)
	})
	for _, g := range ids {
		c.EnsureSame(g)
	}
}

func TestOnlyVoterLeadsAtOnce(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Brokers: 1, Configure: slowly})
	appendOne(t, c.Leader(1).Replica(1))
	c.CrashAll(nil)
	promptly(t, "the election of one", func() {
		c.RestartAll()
		c.Leader(1)
	})
	if s := c.Leader(1).Replica(1).Status(); s.HighWatermark != 1 || s.State != raft.Leader {
		t.Errorf("%+v", s)
	}
}

// failToSync has the leader's disk fail under an append.
func failToSync(t *testing.T, leader *partitiontest.Broker) {
	t.Helper()
	leader.Disk.Add(vfs.Rule{Op: vfs.OpSync, Err: errors.New("the disk is on fire")})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := leader.Replica(1).Append(ctx, partition.AppendRequest{Batch: bytes.Clone(recordtest.Batch(1, 100))}); err == nil {
		t.Error("appended to a disk that cannot sync")
	}
}

// TestFailedLeaderNominatesAnother: the replica fails, its broker goes on, and there is no evidence against that.
func TestFailedLeaderNominatesAnother(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	promptly(t, "the election", func() {
		failToSync(t, old)
		appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	})
}

// TestFailedLeaderNominatesWhoAnswers: the first of the others does not hear that it should stand, and perhaps lacks a record; requests wait for a minute.
func TestFailedLeaderNominatesWhoAnswers(t *testing.T) {
	for name, records := range map[string]int{"it has everything": 0, "it lacks a record": 1} {
		t.Run(name, func(t *testing.T) {
			c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) {
				cfg.ControlTimeout, cfg.SilentAfter = time.Minute, time.Minute
			}})
			old := c.Leader(1)
			appendOne(t, old.Replica(1))
			c.WaitReplicated(1)
			c.Net.Cut(old.Addr, c.Others(old)[0].Addr)
			for range records {
				appendOne(t, old.Replica(1))
			}
			promptly(t, "the election", func() {
				failToSync(t, old)
				c.Leader(1, c.Others(old)...)
			})
		})
	}
}

// TestIsolatedLeaderGivesUp: it hears nobody, and says so soon, instead of making clients wait.
func TestIsolatedLeaderGivesUp(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	c.Isolate(old)
	promptly(t, "the old leader gives up", func() {
		c.Eventually("it does not lead", func() bool { return !old.Replica(1).IsLeader() })
	})
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	c.Heal()
	c.EnsureSame(1)
}

// TestDeafLeaderIsReplaced: its followers hear it, and it does not hear them, so that nothing that it is given is ever committed.
func TestDeafLeaderIsReplaced(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	c.Deafen(old)
	promptly(t, "the others have a leader", func() { c.Leader(1, c.Others(old)...) })
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	c.Heal()
	c.EnsureSame(1)
}

// TestMuteLeaderIsReplaced: nobody hears it, and it hears them.
func TestMuteLeaderIsReplaced(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	c.Mute(old)
	promptly(t, "the others have a leader", func() { c.Leader(1, c.Others(old)...) })
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
	c.Heal()
	c.EnsureSame(1)
}

// TestVoterWithoutConfiguration: one of two that are left has heard of the leader, and had no space for anything else of it.
func TestVoterWithoutConfiguration(t *testing.T) {
	var late *partitiontest.Broker
	c := partitiontest.New(t, partitiontest.Options{Late: 1, Configure: func(b *partitiontest.Broker, cfg *partition.Config) {
		slowly(b, cfg)
		if b.Addr == "3" {
			late = b
			b.Disk.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log*", Err: vfs.ErrNoSpace})
		}
	}})
	old := c.Leader(1)
	c.Eventually("the third one has heard of the leader", func() bool { return late.Replica(1).Status().Leader == old.Addr })
	if s := late.Replica(1).Status(); s.LastIndex > 0 || len(s.Servers) > 0 {
		t.Fatalf("it has got something: %+v", s)
	}
	c.Mute(old)
	late.Disk.Clear()
	promptly(t, "the others have a leader", func() { c.Leader(1, c.Others(old)...) })
	c.Heal()
	c.EnsureSame(1)
}

// TestClosedLeaderIsReplaced: the replica is closed, its broker goes on, and no leadership was handed over.
func TestClosedLeaderIsReplaced(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = old.Replica(1).Close(ended)
	promptly(t, "the others have a leader", func() { c.Leader(1, c.Others(old)...) })
	appendOne(t, c.Leader(1, c.Others(old)...).Replica(1))
}

// TestLostAppendsAreSentAgain: the followers' answers get lost with the connections, and no further append comes.
func TestLostAppendsAreSentAgain(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) {
		cfg.SilentAfter = time.Minute // the leader keeps its leadership
		cfg.ControlTimeout = time.Minute
	}})
	leader := c.Leader(1)
	appendOne(t, leader.Replica(1))
	away := c.Others(leader)[0]
	c.Net.Cut(leader.Addr, away.Addr)
	appendOne(t, leader.Replica(1)) // the other one takes it
	c.Net.Heal()
	leader.Transport.PeerDown(away.Addr)
	promptly(t, "both have everything", func() {
		c.Eventually("the high watermark", func() bool { return away.Replica(1).Status().HighWatermark == 2 })
	})
	c.EnsureSame(1)
}

// TestWithoutEvidenceRaftRecovers: nothing is ever noticed, and only raft's own timeouts are left.
func TestWithoutEvidenceRaftRecovers(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{
		Configure: func(_ *partitiontest.Broker, cfg *partition.Config) {
			cfg.Timing = partition.Timing{Heartbeat: time.Second, Election: time.Second, Commit: 100 * time.Millisecond}
		},
		ConfigureTransport: func(cfg *transport.Config) {
			cfg.SilentAfter, cfg.ClaimEvery, cfg.ControlTimeout = time.Hour, time.Hour, time.Hour
		},
	})
	old := c.Leader(1)
	appendOne(t, old.Replica(1))
	c.Isolate(old)
	next := c.Leader(1, c.Others(old)...)
	appendOne(t, next.Replica(1))
	c.Eventually("the old leader gives up", func() bool { return !old.Replica(1).IsLeader() })
	for _, b := range c.Others(old) {
		if b.Transport.Gone(old.Addr) {
			t.Error("there was evidence")
		}
	}
}

// TestTransferNeedsASuccessor: one that lacks records would not be elected, so leadership stays where it is.
func TestTransferNeedsASuccessor(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{Configure: slowly, ConfigureTransport: func(cfg *transport.Config) { cfg.SilentAfter = time.Minute }})
	leader := c.Leader(1)
	appendOne(t, leader.Replica(1))
	_, term := leader.Replica(1).Leader()
	away := c.Others(leader)[0]
	c.Net.Cut(leader.Addr, away.Addr)
	c.Net.Cut(away.Addr, leader.Addr)
	appendOne(t, leader.Replica(1))
	server := away.Server()
	promptly(t, "the transfer", func() {
		if err := leader.Replica(1).TransferLeadership(context.Background(), &server); err == nil {
			t.Error("it succeeded")
		}
	})
	appendOne(t, leader.Replica(1))
	if addr, now := leader.Replica(1).Leader(); addr != leader.Addr || now != term {
		t.Errorf("%s led in term %d, and now %q in term %d", leader.Addr, term, addr, now)
	}
}
