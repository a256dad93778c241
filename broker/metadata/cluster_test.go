package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// Raft that has ended in the middle of a bootstrap does not answer it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/flotilla-log/flotilla/broker/metadata.(*Node).bootstrapRaft.func1"))
}

// cluster is metadata nodes of one process, over the real transport on loopback.
type cluster struct {
	t      *testing.T
	expect int

	mu    sync.Mutex
	addrs map[raft.ServerAddress]string
	cut   map[[2]api.BrokerID]bool // pairs that cannot reach each other
	nodes map[api.BrokerID]*testNode

	heartbeat time.Duration
}

type testNode struct {
	*Node
	c      *cluster
	id     api.BrokerID
	dir    string
	stable *stable.Store
	trans  *transport.Transport
	failed chan error
}

func newTestCluster(t *testing.T, brokers ...api.BrokerID) *cluster {
	return newTestClusterWith(t, 3*time.Second, brokers...) // so long that nobody loses leadership because the machine is busy
}

func newTestClusterWith(t *testing.T, heartbeat time.Duration, brokers ...api.BrokerID) *cluster {
	c := &cluster{t: t, heartbeat: heartbeat, expect: len(brokers), addrs: map[raft.ServerAddress]string{}, cut: map[[2]api.BrokerID]bool{}, nodes: map[api.BrokerID]*testNode{}}
	t.TempDir() // so that directories are removed after the nodes have stopped: stopping writes a snapshot
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	for _, id := range brokers {
		c.add(id)
	}
	return c
}

// add makes a broker with an empty directory, or one in place of an earlier one with that ID.
func (c *cluster) add(id api.BrokerID) *testNode {
	n := &testNode{c: c, id: id, dir: c.t.TempDir()}
	c.nodes[id] = n
	n.start()
	return n
}

func (n *testNode) start() {
	n.c.t.Helper()
	if err := n.tryStart(); err != nil {
		n.c.t.Fatalf("broker %d: %v", n.id, err)
	}
}

func (n *testNode) tryStart() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ident, err := OpenIdentity(n.dir, n.id)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	c := n.c
	c.mu.Lock()
	c.addrs[ServerAddress(n.id)] = l.Addr().String()
	c.mu.Unlock()
	n.failed = make(chan error, 1)
	n.trans, err = transport.New(transport.Config{Local: ServerAddress(n.id), ClusterID: ident.ClusterID, Learned: ident.Learn, Pledged: ident.Pledged, Listener: l,
		AwayMax: awayMax,
		Resolve: func(to raft.ServerAddress) (string, error) { return c.resolve(n.id, to) }})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	logger := hclog.NewNullLogger()
	if os.Getenv("FLOTILLA_TEST_LOG") != "" {
		logger = hclog.New(&hclog.LoggerOptions{Name: fmt.Sprint("broker", n.id), Level: hclog.Debug})
	}
	if n.stable, err = stable.Open(filepath.Join(n.dir, "stable.db")); err != nil {
		return errors.Join(err, n.trans.Close())
	}
	n.Node, err = Open(Config{Dir: filepath.Join(n.dir, "metadata"), Identity: ident, Transport: n.trans, Stable: n.stable.Group(Group), Logger: logger,
		OnFailure: func(err error) { n.failed <- err }, Timing: Timing{Heartbeat: c.heartbeat, SnapshotEvery: 64}})
	if err != nil {
		return errors.Join(err, n.trans.Close(), n.stable.Close())
	}
	return nil
}

func (c *cluster) resolve(from api.BrokerID, to raft.ServerAddress) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, _ := ParseServerAddress(to)
	if c.cut[[2]api.BrokerID{from, id}] {
		return "", errors.New("cut off")
	}
	addr, ok := c.addrs[to]
	if !ok {
		return "", errors.New("unknown broker")
	}
	return addr, nil
}

func (n *testNode) stop() {
	if n.Node != nil {
		if err := n.Close(); err != nil {
			n.c.t.Errorf("broker %d: %v", n.id, err)
		}
		n.trans.Close()
		n.stable.Close()
		n.Node = nil
	}
}

// isolate cuts a broker off from all others; heal ends that.
func (c *cluster) isolate(id api.BrokerID) {
	c.mu.Lock()
	for other := range c.nodes {
		c.cut[[2]api.BrokerID{id, other}], c.cut[[2]api.BrokerID{other, id}] = other != id, other != id
	}
	c.mu.Unlock()
	for other, n := range c.nodes {
		if n.Node == nil || other == id {
			continue
		}
		n.trans.PeerDown(ServerAddress(id))
		c.nodes[id].trans.PeerDown(ServerAddress(other))
	}
}

