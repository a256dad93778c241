package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/client"
)

// Cluster is a number of simulated machines with a broker each, with IDs from 1.
type Cluster struct {
	Net   *Network
	Nodes []*Node
	Log   hclog.Logger
	Tune  func(*broker.Config)
	// Late is told of a broker that took longer than StartWithin to start, or too long to end; nil: nobody is.
	Late        func(format string, args ...any)
	StartWithin time.Duration

	founders int
	endings  sync.WaitGroup // of brokers that were killed
}

// Members are the machines that are, or were, part of the cluster.
func (c *Cluster) Members() []*Node {
	var out []*Node
	for _, n := range c.Nodes {
		if n.used.Load() {
			out = append(out, n)
		}
	}
	return out
}

// Node is one machine.
type Node struct {
	c    *Cluster
	ID   api.BrokerID
	IP   string
	skew atomic.Int64 // its wall clock is so much ahead, in ns
	used atomic.Bool  // it has been part of the cluster

	// turn is held by who makes a broker ready to start, stops or kills it; not while it starts, which a kill may interrupt.
	turn chan struct{}

	mu   sync.Mutex
	disk *Disk
	life *life
	b    *broker.Broker // nil while it is down
	ends *broker.Broker // is being stopped in order
}

// NewCluster makes machines without starting anything. The first founders of them begin the cluster.
func NewCluster(rng *rand.Rand, founders, nodes int, log hclog.Logger) *Cluster {
	c := &Cluster{Net: NewNetwork(fork(rng)), Log: log, founders: founders}
	for i := range nodes {
		c.Nodes = append(c.Nodes, &Node{c: c, ID: api.BrokerID(i + 1), IP: fmt.Sprintf("10.0.0.%d", i+1), disk: NewDisk(fork(rng)), turn: make(chan struct{}, 1)})
	}
	return c
}

// fork makes a generator of its own out of another, so that what one consumer of randomness does does not change what others get.
func fork(rng *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64())) }

func (n *Node) addr(port int) string { return net.JoinHostPort(n.IP, fmt.Sprint(port)) }

// now is the machine's wall clock.
func (n *Node) now() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// Up is the broker that runs there and has started; nil while none has. Others cannot be asked for anything yet.
func (n *Node) Up() *broker.Broker {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life == nil {
		return nil
	}
	select {
	case <-n.life.begun:
		if n.life.started {
			return n.b
		}
	default:
	}
	return nil
}

// Broker is the broker that runs there, or starts; nil while none does.
func (n *Node) Broker() *broker.Broker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b
}

// Disk is the machine's present disk.
func (n *Node) Disk() *Disk {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.disk
}

func (n *Node) config(l *life) (broker.Config, error) {
	cfg := broker.DefaultConfig()
	cfg.ID, cfg.DataDir, cfg.Version, cfg.KafkaAddr = n.ID, dataDir, "sim", ""
	if int(n.ID) <= n.c.founders {
		cfg.BootstrapExpect = n.c.founders
	}
	cfg.GRPCAddr, cfg.PeerAddr, cfg.GossipAddr = n.addr(7070), n.addr(7071), n.addr(7072)
	for _, o := range n.c.Nodes {
		if o != n {
			cfg.Join = append(cfg.Join, o.addr(7072))
		}
	}
	cfg.OffsetsPartitions = 2
	cfg.DiskReserve = 1 << 20
	cfg.Timing = broker.Timing{PreferredAfter: 2 * time.Second, FastGossip: true}
	cfg.Scrub.Every = scrubEvery
	cfg.Logger = n.c.Log.Named(fmt.Sprint("broker", n.ID))
	grpcLn, err := n.c.Net.Listen(cfg.GRPCAddr)
	if err != nil {
		return cfg, err
	}
	peerLn, err := n.c.Net.Listen(cfg.PeerAddr)
	if err != nil {
		return cfg, errors.Join(err, grpcLn.Close())
	}
	port, err := n.c.Net.Gossip(cfg.GossipAddr)
	if err != nil {
		return cfg, errors.Join(err, grpcLn.Close(), peerLn.Close())
	}
	cfg.Seams = broker.Seams{
		GRPCListener: grpcLn, PeerListener: peerLn, Gossip: port, Now: n.now,
		DialPeer: func(ctx context.Context, _, addr string) (net.Conn, error) { return n.c.Net.Dial(ctx, n.IP, addr) },
		FS:       &lifeFS{FS: l.faults, l: l}, PartitionFS: &lifeFS{FS: l.faults, l: l, slow: true},
		StableBackend: stableLife{l}, MetadataStores: &metadata.Stores{Log: metadataLog{l}, Snapshots: metadataSnapshots{l}},
	}
	if n.c.Tune != nil {
		n.c.Tune(&cfg)
	}
	return cfg, nil
}

// take waits for the turn, and returns what gives it back.
func (n *Node) take() (release func()) {
	n.turn <- struct{}{}
	return func() { <-n.turn }
}

// errKilled says that a broker's life ended while it started.
var errKilled = errors.New("killed while it started")

