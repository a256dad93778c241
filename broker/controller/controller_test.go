package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/membership"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is a metadata node of one process that applies commands at once.
type fakeNode struct {
	mu      sync.Mutex
	s       *metadata.State
	index   uint64
	leads   bool
	broken  bool // proposals and changes of the group fail
	synced  int
	servers []metadata.Server
	changed chan struct{}
	log     []string
}

var errBroken = errors.New("broken")

func newFakeNode() *fakeNode {
	n := &fakeNode{s: metadata.NewState(), changed: make(chan struct{}), leads: true}
	_, _ = n.Propose(context.Background(), &metadata.InitCluster{ClusterID: "c"})
	n.log = nil
	return n
}

func (n *fakeNode) State() *metadata.State   { n.mu.Lock(); defer n.mu.Unlock(); return n.s }
func (n *fakeNode) Changed() <-chan struct{} { n.mu.Lock(); defer n.mu.Unlock(); return n.changed }
func (n *fakeNode) IsLeader() bool           { n.mu.Lock(); defer n.mu.Unlock(); return n.leads }
func (n *fakeNode) Leader() api.BrokerID     { return 1 }
func (n *fakeNode) Sync(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.synced++
	return nil
}
func (n *fakeNode) Servers() []metadata.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.servers)
}
func (n *fakeNode) set(f func(*fakeNode))           { n.mu.Lock(); defer n.mu.Unlock(); f(n) }
func (n *fakeNode) get(f func(*fakeNode) bool) bool { n.mu.Lock(); defer n.mu.Unlock(); return f(n) }

func (n *fakeNode) Propose(_ context.Context, c metadata.Command) (metadata.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken {
		return metadata.Result{}, errBroken
	}
	n.index++
	s, res, err := metadata.Apply(n.s, n.index, c)
	if s != n.s {
		n.s = s
		close(n.changed)
		n.changed = make(chan struct{})
	}
	n.log = append(n.log, fmt.Sprintf("%T", c))
	return res, err
}

func (n *fakeNode) CaughtUp(context.Context, api.BrokerID, string) (bool, error) { return true, nil }

func (n *fakeNode) AddServer(_ context.Context, id api.BrokerID, inc string, voter bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken {
		return errBroken
	}
	s := metadata.Server{Broker: id, ServerID: metadata.MemberID(id, inc), Voter: voter}
	for i := range n.servers {
		if n.servers[i].ServerID == s.ServerID {
			n.servers[i] = s
			return nil
		}
	}
	n.servers = append(n.servers, s)
	return nil
}

func (n *fakeNode) DemoteServer(_ context.Context, s metadata.Server) error {
	return n.AddServer(context.Background(), s.Broker, string(s.ServerID)[2:], false)
}

func (n *fakeNode) RemoveServer(_ context.Context, s metadata.Server) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers = slices.DeleteFunc(n.servers, func(o metadata.Server) bool { return o.ServerID == s.ServerID })
	return nil
}

func (n *fakeNode) TransferLeadership(context.Context) error { return nil }

// settle reports for all partitions that the voters are those desired.
func (n *fakeNode) settle() {
	var r metadata.Report
	for _, t := range n.State().SortedTopics() {
		for _, p := range t.Partitions {
			r.Partitions = append(r.Partitions, metadata.PartitionReport{TP: p.TP(), Group: p.Group, Leader: p.Replicas[0].Broker, Epoch: p.LeaderEpoch, Voters: p.Replicas, Revision: p.Revision})
		}
	}
	_, _ = n.Propose(context.Background(), &r)
}

// fixture is a controller with gossip and a clock to play with.
type fixture struct {
	t    *testing.T
	node *fakeNode
	c    *Controller

	mu      sync.Mutex
	members []membership.Member
	now     time.Time
	jumped  time.Duration // the wall clock, against the steady one
}

func newFixture(t *testing.T, brokers ...int32) *fixture {
	f := &fixture{t: t, node: newFakeNode(), now: time.Unix(5000, 0)}
	for _, id := range brokers {
		f.gossip(id, membership.Alive, "i0")
	}
	f.c = New(Config{Node: f.node, Members: f.list, Tick: 20 * time.Millisecond, Now: f.clock, Monotonic: f.steady})
	t.Cleanup(f.c.Close)
	return f
}

func (f *fixture) clock() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return f.now.Add(f.jumped) }

func (f *fixture) steady() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return f.now }

func (f *fixture) wait(d time.Duration) { f.mu.Lock(); defer f.mu.Unlock(); f.now = f.now.Add(d) }

func (f *fixture) list() []membership.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.members)
}

func (f *fixture) gossip(id int32, s membership.State, incarnation string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = slices.DeleteFunc(f.members, func(m membership.Member) bool { return m.ID == id })
	f.members = append(f.members, membership.Member{State: s, GossipAddr: "g", Meta: membership.Meta{ID: id, Incarnation: incarnation, ClusterID: "c", PeerAddr: fmt.Sprint("p", id)}})
}

func (f *fixture) eventually(what string, ok func(*metadata.State) bool) {
	f.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok(f.node.State()) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within a minute: %s", what)
		}
		f.c.Wake()
		<-time.After(5 * time.Millisecond)
	}
}

// looks waits until the controller has looked at things at least twice.
func (f *fixture) looks() {
	f.t.Helper()
	for range 2 {
		f.eventually("the controller looks", func(*metadata.State) bool { return len(f.c.wake) == 0 })
		<-time.After(2 * breather)
	}
}