func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.cut)
}

// candidates is what gossip would show.
func (c *cluster) candidates(sets map[api.BrokerID][]api.BrokerID) []Candidate {
	var out []Candidate
	for id, n := range c.nodes {
		if n.Node != nil {
			ident := n.cfg.Identity
			out = append(out, Candidate{ID: id, Incarnation: ident.Incarnation(), ClusterID: ident.ClusterID(), Expect: c.expect, Set: sets[id]})
		}
	}
	return out
}

// bootstrap plays the brokers' bootstrap loop until all have a cluster.
func (c *cluster) bootstrap() {
	c.t.Helper()
	sets := map[api.BrokerID][]api.BrokerID{}
	c.eventually("the cluster begins", func() bool {
		done := true
		for id, n := range c.nodes {
			if n.Node == nil || n.cfg.Identity.ClusterID() != "" {
				continue
			}
			done = false
			sets[id] = n.BootstrapSet(c.expect, c.candidates(sets))
			if _, err := n.TryBootstrap(context.Background(), c.expect, c.candidates(sets)); err != nil {
				c.t.Logf("broker %d: %v", id, err)
			}
		}
		return done
	})
	c.ensureSame()
}

// patience is what a busy machine may need for anything.
const patience = time.Minute

// awayMax is what nobody waits for.
const awayMax = 10 * patience

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %s: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// leader waits until the running nodes agree on a leader.
func (c *cluster) leader() *testNode {
	c.t.Helper()
	var l *testNode
	c.eventually("a leader", func() bool {
		l = nil
		for _, n := range c.nodes {
			if n.Node != nil && n.IsLeader() {
				l = n
			}
		}
		if l == nil {
			return false
		}
		for _, n := range c.nodes {
			if n.Node != nil && n.HasCluster() && n.Leader() != l.id {
				return false
			}
		}
		return true
	})
	return l
}

func (c *cluster) followers() []*testNode {
	l := c.leader()
	var out []*testNode
	for _, n := range c.nodes {
		if n != l && n.Node != nil {
			out = append(out, n)
		}
	}
	return out
}

func (c *cluster) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) propose(n *testNode, cmd Command) Result {
	c.t.Helper()
	r, err := n.Propose(c.ctx(patience), cmd)
	if err != nil {
		c.t.Fatalf("broker %d: %v", n.id, err)
	}
	return r
}

// ensureSame waits until all running nodes have the same state.
func (c *cluster) ensureSame() {
	c.t.Helper()
	c.eventually("all have the same state", func() bool {
		want := ""
		for _, n := range c.nodes {
			if n.Node == nil {
				continue
			}
			got := string(mustJSON(c.t, n.State()))
			if want == "" {
				want = got
			}
			if got != want {
				return false
			}
		}
		return true
	})
}

func (c *cluster) register(ids ...api.BrokerID) {
	c.t.Helper()
	for _, id := range ids {
		c.propose(c.leader(), &RegisterBroker{Broker: Broker{ID: id, Incarnation: c.nodes[id].cfg.Identity.Incarnation()}})
	}
}

func topic(name string, brokers ...api.BrokerID) *CreateTopic {
	return &CreateTopic{Name: name, ID: [16]byte([]byte(randomName())[:16]), ReplicationFactor: int16(len(brokers)), Assignment: [][]api.BrokerID{brokers}}
}

func TestThreeNodes(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	id := c.nodes[1].cfg.Identity.ClusterID()
	for _, n := range c.nodes {
		if n.cfg.Identity.ClusterID() != id || n.State().ClusterID != id || len(n.Servers()) != 3 {
			t.Fatalf("broker %d: cluster %s, state %s, servers %v", n.id, n.cfg.Identity.ClusterID(), n.State().ClusterID, n.Servers())
		}
	}
	c.register(1, 2, 3)

	// Propose on a follower: passed on, and visible there when it returns.
	f := c.followers()[0]
	changed := f.Changed()
	c.propose(f, topic("orders", 1, 2))
	if f.State().Topics["orders"] == nil {
		t.Error("the change is not visible where it was proposed")
	}
	<-changed
	if _, err := f.Propose(c.ctx(patience), topic("orders", 1, 2)); api.CodeOf(err) != api.CodeTopicAlreadyExists {
		t.Errorf("a command's error from the leader: %v", err)
	}
	if _, err := f.Propose(c.ctx(patience), topic("a/b", 1)); api.CodeOf(err) != api.CodeInvalidTopic {
		t.Errorf("a refused command: %v", err)
	}
	a := c.propose(f, &AllocateProducerIDs{Count: 10})
	b := c.propose(c.leader(), &AllocateProducerIDs{Count: 10})
	if a.FirstProducerID != 1 || b.FirstProducerID != 11 {
		t.Errorf("producer IDs from %d and %d", a.FirstProducerID, b.FirstProducerID)
	}
	c.ensureSame()
}

