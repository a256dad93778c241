package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// closedBy waits until the peer closes the connection.
func closedBy(t *testing.T, nc net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatal("the connection stays open")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Bytes that no peer sends end their connection, and nothing else.
func TestGarbageClosesTheConnection(t *testing.T) {
	f := newFleet(t)
	b := f.start("2", func(c *Config) { c.MaxFrameBytes = 1 << 20; c.DialTimeout = 200 * time.Millisecond })
	g := f.group(b, 1, GroupOptions{})
	g.SetHeartbeatHandler(func(rpc raft.RPC) { respond(rpc, success, nil) })
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	t.Run("instead of a handshake", func(t *testing.T) {
		for range 20 {
			nc := f.rawConn(t, "2")
			_, _ = nc.Write(randomBytes(rng, 500))
			closedBy(t, nc)
		}
	})
	sealed := func(h header, payload []byte) []byte { return flatten(bytesFrame(h, payload)) }
	oversize := make([]byte, headerSize)
	(&header{length: 1<<32 - 1, kind: kindAppend}).put(oversize)
	badSum := sealed(header{kind: kindAppend}, []byte("x"))
	badSum[headerSize] ^= 1
	// An intact heartbeat in the name of a broker other than the one of the handshake.
	e := &encoder{}
	e.voteRequest(&raft.RequestVoteRequest{RPCHeader: testHeader("3"), Term: 4})
	for name, c := range map[string]struct {
		p     purpose
		bytes []byte
	}{
		"noise":             {purposeData, bytes.Repeat([]byte{0xfe}, 4096)},
		"oversize":          {purposeData, oversize},
		"checksum":          {purposeData, badSum},
		"unknown kind":      {purposeData, sealed(header{kind: 200}, nil)},
		"wrong purpose":     {purposeControl, sealed(header{kind: kindAppend}, nil)},
		"reply unasked":     {purposeData, sealed(header{kind: kindAppendReply}, nil)},
		"empty append":      {purposeData, sealed(header{kind: kindAppend, group: 1}, nil)},
		"entries overflow":  {purposeData, sealed(header{kind: kindAppend, group: 1}, bytes.Repeat([]byte{0xff}, 60))},
		"heartbeat count":   {purposeControl, sealed(header{kind: kindHeartbeats}, []byte{255, 255, 255, 255})},
		"another's vote":    {purposeControl, sealed(header{kind: kindVote, group: 1}, e.b)},
		"vote with rest":    {purposeControl, sealed(header{kind: kindVote, group: 1}, append(bytes.Clone(e.b), 0))},
		"snapshot garbage":  {purposeSnapshot, sealed(header{kind: kindSnapshot, group: 1}, []byte("x"))},
		"no snapshot":       {purposeSnapshot, sealed(header{kind: kindCall}, nil)},
		"control too large": {purposeControl, sealed(header{kind: kindVote}, make([]byte, maxControlFrame+1))},
	} {
		t.Run(name, func(t *testing.T) {
			nc := f.rawDial(t, "2", hello{min: 1, max: 1, purpose: c.p, from: "1", to: "2"})
			_, _ = nc.Write(c.bytes)
			if c.p == purposeSnapshot {
				_ = nc.(*net.TCPConn).CloseWrite() // an answered snapshot waits for the sender to close
			}
			closedBy(t, nc)
		})
	}
	a := f.start("1")
	if err := f.group(a, 1, GroupOptions{}).AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err != nil {
		t.Errorf("a correct peer afterwards: %v", err)
	}
}

func TestHandshakeRefusals(t *testing.T) {
	f := newFleet(t)
	f.start("2", func(c *Config) { c.ClusterID = func() string { return "fleet-a" } })
	for name, c := range map[string]struct {
		h    hello
		text string
	}{
		"version":        {hello{min: 7, max: 9, purpose: purposeData, from: "1", to: "2"}, "speaks transport versions"},
		"cluster":        {hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "2", cluster: "fleet-b"}, "belongs to cluster fleet-a, not to cluster fleet-b"},
		"wrong broker":   {hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "3"}, "this is broker 2, not broker 3"},
		"same broker":    {hello{min: 1, max: 1, purpose: purposeData, from: "2", to: "2"}, `says that it is broker "2"`},
		"purpose":        {hello{min: 1, max: 1, purpose: 99, from: "1", to: "2"}, "does not know connections for"},
		"newer neighbor": {hello{min: 1, max: 4, purpose: purposeData, from: "1", to: "2", cluster: "fleet-a"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			nc := f.rawConn(t, "2")
			if _, err := nc.Write(c.h.encode()); err != nil {
				t.Fatal(err)
			}
			body, err := readGreeting(nc)
			if err != nil {
				t.Fatal(err)
			}
			w, err := decodeWelcome(body)
			if err != nil || w.refused != (c.text != "") || !strings.Contains(w.text, c.text) {
				t.Errorf("%+v, %v", w, err)
			}
			if !w.refused && w.version != maxVersion {
				t.Errorf("version %d chosen", w.version)
			}
		})
	}
}

