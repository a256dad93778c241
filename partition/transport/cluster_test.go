package transport

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func threeBrokers(t testing.TB, change ...func(*Config)) (*fleet, []*Transport) {
	f := newFleet(t)
	return f, []*Transport{f.start("1", change...), f.start("2", change...), f.start("3", change...)}
}

func (f *fleet) threeMembers(trs []*Transport, id GroupID, opts GroupOptions) []*member {
	var ms []*member
	for _, tr := range trs {
		ms = append(ms, f.join(tr, id, opts, servers("1", "2", "3")))
	}
	return ms
}

func TestClusterReplicates(t *testing.T) {
	f, trs := threeBrokers(t)
	ms := f.threeMembers(trs, 7, GroupOptions{})
	leader := leaderOf(t, ms...)
	const n = 500
	var futures []raft.ApplyFuture
	for i := range n {
		futures = append(futures, leader.raft.Apply(bytes.Repeat([]byte{byte(i)}, i*3), patience))
	}
	for i, fut := range futures {
		if err := fut.Error(); err != nil {
			t.Fatalf("apply %d: %v", i, err)
		}
	}
	sameCommands(t, n, ms...)
}

// The groups share the transports; each has its own leader and log.
func TestManyGroups(t *testing.T) {
	f, trs := threeBrokers(t)
	groups := map[GroupID][]*member{}
	for id := GroupID(1); id <= 20; id++ {
		groups[id] = f.threeMembers(trs, id, GroupOptions{})
	}
	for id, ms := range groups {
		leader := leaderOf(t, ms...)
		if err := leader.raft.Apply(fmt.Appendf(nil, "group %d", id), patience).Error(); err != nil {
			t.Fatalf("group %d: %v", id, err)
		}
	}
	for id, ms := range groups {
		sameCommands(t, 1, ms...)
		if got := string(ms[0].fsm.applied()[0]); got != fmt.Sprintf("group %d", id) {
			t.Errorf("group %d applied %q", id, got)
		}
	}
}

// Entries whose sum is far above MaxAppendBytes arrive whole and without waiting for the next proposal.
func TestOversizeAppends(t *testing.T) {
	f, trs := threeBrokers(t, func(c *Config) { c.MaxAppendBytes = 64 << 10 })
	var ms []*member
	for _, tr := range trs {
		ms = append(ms, f.join(tr, 1, GroupOptions{}, servers("1", "2", "3"), func(c *raft.Config) {
			c.MaxAppendEntries = 256
			c.BatchApplyCh = true
			c.CommitTimeout = 30 * time.Second // nothing but the transport may finish the work
		}))
	}
	leader := leaderOf(t, ms...)
	// One entry alone may exceed the limit.
	if err := leader.raft.Apply(make([]byte, 1<<20), patience).Error(); err != nil {
		t.Fatal(err)
	}
	const n = 200
	var futures []raft.ApplyFuture
	for i := range n {
		futures = append(futures, leader.raft.Apply(bytes.Repeat([]byte{byte(i)}, 30<<10), patience))
	}
	within(t, patience, "committing", func() {
		for i, fut := range futures {
			if err := fut.Error(); err != nil {
				t.Errorf("apply %d: %v", i, err)
			}
		}
	})
}

// A follower far behind is brought up in steps of MaxAppendBytes outside the pipeline.
func TestCatchUpInSteps(t *testing.T) {
	f, trs := threeBrokers(t, func(c *Config) { c.MaxAppendBytes = 64 << 10 })
	ms := f.threeMembers(trs, 1, GroupOptions{MaxInflight: 1})
	leader := leaderOf(t, ms...)
	var behind *member
	for _, m := range ms {
		if m != leader {
			behind = m
		}
	}
	f.setCut(behind.tr.Local(), true)
	for i := range 100 {
		if err := leader.raft.Apply(bytes.Repeat([]byte{byte(i)}, 20<<10), patience).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(behind.fsm.applied()); n == 100 {
		t.Fatal("the broker was not cut off")
	}
	f.setCut(behind.tr.Local(), false)
	sameCommands(t, 100, ms...)
}

func TestSnapshotInstall(t *testing.T) {
	f, trs := threeBrokers(t)
	small := func(c *raft.Config) { c.TrailingLogs = 1; c.SnapshotThreshold = 1 << 40 }
	a := f.join(trs[0], 3, GroupOptions{}, servers("1"), small)
	b := f.join(trs[1], 3, GroupOptions{}, nil, small)
	leader := leaderOf(t, a, b)
	for i := range 50 {
		if err := leader.raft.Apply(bytes.Repeat([]byte{byte(i)}, 40<<10), patience).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := leader.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := leader.raft.AddVoter("2", "2", 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	sameCommands(t, 50, a, b)
	if list, err := b.snaps.List(); err != nil || len(list) != 1 {
		t.Fatalf("snapshots on the follower: %v, %v", list, err)
	}
}

func TestLeadershipTransferAndFailover(t *testing.T) {
	f, trs := threeBrokers(t)
	ms := f.threeMembers(trs, 1, GroupOptions{})
	leader := leaderOf(t, ms...)
	if err := leader.raft.LeadershipTransfer().Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another leader", func() bool {
		addr, _ := leader.raft.LeaderWithID()
		return addr != "" && addr != leader.tr.Local()
	})
	next := leaderOf(t, ms...)
	next.stop(t)
	next.tr.Close()
	var rest []*member
	for _, m := range ms {
		if m != next {
			rest = append(rest, m)
		}
	}
	last := leaderOf(t, rest...)
	if err := last.raft.Apply([]byte("after"), patience).Error(); err != nil {
		t.Fatal(err)
	}
}

// A broker that is cut off and comes back catches up by itself.
func TestReconnect(t *testing.T) {
	f, trs := threeBrokers(t)
	ms := f.threeMembers(trs, 1, GroupOptions{})
	total := 0
	for round := range 3 {
		leader := leaderOf(t, ms...)
		victim := ms[round]
		f.setCut(victim.tr.Local(), true)
		if leader == victim {
			var rest []*member
			for _, m := range ms {
				if m != victim {
					rest = append(rest, m)
				}
			}
			leader = leaderOf(t, rest...)
		}
		for range 10 {
			if err := leader.raft.Apply([]byte("x"), patience).Error(); err != nil {
				t.Fatal(err)
			}
			total++
		}
		f.setCut(victim.tr.Local(), false)
		sameCommands(t, total, ms...)
	}
}
