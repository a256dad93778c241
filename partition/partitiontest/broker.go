package partitiontest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Broker is one broker of a cluster: a transport, a disk, and a replica of each group. Its disk, its votes and its server IDs
// outlive crashes and restarts. A test uses its verbs from one goroutine.
type Broker struct {
	Addr      raft.ServerAddress   // "1", "2", ...
	Disk      *vfs.Faulty          // what the replicas use: add rules to make it fail
	Mem       *vfs.Mem             // below Disk, unless Options.OnDisk
	Transport *transport.Transport // nil while the broker is down

	c        *Cluster
	listen   string
	dir      string // of the real disk
	votes    map[transport.GroupID]*raft.InmemStore
	store    *stable.Store // with Options.OnDisk
	replicas map[transport.GroupID]*partition.Replica
}

func newBroker(c *Cluster, i int) *Broker {
	b := &Broker{c: c, Addr: raft.ServerAddress(fmt.Sprint(i + 1)), listen: "127.0.0.1:0", votes: map[transport.GroupID]*raft.InmemStore{}}
	if c.opts.OnDisk {
		b.dir = filepath.Join(c.t.TempDir(), string(b.Addr))
		b.Disk = vfs.NewFaulty(vfs.OS())
		if err := b.Disk.MkdirAll(b.dir); err != nil {
			c.t.Fatal(err)
		}
	} else {
		b.dir = "/data"
		b.Mem = vfs.NewMem()
		b.Disk = vfs.NewFaulty(b.Mem)
	}
	return b
}

// Server is the broker's replica of any group, as Raft configurations name it.
func (b *Broker) Server() raft.Server {
	return raft.Server{ID: raft.ServerID(b.Addr + "-1"), Address: b.Addr}
}

// Replica returns the broker's replica of a group; the test fails when the broker is down.
func (b *Broker) Replica(group transport.GroupID) *partition.Replica {
	b.c.t.Helper()
	r := b.replicas[group]
	if r == nil {
		b.c.t.Fatalf("broker %s has no running replica of group %d", b.Addr, group)
	}
	return r
}

// Up tells whether the broker runs.
func (b *Broker) Up() bool { return b.Transport != nil }

func (b *Broker) start() {
	t := b.c.t
	t.Helper()
	ln, err := net.Listen("tcp", b.listen)
	if err != nil {
		t.Fatal(err)
	}
	b.listen = ln.Addr().String()
	b.c.Net.Place(b.Addr, b.listen)
	cfg := transport.Config{Local: b.Addr, Listener: ln, Dial: b.c.Net.Dial(b.Addr), Resolve: b.c.Net.Resolve,
		ControlTimeout: 400 * time.Millisecond, DialTimeout: 400 * time.Millisecond, Logger: b.c.opts.Logger}
	if b.c.opts.ConfigureTransport != nil {
		b.c.opts.ConfigureTransport(&cfg)
	}
	if b.Transport, err = transport.New(cfg); err != nil {
		t.Fatal(err)
	}
	if b.c.opts.OnDisk {
		if b.store, err = stable.Open(filepath.Join(b.dir, "stable.db")); err != nil {
			t.Fatal(err)
		}
	}
	b.replicas = map[transport.GroupID]*partition.Replica{}
	for _, g := range b.c.opts.Groups {
		b.open(g)
	}
}

func (b *Broker) open(g transport.GroupID) {
	b.c.t.Helper()
	cfg := partition.Config{
		Name: fmt.Sprintf("group-%d/%s", g, b.Addr), Group: g, Dir: fmt.Sprintf("%s/group-%d", b.dir, g), FS: b.Disk,
		LocalID: b.Server().ID, Transport: b.Transport, Stable: b.stableStore(g), Logger: b.c.opts.Logger,
		Timing: partition.Timing{Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, Commit: 50 * time.Millisecond},
		Limits: partition.Limits{ReserveBytes: 1 << 20},
		Settings: partition.Settings{
			RetentionAge: -1, // test records carry whatever time
		},
	}
	if b.c.opts.Configure != nil {
		b.c.opts.Configure(b, &cfg)
	}
	r, err := partition.Open(cfg)
	if err != nil {
		b.c.t.Fatalf("broker %s: %v", b.Addr, err)
	}
	b.replicas[g] = r
}

func (b *Broker) stableStore(g transport.GroupID) raft.StableStore {
	if b.store != nil {
		return b.store.Group(g)
	}
	if b.votes[g] == nil {
		b.votes[g] = raft.NewInmemStore()
	}
	return b.votes[g]
}

// Stop stops the broker in order.
func (b *Broker) Stop() {
	b.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for g, r := range b.replicas {
		if err := r.Close(ctx); err != nil {
			b.c.t.Errorf("broker %s: closing group %d: %v", b.Addr, g, err)
		}
	}
	b.end()
}

// Crash cuts the broker's power: everything that was not synced is gone or, with rng, gone in part. With Options.OnDisk it is only
// killed: the operating system keeps what was written.
func (b *Broker) Crash(rng *rand.Rand) {
	if !b.Up() {
		return
	}
	if b.Mem != nil {
		b.Mem.Crash(rng) // first: nothing that happens while goroutines end may reach the disk
	}
	b.crashed()
}

// crashed ends what a process that died would no longer do.
func (b *Broker) crashed() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, r := range b.replicas {
		_ = r.Close(ctx)
	}
	b.end()
}

// end closes what the replicas used.
func (b *Broker) end() {
	if b.Transport != nil {
		b.Transport.Close()
	}
	if b.store != nil {
		b.store.Close()
	}
	b.Transport, b.store, b.replicas = nil, nil, nil
}

// Restart starts a broker that was stopped or crashed, on the same address and disk.
func (b *Broker) Restart() {
	b.c.t.Helper()
	if b.Up() {
		b.c.t.Fatalf("broker %s is running", b.Addr)
	}
	b.start()
}
