package raftlog

import (
	"errors"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// faultyLog opens a log on a file system with faults, and counts calls of OnFailure.
func faultyLog(t *testing.T) (*Log, *vfs.Faulty, *vfs.Mem, *atomic.Int32) {
	mem := newMem(t)
	faulty := vfs.NewFaulty(mem)
	failures := new(atomic.Int32)
	opts := testOptions(faulty)
	opts.OnFailure = func(error) { failures.Add(1) }
	return mustOpen(t, opts), faulty, mem, failures
}

// TestNoSpace: a full disk refuses appends as a whole, leaves the log healthy, and takes them when there is space again.
func TestNoSpace(t *testing.T) {
	for name, rule := range map[string]vfs.Rule{
		"preallocate":               {Op: vfs.OpPreallocate, Err: vfs.ErrNoSpace},
		"write nothing":             {Op: vfs.OpWrite, Glob: "*.log", Err: vfs.ErrNoSpace},
		"write a part":              {Op: vfs.OpWrite, Glob: "*.log", Err: vfs.ErrNoSpace, Short: 700},
		"new segment":               {Op: vfs.OpWrite, Glob: "*.log.tmp", Err: vfs.ErrNoSpace},
		"create segment":            {Op: vfs.OpCreate, Glob: "*.log.tmp", Err: vfs.ErrNoSpace},
		"open segment":              {Op: vfs.OpOpen, Glob: "*.log", Err: syscall.EMFILE},
		"write after a new segment": {Op: vfs.OpWrite, Glob: "*.log", After: 1, Err: vfs.ErrNoSpace, Short: 100},
	} {
		t.Run(name, func(t *testing.T) {
			l, faulty, mem, failures := faultyLog(t)
			all := fill(t, l, 3, 900)
			faulty.Add(rule)
			a := appenderFor(t, l)
			var more []*raft.Log
			for range 8 { // reaches into several segments
				more = append(more, a.batch(1, 900, 7))
			}
			err := l.StoreLogs(more)
			if rule.Err == vfs.ErrNoSpace && !errors.Is(err, ErrNoSpace) || err == nil {
				t.Fatalf("StoreLogs on a full disk: %v", err)
			}
			if faulty.Hits() == 0 || l.Err() != nil || l.LastStoreError() == nil || failures.Load() != 0 {
				t.Fatalf("%d faults, log error %v, last store error %v", faulty.Hits(), l.Err(), l.LastStoreError())
			}
			mustContain(t, l, all)
			faulty.Clear()
			mustStore(t, l, more...)
			all = append(all, more...)
			mustContain(t, l, all)
			if l.LastStoreError() != nil {
				t.Fatal(l.LastStoreError())
			}
			waitIndexes(l)
			mem.Crash(nil)
			l.poison(vfs.ErrCrashed)
			l.Close()
			l = mustOpen(t, testOptions(mem))
			defer l.Close()
			mustContain(t, l, all)
		})
	}
}

// TestFailedSyncPoisons: nothing is written after a failed fsync, reads go on, and what was stored before is there after reopening.
func TestFailedSyncPoisons(t *testing.T) {
	l, faulty, mem, failures := faultyLog(t)
	all := fill(t, l, 6, 900)
	faulty.Add(vfs.Rule{Op: vfs.OpSync, Glob: "*.log", Err: syscall.EIO, Times: 1})
	a := appenderFor(t, l)
	err := l.StoreLogs([]*raft.Log{a.batch(1, 100, 7)})
	if !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("StoreLogs with a failed fsync: %v", err)
	}
	if failures.Load() != 1 || !errors.Is(l.Err(), ErrPoisoned) {
		t.Fatalf("%d calls of OnFailure, error %v", failures.Load(), l.Err())
	}
	b := appenderFor(t, l)
	for name, op := range map[string]func() error{
		"StoreLogs":       func() error { return l.StoreLogs([]*raft.Log{b.noop()}) },
		"DeleteRange":     func() error { return l.DeleteRange(2, 6) },
		"Trim":            func() error { return l.Trim(100, 100) },
		"WriteCheckpoint": func() error { return l.WriteCheckpoint(checkpointAt(t, l, 1)) },
		"Sync":            l.Sync,
		"Roll":            l.Roll,
	} {
		if err := op(); !errors.Is(err, ErrPoisoned) {
			t.Errorf("%s on a poisoned log: %v", name, err)
		}
	}
	mustContain(t, l, all)
	if res, err := l.ReadBatches(0, l.NextOffset(), 1<<20); err != nil || len(res.Batches) == 0 {
		t.Fatalf("read from a poisoned log: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Stat(filepath.Join(testDir, cleanName)); err == nil {
		t.Fatal("a poisoned log was marked as closed in order")
	}
	if failures.Load() != 1 {
		t.Fatalf("OnFailure was called %d times", failures.Load())
	}
	l = mustOpen(t, testOptions(mem))
	defer l.Close()
	got, err := contents(l)
	if err != nil || len(got) < len(all) {
		t.Fatalf("%d entries after reopening, %v", len(got), err)
	}
	if err := compareEntries(got[:len(all)], all); err != nil {
		t.Fatal(err)
	}
}

// TestFailedDirectorySync: a directory that cannot be synced poisons too, wherever it happens.
func TestFailedDirectorySync(t *testing.T) {
	l, faulty, _, _ := faultyLog(t)
	defer l.Close()
	fill(t, l, 2, 900)
	faulty.Add(vfs.Rule{Op: vfs.OpSyncDir, Err: syscall.EIO})
	if err := l.WriteCheckpoint(checkpointAt(t, l, 2)); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("checkpoint: %v", err)
	}
}

