package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
)

// events records callbacks in the order in which they come.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(kind string) client.GroupOption {
	f := func(_ context.Context, tps []client.TopicPartition) {
		e.mu.Lock()
		defer e.mu.Unlock()
		var parts []int32
		for _, tp := range tps {
			parts = append(parts, tp.Partition)
		}
		e.list = append(e.list, fmt.Sprint(kind, parts))
	}
	switch kind {
	case "assigned":
		return client.WithOnAssigned(f)
	case "revoked":
		return client.WithOnRevoked(f)
	}
	return client.WithOnLost(f)
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

func newMember(t *testing.T, c *client.Client, opts ...client.GroupOption) *client.GroupConsumer {
	t.Helper()
	opts = append([]client.GroupOption{client.WithSessionTimeout(60 * time.Millisecond), client.WithRebalanceTimeout(5 * time.Second)}, opts...)
	g, err := c.NewGroupConsumer("g", []string{"t"}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close(testContext(t)) })
	return g
}

// pump polls a member on a goroutine of its own, until stopped, and keeps what it returned.
type pump struct {
	g      *client.GroupConsumer
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	got    []*client.Record
	err    error
}

func startPump(g *client.GroupConsumer) *pump {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pump{g: g, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			rs, err := g.Poll(ctx)
			p.mu.Lock()
			p.got = append(p.got, rs...)
			p.err = err
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pump) stop() {
	p.cancel()
	<-p.done
}

func (p *pump) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

func (p *pump) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func fillAll(f *fakebroker.Cluster, partitions, each int) {
	for i := range partitions {
		fill(f, int32(i), 1, each)
	}
}

func TestGroupOfOne(t *testing.T) {
	f, c := connect(t, 2, 3)
	fillAll(f, 3, 10)
	var ev events
	g := newMember(t, c, ev.add("assigned"), ev.add("revoked"), client.WithAutoCommit(5*time.Millisecond))
	pollN(t, g, 30)
	if g.MemberID() == "" || g.Generation() != 1 || len(g.Assigned()) != 3 {
		t.Errorf("%v, generation %d, %v", g, g.Generation(), g.Assigned())
	}
	nothingMore(t, g) // the next Poll says that the records are dealt with
	eventually(t, "an automatic commit", func() bool { return f.Committed("g", "t", 2) == 10 })
	fill(f, 0, 1, 5)
	pollN(t, g, 5)
	if err := g.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := f.Committed("g", "t", 0); got != 15 {
		t.Errorf("after Close, %d is committed", got)
	}
	if len(f.Members("g")) != 0 {
		t.Error("the member did not leave")
	}
	if got, want := ev.all(), []string{"assigned[0 1 2]", "revoked[0 1 2]"}; !reflect.DeepEqual(got, want) {
		t.Errorf("callbacks %v, want %v", got, want)
	}
	if _, err := g.Poll(testContext(t)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Poll after Close: %v", err)
	}
}

func TestCommitIsWhereTheNextOneBegins(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 1, 20)
	g := newMember(t, c, client.WithAutoCommit(0), client.WithMaxPollRecords(5))
	rs := pollN(t, g, 5)
	nothing := f.Committed("g", "t", 0)
	if err := g.CommitRecords(testContext(t), rs[:3]...); err != nil || nothing != -1 || f.Committed("g", "t", 0) != 3 {
		t.Fatalf("committed %d, then %d, %v", nothing, f.Committed("g", "t", 0), err)
	}
	if err := g.Commit(testContext(t)); err != nil || f.Committed("g", "t", 0) != 5 {
		t.Fatalf("committed %d, %v", f.Committed("g", "t", 0), err)
	}
	if err := g.CommitOffsets(testContext(t), map[client.TopicPartition]client.Commit{{Topic: "t", Partition: 7}: {}}); !errors.Is(err, client.ErrNotAssigned) {
		t.Errorf("commit for another's partition: %v", err)
	}
	if err := g.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	second := newMember(t, c)
	if rs := pollN(t, second, 15); rs[0].Offset != 5 {
		t.Errorf("the next member begins at %d", rs[0].Offset)
	}
}

