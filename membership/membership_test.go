package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a member under test that remembers its events.
type node struct {
	*Membership
	mu        sync.Mutex
	events    []string
	conflicts []error
}

func start(t *testing.T, meta Meta, join ...*node) *node {
	t.Helper()
	n, err := tryStart(meta, join...)
	if err != nil {
		t.Fatalf("start %d: %v", meta.ID, err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func tryStart(meta Meta, join ...*node) (*node, error) {
	n := &node{}
	if meta.Incarnation == "" {
		meta.Incarnation = fmt.Sprintf("inc%d", meta.ID)
	}
	cfg := Config{Meta: meta, BindAddr: "127.0.0.1:0", Fast: true, RejoinEvery: 300 * time.Millisecond,
		OnEvent:    func(e Event) { n.note(e) },
		OnConflict: func(err error) { n.mu.Lock(); n.conflicts = append(n.conflicts, err); n.mu.Unlock() },
	}
	for _, j := range join {
		cfg.Join = append(cfg.Join, j.LocalAddr())
	}
	m, err := New(context.Background(), cfg)
	n.mu.Lock()
	n.Membership = m
	n.mu.Unlock()
	return n, err
}

func (n *node) note(e Event) {
	names := map[EventType]string{EventJoined: "joined", EventLeft: "left", EventFailed: "failed", EventUpdated: "updated"}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, fmt.Sprintf("%s %d", names[e.Type], e.Member.ID))
}

func (n *node) saw(event string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e == event {
			return true
		}
	}
	return false
}

// alive lists the IDs alive in n's eyes.
func (n *node) alive() string {
	var ids []string
	for _, m := range n.Members() {
		if m.State == Alive {
			ids = append(ids, fmt.Sprint(m.ID))
		}
	}
	return strings.Join(ids, ",")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestJoinUpdateFailLeave(t *testing.T) {
	a := start(t, Meta{ID: 1, GRPCAddr: "h1:7070", PeerAddr: "h1:7071", Rack: "r1", Version: "v1"})
	b := start(t, Meta{ID: 2, Rack: "r2"}, a)
	c := start(t, Meta{ID: 3}, a)
	d := start(t, Meta{ID: 4}, b)
	for _, n := range []*node{a, b, c, d} {
		eventually(t, "all four see one another", func() bool { return n.alive() == "1,2,3,4" })
	}
	m, ok := d.Member(1)
	if !ok || m.GRPCAddr != "h1:7070" || m.PeerAddr != "h1:7071" || m.Rack != "r1" || m.Version != "v1" || m.GossipAddr != a.LocalAddr() || m.Incarnation != "inc1" {
		t.Fatalf("broker 1 as broker 4 sees it: %+v", m)
	}

	meta := b.cfg.Meta
	meta.ClusterID = "K1"
	meta.Bootstrap = Bootstrap{Expect: 3, Set: []int32{1, 2, 300}}
	if err := b.UpdateMeta(meta); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the update arrives", func() bool {
		m, _ := d.Member(2)
		return m.ClusterID == "K1" && m.Bootstrap.Expect == 3 && len(m.Bootstrap.Set) == 3 && m.Bootstrap.Set[2] == 300 && d.saw("updated 2")
	})

	c.Close() // without a goodbye
	eventually(t, "3 is seen to fail", func() bool { return a.saw("failed 3") && b.saw("failed 3") && d.saw("failed 3") })
	if err := d.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	d.Close()
	eventually(t, "4 is seen to leave", func() bool { return a.saw("left 4") && b.saw("left 4") })
	if a.saw("failed 4") || b.saw("failed 4") {
		t.Error("a goodbye was taken for a failure")
	}
	if m, _ := a.Member(3); m.State != Failed {
		t.Errorf("3 is %v", m.State)
	}
	if m, _ := a.Member(4); m.State != Left {
		t.Errorf("4 is %v", m.State)
	}
}

func TestComesBackWithNewAddress(t *testing.T) {
	a := start(t, Meta{ID: 1})
	b := start(t, Meta{ID: 2}, a)
	c := start(t, Meta{ID: 3}, a)
	eventually(t, "three", func() bool { return a.alive() == "1,2,3" && b.alive() == "1,2,3" && c.alive() == "1,2,3" })
	old := c.LocalAddr()
	c.Close()
	taken, err := net.Listen("tcp", old) // so that the port is not given out again
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// At once, so that the others still take the old life for alive.
	again := start(t, Meta{ID: 3, Version: "new"}, a)
	for _, n := range []*node{a, b} {
		eventually(t, "3 is back at its new address", func() bool {
			m, _ := n.Member(3)
			return m.State == Alive && m.GossipAddr == again.LocalAddr() && m.Version == "new"
		})
	}
	eventually(t, "3 sees the others", func() bool { return again.alive() == "1,2,3" })
}