// TestUndoThatFails: if the rest of a failed write cannot be cut off, the log is poisoned.
func TestUndoThatFails(t *testing.T) {
	l, faulty, _, failures := faultyLog(t)
	defer l.Close()
	all := fill(t, l, 2, 500)
	faulty.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace, Short: 50})
	faulty.Add(vfs.Rule{Op: vfs.OpTruncate, Err: syscall.EIO})
	a := appenderFor(t, l)
	if err := l.StoreLogs([]*raft.Log{a.batch(1, 100, 7)}); !errors.Is(err, ErrPoisoned) || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("StoreLogs: %v", err)
	}
	if failures.Load() != 1 {
		t.Fatalf("%d calls of OnFailure", failures.Load())
	}
	mustContain(t, l, all)
}

// TestStoreFailsAfterTruncation: raft would be stuck for ever, so it has to be started anew.
func TestStoreFailsAfterTruncation(t *testing.T) {
	l, faulty, mem, failures := faultyLog(t)
	all := fill(t, l, 6, 500)
	if err := l.DeleteRange(4, 6); err != nil {
		t.Fatal(err)
	}
	faulty.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace})
	a := appenderFor(t, l)
	a.term++
	if err := l.StoreLogs([]*raft.Log{a.noop()}); !errors.Is(err, ErrOutOfStep) || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("StoreLogs: %v", err)
	}
	if failures.Load() != 1 {
		t.Fatalf("%d calls of OnFailure", failures.Load())
	}
	faulty.Clear()
	l.Close()
	l = mustOpen(t, testOptions(mem))
	defer l.Close()
	mustContain(t, l, all[:3])
	if a.index != 4 {
		t.Fatalf("the test stored entry %d", a.index)
	}
	fill(t, l, 1, 50)
}

// TestTruncateOnFullDisk: cutting makes space, so a full disk must not prevent it.
func TestTruncateOnFullDisk(t *testing.T) {
	l, faulty, mem, _ := faultyLog(t)
	all := fill(t, l, 20, 900)
	faulty.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace})
	if err := l.DeleteRange(4, 20); err != nil {
		t.Fatal(err)
	}
	mustContain(t, l, all[:3])
	mem.Crash(nil)
	l.poison(vfs.ErrCrashed)
	l.Close()
	l = mustOpen(t, testOptions(mem))
	defer l.Close()
	mustContain(t, l, all[:3])
}

// TestReadError: an I/O error of a read is reported and poisons; with FailFast, GetLog ends its goroutine instead of letting raft panic.
func TestReadError(t *testing.T) {
	l, faulty, _, failures := faultyLog(t)
	defer l.Close()
	fill(t, l, 20, 900)
	waitIndexes(l)
	faulty.Add(vfs.Rule{Op: vfs.OpRead, Glob: "*1.log", Err: syscall.EIO})
	if _, err := l.ReadBatches(0, 2, 100); !errors.Is(err, syscall.EIO) {
		t.Fatalf("ReadBatches: %v", err)
	}
	if !errors.Is(l.Err(), ErrPoisoned) || failures.Load() != 1 {
		t.Fatalf("error %v, %d failures", l.Err(), failures.Load())
	}
	var e raft.Log
	if err := l.GetLog(1, &e); !errors.Is(err, syscall.EIO) {
		t.Fatalf("GetLog: %v", err)
	}
	l.FailFast(true)
	returned := make(chan bool, 1)
	go func() {
		defer func() { returned <- false }()
		l.GetLog(1, &e)
		returned <- true
	}()
	if <-returned {
		t.Fatal("GetLog returned")
	}
	if err := l.GetLog(1000, &e); err != raft.ErrLogNotFound {
		t.Fatalf("GetLog of an entry that is not there: %v", err)
	}
}