// TestCooperativeRebalance: a second member gets its share while the first goes on reading the rest, and nothing is read twice.
func TestCooperativeRebalance(t *testing.T) {
	f, c := connect(t, 2, 4)
	var ev events
	a := startPump(newMember(t, c, ev.add("assigned"), ev.add("revoked"), ev.add("lost")))
	defer a.stop()
	fillAll(f, 4, 10)
	eventually(t, "the first member reads all", func() bool { return a.count() == 40 })
	b := startPump(newMember(t, c))
	eventually(t, "partitions are shared", func() bool { return len(a.g.Assigned()) == 2 && len(b.g.Assigned()) == 2 })
	fillAll(f, 4, 10)
	eventually(t, "both read their share", func() bool { return a.count()+b.count() == 80 })
	if b.count() != 20 {
		t.Errorf("the second member read %d records", b.count())
	}
	b.stop()
	if err := b.g.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first member has all again", func() bool { return len(a.g.Assigned()) == 4 })
	want := []string{"assigned[0 1 2 3]", "revoked[2 3]", "assigned[2 3]"}
	if got := ev.all(); !reflect.DeepEqual(got, want) {
		t.Errorf("callbacks %v, want %v", got, want)
	}
	if n := a.count() + b.count(); n != 80 {
		t.Errorf("%d records for 80", n)
	}
}

func TestEagerRebalance(t *testing.T) {
	f, c := connect(t, 1, 4)
	var ev events
	eager := client.WithStrategies(client.RangeStrategy, client.RoundRobinStrategy)
	a := startPump(newMember(t, c, ev.add("assigned"), ev.add("revoked"), eager))
	defer a.stop()
	fillAll(f, 4, 10)
	eventually(t, "the first member reads all", func() bool { return a.count() == 40 })
	b := startPump(newMember(t, c, eager))
	defer b.stop()
	eventually(t, "partitions are shared", func() bool { return len(a.g.Assigned()) == 2 && len(b.g.Assigned()) == 2 })
	fillAll(f, 4, 10)
	eventually(t, "both read their share", func() bool { return a.count()+b.count() == 80 })
	if got := ev.all(); len(got) != 3 || got[1] != "revoked[0 1 2 3]" {
		t.Errorf("callbacks %v", got)
	}
}

// TestRebalanceWaitsForPoll: no partition moves while its records are being dealt with.
func TestRebalanceWaitsForPoll(t *testing.T) {
	f, c := connect(t, 1, 2)
	fillAll(f, 2, 10)
	var ev events
	a := newMember(t, c, ev.add("revoked"))
	pollN(t, a, 20)
	b := startPump(newMember(t, c))
	defer b.stop()
	before := f.Heartbeats()
	eventually(t, "heartbeats go on", func() bool { return f.Heartbeats() > before+10 })
	if len(ev.all()) > 0 || len(b.g.Assigned()) > 0 || b.count() > 0 {
		t.Fatalf("a partition moved outside of Poll: %v, %v", ev.all(), b.g.Assigned())
	}
	ap := startPump(a)
	defer ap.stop()
	eventually(t, "the second member has its share", func() bool { return len(b.g.Assigned()) == 1 })
	if ap.count()+b.count() != 0 {
		t.Errorf("%d records were read again though they were dealt with", ap.count()+b.count())
	}
}

func TestLostMembership(t *testing.T) {
	f, c := connect(t, 1, 2)
	fillAll(f, 2, 10)
	var ev events
	g := newMember(t, c, ev.add("assigned"), ev.add("lost"), ev.add("revoked"), client.WithAutoCommit(0))
	pollN(t, g, 20)
	id := g.MemberID()
	f.Expire("g", id)
	p := startPump(g)
	defer p.stop()
	eventually(t, "the member is back under another ID", func() bool { return g.MemberID() != id && len(g.Assigned()) == 2 })
	if got, want := ev.all(), []string{"assigned[0 1]", "lost[0 1]", "assigned[0 1]"}; !reflect.DeepEqual(got, want) {
		t.Errorf("callbacks %v, want %v", got, want)
	}
	eventually(t, "what was not committed comes again", func() bool { return p.count() == 20 })
}

