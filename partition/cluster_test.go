package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func TestMain(m *testing.M) {
	// hashicorp/raft v1.7.3 never resolves the future of a proposal that is in its queue when it shuts down, nor that of a bootstrap whose term could not be stored.
	// Whoever waits for the outcome is told by abandon, or by a context, but the goroutine that asked raft cannot be woken, nor who waits for it.
	const pkg = "github.com/flotilla-log/flotilla/partition."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(pkg+"(*sequencer).collect"), goleak.IgnoreAnyFunction(pkg+"(*sequencer).wait.func1"),
		goleak.IgnoreAnyFunction(pkg+"(*Replica).Bootstrap.func1"))
}

const patience = 30 * time.Second

// cluster is replicas of one group on brokers of their own, over real connections on loopback, with disks in memory that can crash.
type cluster struct {
	t      testing.TB
	change []func(*Config)
	nodes  []*node

	mu    sync.Mutex
	addrs map[raft.ServerAddress]string
	cut   map[raft.ServerAddress]bool
}

type node struct {
	c      *cluster
	server raft.Server
	tr     *transport.Transport
	mem    *vfs.Mem
	disk   *vfs.Faulty // over mem
	stable *raft.InmemStore
	words  *wordMachine
	rep    *Replica // nil: not running

	mu     sync.Mutex
	events []Event
}

// newCluster starts n replicas, all of them voters.
func newCluster(t testing.TB, n int, change ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, change: change, addrs: map[raft.ServerAddress]string{}, cut: map[raft.ServerAddress]bool{}}
	t.Cleanup(c.shutdown)
	var servers []raft.Server
	for range n {
		servers = append(servers, c.addNode(1).server)
	}
	for _, nd := range c.nodes {
		nd.start()
		if err := nd.rep.Bootstrap(context.Background(), servers); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// addNode adds a broker whose replica does not run yet.
func (c *cluster) addNode(incarnation int) *node {
	c.t.Helper()
	addr := raft.ServerAddress(fmt.Sprint(len(c.nodes) + 1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	tr, err := transport.New(transport.Config{
		Local: addr, Listener: ln, Logger: testLogger(), Resolve: func(to raft.ServerAddress) (string, error) { return c.resolve(addr, to) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.addrs[addr] = ln.Addr().String()
	c.mu.Unlock()
	nd := &node{c: c, tr: tr, server: raft.Server{Address: addr}}
	nd.wipe(incarnation)
	c.nodes = append(c.nodes, nd)
	return nd
}

// wipe gives the broker a new disk, and its replica a new ID.
func (n *node) wipe(incarnation int) {
	n.server.ID = raft.ServerID(fmt.Sprintf("%s-%d", n.server.Address, incarnation))
	n.mem = vfs.NewMem()
	n.disk = vfs.NewFaulty(n.mem)
	n.stable = raft.NewInmemStore()
}

func (c *cluster) resolve(from, to raft.ServerAddress) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut[from] || c.cut[to] {
		return "", fmt.Errorf("%s cannot reach %s", from, to)
	}
	return c.addrs[to], nil
}

func testLogger() hclog.Logger {
	if os.Getenv("PARTITION_TEST_LOG") == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug})
}

func (n *node) config() Config {
	cfg := Config{
		Name: "t/" + string(n.server.Address), Group: 7, Dir: "/log", FS: n.disk, LocalID: n.server.ID, Transport: n.tr, Stable: n.stable,
		Timing:   Timing{Heartbeat: time.Second, Election: time.Second, Commit: 25 * time.Millisecond, Retention: time.Hour},
		Settings: Settings{RetentionAge: -1}, // recordtest's records are years old
		Limits:   Limits{ReserveBytes: 1 << 20}, Logger: testLogger(),
		OnEvent: func(e Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, e)
		},
	}
	for _, change := range n.c.change {
		change(&cfg)
	}
	if cfg.Machine != nil {
		n.words = &wordMachine{}
		cfg.Machine = n.words
	}
	return cfg
}

func withMachine(c *Config) { c.Machine = &wordMachine{} }

// start opens the replica.
func (n *node) start() {
	n.c.t.Helper()
	rep, err := Open(n.config())
	if err != nil {
		n.c.t.Fatalf("open %s: %v", n.server.ID, err)
	}
	n.rep = rep
}

// stop closes it in order.
func (n *node) stop() {
	n.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.rep.Close(ctx); err != nil {
		n.c.t.Fatalf("close %s: %v", n.server.ID, err)
	}
	n.rep = nil
}

// crash cuts the power: what was not synced is gone, or some of it if rng is not nil.
func (n *node) crash(rng *rand.Rand) {
	n.mem.Crash(rng)
	n.discard()
}

// discard closes the replica like a process that dies.
func (n *node) discard() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.rep.Close(ctx)
	n.rep = nil
}

func (n *node) count(typ EventType) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.Type == typ {
			count++
		}
	}
	return count
}

