package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func TestEmptyLog(t *testing.T) {
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if first != 0 || last != 0 || l.NextOffset() != 0 || l.FirstOffset() != 0 || l.Size() != 0 || len(l.Segments()) != 0 {
		t.Fatalf("first %d, last %d, next offset %d", first, last, l.NextOffset())
	}
	if err := l.GetLog(0, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Fatalf("GetLog(0): %v", err)
	}
	if err := l.GetLog(1, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Fatalf("GetLog(1): %v", err)
	}
	if res, err := l.ReadBatches(0, 10, 100); err != nil || len(res.Batches) != 0 || res.Next != 0 {
		t.Fatalf("ReadBatches: %+v, %v", res, err)
	}
	if snaps, err := l.Snapshots().List(); err != nil || len(snaps) != 0 {
		t.Fatalf("snapshots: %v, %v", snaps, err)
	}
	if err := l.DeleteRange(1, 10); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Roll(), l.Sync(), l.Trim(10, 10), l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(mem))
	fill(t, l, 1, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs([]*raft.Log{{Index: 2, Term: 1}}); !errors.Is(err, ErrClosed) {
		t.Fatalf("StoreLogs after Close: %v", err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": newMem(t), "os": vfs.OS()} {
		opts := testOptions(fs)
		if name == "os" {
			opts.Dir = t.TempDir()
		}
		l := mustOpen(t, opts)
		if _, err := Open(opts); !errors.Is(err, ErrLocked) {
			t.Fatalf("%s: second open: %v", name, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, opts)
		if err := l.Destroy(); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Stat(opts.Dir); err == nil {
			t.Fatalf("%s: the directory is still there", name)
		}
	}
}

func TestInvalidEntries(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	all := fill(t, l, 3, 100)
	for name, c := range map[string]struct {
		entries []*raft.Log
		want    error
	}{
		"gap":                {[]*raft.Log{{Index: 5, Term: 1}}, ErrInvalid},
		"overlap":            {[]*raft.Log{{Index: 3, Term: 1}}, ErrInvalid},
		"gap inside":         {[]*raft.Log{{Index: 4, Term: 1}, {Index: 6, Term: 1}}, ErrInvalid},
		"term goes back":     {[]*raft.Log{{Index: 4, Term: 0}}, ErrInvalid},
		"too large":          {[]*raft.Log{{Index: 4, Term: 1}, {Index: 5, Term: 1, Data: make([]byte, 1<<20+1)}}, ErrTooLarge},
		"too many extension": {[]*raft.Log{{Index: 4, Term: 1, Extensions: make([]byte, 1<<16)}}, ErrTooLarge},
	} {
		if err := l.StoreLogs(c.entries); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustContain(t, l, all)
	if err := l.DeleteRange(2, 2); !errors.Is(err, ErrInvalid) {
		t.Errorf("range in the middle: %v", err)
	}
	if err := l.DeleteRange(1, 2); err != nil { // a prefix: retention's business
		t.Error(err)
	}
	mustContain(t, l, all)
	if _, err := l.ReadBatches(-1, 5, 10); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("read before the start: %v", err)
	}
	if _, err := l.ReadBatches(7, 9, 10); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("read after the end: %v", err)
	}
}

// TestLargeEntry: an entry above the size of a segment, and of the cache, gets a segment of its own.
func TestLargeEntry(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	all := fill(t, l, 1, 100)
	all = append(all, fill(t, l, 1, 500_000)...)
	all = append(all, fill(t, l, 1, 100)...)
	mustContain(t, l, all)
	if n := len(l.Segments()); n != 3 {
		t.Fatalf("%d segments", n)
	}
	res, err := l.ReadBatches(2, 6, 10)
	if err != nil || len(res.Batches) != 1 || !bytes.Equal(res.Batches[0], all[1].Data) {
		t.Fatalf("%d batches, %v", len(res.Batches), err)
	}
}

func TestRollByAge(t *testing.T) {
	now := time.Unix(1000, 0)
	opts := testOptions(newMem(t))
	opts.SegmentAge = time.Hour
	opts.Now = func() time.Time { return now }
	l := mustOpen(t, opts)
	defer l.Close()
	fill(t, l, 1, 10)
	now = now.Add(59 * time.Minute)
	fill(t, l, 1, 10)
	if n := len(l.Segments()); n != 1 {
		t.Fatalf("%d segments before the age", n)
	}
	now = now.Add(2 * time.Minute)
	fill(t, l, 1, 10)
	if n := len(l.Segments()); n != 2 {
		t.Fatalf("%d segments after the age", n)
	}
	l.Reconfigure(0, -1, DurabilityOS)
	now = now.Add(1000 * time.Hour)
	fill(t, l, 1, 10)
	if n := len(l.Segments()); n != 2 {
		t.Fatalf("%d segments without an age", n)
	}
	if err := l.Roll(); err != nil {
		t.Fatal(err)
	}
	if s := l.Segments(); len(s) != 3 || !s[1].Sealed || s[2].Sealed || s[2].LastIndex != s[2].FirstIndex-1 {
		t.Fatalf("segments after Roll: %+v", s)
	}
	if b, ok := l.Boundary(2); !ok || b.Index != 4 {
		t.Fatalf("boundary %+v, %v", b, ok)
	}
	if _, ok := l.Boundary(4); ok {
		t.Fatal("a boundary above the last sealed segment")
	}
}

func TestCheckpoints(t *testing.T) {
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	defer func() { l.Close() }()
	fill(t, l, 30, 900)
	end := l.Segments()[0].LastIndex
	mustCheckpoint(t, l, end)
	mustCheckpoint(t, l, end+1)
	c := mustCheckpoint(t, l, 28)
	if l.hasCheckpoint(end+1) || !l.hasCheckpoint(end) || !l.hasCheckpoint(28) {
		t.Fatalf("kept %+v", l.checkpoints)
	}
	for name, bad := range map[string]func(*Checkpoint){
		"term":   func(c *Checkpoint) { c.Term++ },
		"offset": func(c *Checkpoint) { c.NextOffset++ },
		"index":  func(c *Checkpoint) { c.Index = 31 },
		"zero":   func(c *Checkpoint) { c.Index = 0 },
	} {
		b := checkpointAt(t, l, 29)
		bad(&b)
		if err := l.WriteCheckpoint(b); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrOutOfStep) != (b.Index == 29) {
			t.Errorf("checkpoint with a wrong %s: %v", name, err)
		}
	}
	var damage *DamageError
	if err := l.DeleteRange(28, 30); !errors.Is(err, ErrInvalid) || !errors.As(err, &damage) || !strings.HasSuffix(damage.File, "28.ckpt") {
		t.Errorf("truncation below a checkpoint: %v", err)
	}
	for range 2 {
		got, ok, err := l.LatestCheckpoint()
		if err != nil || !ok || got.Index != c.Index || got.Term != c.Term || got.NextOffset != c.NextOffset || string(got.State) != string(c.State) ||
			got.ConfigurationIndex != 1 || fmt.Sprint(got.Configuration) != fmt.Sprint(c.Configuration) {
			t.Fatalf("got %+v, %v, %v", got, ok, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, testOptions(mem))
	}
}

func TestTrimConditions(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	fill(t, l, 30, 900)
	segs := l.Segments()
	first := func() Index { i, _ := l.FirstIndex(); return Index(i) }
	trim := func(o record.Offset, i Index) {
		t.Helper()
		if err := l.Trim(o, i); err != nil {
			t.Fatal(err)
		}
	}
	if trim(1000, 1000); first() != 1 {
		t.Fatal("trimmed without a checkpoint")
	}
	mustCheckpoint(t, l, segs[1].LastIndex)
	if trim(segs[1].NextOffset-1, 1000); first() != 1 {
		t.Fatal("trimmed a record at the log start")
	}
	if trim(1000, segs[1].LastIndex-1); first() != 1 {
		t.Fatal("trimmed an entry above the index")
	}
	if trim(segs[1].NextOffset, segs[1].LastIndex); first() != segs[2].FirstIndex || l.FirstOffset() != segs[2].BaseOffset {
		t.Fatalf("first index %d, first offset %d", first(), l.FirstOffset())
	}
	if err := l.GetLog(uint64(segs[1].LastIndex-1), new(raft.Log)); err != raft.ErrLogNotFound {
		t.Fatalf("a trimmed entry: %v", err)
	}
	if _, err := l.ReadBatches(0, 10, 10); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("a trimmed offset: %v", err)
	}
}