// What raft sends is not lost when a new cluster's brokers learn its ID: it would be sent again only after CommitDelay.
func TestBeginningKeepsRaftsConnections(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	var mu sync.Mutex
	ended := map[string]int{} // connections made anew, by purpose
	for _, n := range c.nodes {
		n.trans.Watch(func(ev transport.PeerEvent) {
			if !ev.Up && strings.Contains(ev.Err.Error(), "the cluster ID is known now") {
				mu.Lock()
				ended[ev.Purpose]++
				mu.Unlock()
			}
		})
	}
	c.bootstrap()
	l := c.leader()
	c.eventually("the calls' connections, from before the pledges, are made anew", func() bool {
		c.propose(l, &AllocateProducerIDs{Count: 1})
		mu.Lock()
		defer mu.Unlock()
		return ended["call"] > 0
	})
	mu.Lock()
	defer mu.Unlock()
	if ended["data"]+ended["control"] > 0 {
		t.Errorf("connections that ended: %v", ended)
	}
}

func TestFailoverAndRestart(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	c.register(1, 2, 3)
	old := c.leader()
	old.stop()
	start := time.Now()
	for i := range 200 { // more than SnapshotEvery, so the old leader needs a snapshot or a long replay
		c.propose(c.leader(), topic(fmt.Sprint("t", i), 1, 2, 3))
		if i == 0 {
			t.Logf("a change %v after the leader went", time.Since(start).Round(time.Millisecond))
		}
	}
	old.start()
	if old.State().Topics == nil || old.State().ClusterID == "" {
		t.Error("a restart forgot what the snapshot at the end had")
	}
	if err := old.Sync(c.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	if n := len(old.State().Topics); n != 200 {
		t.Errorf("after Sync there are %d topics", n)
	}
	c.ensureSame()

	// Everybody at once.
	for _, n := range c.nodes {
		n.stop()
	}
	for _, n := range c.nodes {
		n.start()
		if len(n.State().Topics) != 200 {
			t.Errorf("broker %d has %d topics right after a clean restart", n.id, len(n.State().Topics))
		}
	}
	c.propose(c.leader(), topic("last", 1))
	c.ensureSame()
}

// What the disks hold at some moment, without any orderly end, is enough.
// TestEvidenceElects has a timeout that nobody waits for: the cluster begins, loses its leader and is restarted by evidence alone.
func TestEvidenceElects(t *testing.T) {
	c := newTestClusterWith(t, 10*patience, 1, 2, 3)
	c.bootstrap()
	c.leader().stop()
	c.leader()
	for _, n := range c.nodes {
		n.stop()
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.leader()
}

// A leader whose peers are gone closes without waiting for the heartbeats that wait for their return (transport.Config.AwayMax).
func TestLastOneCloses(t *testing.T) {
	c := newTestClusterWith(t, 10*time.Second, 1, 2, 3) // it leads on for a while, and sends heartbeats
	c.bootstrap()
	last := c.leader()
	for _, n := range c.followers() {
		n.stop()
	}
	for _, id := range []api.BrokerID{1, 2, 3} {
		if id != last.id {
			c.eventually("the others are known to be gone", func() bool { return last.group.Gone(ServerAddress(id)) })
		}
	}
	c.eventually("a heartbeat waits for its peer", func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("awaitBack"))
	})
	start := time.Now()
	last.stop()
	if took := time.Since(start); took > patience {
		t.Errorf("closing took %s; heartbeats wait for %s", took, awayMax)
	}
}

