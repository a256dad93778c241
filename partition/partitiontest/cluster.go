package partitiontest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
)

// patience is how long a verb waits before it fails the test.
const patience = 30 * time.Second

// Options describes a cluster. Zero values mean what is said beside them.
type Options struct {
	Brokers int                 // 3
	Groups  []transport.GroupID // {1}; each has a replica, a voter, on every broker
	Late    int                 // the last so many replicas of a group are not bootstrapped: they get what they have from a leader
	OnDisk  bool                // real files and a real stable store in the test's directory; then Crash is a kill
	// Configure changes a replica's configuration before each Open.
	Configure func(*Broker, *partition.Config)
	// ConfigureTransport changes a broker's transport before each start.
	ConfigureTransport func(*transport.Config)
	Logger             hclog.Logger // none
}

// Cluster is brokers with a network between them.
type Cluster struct {
	Net     *Network
	Brokers []*Broker

	t    testing.TB
	opts Options
}

// New starts a cluster and bootstraps its groups. It ends with the test.
func New(t testing.TB, opts Options) *Cluster {
	t.Helper()
	if opts.Brokers == 0 {
		opts.Brokers = 3
	}
	if opts.Groups == nil {
		opts.Groups = []transport.GroupID{1}
	}
	c := &Cluster{t: t, opts: opts, Net: NewNetwork()}
	t.Cleanup(c.close)
	for i := range opts.Brokers {
		c.Brokers = append(c.Brokers, newBroker(c, i))
	}
	for _, b := range c.Brokers {
		b.start()
	}
	for _, g := range opts.Groups {
		for _, b := range c.Brokers[:opts.Brokers-opts.Late] {
			if err := b.Replica(g).Bootstrap(context.Background(), c.servers()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func (c *Cluster) servers() (s []raft.Server) {
	for _, b := range c.Brokers {
		s = append(s, b.Server())
	}
	return s
}

func (c *Cluster) close() {
	c.Net.Heal()
	for _, b := range c.Brokers {
		b.Crash(nil)
	}
}

// Up lists the brokers that run.
func (c *Cluster) Up() (up []*Broker) {
	for _, b := range c.Brokers {
		if b.Up() {
			up = append(up, b)
		}
	}
	return up
}

// Others lists the running brokers without those given.
func (c *Cluster) Others(not ...*Broker) (rest []*Broker) {
	for _, b := range c.Up() {
		if !contains(not, b) {
			rest = append(rest, b)
		}
	}
	return rest
}

func contains(bs []*Broker, b *Broker) bool {
	for _, x := range bs {
		if x == b {
			return true
		}
	}
	return false
}

// Eventually polls until ok and fails the test if that takes too long.
func (c *Cluster) Eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			c.logStatus()
			c.t.Fatalf("not within %s: %s", patience, what)
		}
		<-tick.C
	}
}

func (c *Cluster) logStatus() {
	for _, b := range c.Up() {
		for g, r := range b.replicas {
			c.t.Logf("broker %s, group %d: %+v", b.Addr, g, r.Status())
		}
	}
}

// Leader waits until one of the given brokers (of all that run, if none are given) leads a group and serves, and returns it.
// While a network is cut an old leader may still believe that it leads: give the brokers of the other side.
func (c *Cluster) Leader(group transport.GroupID, among ...*Broker) (leader *Broker) {
	c.t.Helper()
	if among == nil {
		among = c.Up()
	}
	c.Eventually("a leader that serves", func() bool {
		for _, b := range among {
			if b.Up() && b.Replica(group).IsLeader() {
				leader = b
				return true
			}
		}
		return false
	})
	return leader
}

// Isolate drops everything from and to a broker, silently.
func (c *Cluster) Isolate(b *Broker) {
	for _, o := range c.Brokers {
		if o != b {
			c.Net.Cut(b.Addr, o.Addr)
			c.Net.Cut(o.Addr, b.Addr)
		}
	}
}

// Deafen drops everything sent to a broker, which can still send.
func (c *Cluster) Deafen(b *Broker) {
	for _, o := range c.Brokers {
		if o != b {
			c.Net.Cut(o.Addr, b.Addr)
		}
	}
}

// Mute drops everything that a broker sends, which can still hear.
func (c *Cluster) Mute(b *Broker) {
	for _, o := range c.Brokers {
		if o != b {
			c.Net.Cut(b.Addr, o.Addr)
		}
	}
}

// Heal mends the whole network.
func (c *Cluster) Heal() { c.Net.Heal() }

// CrashAll cuts the power of all brokers at once.
func (c *Cluster) CrashAll(rng *rand.Rand) {
	for _, b := range c.Up() {
		if b.Mem != nil {
			b.Mem.Crash(rng)
		}
	}
	for _, b := range c.Up() {
		b.crashed()
	}
}

// RestartAll starts the brokers that are down.
func (c *Cluster) RestartAll() {
	c.t.Helper()
	for _, b := range c.Brokers {
		if !b.Up() {
			b.Restart()
		}
	}
}

// WaitReplicated waits until all running replicas of a group have applied what its leader has.
func (c *Cluster) WaitReplicated(group transport.GroupID) {
	c.t.Helper()
	c.Eventually("all replicas have applied the same", func() bool {
		want := c.Leader(group).Replica(group).Status()
		for _, b := range c.Up() {
			s := b.Replica(group).Status()
			if s.HighWatermark != want.HighWatermark || s.LogStart != want.LogStart || s.AppliedIndex != want.AppliedIndex || s.Term != want.Term {
				return false
			}
		}
		return true
	})
}

// EnsureSame waits for WaitReplicated, then compares what the running replicas of a group hold: digest and all retained bytes.
func (c *Cluster) EnsureSame(group transport.GroupID) {
	c.t.Helper()
	c.WaitReplicated(group)
	leader := c.Leader(group)
	want, digest := c.retained(leader, group), leader.Replica(group).Status().Digest
	for _, b := range c.Up() {
		if got := b.Replica(group).Status().Digest; got != digest {
			c.t.Errorf("group %d: broker %s has digest %x, the leader on broker %s %x", group, b.Addr, got, leader.Addr, digest)
		}
		if got := c.retained(b, group); !bytes.Equal(got, want) {
			c.t.Errorf("group %d: broker %s retains %d bytes that differ from the %d of the leader on broker %s", group, b.Addr, len(got), len(want), leader.Addr)
		}
	}
}

// Records decodes everything that a broker's replica of a group retains.
func (c *Cluster) Records(b *Broker, group transport.GroupID) []record.Record {
	c.t.Helper()
	var all []record.Record
	for rest := c.retained(b, group); len(rest) > 0; {
		var batch []byte
		var err error
		if batch, rest, err = record.Next(rest); err != nil {
			c.t.Fatal(err)
		}
		records, err := record.Decode(batch, 64<<20)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, records...)
	}
	return all
}

func (c *Cluster) retained(b *Broker, group transport.GroupID) (all []byte) {
	c.t.Helper()
	r := b.Replica(group)
	for at, end := r.Bounds(); at < end; {
		res, err := r.ReadLocal(at, 1<<20)
		if err != nil {
			c.t.Fatalf("broker %s, group %d: read at %d: %v", b.Addr, group, at, err)
		}
		for _, batch := range res.Batches {
			all = append(all, batch...)
		}
		at = res.Next
	}
	return all
}