// TestTrimActiveNever: the newest segment stays even if all of it could go.
func TestTrimActiveNever(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	fill(t, l, 3, 100)
	mustCheckpoint(t, l, 3)
	if err := l.Trim(1000, 1000); err != nil {
		t.Fatal(err)
	}
	if i, _ := l.FirstIndex(); i != 1 {
		t.Fatalf("first index %d", i)
	}
}

func TestSnapshots(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	fill(t, l, 30, 900)
	segs := l.Segments()
	mustCheckpoint(t, l, segs[0].LastIndex)
	newest := mustCheckpoint(t, l, 29)
	list := func() []*raft.SnapshotMeta {
		t.Helper()
		metas, err := l.Snapshots().List()
		if err != nil {
			t.Fatal(err)
		}
		return metas
	}
	metas := list()
	if len(metas) != 1 || metas[0].Index != 29 || metas[0].Term != newest.Term {
		t.Fatalf("before serving: %+v", metas)
	}
	l.ServeFollowers()
	if metas := list(); len(metas) != 0 {
		t.Fatalf("an untrimmed log serves %+v", metas[0])
	}
	if err := l.Trim(1000, 1000); err != nil {
		t.Fatal(err)
	}
	metas = list()
	if len(metas) != 1 || metas[0].Index != uint64(segs[0].LastIndex) {
		t.Fatalf("after a trim: %+v", metas)
	}
	meta, r, err := l.Snapshots().Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, _ := io.ReadAll(r)
	if int64(len(b)) != meta.Size {
		t.Fatalf("%d bytes, meta says %d", len(b), meta.Size)
	}
	c, err := ReadCheckpoint(bytes.NewReader(b))
	if err != nil || c.Index != segs[0].LastIndex || c.NextOffset != segs[0].NextOffset {
		t.Fatalf("%+v, %v", c, err)
	}
	for i, term := range map[uint64]uint64{29: 1, 30: 1, uint64(segs[0].LastIndex): 1, 3: 7} {
		if _, err := l.Snapshots().Create(1, i, term, testConfiguration(), 1, nil); !errors.Is(err, ErrHaveEntry) {
			t.Errorf("create at %d: %v", i, err)
		}
	}
	for _, c := range []struct {
		index, term uint64
		there       bool
	}{{29, 1, true}, {30, 1, true}, {uint64(segs[0].LastIndex) + 1, 1, true}, {uint64(segs[0].LastIndex), 1, false}, {3, 1, false}, {29, 2, false}, {31, 1, false}, {0, 0, false}} {
		if l.Holds(c.index, c.term) != c.there {
			t.Errorf("entry %d of term %d: held is not %t", c.index, c.term, c.there)
		}
	}
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
}