func TestCoordinatorFailover(t *testing.T) {
	f, c := connect(t, 3, 2)
	fillAll(f, 2, 10)
	var ev events
	g := newMember(t, c, ev.add("assigned"), ev.add("lost"), ev.add("revoked"))
	p := startPump(g)
	defer p.stop()
	eventually(t, "all is read", func() bool { return p.count() == 20 })
	for i := range 6 {
		f.MoveCoordinator(i % 3)
		if i == 3 {
			f.Kill(1)
			f.Restart(t, 1)
		}
		before := f.Heartbeats()
		eventually(t, "heartbeats arrive at the new coordinator", func() bool { return f.Heartbeats() > before+2 })
		if err := g.Commit(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if got := ev.all(); len(got) != 1 || g.Generation() != 1 {
		t.Errorf("callbacks %v, generation %d", got, g.Generation())
	}
}

func TestStaticMember(t *testing.T) {
	f, c := connect(t, 1, 2)
	fillAll(f, 2, 10)
	first := newMember(t, c, client.WithInstanceID("one"))
	pollN(t, first, 20)
	if err := first.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Members("g")); n != 1 {
		t.Fatalf("%d members after Close of a static one", n)
	}
	second := startPump(newMember(t, c, client.WithInstanceID("one")))
	defer second.stop()
	eventually(t, "the second life has the partitions", func() bool { return len(second.g.Assigned()) == 2 })
	third := startPump(newMember(t, c, client.WithInstanceID("one")))
	defer third.stop()
	eventually(t, "the older instance is fenced", func() bool { return errors.Is(second.failure(), client.CodeFencedInstance) })
	eventually(t, "the newer has the partitions", func() bool { return len(third.g.Assigned()) == 2 })
}

func TestSeekInOnAssigned(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 1, 10)
	var g *client.GroupConsumer
	ready := make(chan struct{})
	g = newMember(t, c, client.WithOnAssigned(func(_ context.Context, tps []client.TopicPartition) {
		<-ready
		if err := g.Seek(tps[0], client.AtOffset(7)); err != nil {
			t.Error(err)
		}
	}))
	close(ready)
	if rs := pollN(t, g, 3); rs[0].Offset != 7 {
		t.Errorf("begins at %d", rs[0].Offset)
	}
}

func TestCommitInOnRevoked(t *testing.T) {
	f, c := connect(t, 1, 2)
	fillAll(f, 2, 10)
	var a *client.GroupConsumer
	ready := make(chan struct{})
	a = newMember(t, c, client.WithAutoCommit(0), client.WithOnRevoked(func(ctx context.Context, _ []client.TopicPartition) {
		<-ready
		if err := a.Commit(ctx); err != nil {
			t.Error(err)
		}
	}))
	close(ready)
	pa := startPump(a)
	defer pa.stop()
	eventually(t, "all is read", func() bool { return pa.count() == 20 })
	b := startPump(newMember(t, c))
	defer b.stop()
	eventually(t, "partitions are shared", func() bool { return len(b.g.Assigned()) == 1 })
	fillAll(f, 2, 1)
	eventually(t, "the new records are read", func() bool { return pa.count()+b.count() == 22 })
}

func TestGroupOptionsAreChecked(t *testing.T) {
	_, c := connect(t, 1, 1)
	for _, o := range []client.GroupOption{
		client.WithStrategies(), client.WithStrategies(client.CooperativeSticky, client.RangeStrategy), client.WithSessionTimeout(0),
		client.WithAutoCommit(-1), client.WithOnLost(nil), client.WithMaxPollRecords(0),
	} {
		if _, err := c.NewGroupConsumer("g", []string{"t"}, o); err == nil {
			t.Error("an impossible option is accepted")
		}
	}
	if _, err := c.NewGroupConsumer("", []string{"t"}); err == nil {
		t.Error("no group is accepted")
	}
}

// TestCloseDuringTheFirstJoin: the member has no ID yet, and still leaves none behind.
func TestCloseDuringTheFirstJoin(t *testing.T) {
	f, c := connect(t, 1, 2)
	fillAll(f, 2, 10)
	a := newMember(t, c)
	pollN(t, a, 20)
	b := newMember(t, c) // its join waits for a's Poll
	eventually(t, "the second member is joining", func() bool { return len(f.Members("g")) == 2 })
	ap := startPump(a)
	defer ap.stop()
	if err := b.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := f.Members("g"); !reflect.DeepEqual(got, []string{a.MemberID()}) {
		t.Errorf("members %v", got)
	}
	lonely := newMember(t, c)
	eventually(t, "a third member is joining", func() bool { return len(f.Members("g")) == 2 })
	if err := lonely.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first member has all", func() bool { return len(a.Assigned()) == 2 && len(f.Members("g")) == 1 })
}
