package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// GroupID names one Raft group on the wire. It is assigned by the cluster's metadata and never reused.
type GroupID uint64

// MetadataGroup is the group that holds the cluster's own state.
const MetadataGroup GroupID = 0

// Config configures a Transport. Zero values of limits and times mean the defaults named beside them.
type Config struct {
	// Local is this broker's ID as text: its address in Raft configurations and its name in handshakes.
	Local raft.ServerAddress
	// ClusterID returns the cluster this broker belongs to, "" while it does not know. Then a peer of any
	// cluster is accepted and its cluster ID is given to Learned. Nil means never known.
	ClusterID func() string
	// Learned is told the cluster ID of a peer while ClusterID is "". An error refuses the peer.
	Learned func(string) error
	// Pledged returns the ID of the cluster that this broker has promised to begin with others, "" if there is none. Connections between brokers with the same pledge stay when they
	// learn that it has begun. Nil means never.
	Pledged func() string

	// Listener accepts peers; the transport closes it. TLS: hand in a tls.Listener and a Dial to match.
	Listener net.Listener
	// Dial makes connections; nil means TCP with keep-alive.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Resolve gives the host:port of a broker. It is asked at every dial and must not block.
	Resolve func(raft.ServerAddress) (hostport string, err error)

	MaxAppendBytes   int   // entry bytes sent per AppendEntries frame (one entry may exceed it): 4 MiB
	MaxFrameBytes    int   // longest frame accepted, so also the longest entry and call: 64 MiB
	MaxQueuedBytes   int64 // received requests, of all groups, that raft has not answered yet: 256 MiB
	MaxSnapshotBytes int64 // longest snapshot accepted: 1 GiB
	MaxConns         int   // accepted connections at a time: 1024
	MaxCalls         int   // calls being handled at a time: 256

	// CatchUpBytesPerSecond bounds what is sent to followers that are far behind, over all groups and peers: 32 MiB; negative: no bound. It is
	// raised to twice the rate at which the groups led here grow when that is more; see catchup.go.
	CatchUpBytesPerSecond int64

	HeartbeatWindow time.Duration // heartbeats and their replies gather for this long: 40 ms
	ControlTimeout  time.Duration // votes, heartbeats, TimeoutNow: 2 s
	AppendTimeout   time.Duration // AppendEntries, from sending to the follower's fsynced answer: 10 s
	SnapshotTimeout time.Duration // longest pause within a snapshot, and for restoring it: 30 s
	DialTimeout     time.Duration // connect and handshake: 2 s
	WriteTimeout    time.Duration // one write into a connection: 10 s
	PingEvery       time.Duration // something is sent on a control connection at least this often: 200 ms
	SilentAfter     time.Duration // a peer whose control connection brings nothing for so long is gone: 1 s
	ClaimEvery      time.Duration // between two rounds of claims, which tell followers who leads them: 500 ms
	AwayMax         time.Duration // a heartbeat to a broker that is gone waits this long for it to come back: 20 s

	// Logger is for connections coming and going; nil means none.
	Logger hclog.Logger
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxAppendBytes, 4<<20)
	setDefault(&c.MaxFrameBytes, 64<<20)
	setDefault(&c.MaxQueuedBytes, 256<<20)
	setDefault(&c.MaxSnapshotBytes, 1<<30)
	setDefault(&c.MaxConns, 1024)
	setDefault(&c.MaxCalls, 256)
	if c.CatchUpBytesPerSecond == 0 {
		c.CatchUpBytesPerSecond = defaultCatchUpBytesPerSecond
	}
	setDefault(&c.HeartbeatWindow, 40*time.Millisecond)
	setDefault(&c.ControlTimeout, 2*time.Second)
	setDefault(&c.AppendTimeout, 10*time.Second)
	setDefault(&c.SnapshotTimeout, 30*time.Second)
	setDefault(&c.DialTimeout, 2*time.Second)
	setDefault(&c.WriteTimeout, 10*time.Second)
	setDefault(&c.PingEvery, 200*time.Millisecond)
	setDefault(&c.SilentAfter, time.Second)
	setDefault(&c.ClaimEvery, 500*time.Millisecond)
	setDefault(&c.AwayMax, 20*time.Second)
	if c.Dial == nil {
		d := &net.Dialer{KeepAliveConfig: keepAlive}
		c.Dial = d.DialContext
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
}