func TestRefusedPeerIsUnreachable(t *testing.T) {
	f := newFleet(t)
	f.start("2", func(c *Config) { c.ClusterID = func() string { return "fleet-a" } })
	a := f.start("1", func(c *Config) { c.ClusterID = func() string { return "fleet-b" } })
	_, err := a.Call(testContext(t), "2", 1, nil)
	if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "belongs to cluster fleet-a") {
		t.Errorf("%v", err)
	}
}

// A broker that knows no cluster learns it, whichever side dials; afterwards it is checked.
func TestClusterIDIsLearned(t *testing.T) {
	f := newFleet(t)
	var mu sync.Mutex
	ids := map[string]string{"1": "fleet-a"}
	side := func(me string) func(*Config) {
		return func(c *Config) {
			c.ClusterID = func() string { mu.Lock(); defer mu.Unlock(); return ids[me] }
			c.Learned = func(id string) error { mu.Lock(); defer mu.Unlock(); ids[me] = id; return nil }
		}
	}
	a, b, c := f.start("1", side("1")), f.start("2", side("2")), f.start("3", side("3"))
	echo := func(_ context.Context, _ raft.ServerAddress, p []byte) ([]byte, error) { return p, nil }
	a.Handle(1, echo)
	b.Handle(1, echo)
	for _, call := range []struct {
		from *Transport
		to   raft.ServerAddress
	}{{a, "2"}, {c, "1"}} {
		if _, err := call.from.Call(testContext(t), call.to, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if ids["2"] != "fleet-a" || ids["3"] != "fleet-a" {
		t.Errorf("%v", ids)
	}
}

// A connection made while neither side knew its cluster is made anew once one does.
func TestEarlyConnectionIsCheckedLater(t *testing.T) {
	f := newFleet(t)
	var one, two atomic.Value
	one.Store("")
	two.Store("")
	a := f.start("1", func(c *Config) { c.ClusterID = func() string { return one.Load().(string) } })
	b := f.start("2", func(c *Config) { c.ClusterID = func() string { return two.Load().(string) } })
	b.Handle(1, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) { return nil, nil })
	if _, err := a.Call(testContext(t), "2", 1, nil); err != nil {
		t.Fatal(err)
	}
	two.Store("fleet-b")
	one.Store("fleet-a")
	eventually(t, "the refusal", func() bool {
		_, err := a.Call(testContext(t), "2", 1, nil)
		return errors.Is(err, ErrRefused)
	})
}

// knownOnce is the fleet's cluster ID, which is not known before it has begun.
func knownOnce(begun *atomic.Bool) func() string {
	return func() string {
		if begun.Load() {
			return "fleet-a"
		}
		return ""
	}
}

// Connections between brokers that are pledged to begin the same cluster stay when it has begun: nothing on them is lost.
func TestPledgedConnectionsStay(t *testing.T) {
	f := newFleet(t)
	var begun atomic.Bool
	side := func(c *Config) {
		c.ClusterID = knownOnce(&begun)
		c.Pledged = func() string { return "fleet-a" }
		c.PingEvery = 10 * time.Millisecond // a short time between sweeps
	}
	a, b := f.start("1", side), f.start("2", side)
	stays(t, a, b, &begun, 0)
}

// A connection from before the pledges is made anew, but not under a call that is in flight.
func TestEarlyConnectionEndsWhenIdle(t *testing.T) {
	f := newFleet(t)
	var begun atomic.Bool
	side := func(c *Config) {
		c.ClusterID = knownOnce(&begun)
		c.PingEvery, c.ControlTimeout = 10*time.Millisecond, time.Minute
	}
	a, b := f.start("1", side), f.start("2", side)
	stays(t, a, b, &begun, 1)
}

// stays makes a call that lasts until many sweeps have seen that the cluster has begun, which must succeed, and counts the connections that are lost by then and soon after.
func stays(t *testing.T, a, b *Transport, begun *atomic.Bool, want int32) {
	t.Helper()
	var lost atomic.Int32
	defer a.Watch(func(ev PeerEvent) {
		if !ev.Up && errors.Is(ev.Err, errGreetAgain) {
			lost.Add(1)
		}
	})()
	called, answer := make(chan struct{}, 1), make(chan struct{})
	b.Handle(1, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) {
		called <- struct{}{}
		<-answer
		return nil, nil
	})
	result := make(chan error, 1)
	go func() {
		_, err := a.Call(testContext(t), "2", 1, nil)
		result <- err
	}()
	<-called
	begun.Store(true)
	sweeps := a.sweeps.Load()
	eventually(t, "several sweeps", func() bool { return a.sweeps.Load() > sweeps+5 })
	if lost.Load() > 0 {
		t.Error("a connection ended under a call")
	}
	close(answer)
	if err := <-result; err != nil {
		t.Error(err)
	}
	sweeps = a.sweeps.Load()
	eventually(t, "several more sweeps", func() bool { return a.sweeps.Load() > sweeps+5 })
	if n := lost.Load(); n != want {
		t.Errorf("%d connections were lost, want %d", n, want)
	}
}