func TestCrashOfAll(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	c.register(1, 2, 3)
	for i := range 20 {
		c.propose(c.leader(), topic(fmt.Sprint("t", i), 1, 2, 3))
	}
	images := map[api.BrokerID]string{}
	for id, n := range c.nodes {
		images[id] = t.TempDir()
		if err := os.CopyFS(images[id], os.DirFS(n.dir)); err != nil {
			t.Fatal(err)
		}
	}
	for id, n := range c.nodes {
		n.stop()
		n.dir = images[id]
	}
	for _, n := range c.nodes {
		n.start()
	}
	n := c.followers()[0]
	if err := n.Sync(c.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	if got := len(n.State().Topics); got != 20 {
		t.Errorf("%d of 20 acknowledged topics are left", got)
	}
}

func TestMinorityCannotChange(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	c.register(1, 2, 3)
	old := c.leader()
	c.isolate(old.id)
	c.eventually("the cut-off leader steps down", func() bool { return !old.IsLeader() })
	if _, err := old.Propose(c.ctx(300*time.Millisecond), topic("lost", 1)); !errors.Is(err, ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change without a leader: %v", err)
	}
	if err := old.Sync(c.ctx(300 * time.Millisecond)); !errors.Is(err, ErrNoLeader) {
		t.Errorf("Sync without a leader: %v", err)
	}
	var other *testNode
	c.eventually("the others have a leader", func() bool {
		for _, n := range c.nodes {
			if n != old && n.IsLeader() {
				other = n
			}
		}
		return other != nil
	})
	c.propose(other, topic("kept", 2))
	c.heal()
	if err := old.Sync(c.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	if s := old.State(); s.Topics["kept"] == nil || s.Topics["lost"] != nil {
		t.Errorf("topics after healing: %v", s.SortedTopics())
	}
	c.ensureSame()
}

// Five brokers; the fourth and fifth join later, first without vote.
func TestJoinPromoteRemove(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	c.register(1, 2, 3)
	c.propose(c.leader(), topic("orders", 1, 2))
	for _, id := range []api.BrokerID{4, 5} {
		n := c.add(id)
		l := c.leader()
		inc := n.cfg.Identity.Incarnation()
		if err := l.AddServer(c.ctx(patience), id, inc, false); err != nil {
			t.Fatal(err)
		}
		c.eventually("it is caught up", func() bool { ok, _ := l.CaughtUp(c.ctx(time.Second), id, inc); return ok })
		if ok, _ := l.CaughtUp(c.ctx(time.Second), id, "another"); ok {
			t.Error("another incarnation is caught up")
		}
		if err := l.AddServer(c.ctx(patience), id, inc, true); err != nil {
			t.Fatal(err)
		}
		c.eventually("it knows its cluster", func() bool {
			return n.cfg.Identity.ClusterID() == l.State().ClusterID && n.State().Topics["orders"] != nil
		})
		c.propose(n, &RegisterBroker{Broker: Broker{ID: id, Incarnation: inc}})
	}
	l := c.leader()
	for _, s := range l.Servers() {
		if !s.Voter {
			t.Errorf("%v has no vote", s)
		}
	}
	// Two of five may go.
	gone := c.followers()[:2]
	for _, n := range gone {
		n.stop()
	}
	c.propose(c.leader(), topic("more", 1))
	for _, n := range gone {
		for _, s := range c.leader().Servers() {
			if s.Broker == n.id {
				if err := c.leader().RemoveServer(c.ctx(patience), s); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := len(c.leader().Servers()); got != 3 {
		t.Errorf("%d servers are left", got)
	}
	if err := c.leader().TransferLeadership(c.ctx(patience)); err != nil {
		t.Error(err)
	}
	c.leader()
	if err := c.followers()[0].AddServer(c.ctx(time.Second), 9, "x", false); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a follower changed the group: %v", err)
	}
}

// A broker that lost its disk comes back under the same ID. It must not count as the member that it was.
func TestLostDiskIsAnotherMember(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	c.register(1, 2, 3)
	lost := c.followers()[0]
	lost.stop()
	old := MemberID(lost.id, lost.incarnation(t))
	fresh := c.add(lost.id)
	c.propose(c.leader(), topic("orders", 1, 2, 3))
	// The leader's requests are for the old member, and the new one does not take them.
	if fresh.HasCluster() || fresh.raft.LastIndex() != 0 {
		t.Fatalf("the fresh node took part as %s: %v", old, fresh.Servers())
	}
	l := c.leader()
	for _, s := range l.Servers() {
		if s.ServerID == old {
			if err := l.RemoveServer(c.ctx(patience), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.AddServer(c.ctx(patience), fresh.id, fresh.cfg.Identity.Incarnation(), true); err != nil {
		t.Fatal(err)
	}
	c.eventually("the fresh node has the state", func() bool { return fresh.State().Topics["orders"] != nil })
	c.ensureSame()
}

func (n *testNode) incarnation(t *testing.T) string {
	i, err := OpenIdentity(n.dir, n.id)
	if err != nil {
		t.Fatal(err)
	}
	return i.Incarnation()
}

func TestLostMetadataIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.bootstrap()
	n := c.nodes[1]
	c.eventually("the membership is on record", func() bool { return n.cfg.Identity.record().Member })
	n.stop()
	if err := os.RemoveAll(filepath.Join(n.dir, "metadata")); err != nil {
		t.Fatal(err)
	}
	if err := n.tryStart(); !errors.Is(err, ErrMetadataLost) {
		t.Errorf("started without its metadata: %v", err)
	}
	n.Node = nil
}

func TestDamagedLogIsAnError(t *testing.T) {
	c := newTestCluster(t, 1)
	c.bootstrap()
	n := c.nodes[1]
	n.stop()
	path := filepath.Join(n.dir, "metadata", "raft.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	zeroed := append(make([]byte, 8192), whole[8192:]...) // both meta pages
	for name, data := range map[string][]byte{"garbage": []byte("not a database"), "cut": whole[:100], "no meta pages": zeroed} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := n.tryStart(); err == nil {
			t.Errorf("%s: opened", name)
			n.stop()
		}
		n.Node = nil
	}
}

// A follower that cannot write is told from one whose log does not match.
func TestFollowerThatCannotWrite(t *testing.T) {
	l, err := openLog(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	refused := &raft.AppendEntriesResponse{}
	if err := l.checkResponse(nil, refused); err != nil {
		t.Errorf("a healthy log: %v", err)
	}
	if err := l.StoreLog(&raft.Log{Index: 1}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.StoreLog(&raft.Log{Index: 2}) == nil {
		t.Fatal("wrote to a closed file")
	}
	if err := l.checkResponse(nil, refused); !errors.Is(err, errStoreFailed) {
		t.Errorf("after a failed write: %v", err)
	}
	if err := l.checkResponse(nil, &raft.AppendEntriesResponse{Success: true}); err != nil {
		t.Errorf("a success: %v", err)
	}
	if err := l.checkResponse(nil, &raft.AppendEntriesResponse{NoRetryBackoff: true}); err != nil {
		t.Errorf("a log that does not match, whatever failed before: %v", err)
	}
}

// A leader that cannot store a change of the members must not go on with it, as hashicorp/raft does. Where nothing can be stored any more, the change is not even begun, and the node goes on.
func TestConfigurationThatCannotBeStored(t *testing.T) {
	for name, add := range map[string]func(*Node, context.Context) error{
		"any more": func(n *Node, ctx context.Context) error { return n.AddServer(ctx, 2, "x", false) },
		"at that very moment": func(n *Node, ctx context.Context) error {
			return waitFuture(ctx, n.raft.AddNonvoter("2-x", "2", 0, changeTimeout))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 1)
			c.bootstrap()
			n := c.leader()
			if err := n.logs.LogBackend.Close(); err != nil {
				t.Fatal(err)
			}
			if add(n.Node, c.ctx(patience)) == nil {
				t.Fatal("added a server without storing anything")
			}
			if name == "any more" {
				if len(n.failed) > 0 || len(n.Servers()) != 1 {
					t.Errorf("%d failures, members %v", len(n.failed), n.Servers())
				}
			} else if err := <-n.failed; !errors.Is(err, ErrConfigurationNotStored) {
				t.Error(err)
			}
		})
	}
}

// TestCloseWithoutVoteStore: raft's main goroutine ends when a term cannot be stored; the node closes all the same, so that the broker can stop.
func TestCloseWithoutVoteStore(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	c.bootstrap()
	leader, followers := c.leader(), c.followers()
	broken := followers[0]
	if err := broken.stable.Close(); err != nil {
		t.Fatal(err)
	}
	c.isolate(leader.id)
	// Whoever stands for election now, the new term ends the broken one's goroutine: nobody takes this request any more, not even to refuse it.
	c.eventually("raft's main goroutine ends", func() bool {
		return errors.Is(broken.raft.RemoveServer("nobody", 0, 200*time.Millisecond).Error(), raft.ErrEnqueueTimeout)
	})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		broken.stop()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the node does not close")
	}
	leader.trans.Close() // its requests to the broken one would be waited for
}

func TestSingleNodeServesAfterRestart(t *testing.T) {
	c := newTestCluster(t, 7)
	c.bootstrap()
	c.register(7)
	n := c.nodes[7]
	c.propose(n, topic("t", 7))
	n.stop()
	n.start()
	c.propose(n, topic("u", 7))
	if len(n.State().Topics) != 2 {
		t.Errorf("%d topics", len(n.State().Topics))
	}
	n.stop()
	if _, err := closedNode(n).Propose(context.Background(), topic("v", 7)); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed node: %v", err)
	}
}

// closedNode keeps the pointer that stop forgets.
func closedNode(n *testNode) *Node {
	n.start()
	node := n.Node
	n.stop()
	return node
}