func (f *fixture) topic(partitions int32, rf int16) {
	f.t.Helper()
	v := View{State: f.node.State(), Alive: map[api.BrokerID]bool{1: true, 2: true, 3: true, 4: true}, Now: f.clock()}
	a, err := Place(v, nil, partitions, rf)
	if err == nil {
		_, err = f.node.Propose(context.Background(), &metadata.CreateTopic{Name: "t", ReplicationFactor: rf, Assignment: a})
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestControllerLife(t *testing.T) {
	f := newFixture(t, 1, 2, 3)
	f.gossip(9, membership.Alive, "i0")
	f.mu.Lock()
	f.members[3].ClusterID = "another"
	f.mu.Unlock()
	f.eventually("brokers are registered and in the metadata group", func(s *metadata.State) bool {
		return len(s.Brokers) == 3 && s.Brokers[2].PeerAddr == "p2" && len(f.node.Servers()) == 3
	})
	if f.node.State().Brokers[9] != nil {
		t.Error("a broker of another cluster was registered")
	}
	f.topic(4, 3)

	// A fourth broker joins: nothing moves within the grace, then it gets its share.
	f.gossip(4, membership.Alive, "i0")
	f.eventually("4 is registered", func(s *metadata.State) bool { return s.Brokers[4] != nil && s.Rebalance })
	f.looks()
	if ReplicasOn(f.node.State(), 4) != 0 {
		t.Error("replicas moved within the grace")
	}
	f.wait(time.Minute)
	f.eventually("4 has its share", func(s *metadata.State) bool {
		f.node.settle()
		return loadOf(s.SortedTopics()).replicas[4] == 3 && !s.Rebalance
	})

	// It fails, and later its replicas are rebuilt.
	f.gossip(4, membership.Failed, "i0")
	f.eventually("4 is marked", func(s *metadata.State) bool { return s.Brokers[4].AwaySinceMs != 0 && !s.Brokers[4].Left })
	f.looks()
	if ReplicasOn(f.node.State(), 4) != 3 {
		t.Error("replaced too early")
	}
	f.wait(11 * time.Minute)
	f.eventually("4 is replaced", func(s *metadata.State) bool { f.node.settle(); return ReplicasOn(s, 4) == 0 })

	// It returns, and is given a share again.
	f.gossip(4, membership.Alive, "i0")
	f.eventually("4 has a share again", func(s *metadata.State) bool {
		f.node.settle()
		return s.Brokers[4].AwaySinceMs == 0 && ReplicasOn(s, 4) == 3
	})

	// Decommissioned, drained, stopped, forgotten.
	if _, err := f.node.Propose(context.Background(), &metadata.SetDraining{ID: 4, Draining: true}); err != nil {
		t.Fatal(err)
	}
	f.eventually("4 is drained", func(s *metadata.State) bool { f.node.settle(); return ReplicasOn(s, 4) == 0 })
	f.gossip(4, membership.Left, "i0")
	f.eventually("4 is marked as left", func(s *metadata.State) bool { return s.Brokers[4].Left })
	f.wait(11 * time.Minute)
	f.eventually("4 is forgotten", func(s *metadata.State) bool { return s.Brokers[4] == nil && len(f.node.Servers()) == 3 })
}

func TestControllerReincarnation(t *testing.T) {
	f := newFixture(t, 1, 2, 3)
	f.eventually("registered", func(s *metadata.State) bool { return len(s.Brokers) == 3 })
	f.topic(2, 3)
	f.wait(time.Minute)
	f.gossip(3, membership.Alive, "fresh")
	f.eventually("fresh replicas on 3, and a fresh member of the group", func(s *metadata.State) bool {
		f.node.settle()
		for _, p := range s.Topics["t"].Partitions {
			if _, ok := p.Local(3, "fresh"); !ok {
				return false
			}
		}
		return slices.ContainsFunc(f.node.Servers(), func(s metadata.Server) bool { return s.ServerID == "3-fresh" }) && len(f.node.Servers()) == 3
	})
}

// TestControllerGraceAndClock: a wall clock that is set back does not make the grace longer.
func TestControllerGraceAndClock(t *testing.T) {
	f := newFixture(t, 1, 2, 3)
	f.eventually("registered", func(s *metadata.State) bool { return len(s.Brokers) == 3 })
	f.topic(2, 3)
	f.mu.Lock()
	f.jumped = -2 * time.Hour
	f.mu.Unlock()
	f.wait(time.Minute)
	f.gossip(3, membership.Alive, "fresh")
	f.eventually("fresh replicas on 3", func(s *metadata.State) bool {
		f.node.settle()
		_, ok := s.Topics["t"].Partitions[0].Local(3, "fresh")
		return ok
	})
}

func TestControllerOnlyActsAsLeader(t *testing.T) {
	f := newFixture(t)
	f.node.set(func(n *fakeNode) { n.leads = false })
	f.looks()
	f.node.set(func(n *fakeNode) { n.log, n.synced = nil, 0 })
	f.gossip(1, membership.Alive, "i0")
	f.looks()
	if f.node.get(func(n *fakeNode) bool { return len(n.log) > 0 || n.synced > 0 }) {
		t.Errorf("it acted: %v", f.node.log)
	}
	// It begins with what earlier controllers left.
	f.node.set(func(n *fakeNode) { n.leads = true })
	f.eventually("it acts", func(s *metadata.State) bool { return len(s.Brokers) == 1 })
	if !f.node.get(func(n *fakeNode) bool { return n.synced > 0 }) {
		t.Error("it acted before it had everything that is committed")
	}
}

func TestControllerTriesAgain(t *testing.T) {
	f := newFixture(t)
	f.node.set(func(n *fakeNode) { n.broken = true })
	f.gossip(1, membership.Alive, "i0")
	f.looks()
	if len(f.node.State().Brokers) > 0 {
		t.Fatal("registered through a broken node")
	}
	f.node.set(func(n *fakeNode) { n.broken = false })
	f.eventually("it tries again", func(s *metadata.State) bool { return len(s.Brokers) == 1 })
}