func TestCall(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1"), f.start("2", func(c *Config) { c.MaxFrameBytes = 1 << 20 })
	for _, tr := range []*Transport{a, b} {
		tr.Handle(1, func(_ context.Context, from raft.ServerAddress, p []byte) ([]byte, error) {
			return append([]byte(from+":"), p...), nil
		})
		tr.Handle(2, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) {
			return nil, &RemoteError{Code: 42, Text: "no such topic"}
		})
		tr.Handle(3, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) {
			return nil, errors.New("plain")
		})
		tr.Handle(5, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) {
			return make([]byte, 2<<20), nil
		})
	}
	ctx := testContext(t)
	for _, to := range []raft.ServerAddress{"1", "2"} { // here and there alike
		got, err := a.Call(ctx, to, 1, []byte("x"))
		if string(got) != "1:x" || err != nil {
			t.Errorf("%s: %q, %v", to, got, err)
		}
		var re *RemoteError
		if _, err := a.Call(ctx, to, 2, nil); !errors.As(err, &re) || *re != (RemoteError{42, "no such topic"}) {
			t.Errorf("%s: %v", to, err)
		}
		if _, err := a.Call(ctx, to, 3, nil); !errors.As(err, &re) || *re != (RemoteError{0, "plain"}) {
			t.Errorf("%s: %v", to, err)
		}
		if _, err := a.Call(ctx, to, 4, nil); !errors.Is(err, ErrNoHandler) {
			t.Errorf("%s: %v", to, err)
		}
	}
	if _, err := a.Call(ctx, "9", 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("unknown broker: %v", err)
	}
	if _, err := a.Call(ctx, "2", 5, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a result above the limit: %v", err)
	}
	if _, err := b.Call(ctx, "1", 1, make([]byte, 2<<20)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a payload above the limit: %v", err)
	}
}

