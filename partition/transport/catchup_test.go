package transport

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// oldEntries is a request for a follower that lacks much more than what it carries: count entries of size bytes after prev, with the commit index far ahead.
func oldEntries(prev uint64, count, size int) *raft.AppendEntriesRequest {
	r := entry(prev, size)
	for i := 1; i < count; i++ {
		r.Entries = append(r.Entries, &raft.Log{Index: prev + 1 + uint64(i), Term: 2, Data: make([]byte, size)})
	}
	r.LeaderCommitIndex = prev + uint64(count) + 100_000
	return r
}

func TestBehind(t *testing.T) {
	for _, c := range []struct {
		name        string
		lag         uint64 // committed entries behind those at hand
		size        int
		slack       uint64
		want        bool
		uncommitted bool
	}{
		{name: "in step", lag: 0, size: 1000},
		{name: "few entries, however large", lag: farEntries, size: 32 << 20},
		{name: "many small ones are quickly sent", lag: 1000, size: 100},
		{name: "many bytes", lag: 1000, size: 64 << 10, want: true},
		{name: "a pipeline bears more", lag: farEntries * 2, size: 64 << 10, slack: pipelineSlack},
		{name: "but not everything", lag: 1000, size: 64 << 10, slack: pipelineSlack, want: true},
		{name: "very many entries of no size", lag: farEntriesMany + 1, size: 0, want: true},
		{name: "what is not committed yet", uncommitted: true, size: 1 << 20},
	} {
		r := entry(500_000, c.size)
		r.LeaderCommitIndex = 500_001 + c.lag
		if c.uncommitted {
			r.LeaderCommitIndex = 500_000
		}
		if got := behind(r, max(c.slack, 1)); got != c.want {
			t.Errorf("%s: far behind is %t", c.name, got)
		}
	}
	probe := entry(10, 0)
	probe.Entries, probe.LeaderCommitIndex = nil, 1<<40
	if behind(probe, 1) {
		t.Error("a probe has nothing to send, and must not wait")
	}
}

// A follower that is far behind and does not answer holds up the catching up of all groups to its broker, but no live append: neither of another group
// nor a pipeline's.
func TestLiveAppendsPassCatchUp(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	var stuck []chan error
	for range catchUpFrames {
		done := make(chan error, 1)
		stuck = append(stuck, done)
		go func() {
			done <- leader.AppendEntries("2", "2", oldEntries(0, 3, catchUpFrame), &raft.AppendEntriesResponse{})
		}()
	}
	var held []raft.RPC
	for range catchUpFrames {
		held = append(held, <-follower.Consumer()) // and is not answered
	}

	lg, fg := groupPair(t, leader.t, follower.t, 2)
	go func() {
		for rpc := range takeN(fg, 51) {
			rpc.Respond(success, nil)
		}
	}()
	within(t, 10*time.Second, "live appends", func() {
		var resp raft.AppendEntriesResponse
		if err := lg.AppendEntries("2", "2", entry(1, 100), &resp); err != nil || !resp.Success {
			t.Errorf("%+v, %v", resp, err)
		}
		p, err := lg.AppendEntriesPipeline("2", "2")
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		for i := range 50 {
			if _, err := p.AppendEntries(entry(uint64(2+i), 64<<10), &raft.AppendEntriesResponse{}); err != nil {
				t.Error(err)
			}
			if f := <-p.Consumer(); f.Error() != nil || !f.Response().Success {
				t.Errorf("%+v, %v", f.Response(), f.Error())
			}
		}
	})

	select {
	case rpc := <-follower.Consumer():
		t.Errorf("a third frame is under way: %T", rpc.Command)
	default:
	}
	// A frame may be answered before its writer has counted it.
	eventually(t, "all bytes are counted, each in its lane", func() bool {
		s := leader.t.Stats()
		return s.CatchUpBytes >= catchUpFrames*catchUpFrame && s.LiveBytes >= 50*64<<10 && s.LiveBytes <= 5<<20
	})
	for _, rpc := range held {
		rpc.Respond(&raft.AppendEntriesResponse{Term: 9}, nil) // a newer term ends it
	}
	for _, done := range stuck {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// stuckConn takes a handshake and then nothing more, until it is closed.
type stuckConn struct {
	net.Conn
	room   int
	closed chan struct{}
	once   sync.Once
}

func (c *stuckConn) Write(b []byte) (int, error) {
	if c.room -= len(b); c.room < 0 {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// The connection for catching up takes no more bytes. Live appends of the same group go on, although the rest of what the slow lane holds waits.
func TestBlockedCatchUpConnection(t *testing.T) {
	var blocking atomic.Bool
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dial(ctx, network, addr)
			if err == nil && blocking.Load() {
				return &stuckConn{Conn: nc, room: 4 << 10, closed: make(chan struct{})}, nil
			}
			return nc, err
		}
	})
	blocking.Store(true)
	stuck := make(chan error, 1)
	go func() {
		stuck <- leader.AppendEntries("2", "2", oldEntries(0, 1, 1<<20), &raft.AppendEntriesResponse{})
	}()
	eventually(t, "the frame is on its way", func() bool { return len(leader.t.peer("2").catchUps) == 1 })
	blocking.Store(false)
	go func() {
		for rpc := range takeN(follower, 20) {
			rpc.Respond(success, nil)
		}
	}()
	within(t, 10*time.Second, "live appends", func() {
		for i := range uint64(20) {
			if err := leader.AppendEntries("2", "2", entry(i, 64<<10), &raft.AppendEntriesResponse{}); err != nil {
				t.Error(err)
			}
		}
	})
	select {
	case err := <-stuck:
		t.Errorf("the frame passed a connection that takes nothing: %v", err)
	default:
	}
	leader.Close()
	if err := <-stuck; err == nil {
		t.Error("no error")
	}
}

// groupPair is one more group on two brokers.
func groupPair(t *testing.T, a, b *Transport, id GroupID) (*Group, *Group) {
	ga, err := a.Group(id, GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gb, err := b.Group(id, GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ga, gb
}

// takeN yields the next n requests, or fewer if the group closes.
func takeN(g *Group, n int) func(func(raft.RPC) bool) {
	return func(yield func(raft.RPC) bool) {
		for range n {
			select {
			case rpc := <-g.Consumer():
				if !yield(rpc) {
					return
				}
			case <-g.closed:
				return
			}
		}
	}
}

// A follower gets a request in frames, in order, each complete by itself; raft is told how much of it the follower has taken.
func TestCatchUpInFrames(t *testing.T) {
	const count, size = 10, 400 << 10 // two fit in a frame
	for name, failing := range map[string]int{"all": -1, "the first is refused": 0, "a later one is refused": 3} {
		t.Run(name, func(t *testing.T) {
			_, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.CatchUpBytesPerSecond = -1 })
			next, frames := uint64(1), 0
			go func() {
				for rpc := range takeN(follower, count/2) {
					req := rpc.Command.(*raft.AppendEntriesRequest)
					if req.PrevLogEntry+1 != next || len(req.Entries) != 2 {
						t.Errorf("frame of %d entries after %d, %d was next", len(req.Entries), req.PrevLogEntry, next)
					}
					next += uint64(len(req.Entries))
					rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: frames != failing, LastLog: next - 1}, nil)
					if frames == failing {
						return
					}
					frames++
				}
			}()
			req, resp := oldEntries(0, count, size), raft.AppendEntriesResponse{}
			if err := leader.AppendEntries("2", "2", req, &resp); err != nil {
				t.Fatal(err)
			}
			taken := len(req.Entries)
			switch {
			case failing < 0 && (taken < 2 || !resp.Success || resp.LastLog != uint64(taken)):
				t.Errorf("%d entries were taken, the answer is %+v", taken, resp) // all of them, or fewer if that took long
			case failing == 0 && resp.Success:
				t.Errorf("the answer is %+v", resp)
			case failing > 0 && (!resp.Success || taken > 2*failing || taken < 2):
				t.Errorf("%d entries were taken, the answer is %+v", taken, resp)
			}
		})
	}
}