// TestDamageInRead: a flipped bit is found when it is read, named, and poisons.
func TestDamageInRead(t *testing.T) {
	for name, read := range map[string]func(l *Log) error{
		"ReadBatches": func(l *Log) error { _, err := l.ReadBatches(0, 2, 100); return err },
		"GetLog":      func(l *Log) error { return l.GetLog(1, new(raft.Log)) },
		"time":        func(l *Log) error { _, _, err := l.BatchForTimestamp(0, 0, 10); return err },
		"checkpoint":  func(l *Log) error { _, _, err := l.stateAt(2); return err },
	} {
		t.Run(name, func(t *testing.T) {
			l, faulty, _, _ := faultyLog(t)
			defer l.Close()
			fill(t, l, 20, 900)
			waitIndexes(l)
			faulty.Add(vfs.Rule{Op: vfs.OpRead, Glob: numbered(1, segmentExt), FlipBit: 8*200 + 1})
			err := read(l)
			var damage *DamageError
			if !errors.As(err, &damage) || filepath.Base(damage.File) != numbered(1, segmentExt) || damage.Offset != segmentHeaderSize {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestSnapshotOnFullDisk: an installation that fails leaves the log as it was, now and after a restart.
func TestSnapshotOnFullDisk(t *testing.T) {
	for name, rule := range map[string]vfs.Rule{
		"checkpoint": {Op: vfs.OpWrite, Glob: "*.ckpt.tmp", Err: vfs.ErrNoSpace},
		"start":      {Op: vfs.OpWrite, Glob: "start.tmp", Err: vfs.ErrNoSpace, Short: 10},
		"rename":     {Op: vfs.OpRename, Glob: "start", Err: io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			l, faulty, mem, _ := faultyLog(t)
			all := fill(t, l, 5, 900)
			c := Checkpoint{Index: 100, Term: 9, NextOffset: 500, Configuration: testConfiguration()}
			faulty.Add(rule)
			if err := installSnapshot(l, c); !errors.Is(err, rule.Err) {
				t.Fatalf("install: %v", err)
			}
			faulty.Clear()
			all = append(all, fill(t, l, 1, 50)...)
			mustContain(t, l, all)
			mem.Crash(nil)
			l.poison(vfs.ErrCrashed)
			l.Close()
			l = mustOpen(t, testOptions(mem))
			defer l.Close()
			mustContain(t, l, all)
			if err := installSnapshot(l, c); err != nil || l.NextOffset() != 500 {
				t.Fatalf("install: %v, next offset %d", err, l.NextOffset())
			}
		})
	}
}

// TestFsyncGate: after a failed fsync the page cache shows bytes that are not on the disk, and calls them clean. Whatever reopening finds, in the same boot, has to
// be on the disk from then on, or raft would count entries as stored that a power failure takes.
func TestFsyncGate(t *testing.T) {
	for name, c := range map[string]struct {
		durability Durability
		stuck      bool // not even cutting off works
	}{"quorum": {DurabilityQuorum, false}, "quorum, no truncation": {DurabilityQuorum, true}, "os": {DurabilityOS, true}} {
		t.Run(name, func(t *testing.T) {
			mem := newMem(t)
			faulty := vfs.NewFaulty(mem)
			opts := testOptions(faulty)
			opts.Durability = c.durability
			l := mustOpen(t, opts)
			stored := fill(t, l, 4, 300)
			if c.stuck {
				faulty.Add(vfs.Rule{Op: vfs.OpTruncate, Err: syscall.EIO})
			}
			mem.FailSync("*.log", syscall.EIO)
			a := appenderFor(t, l)
			err := l.StoreLogs([]*raft.Log{a.batch(1, 100, 7), a.batch(1, 100, 7)})
			if c.durability == DurabilityOS {
				if err != nil {
					t.Fatal(err)
				}
				err = l.WriteCheckpoint(checkpointAt(t, l, 5))
			}
			if !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("failed fsync: %v", err)
			}
			l.Close()
			mem.Kill()
			mem.FailSync("", nil)

			opts.FS = mem
			l = mustOpen(t, opts)
			found, err := contents(l)
			if err != nil || len(found) < len(stored) {
				t.Fatalf("%d entries of %d, %v", len(found), len(stored), err)
			}
			mem.Crash(nil)
			l.poison(vfs.ErrCrashed)
			l.Close()
			l = mustOpen(t, opts)
			defer l.Close()
			mustContain(t, l, found)
		})
	}
}

// TestTrimOnFullDisk: a trim makes room, and must not fail for want of the little that it needs itself.
func TestTrimOnFullDisk(t *testing.T) {
	l, faulty, _, _ := faultyLog(t)
	defer l.Close()
	fill(t, l, 20, 900)
	end := l.Segments()[0].LastIndex
	mustCheckpoint(t, l, end)
	faulty.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "start.tmp", Times: 1, Err: vfs.ErrNoSpace})
	if l.alloc <= l.active().end {
		t.Fatal("nothing is preallocated")
	}
	if err := l.Trim(l.NextOffset(), end); err != nil {
		t.Fatal(err)
	}
	if first, err := l.FirstIndex(); err != nil || Index(first) != end+1 || l.alloc != l.active().end {
		t.Errorf("the log begins at %d, %v; its newest file has %d bytes for %d", first, err, l.alloc, l.active().end)
	}
	fill(t, l, 3, 900)
}
