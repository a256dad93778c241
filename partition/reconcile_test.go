package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// srv reads "id@address" with "?" behind it for a non-voter; the address is the part of the ID before "-" if there is none.
func srv(s string) raft.Server {
	suffrage := raft.Voter
	if strings.HasSuffix(s, "?") {
		s, suffrage = strings.TrimSuffix(s, "?"), raft.Nonvoter
	}
	id, addr, ok := strings.Cut(s, "@")
	if !ok {
		addr, _, _ = strings.Cut(id, "-")
	}
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr), Suffrage: suffrage}
}

func srvs(s string) (out []raft.Server) {
	for _, f := range strings.Fields(s) {
		out = append(out, srv(f))
	}
	return out
}

func TestNextStep(t *testing.T) {
	for _, tc := range []struct{ name, current, desired, caughtUp, want string }{
		{"as desired", "1-a 2-a 3-a", "3-a 2-a 1-a", "", "done"},
		{"add first", "1-a", "1-a 2-a 3-a", "", "add non-voter 2-a"},
		{"add all as non-voters", "1-a 2-a?", "1-a 2-a 3-a", "2-a", "add non-voter 3-a"},
		{"then promote", "1-a 2-a? 3-a?", "1-a 2-a 3-a", "3-a", "add voter 3-a"},
		{"wait for the rest", "1-a 2-a? 3-a", "1-a 2-a 3-a", "3-a", "wait for 2-a"},
		{"move: the new one first", "1-a 2-a 3-a", "1-a 2-a 4-a", "", "add non-voter 4-a"},
		{"move: nobody goes before it votes", "1-a 2-a 3-a 4-a?", "1-a 2-a 4-a", "", "wait for 4-a"},
		{"move: then the old one goes", "1-a 2-a 3-a 4-a", "1-a 2-a 4-a", "", "remove 3-a"},
		{"a new incarnation: the old one goes first", "1-a 2-a 3-a", "1-a 2-a 3-b", "", "remove 3-a"},
		{"a new incarnation: then the new one comes", "1-a 2-a", "1-a 2-a 3-b", "", "add non-voter 3-b"},
		{"a non-voter nobody wants goes at once", "1-a 2-a 3-a 9-a?", "1-a 2-a 3-a", "", "remove 9-a"},
		{"the leader is not wanted: others first", "1-a 2-a 3-a 4-a", "2-a 4-a", "", "remove 3-a"},
		{"the leader is not wanted: hand over", "1-a 2-a 4-a", "2-a 4-a", "", "transfer leadership to 2-a"},
		{"the leader is not wanted, and nobody else votes", "1-a 2-a?", "2-a", "", "wait for 2-a"},
		{"the leader is not wanted: the other votes", "1-a 2-a", "2-a", "", "transfer leadership to 2-a"},
		{"fewer replicas", "1-a 2-a 3-a", "1-a", "", "remove 2-a"},
		{"another address", "1-a 2-a@2", "1-a 2-a@7", "", "add voter 2-a"},
		{"the leader itself was replaced: never by itself", "1-a 2-a", "1-b 2-a", "", "transfer leadership to 2-a"},
		{"the only voter was replaced: nothing can be done", "1-a", "1-b", "", "wait for 1-b"},
	} {
		caughtUp := func(s raft.Server) bool { return strings.Contains(tc.caughtUp, string(s.ID)) }
		got := nextStep(srvs(tc.current), srvs(tc.desired), "1-a", caughtUp)
		if s := strings.TrimSpace(fmt.Sprint(got.kind, " ", got.server.ID)); s != tc.want {
			t.Errorf("%s: from %s to %s: %s, want %s", tc.name, tc.current, tc.desired, s, tc.want)
		}
	}
}

// TestNextStepArrives walks from many configurations to many others, with the leader changing as raft would have it, and checks at each step that there is no danger.
func TestNextStepArrives(t *testing.T) {
	configs := []string{"1-a", "1-a 2-a", "1-a 2-a 3-a", "2-a 3-a 4-a", "4-a 5-a 6-a", "1-b 2-a 3-a", "1-b 2-b 3-a", "3-a", "1-a 2-a 3-a 4-a 5-a", "5-a 1-b"}
	for _, from := range configs {
		for _, to := range configs {
			walk(t, srvs(from), srvs(to))
		}
	}
}