// Raft gets a pipeline, whose frames travel with live appends, only for a follower that is near; and loses it when the follower has fallen far behind.
func TestNoPipelineWhileFar(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	go func() {
		for rpc := range takeN(follower, 2) {
			rpc.Respond(success, nil)
		}
	}()
	send := func(r *raft.AppendEntriesRequest) {
		if err := leader.AppendEntries("2", "2", r, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	send(oldEntries(0, 1, 10<<10))
	if _, err := leader.AppendEntriesPipeline("2", "2"); err != raft.ErrPipelineReplicationNotSupported {
		t.Fatalf("a pipeline to a follower that is far behind: %v", err)
	}
	send(entry(100_001, 10<<10))
	p, err := leader.AppendEntriesPipeline("2", "2")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.AppendEntries(oldEntries(100_002, 1, 10<<10), &raft.AppendEntriesResponse{}); err == nil {
		t.Fatal("the pipeline goes on although the follower is far behind")
	}
	if _, err := leader.AppendEntriesPipeline("2", "2"); err != raft.ErrPipelineReplicationNotSupported {
		t.Fatalf("a new pipeline: %v", err)
	}
}

// Closing the group ends the waiting for the slow lane.
func TestCloseEndsCatchUp(t *testing.T) {
	_, leader, _ := pair(t, GroupOptions{}, func(c *Config) { c.CatchUpBytesPerSecond = 1 })
	leader.t.slowLane.reserve(leader.t.now(), 1000) // a quarter of an hour
	done := make(chan error, 1)
	go func() {
		done <- leader.AppendEntries("2", "2", oldEntries(0, 1, 10<<10), &raft.AppendEntriesResponse{})
	}()
	eventually(t, "the request's turn", func() bool { return len(leader.t.peer("2").catchUps) == 1 })
	within(t, 5*time.Second, "closing", func() {
		leader.Close()
		if err := <-done; err == nil {
			t.Error("no error")
		}
	})
}

// A group that waits for a quorum is not slowed down.
func TestStalledGroupIsNotThrottled(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1", func(c *Config) { c.CatchUpBytesPerSecond = 1 }), f.start("2")
	leader, follower := f.group(a, 1, GroupOptions{Stalled: func() bool { return true }}), f.group(b, 1, GroupOptions{})
	go func() {
		for rpc := range takeN(follower, 1) {
			rpc.Respond(success, nil)
		}
	}()
	a.slowLane.reserve(a.now(), 1000)
	for range catchUpFrames { // and others have taken all places
		a.peer("2").catchUps <- struct{}{}
	}
	within(t, 10*time.Second, "the append", func() {
		var resp raft.AppendEntriesResponse
		if err := leader.AppendEntries("2", "2", oldEntries(0, 1, 10<<10), &resp); err != nil || !resp.Success {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

// Over any stretch of virtual time no more passes than the rate, the burst and one reservation allow; and nearly all of that does.
func TestThrottleCountsBytes(t *testing.T) {
	const rate, largest = 10 << 20, 1 << 20
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	l := throttle{rate: rate}
	type sent struct {
		at time.Duration
		n  int64
	}
	var all []sent
	now, total := 10*time.Second, int64(0)
	for len(all) < 3000 {
		n := 1 + r.Int64N(largest)
		now += l.reserve(now, n)
		all = append(all, sent{now, n})
		total += n
		if r.IntN(100) == 0 {
			now += time.Duration(r.Int64N(int64(time.Second))) // nothing to send for a while
		}
	}
	for i := range all {
		bytes := int64(0)
		for _, s := range all[i:min(i+200, len(all))] {
			bytes += s.n
			if most := int64(float64(rate)*(s.at-all[i].at+throttleBurst).Seconds()) + largest + s.n; bytes > most {
				t.Fatalf("%d bytes within %s, %d may pass (seed %d)", bytes, s.at-all[i].at, most, seed)
			}
		}
	}
	busy := throttle{rate: rate}
	now = 0
	for passed := int64(0); passed < 100*largest; passed += largest {
		now += busy.reserve(now, largest)
	}
	if want := 10 * time.Second; now > want || now < want-time.Second {
		t.Errorf("100 MiB took %s of virtual time, want about %s", now, want)
	}
	changed := throttle{rate: rate}
	changed.reserve(0, 10*rate)
	changed.setRate(5*time.Second, 5*rate)
	if d := changed.reserve(5*time.Second, 1); d != time.Second {
		t.Errorf("half of what was reserved passes in %s at five times the rate", d)
	}
	free := throttle{}
	if d := free.reserve(0, 1<<40); d != 0 {
		t.Errorf("no limit, but %s to wait", d)
	}
}

// The slow lane is raised above its limit where a busy group would outrun it, and lowered again.
func TestCatchUpRateFollowsGrowth(t *testing.T) {
	tr := &Transport{cfg: Config{CatchUpBytesPerSecond: 1000}, slowLane: throttle{rate: 1000}}
	for _, step := range []struct {
		at    time.Duration
		grown uint64
		want  int64
	}{
		{2 * time.Second, 400, 1000},
		{3 * time.Second, 5000, 10_000},
		{3500 * time.Millisecond, 50_000, 10_000}, // too soon to say
		{5 * time.Second, 100, 50_100},
		{6 * time.Second, 0, 1000},
	} {
		tr.committed.Add(step.grown)
		tr.adaptCatchUp(step.at)
		if tr.slowLane.rate != step.want {
			t.Errorf("at %s the rate is %d, want %d", step.at, tr.slowLane.rate, step.want)
		}
	}
	none := &Transport{cfg: Config{CatchUpBytesPerSecond: -1}, slowLane: throttle{rate: -1}}
	none.adaptCatchUp(time.Hour)
	if none.slowLane.rate != -1 {
		t.Errorf("no limit became %d", none.slowLane.rate)
	}
}

// A group of one, to which appends come all the time, gets a second replica although they are ten times as fast as the slow lane's limit.
func TestCatchUpArrivesUnderLoad(t *testing.T) {
	f := newFleet(t)
	var trs []*Transport
	for _, id := range []raft.ServerAddress{"1", "2"} {
		trs = append(trs, f.start(id, func(c *Config) { c.CatchUpBytesPerSecond = 1 << 20 }))
	}
	a, b := f.join(trs[0], 1, GroupOptions{}, servers("1")), f.join(trs[1], 1, GroupOptions{}, nil)
	leaderOf(t, a, b)
	for range 160 { // 10 MiB
		a.raft.Apply(make([]byte, 64<<10), 0)
	}
	if err := a.raft.Barrier(0).Error(); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // about 10 MiB/s
		defer close(stopped)
		tick := time.NewTicker(6 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.raft.Apply(make([]byte, 64<<10), 0)
			case <-stop:
				return
			}
		}
	}()
	if err := a.raft.AddNonvoter("2", "2", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new replica is near", func() bool { return b.raft.LastIndex()+farEntries > a.raft.LastIndex() })
	eventually(t, "live appends to it", func() bool { return trs[0].Stats().LiveBytes > 1<<20 })
	close(stop)
	<-stopped
	if s := trs[0].Stats(); s.CatchUpBytes < 8<<20 {
		t.Errorf("%d bytes of catching up", s.CatchUpBytes)
	}
}