// keepAlive finds a dead peer on a connection that is idle by nature within about 20 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}

func (c *Config) validate() error {
	switch {
	case c.Local == "" || len(c.Local) > maxName:
		return errors.New("transport: Local must name this broker")
	case c.Listener == nil:
		return errors.New("transport: a Listener is needed")
	case c.Resolve == nil:
		return errors.New("transport: Resolve is needed")
	}
	return nil
}

// Stats counts what a transport did since it started. A batch of frames is one write.
type Stats struct {
	FramesSent, FramesReceived  uint64
	BytesSent, BytesReceived    uint64
	Writes                      uint64
	Heartbeats, HeartbeatFrames uint64 // sent: requests and replies
	Claims                      uint64 // sent
	Refused                     uint64 // requests refused because of a limit or an unknown group
	QueuedBytes                 int64  // requests waiting for raft now
	LiveBytes, CatchUpBytes     uint64 // of BytesSent: appends to followers that are near, and to those far behind
}

type counters struct {
	FramesSent, FramesReceived, BytesSent, BytesReceived atomic.Uint64
	Writes, Heartbeats, HeartbeatFrames, Claims, Refused atomic.Uint64
	LiveBytes, CatchUpBytes                              atomic.Uint64
}

// Transport carries all Raft groups and calls of one broker. It owns its goroutines (accepting, sweeping, and
// those of its connections) and waits for them in Close.
//
// Lock order: peer.mu, then mu; conn.mu and window.mu are innermost.
type Transport struct {
	cfg        Config
	log        hclog.Logger
	start      time.Time
	stats      counters
	queued     window        // received requests that raft has not answered
	slowLane   throttle      // of catch-up traffic
	catchUpSet atomic.Int64  // see SetCatchUpRate
	committed  atomic.Uint64 // bytes that the groups led here have committed, about
	slots      chan struct{}
	calls      chan struct{}

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.RWMutex
	closed   bool
	groups   map[GroupID]*Group
	handlers map[Method]Handler
	peers    map[raft.ServerAddress]*peer
	inbound  map[inboundKey]*conn
	raw      map[net.Conn]struct{} // every open connection, also before its handshake
	watchers map[int]func(PeerEvent)
	watchID  int

	evidenceMu   sync.Mutex // innermost; no callback is called with it held
	evidence     map[raft.ServerAddress]*evidence
	goneWatchers map[int]func(raft.ServerAddress, bool)
	goneID       int

	claimKick   chan struct{}
	claimLists  map[raft.ServerAddress]*claimList // this and the next three are only claimLoop's
	claimGroups []*Group
	claimNo     uint64
	claimedAt   time.Duration
	claimEnd    time.Duration // when the end of a leadership is due to be told; 0: none is
	awake       atomic.Int64  // a clock that goes on with rounds, and by little with late ones
	endedMu     sync.Mutex    // innermost
	ended       []endedFor    // leaderships of groups that were closed
	heardRounds map[raft.ServerAddress]uint64

	knownSince       time.Duration // when the cluster ID was first seen; only the sweeper's
	sweeps           atomic.Uint64
	swept, listening time.Duration // only the sweeper's; see listen
	rated            time.Duration // only the sweeper's; see adaptCatchUp
	ratedBytes       uint64
}

type inboundKey struct {
	peer    raft.ServerAddress
	purpose purpose
}

