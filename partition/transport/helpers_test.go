package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// fleet is a set of transports on loopback that resolve one another.
type fleet struct {
	t     testing.TB
	mu    sync.Mutex
	addrs map[raft.ServerAddress]string
	cut   map[raft.ServerAddress]bool // brokers that nobody reaches and that reach nobody
	conns map[net.Conn][2]raft.ServerAddress
}

func newFleet(t testing.TB) *fleet {
	return &fleet{t: t, addrs: map[raft.ServerAddress]string{}, cut: map[raft.ServerAddress]bool{}, conns: map[net.Conn][2]raft.ServerAddress{}}
}

func (f *fleet) resolve(a raft.ServerAddress) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if addr := f.addrs[a]; addr != "" {
		return addr, nil
	}
	return "", fmt.Errorf("no address for broker %s", a)
}

// setCut cuts a broker off, or not any more. The lock sees to it that no dial under way slips through.
func (f *fleet) setCut(a raft.ServerAddress, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[a] = cut
	for nc, ends := range f.conns {
		if cut && (ends[0] == a || ends[1] == a) {
			nc.Close()
			delete(f.conns, nc)
		}
	}
}

func (f *fleet) dial(from raft.ServerAddress) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for to, a := range f.addrs {
			if a != addr {
				continue
			}
			if f.cut[from] || f.cut[to] {
				nc.Close()
				return nil, fmt.Errorf("broker %s cannot reach broker %s", from, to)
			}
			f.conns[nc] = [2]raft.ServerAddress{from, to}
		}
		return nc, nil
	}
}

// start starts a transport, closed with the test.
func (f *fleet) start(id raft.ServerAddress, change ...func(*Config)) *Transport {
	f.t.Helper()
	f.mu.Lock()
	addr := f.addrs[id]
	f.mu.Unlock()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := Config{Local: id, Listener: ln, Logger: quietLogger(), Resolve: f.resolve, Dial: f.dial(id)}
	for _, c := range change {
		c(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.addrs[id] = ln.Addr().String()
	f.mu.Unlock()
	f.t.Cleanup(func() { tr.Close() })
	return tr
}

func (f *fleet) group(tr *Transport, id GroupID, opts GroupOptions) *Group {
	f.t.Helper()
	g, err := tr.Group(id, opts)
	if err != nil {
		f.t.Fatal(err)
	}
	return g
}

func quietLogger() hclog.Logger {
	if os.Getenv("TRANSPORT_TEST_LOG") != "" {
		return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug})
	}
	return hclog.NewNullLogger()
}

// patience is what a busy machine may need for anything.
const patience = time.Minute

// eventually polls until ok or the test's patience ends.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		<-tick.C
	}
}

// within runs f and fails the test when it takes too long.
func within(t testing.TB, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s took longer than %s", what, d)
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// recordFSM remembers the commands it applied.
type recordFSM struct {
	mu   sync.Mutex
	cmds [][]byte
}

func (f *recordFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cmds = append(f.cmds, l.Data)
	return len(f.cmds)
}

func (f *recordFSM) applied() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]byte(nil), f.cmds...)
}

type recordSnapshot struct{ data []byte }

func (f *recordFSM) Snapshot() (raft.FSMSnapshot, error) {
	var b []byte
	for _, c := range f.applied() {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(c)))
		b = append(b, c...)
	}
	return &recordSnapshot{b}, nil
}

func (s *recordSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s.data); err != nil {
		return err
	}
	return sink.Close()
}
func (s *recordSnapshot) Release() {}

func (f *recordFSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cmds = nil
	for len(b) > 0 {
		n := binary.LittleEndian.Uint32(b)
		f.cmds = append(f.cmds, b[4:4+n])
		b = b[4+n:]
	}
	return nil
}

// member is one replica of a test group.
type member struct {
	tr    *Transport
	group *Group
	raft  *raft.Raft
	fsm   *recordFSM
	store *raft.InmemStore
	snaps raft.SnapshotStore
}

// raftConfig has timeouts that nobody waits for, so that no leader is lost because the machine is busy; leaderOf makes one.
func raftConfig(id string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 10*time.Minute, 10*time.Minute, 10*time.Minute
	c.CommitTimeout = 20 * time.Millisecond
	c.Logger = quietLogger()
	c.NoLegacyTelemetry = true
	return c
}

// join starts a replica of a group on a transport; servers bootstraps it when given.
func (f *fleet) join(tr *Transport, id GroupID, opts GroupOptions, servers []raft.Server, change ...func(*raft.Config)) *member {
	f.t.Helper()
	m := &member{tr: tr, group: f.group(tr, id, opts), fsm: &recordFSM{}, store: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
	cfg := raftConfig(string(tr.Local()))
	for _, c := range change {
		c(cfg)
	}
	if servers != nil {
		if err := raft.BootstrapCluster(cfg, m.store, m.store, m.snaps, m.group, raft.Configuration{Servers: servers}); err != nil {
			f.t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(cfg, m.fsm, m.store, m.store, m.snaps, m.group)
	if err != nil {
		f.t.Fatal(err)
	}
	m.raft = r
	f.t.Cleanup(func() { m.stop(f.t) })
	return m
}

func (m *member) stop(t testing.TB) {
	future := m.raft.Shutdown()
	m.group.Close()
	if err := future.Error(); err != nil {
		t.Error(err)
	}
}

func servers(ids ...raft.ServerAddress) []raft.Server {
	var out []raft.Server
	for _, id := range ids {
		out = append(out, raft.Server{ID: raft.ServerID(id), Address: id})
	}
	return out
}

// leaderOf waits for a leader; where there is none, the members are told to stand, in turn from the first. Who lacks an entry that another has is not elected, and would stand
// until a timeout that nobody waits for: the next one is told soon.
func leaderOf(t testing.TB, ms ...*member) *member {
	t.Helper()
	var leader *member
	turn, told := 0, time.Now()
	eventually(t, "a leader", func() bool {
		candidate := false
		for _, m := range ms {
			candidate = candidate || m.raft.State() == raft.Candidate
			if m.raft.State() == raft.Leader && m.raft.VerifyLeader().Error() == nil {
				leader = m
				return true
			}
		}
		if !candidate || time.Since(told) > time.Second {
			told = time.Now()
			to, from := ms[turn%len(ms)], ms[(turn+1)%len(ms)]
			turn++
			_ = from.group.TimeoutNow(raft.ServerID(to.tr.Local()), to.tr.Local(), &raft.TimeoutNowRequest{RPCHeader: testHeader(string(from.tr.Local()))}, &raft.TimeoutNowResponse{})
		}
		return false
	})
	return leader
}

func sameCommands(t testing.TB, want int, ms ...*member) {
	t.Helper()
	for _, m := range ms {
		eventually(t, fmt.Sprintf("%d commands on broker %s", want, m.tr.Local()), func() bool { return len(m.fsm.applied()) == want })
	}
	first := ms[0].fsm.applied()
	for _, m := range ms[1:] {
		for i, c := range m.fsm.applied() {
			if !bytes.Equal(c, first[i]) {
				t.Fatalf("broker %s: command %d differs", m.tr.Local(), i)
			}
		}
	}
}
