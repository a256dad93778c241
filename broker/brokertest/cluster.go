// Package brokertest runs clusters of real brokers in one process on loopback, for tests: real sockets, real files in a temporary
// directory, short timings. Its verbs fail the test themselves; whatever takes time is polled for.
package brokertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
)

// Patience is how long the verbs wait for what they are about.
const Patience = time.Minute

// Options shape a cluster. The zero value is three brokers.
type Options struct {
	Brokers int // that begin the cluster; default 3
	// Tune changes a broker's configuration before it is made.
	Tune func(*broker.Config)
}

// Cluster is a number of brokers, with IDs from 1. Its methods belong to the test's goroutine, except those that say otherwise.
type Cluster struct {
	T    testing.TB
	opts Options
	dir  string
	log  hclog.Logger
	last atomic.Int32 // the broker that answered last

	mu    sync.Mutex
	nodes map[api.BrokerID]*Node
}

// Node is one broker of the cluster, running or not.
type Node struct {
	ID  api.BrokerID
	Dir string

	cfg   broker.Config
	b     *broker.Broker // nil while it is down
	conn  *grpc.ClientConn
	conns connSet
}

// Start runs a cluster and waits until all of its brokers are ready. It is stopped with the test.
func Start(t testing.TB, opts Options) *Cluster {
	t.Helper()
	if opts.Brokers == 0 {
		opts.Brokers = 3
	}
	c := &Cluster{T: t, opts: opts, dir: t.TempDir(), log: testLogger(), nodes: map[api.BrokerID]*Node{}}
	t.Cleanup(c.stopAll)
	for id := range opts.Brokers {
		c.launch(c.node(api.BrokerID(id+1), opts.Brokers))
	}
	for id := range opts.Brokers {
		c.AwaitReady(api.BrokerID(id + 1))
	}
	return c
}

// testLogger is silent unless FLOTILLA_TEST_LOG names a level.
func testLogger() hclog.Logger {
	level := hclog.LevelFromString(os.Getenv("FLOTILLA_TEST_LOG"))
	if level == hclog.NoLevel {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: "broker", Level: level, Output: os.Stderr, TimeFormat: "15:04:05.000"})
}

func (c *Cluster) node(id api.BrokerID, expect int) *Node {
	n := &Node{ID: id, Dir: filepath.Join(c.dir, strconv.Itoa(int(id)))}
	n.cfg = broker.DefaultConfig()
	n.cfg.ID, n.cfg.DataDir, n.cfg.BootstrapExpect, n.cfg.Version = id, n.Dir, expect, "test"
	n.cfg.GRPCAddr, n.cfg.PeerAddr, n.cfg.GossipAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	n.cfg.KafkaAddr = "127.0.0.1:0"
	n.cfg.OffsetsPartitions = 3
	n.cfg.DiskReserve = -1
	// Raft's timeouts are so long that nobody loses leadership because the machine is busy. Crashes, stops and silence are noticed without them.
	n.cfg.Timing = broker.Timing{
		Heartbeat: 4 * time.Second, MetadataHeartbeat: 4 * time.Second,
		ReconcileEvery: 100 * time.Millisecond, PreferredAfter: time.Second, CallTimeout: 2 * time.Second, FastGossip: true,
	}
	n.cfg.Logger = c.log.Named(strconv.Itoa(int(id)))
	if c.opts.Tune != nil {
		c.opts.Tune(&n.cfg)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = n
	return n
}

// gossipAddrs are those of all brokers that ever ran, but for one.
func (c *Cluster) gossipAddrs(but api.BrokerID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for id, n := range c.nodes {
		if id != but && n.cfg.GossipAddr != "127.0.0.1:0" {
			out = append(out, n.cfg.GossipAddr)
		}
	}
	return out
}

// launch starts a broker, on the ports it had before if it had any.
func (c *Cluster) launch(n *Node) {
	c.T.Helper()
	if err := c.tryLaunch(n); err != nil {
		c.T.Fatalf("broker %d: %v", n.ID, err)
	}
}

func (c *Cluster) tryLaunch(n *Node) error {
	cfg := n.cfg
	cfg.Join = c.gossipAddrs(n.ID)
	ln, err := net.Listen("tcp", cfg.PeerAddr)
	if err != nil {
		return err
	}
	cfg.Seams.PeerListener = &isolatedListener{Listener: ln, n: n}
	cfg.Seams.DialPeer = n.dial
	b, err := broker.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := b.Start(ctx); err != nil {
		return err
	}
	conn, err := grpc.NewClient(b.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Kill()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.cfg.GRPCAddr, n.cfg.PeerAddr, n.cfg.GossipAddr, n.cfg.KafkaAddr = b.GRPCAddr(), b.PeerAddr(), b.GossipAddr(), b.KafkaAddr()
	n.b, n.conn = b, conn
	return nil
}

// AwaitReady waits until a broker belongs to the cluster and serves.
func (c *Cluster) AwaitReady(id api.BrokerID) {
	c.T.Helper()
	select {
	case <-c.Broker(id).Ready():
	case err := <-c.Broker(id).Failed():
		c.T.Fatalf("broker %d failed: %v", id, err)
	case <-time.After(Patience):
		c.T.Fatalf("broker %d was not ready within %s", id, Patience)
	}
}

// Node returns a broker's node.
func (c *Cluster) Node(id api.BrokerID) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// Broker returns a broker that runs.
func (c *Cluster) Broker(id api.BrokerID) *broker.Broker {
	c.T.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[id]; n != nil && n.b != nil {
		return n.b
	}
	c.T.Fatalf("broker %d is not running", id)
	return nil
}

// Conn returns a gRPC connection to a broker; nil while it is down. Any goroutine may call it.
func (c *Cluster) Conn(id api.BrokerID) *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[id]; n != nil && n.b != nil {
		return n.conn
	}
	return nil
}

// Running lists the brokers that run. Any goroutine may call it.
func (c *Cluster) Running() []api.BrokerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.BrokerID
	for id := api.BrokerID(1); int(id) <= len(c.nodes)+16; id++ {
		if n := c.nodes[id]; n != nil && n.b != nil {
			out = append(out, id)
		}
	}
	return out
}