func TestReincarnationAtTheSameAddress(t *testing.T) {
	a := start(t, Meta{ID: 1})
	c := start(t, Meta{ID: 3, Incarnation: "old"}, a)
	eventually(t, "two", func() bool { return a.alive() == "1,3" })
	addr := c.LocalAddr()
	c.Close()
	n := &node{}
	var err error
	eventually(t, "the port is free again", func() bool {
		n.Membership, err = New(context.Background(), Config{Meta: Meta{ID: 3, Incarnation: "fresh"}, BindAddr: addr, Join: []string{a.LocalAddr()}, Fast: true})
		return err == nil || !errors.Is(err, ErrBind)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	eventually(t, "1 sees the new incarnation", func() bool { m, _ := a.Member(3); return m.State == Alive && m.Incarnation == "fresh" })
}

func TestDuplicateIDRefused(t *testing.T) {
	a := start(t, Meta{ID: 1})
	b := start(t, Meta{ID: 2}, a)
	eventually(t, "two", func() bool { return a.alive() == "1,2" && b.alive() == "1,2" })
	_, err := tryStart(Meta{ID: 2, Incarnation: "other"}, a)
	if !errors.Is(err, ErrDuplicateID) || !strings.Contains(err.Error(), b.LocalAddr()) {
		t.Fatalf("got %v, want ErrDuplicateID naming %s", err, b.LocalAddr())
	}
	if m, _ := a.Member(2); m.Incarnation != "inc2" || m.GossipAddr != b.LocalAddr() {
		t.Errorf("the first broker 2 was displaced: %+v", m)
	}
	// Also where the other one is asked directly.
	if _, err := tryStart(Meta{ID: 2, Incarnation: "other"}, b); !errors.Is(err, ErrDuplicateID) {
		t.Errorf("got %v, want ErrDuplicateID", err)
	}
}

func TestForeignClusterRefused(t *testing.T) {
	a := start(t, Meta{ID: 1, ClusterID: "A"})
	b := start(t, Meta{ID: 2, ClusterID: "B"})
	_, err := tryStart(Meta{ID: 3, ClusterID: "B"}, a)
	if !errors.Is(err, ErrForeignCluster) || !strings.Contains(err.Error(), "cluster A") {
		t.Fatalf("got %v, want ErrForeignCluster naming cluster A", err)
	}
	// One that does not know its cluster must not become a bridge.
	_, err = tryStart(Meta{ID: 4}, a, b)
	if !errors.Is(err, ErrForeignCluster) {
		t.Fatalf("got %v, want ErrForeignCluster", err)
	}
	if got := a.alive() + " " + b.alive(); strings.Contains(got, "1,2") {
		t.Errorf("the clusters see each other: %s", got)
	}
}

func TestRejoins(t *testing.T) {
	a := start(t, Meta{ID: 1})
	addr := a.LocalAddr()
	a.Close()
	// b starts while nobody is there.
	b := &node{Membership: mustNew(t, Config{Meta: Meta{ID: 2, Incarnation: "x"}, BindAddr: "127.0.0.1:0", Join: []string{addr}, Fast: true})}
	var err error
	a2 := &node{}
	eventually(t, "a is back", func() bool {
		a2.Membership, err = New(context.Background(), Config{Meta: Meta{ID: 1, Incarnation: "inc1"}, BindAddr: addr, Fast: true})
		return err == nil
	})
	t.Cleanup(func() { a2.Close() })
	eventually(t, "they find each other", func() bool { return a2.alive() == "1,2" && b.alive() == "1,2" })
}

// streamsOnly loses all packets: nothing arrives but what members exchange on connections.
type streamsOnly struct{ *memberlist.NetTransport }

func (streamsOnly) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (streamsOnly) WriteToAddress([]byte, memberlist.Address) (time.Time, error) {
	return time.Now(), nil
}

func startStreamsOnly(t *testing.T, meta Meta, join ...string) *Membership {
	t.Helper()
	nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(nt.GetAutoBindPort()))
	return mustNew(t, Config{Meta: meta, BindAddr: addr, Join: join, Transport: streamsOnly{nt}})
}

// What is told now does not wait for gossip.
func TestTellNow(t *testing.T) {
	a := startStreamsOnly(t, Meta{ID: 1, Incarnation: "a"})
	meta := Meta{ID: 2, Incarnation: "b"}
	b := startStreamsOnly(t, meta, a.LocalAddr())
	meta.Bootstrap = Bootstrap{Expect: 3, Set: []int32{1, 2, 3}}
	if err := b.TellNow(meta, []int32{1, 2, 3}); err != nil { // also to itself, and to one that nobody knows
		t.Fatal(err)
	}
	eventually(t, "the news is there", func() bool { m, _ := a.Member(2); return len(m.Bootstrap.Set) == 3 })
	if m, _ := b.Member(2); len(m.Bootstrap.Set) != 3 {
		t.Errorf("broker 2 as it sees itself: %+v", m)
	}
	meta.Incarnation = "c"
	if err := b.TellNow(meta, nil); err == nil {
		t.Error("another incarnation was told")
	}
}

func mustNew(t *testing.T, cfg Config) *Membership {
	t.Helper()
	m, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestErrors(t *testing.T) {
	base := Meta{ID: 1, Incarnation: "i"}
	large := base
	large.Rack = strings.Repeat("r", 600)
	a := start(t, Meta{ID: 9})
	for name, c := range map[string]struct {
		cfg  Config
		want error
	}{
		"too large":    {Config{Meta: large, BindAddr: "127.0.0.1:0"}, ErrMetaTooLarge},
		"address used": {Config{Meta: base, BindAddr: a.LocalAddr()}, ErrBind},
		"no port":      {Config{Meta: base, BindAddr: "127.0.0.1"}, ErrBind},
	} {
		if m, err := New(context.Background(), c.cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
			if m != nil {
				m.Close()
			}
		}
	}
	if err := a.UpdateMeta(Meta{ID: 9, Incarnation: "inc9", Rack: large.Rack}); !errors.Is(err, ErrMetaTooLarge) {
		t.Errorf("UpdateMeta: %v", err)
	}
	a.Close()
	if err := a.UpdateMeta(Meta{ID: 9, Incarnation: "inc9"}); !errors.Is(err, ErrClosed) {
		t.Errorf("UpdateMeta after Close: %v", err)
	}
}