// New starts a transport on cfg.Listener.
func New(cfg Config) (*Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	t := &Transport{
		cfg: cfg, log: cfg.Logger, start: time.Now(),
		queued:   window{maxCount: 1 << 30, maxBytes: cfg.MaxQueuedBytes},
		slowLane: throttle{rate: cfg.CatchUpBytesPerSecond},
		slots:    make(chan struct{}, cfg.MaxConns),
		calls:    make(chan struct{}, cfg.MaxCalls),
		groups:   map[GroupID]*Group{},
		handlers: map[Method]Handler{},
		peers:    map[raft.ServerAddress]*peer{},
		inbound:  map[inboundKey]*conn{},
		raw:      map[net.Conn]struct{}{},
		watchers: map[int]func(PeerEvent){},
		evidence: map[raft.ServerAddress]*evidence{}, goneWatchers: map[int]func(raft.ServerAddress, bool){},
		claimKick: make(chan struct{}, 1), claimLists: map[raft.ServerAddress]*claimList{}, heardRounds: map[raft.ServerAddress]uint64{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.spawn(t.acceptLoop)
	t.spawn(t.sweepLoop)
	t.spawn(t.claimLoop)
	return t, nil
}

// now is the transport's monotonic clock.
func (t *Transport) now() time.Duration { return time.Since(t.start) }

// spawn runs f on a goroutine that Close waits for. It returns false, and runs nothing, after Close.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
	return true
}

// Close closes the listener, all connections and all groups, fails what is in flight with ErrClosed or ErrConnLost, and
// waits for the transport's goroutines, handlers of calls included.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.wg.Wait()
		return nil
	}
	t.closed = true
	groups := make([]*Group, 0, len(t.groups))
	for _, g := range t.groups {
		groups = append(groups, g)
	}
	t.mu.Unlock()

	t.cancel()
	err := t.cfg.Listener.Close()
	for _, c := range t.conns("") {
		c.fail(ErrClosed)
	}
	t.closeRaw()
	for _, g := range groups {
		_ = g.Close()
	}
	t.wg.Wait()
	return err
}

func (t *Transport) closeRaw() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for nc := range t.raw {
		nc.Close()
	}
}

// Local returns this broker's address in Raft configurations.
func (t *Transport) Local() raft.ServerAddress { return t.cfg.Local }

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	s := &t.stats
	t.queued.mu.Lock()
	queued := t.queued.bytes
	t.queued.mu.Unlock()
	return Stats{
		FramesSent: s.FramesSent.Load(), FramesReceived: s.FramesReceived.Load(),
		BytesSent: s.BytesSent.Load(), BytesReceived: s.BytesReceived.Load(), Writes: s.Writes.Load(),
		Heartbeats: s.Heartbeats.Load(), HeartbeatFrames: s.HeartbeatFrames.Load(),
		Claims: s.Claims.Load(), Refused: s.Refused.Load(), QueuedBytes: queued,
		LiveBytes: s.LiveBytes.Load(), CatchUpBytes: s.CatchUpBytes.Load(),
	}
}

// track remembers a connection so that Close ends it whatever state it is in.
func (t *Transport) track(nc net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.raw[nc] = struct{}{}
	return true
}

func (t *Transport) untrack(nc net.Conn) {
	nc.Close()
	t.mu.Lock()
	delete(t.raw, nc)
	t.mu.Unlock()
}

// sweepLoop looks for requests whose time is up. One coarse sweep is cheaper than a timer per heartbeat; times
// are exact to a sweep's interval.
func (t *Transport) sweepLoop() {
	tick := time.NewTicker(min(100*time.Millisecond, max(min(t.cfg.ControlTimeout/8, t.cfg.SilentAfter/8, t.cfg.PingEvery/2), time.Millisecond)))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.sweep()
			t.listen(t.now())
			t.adaptCatchUp(t.now())
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *Transport) sweep() {
	defer t.sweeps.Add(1)
	now, cluster := t.now(), t.clusterID()
	if cluster != "" && t.knownSince == 0 {
		t.knownSince = now
	}
	for _, c := range t.conns("") {
		switch {
		case !c.dialled:
		case c.expire(now):
			t.stalled(c.peer, now)
		case cluster != "" && c.cluster != cluster:
			t.greetAgain(c, now)
		}
	}
}

var errGreetAgain = errors.New("the cluster ID is known now")

// greetAgain ends a connection that was made before the cluster ID was known here, so that the next one's handshake checks it. What is in flight may end first, for a while:
// lost requests are waited for.
func (t *Transport) greetAgain(c *conn, now time.Duration) {
	if now-t.knownSince > t.cfg.ControlTimeout {
		c.fail(errGreetAgain)
		return
	}
	c.failIdle(errGreetAgain)
}

// stalled ends the connections to a peer whose control connection fell silent, sparing those on which something was
// heard lately. What is in flight on them need not wait for its own, longer, time.
func (t *Transport) stalled(peer raft.ServerAddress, now time.Duration) {
	for _, c := range t.conns(peer) {
		if c.dialled && now-time.Duration(c.lastRead.Load()) >= t.cfg.ControlTimeout {
			c.fail(fmt.Errorf("silent: %w", ErrTimeout))
		}
	}
}