func walk(t *testing.T, current, desired []raft.Server) {
	t.Helper()
	from := fmt.Sprint(current)
	leader := current[len(current)-1].ID
	yes := func(raft.Server) bool { return true }
	for range 40 {
		s := nextStep(current, desired, leader, yes)
		switch s.kind {
		case stepDone:
			return
		case stepWait:
			for _, c := range current {
				if c.Suffrage == raft.Voter && !replaced(c, desired) {
					t.Errorf("from %s to %v: stuck at %v", from, desired, current)
				}
			}
			return
		case stepTransfer:
			leader = s.server.ID
			continue
		case stepRemove:
			if s.server.ID == leader {
				t.Fatalf("from %s to %v: the leader %s removes itself", from, desired, leader)
			}
			var rest []raft.Server
			for _, c := range current {
				if c.ID != s.server.ID {
					rest = append(rest, c)
				}
			}
			current = rest
		default:
			current = added(t, current, s)
		}
	}
	t.Errorf("from %s to %v: does not arrive", from, desired)
}

func added(t *testing.T, current []raft.Server, s step) []raft.Server {
	t.Helper()
	srv := s.server
	srv.Suffrage = raft.Voter
	if s.kind == stepAddNonvoter {
		srv.Suffrage = raft.Nonvoter
	}
	for i, c := range current {
		if c.ID == srv.ID {
			current[i] = srv
			return current
		}
		if c.Address == srv.Address {
			t.Fatalf("%s has the address of %s", srv.ID, c.ID)
		}
	}
	return append(current, srv)
}

// caughtUp asks the replica itself, as a broker does over the network.
func (c *cluster) caughtUp(s raft.Server) bool {
	for _, n := range c.running() {
		if n.server.ID == s.ID {
			return n.rep.Status().LastIndex+10 >= c.leader().rep.Status().CommitIndex
		}
	}
	return false
}

// reconcile has whoever leads take steps until it is done.
func (c *cluster) reconcile(desired []raft.Server) {
	c.t.Helper()
	c.eventually("the configuration is as desired", func() bool { return c.reconcileOnce(desired) })
}

func (c *cluster) reconcileOnce(desired []raft.Server) bool {
	c.t.Helper()
	done, err := c.leader().rep.Reconcile(testContext(c.t), desired, c.caughtUp)
	if err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrBusy) && !errors.Is(err, raft.ErrLeadershipLost) && !strings.Contains(err.Error(), "configuration changed") {
		c.t.Logf("reconcile: %v", err)
	}
	return done && err == nil
}

func (c *cluster) voters() string {
	var ids []string
	for _, s := range c.leader().rep.Status().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return strings.Join(ids, " ")
}

func TestReconcileMoveAndRemoveLeader(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(20, 100)
	c.addNode(1).start()
	moving := c.followers()[0]
	if moving.server.ID == "4-1" {
		moving = c.followers()[1]
	}
	desired := []raft.Server{c.nodes[3].server}
	for _, n := range c.nodes[:3] {
		if n != moving {
			desired = append(desired, n.server)
		}
	}
	c.reconcile(desired)
	moving.stop()
	c.fill(5, 100)
	c.ensureSame()

	leader := c.leader()
	desired = nil
	for _, n := range c.running() {
		if n != leader {
			desired = append(desired, n.server)
		}
	}
	c.reconcile(desired)
	if c.leader() == leader || strings.Contains(c.voters(), string(leader.server.ID)) {
		t.Errorf("the voters are %s, the leader %s", c.voters(), c.leader().server.ID)
	}
	leader.stop()
	c.fill(5, 100)
	c.ensureSame()
	if got := len(records(t, c.leader().rep)); got != 30 {
		t.Errorf("%d records", got)
	}
}

func TestReconcileNewIncarnation(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(20, 100)
	lost := c.followers()[0]
	lost.stop()
	old := lost.server.ID
	lost.wipe(2)
	lost.start()
	var desired []raft.Server
	for _, n := range c.nodes {
		desired = append(desired, n.server)
	}
	c.reconcile(desired)
	if v := c.voters(); strings.Contains(v, string(old)) || !strings.Contains(v, string(lost.server.ID)) {
		t.Errorf("the voters are %s", v)
	}
	c.ensureSame()
}

