package raftlog

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// counterFSM accepts batches as a partition does, and remembers where it is.
type counterFSM struct {
	mu    sync.Mutex
	index Index
	term  uint64
	next  record.Offset
}

func (f *counterFSM) Apply(e *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index, f.term = Index(e.Index), e.Term
	f.next, _ = Accept(e, f.next)
	return f.next
}

func (f *counterFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots") }

func (f *counterFSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	c, err := ReadCheckpoint(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index, f.term, f.next = c.Index, c.Term, c.NextOffset
	return nil
}

func (f *counterFSM) state() (Index, uint64, record.Offset) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index, f.term, f.next
}

// raftNode is hashicorp/raft over a Log in memory.
type raftNode struct {
	id     raft.ServerID
	mem    *vfs.Mem
	stable *raft.InmemStore
	trans  *raft.InmemTransport
	fsm    *counterFSM
	log    *Log
	raft   *raft.Raft
}

func newRaftNode(t *testing.T, id string) *raftNode {
	n := &raftNode{id: raft.ServerID(id), mem: newMem(t), stable: raft.NewInmemStore()}
	n.start(t)
	return n
}

func (n *raftNode) start(t *testing.T) {
	t.Helper()
	_, n.trans = raft.NewInmemTransportWithTimeout(raft.ServerAddress(n.id), time.Second)
	n.fsm = &counterFSM{}
	opts := testOptions(n.mem)
	opts.TailCacheBytes = 4096
	n.log = mustOpen(t, opts)
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = n.id, hclog.NewNullLogger()
	// Nobody loses leadership because the machine is busy; whoever shall lead is told to stand.
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout, conf.CommitTimeout = time.Minute, time.Minute, time.Minute, 10*time.Millisecond
	conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = 1<<62, 1000*time.Hour, 1<<62
	conf.NoLegacyTelemetry = true
	var err error
	if n.raft, err = raft.NewRaft(conf, n.fsm, n.log, n.stable, n.log.Snapshots(), n.trans); err != nil {
		t.Fatal(err)
	}
	n.log.ServeFollowers()
	n.log.FailFast(true)
}

func (n *raftNode) stop(t *testing.T) {
	t.Helper()
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(n.trans.Close(), n.log.Close()); err != nil {
		t.Error(err)
	}
}

func connect(nodes ...*raftNode) {
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.trans.Connect(b.trans.LocalAddr(), b.trans)
			}
		}
	}
}

// patience is what a busy machine may need for anything.
const patience = time.Minute

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, patience)
		case <-tick.C:
		}
	}
}

// leader waits for one; where there is none, the nodes are told to stand, in turn from the first, which has the configuration.
func leader(t *testing.T, nodes ...*raftNode) *raftNode {
	t.Helper()
	var found *raftNode
	turn := 0
	eventually(t, "a leader", func() bool {
		candidate := false
		for _, n := range nodes {
			candidate = candidate || n.raft.State() == raft.Candidate
			if n.raft.State() == raft.Leader && n.raft.VerifyLeader().Error() == nil {
				found = n
				return true
			}
		}
		if !candidate {
			to, from := nodes[turn%len(nodes)], nodes[(turn+1)%len(nodes)]
			turn++
			_ = from.trans.TimeoutNow(to.id, to.trans.LocalAddr(), &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, &raft.TimeoutNowResponse{})
		}
		return false
	})
	return found
}

func (n *raftNode) produce(t *testing.T, count int) {
	t.Helper()
	if err := n.raft.Barrier(patience).Error(); err != nil {
		t.Fatal(err)
	}
	for range count {
		_, _, next := n.fsm.state()
		b := batch(t, next, 2, 600, 5)
		record.Stamp(b, next, int32(n.raft.CurrentTerm()))
		f := n.raft.Apply(b, patience)
		if err := f.Error(); err != nil || f.Response() != next+2 {
			t.Fatalf("apply: %v, %v", f.Response(), err)
		}
	}
}

func caughtUp(t *testing.T, nodes ...*raftNode) {
	t.Helper()
	_, _, want := nodes[0].fsm.state()
	for _, n := range nodes {
		eventually(t, fmt.Sprintf("%s at %d", n.id, want), func() bool { _, _, next := n.fsm.state(); return next == want })
	}
}

// trimAll makes checkpoints where each log's newest sealed segment ends, and trims.
func trimAll(t *testing.T, nodes ...*raftNode) {
	t.Helper()
	for _, n := range nodes {
		var last Index
		for b, ok := n.log.Boundary(0); ok; b, ok = n.log.Boundary(b.Index) {
			last = b.Index
		}
		mustCheckpoint(t, n.log, last)
		if err := n.log.Trim(1<<40, last); err != nil {
			t.Fatal(err)
		}
		if i, _ := n.log.FirstIndex(); Index(i) != last+1 {
			t.Fatalf("%s begins at %d after a trim up to %d", n.id, i, last)
		}
	}
}

// TestUnderRaft: a cluster trims, takes in a new server by a checkpoint and replication, restarts, changes leaders and trims again.
func TestUnderRaft(t *testing.T) {
	a, b, c := newRaftNode(t, "a"), newRaftNode(t, "b"), newRaftNode(t, "c")
	nodes := []*raftNode{a, b}
	connect(a, b, c)
	boot := a.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}})
	if err := boot.Error(); err != nil {
		t.Fatal(err)
	}
	l := leader(t, nodes...)
	l.produce(t, 30)
	caughtUp(t, l, a, b)
	trimAll(t, a, b)
	l.produce(t, 5)

	if err := l.raft.AddVoter("c", "c", 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	nodes = append(nodes, c)
	caughtUp(t, l, a, b, c)
	if c.log.start.index == 0 || c.log.start.index != l.log.start.index {
		t.Fatalf("c begins after %d, and the leader after %d", c.log.start.index, l.log.start.index)
	}
	l.produce(t, 10)
	caughtUp(t, l, a, b, c)

	for _, n := range nodes { // one after the other, leader included
		n.stop(t)
		n.start(t)
		connect(a, b, c)
		leader(t, nodes...).produce(t, 5)
	}
	l = leader(t, nodes...)
	caughtUp(t, l, a, b, c)
	trimAll(t, a, b, c)
	if err := l.raft.LeadershipTransfer().Error(); err != nil {
		t.Fatal(err)
	}
	l = leader(t, nodes...)
	l.produce(t, 10)
	caughtUp(t, l, a, b, c)
	for _, n := range nodes {
		n.stop(t)
		if report, err := Inspect(n.mem, testDir, InspectOptions{Verify: true}, nil); err != nil || !report.Healthy() || report.NextOffset != 2*70 {
			t.Errorf("%s: %v, next offset %d, %+v", n.id, err, report.NextOffset, report.Damage)
		}
	}
}