func (c *cluster) shutdown() {
	for _, n := range c.nodes {
		if n.rep != nil {
			n.discard()
		}
	}
	for _, n := range c.nodes {
		n.tr.Close()
	}
}

// isolate cuts a broker off from all others.
func (c *cluster) isolate(n *node) {
	c.mu.Lock()
	c.cut[n.server.Address] = true
	c.mu.Unlock()
	for _, o := range c.nodes {
		if o != n {
			o.tr.PeerDown(n.server.Address)
			n.tr.PeerDown(o.server.Address)
		}
	}
}

func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.cut)
}

func (c *cluster) running() (up []*node) {
	for _, n := range c.nodes {
		if n.rep != nil {
			up = append(up, n)
		}
	}
	return up
}

// leader waits until one of the replicas (all that run, if none are given) leads and serves, and returns it.
func (c *cluster) leader(among ...*node) (leader *node) {
	c.t.Helper()
	if among == nil {
		among = c.running()
	}
	c.eventually("a leader that serves", func() bool {
		for _, n := range among {
			if n.rep != nil && n.rep.IsLeader() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

func (c *cluster) followers() (f []*node) {
	l := c.leader()
	for _, n := range c.running() {
		if n != l {
			f = append(f, n)
		}
	}
	return f
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			for _, n := range c.running() {
				c.t.Logf("%s: %+v", n.server.ID, n.rep.Status())
			}
			c.t.Fatalf("not within %s: %s", patience, what)
		}
		<-tick.C
	}
}

// waitReplicated waits until all running replicas have applied what the leader has.
func (c *cluster) waitReplicated() {
	c.t.Helper()
	c.eventually("all replicas have applied the same", func() bool {
		want := c.leader().rep.Status()
		for _, n := range c.running() {
			if s := n.rep.Status(); s.HighWatermark != want.HighWatermark || s.LogStart != want.LogStart || s.AppliedIndex != want.AppliedIndex {
				return false
			}
		}
		return true
	})
}

// ensureSame compares all that is retained, byte for byte.
func (c *cluster) ensureSame() {
	c.t.Helper()
	c.waitReplicated()
	want := c.leader()
	all := readAll(c.t, want.rep)
	for _, n := range c.running() {
		if got := readAll(c.t, n.rep); !bytes.Equal(got, all) {
			c.t.Errorf("%s holds %d bytes that differ from the leader's %d", n.server.ID, len(got), len(all))
		}
		if d, w := n.rep.Status().Digest, want.rep.Status().Digest; d != w {
			c.t.Errorf("%s has digest %x, the leader %x", n.server.ID, d, w)
		}
	}
}

func readAll(t testing.TB, r *Replica) (all []byte) {
	t.Helper()
	at, end := r.Bounds()
	for at < end {
		res, err := r.ReadLocal(at, 1<<20)
		if err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		for _, b := range res.Batches {
			all = append(all, b...)
		}
		at = res.Next
	}
	return all
}

// records decodes all that is retained.
func records(t testing.TB, r *Replica) (recs []record.Record) {
	t.Helper()
	start, _ := r.Bounds()
	for rest := readAll(t, r); len(rest) > 0; {
		var batch []byte
		var err error
		if batch, rest, err = record.Next(rest); err != nil {
			t.Fatal(err)
		}
		if _, err := record.Validate(batch); err != nil {
			t.Fatalf("stored batch: %v", err)
		}
		got, err := record.Decode(batch, recordtest.Limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got {
			if r.Offset >= start {
				recs = append(recs, r)
			}
		}
	}
	return recs
}

// mustAppend appends through the leader, whoever that is, until it works. Without a producer ID a batch may be stored twice by that.
func (c *cluster) mustAppend(batch []byte) AppendResult {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		res, err := c.leader().rep.Append(ctx, AppendRequest{Batch: bytes.Clone(batch)})
		if err == nil {
			return res
		}
		if !retriable(err) || ctx.Err() != nil {
			c.t.Fatalf("append: %v", err)
		}
	}
}

func retriable(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrClosed) || errors.Is(err, ErrFailed) || errors.Is(err, ErrStorageFull)
}

func (c *cluster) fill(batches, size int) {
	c.t.Helper()
	for range batches {
		c.mustAppend(recordtest.Batch(1, size))
	}
}