// Add starts another broker, which joins the cluster, and waits until it is ready.
func (c *Cluster) Add(id api.BrokerID, tune ...func(*broker.Config)) {
	c.T.Helper()
	n := c.node(id, 0)
	for _, f := range tune {
		f(&n.cfg)
	}
	c.launch(n)
	c.AwaitReady(id)
}

func (c *Cluster) take(id api.BrokerID) (*broker.Broker, *grpc.ClientConn) {
	c.T.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	if n == nil || n.b == nil {
		c.T.Fatalf("broker %d is not running", id)
	}
	b, conn := n.b, n.conn
	n.b, n.conn = nil, nil
	return b, conn
}

// Crash ends a broker without any goodbye.
func (c *Cluster) Crash(id api.BrokerID) {
	c.T.Helper()
	b, conn := c.take(id)
	b.Kill()
	_ = conn.Close()
}

// Stop ends a broker gracefully.
func (c *Cluster) Stop(id api.BrokerID) {
	c.T.Helper()
	b, conn := c.take(id)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		c.T.Fatalf("broker %d: stopping: %v", id, err)
	}
	_ = conn.Close()
}

// Restart starts a broker that was ended, on the files that it left, and waits until it is ready.
func (c *Cluster) Restart(id api.BrokerID) {
	c.T.Helper()
	c.launch(c.Node(id))
	c.AwaitReady(id)
}

// Launch starts a broker that was ended without waiting until it is ready, as when the cluster has no quorum yet.
func (c *Cluster) Launch(id api.BrokerID) {
	c.T.Helper()
	c.launch(c.Node(id))
}

func (c *Cluster) stopAll() {
	var wg sync.WaitGroup
	for _, id := range c.Running() {
		b, conn := c.take(id)
		wg.Go(func() {
			_ = conn.Close()
			b.Kill()
		})
	}
	wg.Wait()
}

// Isolate cuts a broker's connections with its peers, in both directions; clients and gossip still reach it.
func (c *Cluster) Isolate(id api.BrokerID) {
	c.Node(id).conns.cutAll()
}

// Heal ends what Isolate began.
func (c *Cluster) Heal(id api.BrokerID) { c.Node(id).conns.heal() }

var errIsolated = fmt.Errorf("isolated: %w", io.ErrClosedPipe)

func (n *Node) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return n.conns.add(conn)
}

// isolatedListener drops what comes while the broker is isolated.
type isolatedListener struct {
	net.Listener
	n *Node
}

func (l *isolatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if tracked, err := l.n.conns.add(conn); err == nil {
			return tracked, nil
		}
	}
}

// connSet closes all connections of a broker at once, and lets no new one through while it is cut.
type connSet struct {
	mu    sync.Mutex
	cut   bool
	conns map[*trackedConn]bool
}

type trackedConn struct {
	net.Conn
	set *connSet
}

func (s *connSet) add(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		_ = c.Close()
		return nil, errIsolated
	}
	if s.conns == nil {
		s.conns = map[*trackedConn]bool{}
	}
	t := &trackedConn{c, s}
	s.conns[t] = true
	return t, nil
}

func (t *trackedConn) Close() error {
	t.set.mu.Lock()
	delete(t.set.conns, t)
	t.set.mu.Unlock()
	return t.Conn.Close()
}

func (s *connSet) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = false
}

func (s *connSet) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	for t := range s.conns {
		_ = t.Conn.Close()
	}
	s.conns = nil
}

// Eventually polls until ok returns nil, and fails the test with its last error after Patience.
func (c *Cluster) Eventually(what string, ok func() error) {
	c.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.T.Fatalf("not within %s: %s: %v", Patience, what, err)
		}
	}
}
