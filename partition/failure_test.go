package partition

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// TestDamageFoundWhileReplicating has one of raft's own goroutines find damaged bytes in the leader's log: it ends instead of bringing the process
// down, and the replica fails.
func TestDamageFoundWhileReplicating(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Limits.TailCacheBytes = -1
		cfg.Timing.Heartbeat, cfg.Timing.Election = 3*time.Second, 3*time.Second // another leader would read another disk: none loses office because the machine is busy
	})
	c.fill(10, 300)
	behind := c.followers()[0]
	behind.stop()
	has := c.leader().rep.Status().Bytes
	c.fill(10, 300)
	bad := c.leader()
	bad.disk.Add(vfs.Rule{Op: vfs.OpRead, FlipBit: 8*(has+1000) + 1}) // in what the follower lacks, and the leader reads for each try to send it; one was perhaps read before, so it stays away
	c.eventually("the leader fails", func() bool { return bad.count(EventFailed) == 1 })
	var damage *raftlog.DamageError
	if err := bad.rep.Status().Err; !errors.As(err, &damage) || damage.File == "" {
		t.Errorf("the failure is %v", err)
	}
	if _, err := bad.rep.Read(0, 1); !errors.Is(err, ErrFailed) {
		t.Errorf("read: %v", err)
	}
	start := time.Now()
	if err := bad.rep.Close(testContext(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("close took %s", d)
	}
	bad.rep = nil
	behind.start()
	c.fill(1, 10)
	c.ensureSame()
}

func TestDamageFoundByAReader(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Limits.TailCacheBytes = -1 })
	c.fill(10, 300)
	n := c.leader()
	n.disk.Add(vfs.Rule{Op: vfs.OpRead, FlipBit: 8*2000 + 1})
	if _, err := n.rep.Read(0, 1<<20); !errors.Is(err, ErrFailed) {
		t.Errorf("read: %v", err)
	}
	c.eventually("the failure is reported", func() bool { return n.count(EventFailed) == 1 })
	if _, err := n.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 1)}); !errors.Is(err, ErrFailed) {
		t.Errorf("append: %v", err)
	}
}

// TestOpenFindsDamage flips each of some bits of what a stopped replica left and opens it: it opens as it was, or says what is damaged, and never panics.
func TestOpenFindsDamage(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Limits.TailCacheBytes = -1 })
	c.fill(10, 300)
	n := c.leader()
	n.discard() // no checkpoint: NewRaft reads all entries
	found := 0
	for bit := int64(1); bit < 8*4000; bit += 997 {
		n.disk.Clear()
		n.disk.Add(vfs.Rule{Op: vfs.OpRead, Glob: "*.log", FlipBit: bit})
		rep, err := Open(n.config())
		if err == nil {
			n.disk.Clear()
			n.rep = rep
			n.discard()
			continue
		}
		var damage *raftlog.DamageError
		if !errors.As(err, &damage) && !errors.Is(err, raftlog.ErrNewerFormat) {
			t.Errorf("bit %d: %v", bit, err)
		}
		found++
	}
	if found < 5 {
		t.Errorf("damage was found %d times", found)
	}
}

// boundaries is a log whose segments end where it says.
type boundaries []raftlog.Boundary

func (b boundaries) Boundary(after raftlog.Index) (raftlog.Boundary, bool) {
	for _, x := range b {
		if x.Index > after {
			return x, true
		}
	}
	return raftlog.Boundary{}, false
}

func entry(index uint64, data []byte) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(1, 0)}
}

func stamped(base record.Offset) []byte {
	b := recordtest.Batch(1, 10)
	record.Stamp(b, base, 1)
	return b
}

// TestCheckpointsAtBoundaries checks that the state handed over for a segment's end is the state at that end, although it is known only when
// the next entry is applied, and entries that the state machine never sees lie between.
func TestCheckpointsAtBoundaries(t *testing.T) {
	var saved []raftlog.Checkpoint
	f := &fsm{
		state: &state{}, log: boundaries{{Index: 3, Term: 1}, {Index: 4, Term: 1}, {Index: 7, Term: 1}, {Index: 9, Term: 1}}, checkpointBytes: 1 << 20,
		save: func(cp raftlog.Checkpoint) { saved = append(saved, cp) }, applied: func(applySummary) {}, failed: func(err error) { t.Error(err) },
	}
	f.ApplyBatch([]*raft.Log{entry(2, stamped(0)), entry(3, stamped(1))})
	if len(saved) != 0 {
		t.Fatalf("saved %d checkpoints too early", len(saved))
	}
	f.ApplyBatch([]*raft.Log{entry(6, stamped(2)), entry(8, stamped(3))})
	var got [][2]int64
	for _, cp := range saved {
		got = append(got, [2]int64{int64(cp.Index), int64(cp.NextOffset)})
		if s, err := decodeSnapshot(cp.State); err != nil || s.next != cp.NextOffset {
			t.Errorf("checkpoint at %d: %+v, %v", cp.Index, s, err)
		}
	}
	if want := [][2]int64{{3, 2}, {4, 2}, {7, 3}}; !slices.Equal(got, want) {
		t.Errorf("checkpoints (index, next offset): %v, want %v", got, want)
	}
	f.checkpointBytes = 1
	f.ApplyBatch([]*raft.Log{entry(10, stamped(4))})
	if last := saved[len(saved)-1]; len(saved) != 5 || last.Index != 10 || last.NextOffset != 5 {
		t.Errorf("by bytes: %d checkpoints, the last at %d", len(saved), last.Index)
	}
}

func TestUnknownCommandStopsTheReplica(t *testing.T) {
	var failure error
	f := &fsm{
		state: &state{}, log: boundaries{}, checkpointBytes: 1 << 20, save: func(raftlog.Checkpoint) {},
		applied: func(applySummary) { t.Error("it went on") }, failed: func(err error) { failure = err },
	}
	done := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { done <- returned }()
		f.ApplyBatch([]*raft.Log{entry(2, stamped(0)), entry(3, []byte{0xFF, 0x01})})
		returned = true
	}()
	if <-done || !errors.Is(failure, errCommand) {
		t.Errorf("the goroutine went on, or the failure is %v", failure)
	}
	if f.state.applied != 2 {
		t.Errorf("%d is applied", f.state.applied)
	}
}