// Calls run at once and out of order; their number is bounded; giving up reaches the handler.
func TestCallConcurrencyAndCancel(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1"), f.start("2", func(c *Config) { c.MaxCalls = 3 })
	entered := make(chan struct{}, 10)
	ended := make(chan error, 10)
	b.Handle(1, func(ctx context.Context, _ raft.ServerAddress, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, 10)
	for range 3 {
		go func() { _, err := a.Call(ctx, "2", 1, nil); results <- err }()
	}
	for range 3 {
		<-entered
	}
	if _, err := a.Call(testContext(t), "2", 1, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a call above MaxCalls: %v", err)
	}
	cancel()
	for range 3 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller: %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler: %v", err)
		}
	}
	short, cancelShort := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancelShort()
	eventually(t, "room for a call", func() bool {
		_, err := a.Call(short, "2", 1, nil)
		return errors.Is(err, context.DeadlineExceeded)
	})
	// A lost connection ends the handler, and the caller's wait with an unknown outcome.
	for len(entered) > 0 {
		<-entered
	}
	go func() { _, err := a.Call(testContext(t), "2", 1, nil); results <- err }()
	<-entered
	b.PeerDown("1")
	if err := <-results; !errors.Is(err, ErrConnLost) {
		t.Errorf("the caller after the loss: %v", err)
	}
}

func TestWatch(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1"), f.start("2")
	b.Handle(1, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) { return nil, nil })
	events := make(chan PeerEvent, 10)
	cancel := a.Watch(func(e PeerEvent) { events <- e })
	if _, err := a.Call(testContext(t), "2", 1, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-events; !e.Up || e.Peer != "2" || e.Inbound || e.Purpose != "call" {
		t.Errorf("%+v", e)
	}
	b.Close()
	if e := <-events; e.Up || e.Peer != "2" || e.Err == nil {
		t.Errorf("%+v", e)
	}
	cancel()
	a.PeerDown("2")
	if len(events) != 0 {
		t.Errorf("events after cancel")
	}
}

// A peer that is restarted on its address is found again; while it is away users fail at once instead of each dialling.
func TestRedial(t *testing.T) {
	f := newFleet(t)
	var dials atomic.Int64
	a := f.start("1", func(c *Config) {
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	b := f.start("2")
	echo := func(_ context.Context, _ raft.ServerAddress, p []byte) ([]byte, error) { return p, nil }
	b.Handle(1, echo)
	if _, err := a.Call(testContext(t), "2", 1, nil); err != nil {
		t.Fatal(err)
	}
	b.Close()
	eventually(t, "the loss", func() bool {
		_, err := a.Call(testContext(t), "2", 1, nil)
		return errors.Is(err, ErrUnreachable)
	})
	before := dials.Load()
	for range 1000 {
		_, _ = a.Call(testContext(t), "2", 1, nil)
	}
	if n := dials.Load() - before; n > 100 {
		t.Errorf("%d dials for 1000 calls to a broker that is away", n)
	}
	b = f.start("2")
	b.Handle(1, echo)
	eventually(t, "an answer", func() bool {
		_, err := a.Call(testContext(t), "2", 1, nil)
		return err == nil
	})
}

// A peer that accepts bytes and never answers is given up after ControlTimeout, all connections with it.
func TestSilentPeer(t *testing.T) {
	f := newFleet(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f.addrs["2"] = ln.Addr().String()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				if _, err := readGreeting(nc); err != nil {
					return
				}
				_, _ = nc.Write(welcome{version: 1}.encode())
				_, _ = io.Copy(io.Discard, nc)
			})
		}
	})
	a := f.start("1", func(c *Config) { c.ControlTimeout = 100 * time.Millisecond; c.AppendTimeout = time.Minute })
	g := f.group(a, 1, GroupOptions{})
	appended := make(chan error, 1)
	go func() { appended <- g.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}) }()
	eventually(t, "the data connection", func() bool { return a.Stats().FramesSent > 0 })
	if err := g.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err == nil {
		t.Error("a heartbeat succeeded")
	}
	// Its own time would be a minute.
	if err := <-appended; !errors.Is(err, ErrConnLost) {
		t.Errorf("append: %v", err)
	}
	a.Close()
}