func TestReconcileWaitsAndIsResumed(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(5, 100)
	fourth := c.addNode(1)
	fourth.start()
	desired := []raft.Server{c.nodes[0].server, c.nodes[1].server, fourth.server}
	c.eventually("the fourth is a non-voter", func() bool {
		no := func(raft.Server) bool { return false }
		if done, _ := c.leader().rep.Reconcile(testContext(t), desired, no); done {
			t.Fatal("done, and the fourth has no vote")
		}
		return len(c.leader().rep.Status().Servers) == 4
	})
	for range 20 {
		if done, err := c.leader().rep.Reconcile(testContext(t), desired, func(raft.Server) bool { return false }); done || err != nil {
			t.Fatalf("while it has not caught up: %v, %v", done, err)
		}
	}
	if v := c.voters(); v != "1-1 2-1 3-1" {
		t.Errorf("the voters are %s", v)
	}
	first := c.leader()
	if err := first.rep.TransferLeadership(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	c.eventually("another leads", func() bool { return c.leader() != first })
	c.reconcile(desired)
	if v := c.voters(); v != "1-1 2-1 4-1" {
		t.Errorf("the voters are %s", v)
	}
	c.nodes[2].stop()
	c.fill(5, 100)
	c.ensureSame()
}

// Of the voters of a committed configuration, one knows only an older one, in which the other has no vote. The leader that brought it about never comes back: the two elect one of them.
func TestVoterOfAnOlderConfiguration(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(5, 100)
	joins, leader := c.addNode(1), c.leader()
	joins.start()
	var behind, leaves *node
	for _, n := range c.nodes[:3] {
		switch {
		case n == leader:
		case behind == nil:
			behind = n
		default:
			leaves = n
		}
	}
	c.isolate(behind)
	c.reconcile([]raft.Server{leader.server, behind.server, joins.server})
	leaves.stop()
	leader.discard()
	c.heal()
	if got := c.leader(joins, behind); got != joins {
		t.Errorf("%s leads, which lacks entries", got.server.ID)
	}
	c.fill(5, 100)
	c.ensureSame()
}

// A leader that cannot store a change of the configuration must not go on with it: hashicorp/raft would.
func TestConfigurationThatCannotBeStored(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(5, 100)
	c.addNode(1).start()
	joins := c.nodes[3].server
	var desired []raft.Server
	for _, n := range c.nodes {
		desired = append(desired, n.server)
	}
	full := c.leader()
	before := full.rep.raft.GetConfiguration().Configuration().Servers
	full.disk.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace})
	c.eventually("the leader cannot add a server", func() bool {
		_, err := full.rep.Reconcile(testContext(t), desired, c.caughtUp)
		return errors.Is(err, ErrFailed) || errors.Is(err, raftlog.ErrOutOfStep)
	})
	c.eventually("the failure is reported", func() bool { return full.count(EventFailed) == 1 })
	full.disk.Clear()
	full.discard()
	full.start()
	if got := full.rep.raft.GetConfiguration().Configuration().Servers; !slices.Equal(got, before) {
		t.Errorf("the configuration is %v, and was %v before the disk was full", got, before)
	}
	c.reconcile(desired)
	if !strings.Contains(c.voters(), string(joins.ID)) {
		t.Errorf("the voters are %s", c.voters())
	}
	c.fill(5, 100)
	c.ensureSame()
}

func TestTransferLeadership(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(5, 100)
	leader, to := c.leader(), c.followers()[0]
	stop := make(chan struct{})
	p := &producing{c: c, id: 1, acked: map[int]record.Offset{}}
	done := make(chan error, 1)
	go func() { done <- p.run(testContext(t), stop) }()
	if err := leader.rep.TransferLeadership(testContext(t), &to.server); err != nil {
		t.Fatal(err)
	}
	c.leader(to)
	if err := leader.rep.TransferLeadership(testContext(t), nil); !errors.Is(err, ErrNotLeader) {
		t.Errorf("transfer by a follower: %v", err)
	}
	nobody := srv("9-9")
	if err := to.rep.TransferLeadership(testContext(t), &nobody); err == nil {
		t.Error("leadership was handed to a stranger")
	}
	c.eventually("appends go on after a transfer that failed", func() bool {
		_, err := c.leader().rep.Append(context.Background(), AppendRequest{Batch: p.batch(1 << 20)})
		return errors.Is(err, ErrOutOfOrderSequence)
	})
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.ensureSame()
	if to.count(EventLeader) == 0 || leader.count(EventNotLeader) == 0 {
		t.Errorf("events: %d of leading at the new leader, %d of not leading at the old one", to.count(EventLeader), leader.count(EventNotLeader))
	}
}