// Start starts the broker on its machine. It does not wait until it is ready. The broker may be killed meanwhile.
func (n *Node) Start() error {
	b, l, err := n.prepare()
	if b == nil || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	n.c.endings.Go(func() {
		began := time.Now()
		err := b.Start(ctx)
		if !l.ended.Load() {
			n.late("start", began, n.c.StartWithin)
		}
		l.started = err == nil
		close(l.begun)
		done <- err
	})
	select {
	case err := <-done:
		if err != nil && n.unset(b) {
			n.end(l, false)
		}
		return err
	case <-l.dead:
		return errKilled
	}
}

// prepare makes a broker that has not started yet; nil if there is one already.
func (n *Node) prepare() (*broker.Broker, *life, error) {
	defer n.take()()
	if n.Broker() != nil {
		return nil, nil, nil
	}
	n.used.Store(true)
	n.c.Net.PowerOn(n.IP)
	l := &life{Disk: n.Disk(), begun: make(chan struct{}), dead: make(chan struct{})}
	if err := n.markStable(); err != nil {
		return nil, nil, err
	}
	cfg, err := n.config(l)
	if err != nil {
		return nil, nil, err
	}
	b, err := broker.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	n.set(b, l)
	return b, l, nil
}

// runsOn says that the broker has started, on this disk.
func (n *Node) runsOn(d *Disk) bool {
	n.mu.Lock()
	l := n.life
	n.mu.Unlock()
	if l == nil || l.Disk != d {
		return false
	}
	select {
	case <-l.begun:
		return l.started
	case <-l.dead:
		return false
	}
}

// set and unset change which broker runs here. A broker that starts counts: it can be killed. unset is false if somebody else did so before.
func (n *Node) set(b *broker.Broker, l *life) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.b, n.life = b, l
}

func (n *Node) unset(b *broker.Broker) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.b != b {
		return false
	}
	n.b, n.life = nil, nil
	return true
}

// markStable puts an empty stable.db where the broker looks whether its votes are lost.
func (n *Node) markStable() error {
	n.disk.mu.Lock()
	empty := len(n.disk.stable) == 0
	n.disk.mu.Unlock()
	if empty {
		return nil
	}
	f, err := n.disk.mem.Create(dataDir + "/stable.db")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), n.disk.mem.SyncDir(dataDir))
}

func (n *Node) end(l *life, power bool) {
	l.ended.Store(true)
	n.c.Net.Crash(n.IP, power)
	l.crash(power)
	close(l.dead)
}

// ending says that a broker is being stopped in order, from the second call for it on.
func (n *Node) ending(b *broker.Broker) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.ends == b
	n.ends = b
	return was
}

// late tells of what took longer than it may, in virtual time: a busy machine does not matter.
func (n *Node) late(what string, began time.Time, within time.Duration) {
	if took := time.Since(began); took > within && n.c.Late != nil {
		n.c.Late("broker %d took %s to %s", n.ID, took.Round(time.Millisecond), what)
	}
}

// Kill ends the broker, one that starts too: with its machine's power, so that all that was not synced is lost and nobody hears of it, or as a process alone.
func (n *Node) Kill(power bool) {
	defer n.take()()
	n.mu.Lock()
	b, l := n.b, n.life
	n.mu.Unlock()
	if b != nil && n.unset(b) {
		n.end(l, power)
		if !n.ending(b) { // else Stop waits for its end
			n.c.endings.Go(func() {
				if <-l.begun; l.started {
					began := time.Now()
					b.Kill()
					n.late("end when it was killed", began, endWithin)
				}
			})
		}
	}
}

// Stop ends the broker in order. It may be killed meanwhile.
func (n *Node) Stop(within time.Duration) error {
	n.mu.Lock()
	b, l := n.b, n.life
	n.mu.Unlock()
	if b == nil {
		return nil
	}
	select {
	case <-l.begun:
	case <-l.dead:
	}
	if n.Broker() != b || n.ending(b) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	began := time.Now()
	err := b.Shutdown(ctx)
	n.late("stop", began, within+endWithin)
	defer n.take()()
	if n.unset(b) {
		n.end(l, false)
	}
	return err
}

// Wipe gives a machine whose broker is down an empty disk. It is false, and nothing happens, if the broker is up.
func (n *Node) Wipe(rng *rand.Rand) bool {
	defer n.take()()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.b != nil {
		return false
	}
	n.disk = NewDisk(fork(rng))
	return true
}

// Await waits until a broker is ready.
func (n *Node) Await(within time.Duration) error {
	b := n.Broker()
	if b == nil {
		return fmt.Errorf("broker %d is down", n.ID)
	}
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-b.Ready():
		return nil
	case err := <-b.Failed():
		return fmt.Errorf("broker %d: %w", n.ID, err)
	case <-t.C:
		return fmt.Errorf("broker %d was not ready within %s", n.ID, within)
	}
}

// Client returns a client that connects from a host of its own and knows the given brokers, or all.
func (c *Cluster) Client(ip string, only ...*Node) (*client.Client, error) {
	if only == nil {
		only = c.Nodes
	}
	var seeds []string
	for _, n := range only {
		seeds = append(seeds, n.addr(7070))
	}
	dial := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return c.Net.Dial(ctx, ip, strings.TrimPrefix(addr, "passthrough:///"))
	})
	return client.New(seeds, client.WithDialOptions(dial, grpc.WithNoProxy()), client.WithRequestTimeout(10*time.Second), client.WithMetadataMaxAge(5*time.Second))
}