// TestInstallOverConflict: raft cannot go on over a longer log of another history, so the log asks for a restart.
func TestInstallOverConflict(t *testing.T) {
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	fill(t, l, 10, 300)
	c := Checkpoint{Index: 5, Term: 4, NextOffset: 3, Configuration: testConfiguration()}
	if err := installSnapshot(l, c); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(l.Err(), ErrOutOfStep) {
		t.Fatalf("error %v", l.Err())
	}
	l.Close()
	l = mustOpen(t, testOptions(mem))
	defer l.Close()
	if err := installed(c)(l, nil); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 3, 100)
}

func TestInstallChecks(t *testing.T) {
	l := mustOpen(t, testOptions(newMem(t)))
	defer l.Close()
	all := fill(t, l, 3, 100)
	c := Checkpoint{Index: 50, Term: 4, NextOffset: 3, Configuration: testConfiguration(), State: []byte("state")}
	good, err := encodeCheckpoint(c, false, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-6] ^= 1
	for name, data := range map[string][]byte{"empty": nil, "cut": good[:len(good)-1], "flipped": flipped, "longer": append(bytes.Clone(good), 0)} {
		s, err := l.Snapshots().Create(1, 50, 4, c.Configuration, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(data)
		if err := s.Close(); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
	s, _ := l.Snapshots().Create(1, 51, 4, c.Configuration, 0, nil)
	s.Write(good)
	if err := s.Close(); !errors.Is(err, ErrInvalid) {
		t.Errorf("another index: %v", err)
	}
	s, _ = l.Snapshots().Create(1, 50, 4, c.Configuration, 0, nil)
	s.Write(good)
	if err := errors.Join(s.Cancel(), s.Close()); err != nil {
		t.Error(err)
	}
	mustContain(t, l, all)
}

// countingFS counts bytes read and files open.
type countingFS struct {
	vfs.FS
	read atomic.Int64
	open atomic.Int64
	most atomic.Int64
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (c *countingFS) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.most.Store(max(c.most.Load(), c.open.Add(1)))
	return &countingFile{f, c}, nil
}

func (c *countingFS) Create(name string) (vfs.File, error)   { return c.count(c.FS.Create(name)) }
func (c *countingFS) Open(name string) (vfs.File, error)     { return c.count(c.FS.Open(name)) }
func (c *countingFS) OpenFile(name string) (vfs.File, error) { return c.count(c.FS.OpenFile(name)) }

func (f *countingFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.read.Add(int64(len(p)))
	return f.File.ReadAt(p, off)
}

func (f *countingFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// TestCleanOpenReadsLittle: after a clean close nothing is scanned, and after a crash only the newest segment is.
func TestCleanOpenReadsLittle(t *testing.T) {
	mem := newMem(t)
	fs := &countingFS{FS: mem}
	opts := testOptions(fs)
	opts.SegmentBytes = 256 << 10
	l := mustOpen(t, opts)
	fill(t, l, 200, 10_000)
	size := l.Size()
	waitIndexes(l)
	mem.Crash(nil)
	l.poison(vfs.ErrCrashed)
	l.Close()

	fs.read.Store(0)
	l = mustOpen(t, opts)
	if n := fs.read.Load(); n > 2<<20 {
		t.Errorf("after a crash %d bytes of %d were read", n, size)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fs.read.Store(0)
	l = mustOpen(t, opts)
	if n := fs.read.Load(); n > 8<<10 {
		t.Errorf("after a clean close %d bytes of %d were read", n, size)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := fs.open.Load(); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// TestFewFilesOpen: many sealed segments are read, and few stay open.
func TestFewFilesOpen(t *testing.T) {
	fs := &countingFS{FS: newMem(t)}
	opts := testOptions(fs)
	opts.TailCacheBytes = -1
	l := mustOpen(t, opts)
	fill(t, l, 60, 2000)
	waitIndexes(l)
	for range 3 {
		if got, err := contents(l); err != nil || len(got) != 60 {
			t.Fatalf("%d entries, %v", len(got), err)
		}
	}
	if n := fs.open.Load(); n > openSegmentsMax+1 {
		t.Fatalf("%d files are open", n)
	}
	if n := fs.most.Load(); n > openSegmentsMax+4 {
		t.Fatalf("%d files were open at once", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTailCacheIsBounded: the cache never passes its limit, and shares the entries' bytes.
func TestTailCacheIsBounded(t *testing.T) {
	rng := testRand(t)
	opts := testOptions(newMem(t))
	opts.TailCacheBytes = 10_000
	l := mustOpen(t, opts)
	defer l.Close()
	for range 300 {
		a := appenderFor(t, l)
		e := a.random(rng)
		mustStore(t, l, e)
		if l.tail.bytes > 10_000 {
			t.Fatalf("%d bytes are cached", l.tail.bytes)
		}
		var got raft.Log
		if err := l.GetLog(e.Index, &got); err != nil || (len(e.Data) > 0 && &got.Data[0] != &e.Data[0]) {
			t.Fatalf("the newest entry is not shared: %v", err)
		}
	}
	if n := cap(l.tail.entries); n > 500 {
		t.Fatalf("room for %d entries", n)
	}
}

// TestConcurrentReaders: reads beside stores, rolls and trims see whole, right batches.
func TestConcurrentReaders(t *testing.T) {
	opts := testOptions(newMem(t))
	l := mustOpen(t, opts)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			at := record.Offset(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				at = max(at, l.FirstOffset())
				res, err := l.ReadBatches(at, l.NextOffset(), 2000)
				if errors.Is(err, ErrOutOfRange) {
					continue // trimmed since
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, b := range res.Batches {
					if h, err := record.Validate(b); err != nil || h.BaseOffset > at {
						t.Errorf("at %d: %+v, %v", at, h, err)
						return
					} else {
						at = h.Next()
					}
				}
				if len(res.Batches) == 0 {
					at = l.FirstOffset()
				}
			}
		})
	}
	for i := range 300 {
		fill(t, l, 1, 100+i*3)
		if b, ok := l.Boundary(l.start.index); ok && i%10 == 9 {
			mustCheckpoint(t, l, b.Index)
			if err := l.Trim(1<<40, b.Index); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOnTheOperatingSystem(t *testing.T) {
	opts := testOptions(vfs.OS())
	opts.Dir = t.TempDir() + "/log"
	l := mustOpen(t, opts)
	all := fill(t, l, 40, 700)
	mustCheckpoint(t, l, 38)
	if err := l.DeleteRange(39, 40); err != nil {
		t.Fatal(err)
	}
	all = append(all[:38:38], fill(t, l, 20, 5000)...)
	if n, err := l.FreeSpace(); err != nil || n <= 0 {
		t.Fatalf("free space: %d, %v", n, err)
	}
	for range 2 {
		mustContain(t, l, all)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		report, err := Inspect(vfs.OS(), opts.Dir, InspectOptions{Verify: true}, nil)
		if err != nil || !report.Healthy() || !report.CleanClose || report.LastIndex != 58 || report.Entries != 58 {
			t.Fatalf("inspect: %v, %+v", err, report)
		}
		l = mustOpen(t, opts)
	}
	l.Close()
}

// TestLargeEntriesAreReadOnce: an entry that is larger than the scan buffer is not copied again after it was read.
func TestLargeEntriesAreReadOnce(t *testing.T) {
	opts := testOptions(newMem(t))
	opts.TailCacheBytes = -1
	l := mustOpen(t, opts)
	defer l.Close()
	const size, reads = 200 << 10, 20
	a := appenderFor(t, l)
	want := []*raft.Log{a.batch(1, size, 7), a.batch(1, size, 8)}
	mustStore(t, l, want...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := make([]raft.Log, reads)
	for i := range got {
		if err := l.GetLog(uint64(i%2+1), &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / reads; n > size*3/2 {
		t.Errorf("%d bytes allocated to read %d", n, size)
	}
	for i := range got {
		if !bytes.Equal(got[i].Data, want[i%2].Data) {
			t.Fatalf("read %d is another entry", i)
		}
	}
}