// TestSilentWithoutControl: a peer has connected for data and falls silent before it has for control. It cannot be reached either, and is heard again in the end.
func TestSilentWithoutControl(t *testing.T) {
	f := newFleet(t)
	a := f.start("2", func(c *Config) { c.SilentAfter, c.DialTimeout = 100*time.Millisecond, 100*time.Millisecond })
	nc := f.rawDial(t, "2", hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "2"})
	eventually(t, "it is gone", func() bool { return a.Gone("1") })
	fr, err := encodeAppend(header{id: 1, group: 1}, entry(1, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(flatten(fr)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return !a.Gone("1") })
}

// TestSilentButThere: where the peer can be reached, its silence means nothing.
func TestSilentButThere(t *testing.T) {
	f := newFleet(t)
	a := f.start("1", func(c *Config) { c.SilentAfter = 20 * time.Millisecond })
	f.start("2")
	f.rawDial(t, "1", hello{min: 1, max: 1, purpose: purposeData, from: "2", to: "1"})
	eventually(t, "there is a connection for control", func() bool { return a.hasControl("2") })
	if a.Gone("2") {
		t.Error("it is gone")
	}
}

// A dial that was under way when its peer was reported down comes to nothing; the next works.
func TestPeerDownDropsDials(t *testing.T) {
	f := newFleet(t)
	entered, release := make(chan struct{}, 10), make(chan struct{})
	a := f.start("1", func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			entered <- struct{}{}
			<-release
			return dial(ctx, network, addr)
		}
	})
	b := f.start("2")
	b.Handle(1, func(context.Context, raft.ServerAddress, []byte) ([]byte, error) { return nil, nil })
	done := make(chan error, 1)
	go func() { _, err := a.Call(testContext(t), "2", 1, nil); done <- err }()
	<-entered
	a.PeerDown("2")
	close(release)
	// On a machine that is so busy that the back-off has passed, the caller has made another one.
	if err := <-done; !errors.Is(err, ErrUnreachable) && len(entered) == 0 {
		t.Errorf("%v", err)
	}
	eventually(t, "a call", func() bool { _, err := a.Call(testContext(t), "2", 1, nil); return err == nil })
}

func TestMaxConns(t *testing.T) {
	f := newFleet(t)
	f.start("2", func(c *Config) { c.MaxConns = 2 })
	for i := range 2 {
		f.rawDial(t, "2", hello{min: 1, max: 1, purpose: purpose(i + 1), from: "1", to: "2"})
	}
	closedBy(t, f.rawConn(t, "2"))
}

// A peer's new connection replaces its old one, which the peer has given up.
func TestReplacedConnection(t *testing.T) {
	f := newFleet(t)
	b := f.start("2")
	h := hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "2"}
	old := f.rawDial(t, "2", h)
	eventually(t, "the first is in its place", func() bool { return len(b.conns("1")) == 1 })
	f.rawDial(t, "2", h)
	closedBy(t, old)
}

func TestCloseIsFinal(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1"), f.start("2")
	g := f.group(a, 1, GroupOptions{})
	f.group(b, 1, GroupOptions{})
	if _, err := a.Group(1, GroupOptions{}); err == nil {
		t.Error("a second group under the same ID")
	}
	done := make(chan error, 1)
	go func() { done <- g.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}) }()
	eventually(t, "the request", func() bool { return b.Stats().QueuedBytes > 0 })
	within(t, 5*time.Second, "closing", func() { a.Close(); a.Close() })
	if err := <-done; err == nil {
		t.Error("a request outlived its transport")
	}
	if _, err := a.Call(testContext(t), "2", 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("call: %v", err)
	}
	if _, err := a.Group(3, GroupOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("group: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	resolve := func(raft.ServerAddress) (string, error) { return "", nil }
	for _, c := range []Config{{Listener: ln, Resolve: resolve}, {Local: "1", Resolve: resolve}, {Local: "1", Listener: ln}} {
		if _, err := New(c); err == nil {
			t.Errorf("accepted %+v", c)
		}
	}
}
