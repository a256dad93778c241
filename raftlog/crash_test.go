package raftlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// crashRun does operations on a log, and before each change of the file system looks at what a crash would leave at that moment: recovery has to
// find what was promised by then.
type crashRun struct {
	t    *testing.T
	mem  *vfs.Mem
	opts Options
	log  *Log

	mu      sync.Mutex // taken by the hook, which the background goroutines call too
	rng     *rand.Rand
	allowed func(l *Log, got []*raft.Log) error // of the operation under way
	crashes int
	failed  bool
}

func newCrashRun(t *testing.T, d Durability) *crashRun {
	r := &crashRun{t: t, mem: newMem(t), rng: testRand(t)}
	r.opts = testOptions(r.mem)
	r.opts.Durability = d
	r.expect(exactly(nil))
	r.mem.OnMutation(func(op string) { r.crash(op) })
	r.log = mustOpen(t, r.opts)
	return r
}

// close ends the run: the clean close is crashed too.
func (r *crashRun) close() {
	if err := r.log.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.crash("after the close")
	r.mem.OnMutation(nil)
	if r.crashes < 10 {
		r.t.Fatalf("only %d crashes tried", r.crashes)
	}
}

func (r *crashRun) expect(allowed func(*Log, []*raft.Log) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed = allowed
}

// crash tries the strict crash, some that keep arbitrary parts of what was not synced, and the death of the process alone.
func (r *crashRun) crash(op string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed {
		return
	}
	for i := range 5 {
		var rng *rand.Rand
		if i > 0 {
			rng = r.rng
		}
		clone := r.mem.CrashClone(rng)
		if i == 4 { // the process alone dies, and the power fails later
			clone = r.mem.KillClone()
		}
		r.crashes++
		if err := r.recover(clone, 2); err != nil {
			r.failed = true
			r.t.Errorf("crash before %s (variant %d): %v", op, i, err)
			return
		}
	}
}

// recover opens what a crash left, checks it, and goes on with it: stores other entries where the crash cut, crashes again, and so on.
func (r *crashRun) recover(mem *vfs.Mem, depth int) error {
	opts := r.opts
	opts.FS = mem
	l, err := Open(opts)
	if err != nil {
		return err
	}
	defer func() { l.Close() }()
	got, err := contents(l)
	if err != nil {
		return err
	}
	if err := r.allowed(l, got); err != nil {
		return err
	}
	for ; depth > 0; depth-- {
		a := appenderFor(r.t, l)
		a.term++
		more := []*raft.Log{a.batch(1, 40, 5), a.noop(), a.batch(1, 900, 6)}
		if err := l.StoreLogs(more); err != nil {
			return err
		}
		got = append(got, more...)
		waitIndexes(l)
		mem.Crash(r.rng)
		l.poison(vfs.ErrCrashed)
		l.Close()
		if l, err = Open(opts); err != nil {
			return fmt.Errorf("second recovery: %w", err)
		}
		again, err := contents(l)
		if err != nil {
			return err
		}
		if opts.Durability == DurabilityOS {
			got = got[:min(len(got), len(again))]
		}
		if err := compareEntries(again, got); err != nil {
			return fmt.Errorf("after a second recovery: %w", err)
		}
	}
	return nil
}

// between allows the first entries of all, at least atLeast of them.
func between(all []*raft.Log, atLeast int) func(*Log, []*raft.Log) error {
	all = append([]*raft.Log(nil), all...)
	return func(_ *Log, got []*raft.Log) error {
		if len(got) < atLeast || len(got) > len(all) {
			return fmt.Errorf("%d entries, want %d to %d", len(got), atLeast, len(all))
		}
		return compareEntries(got, all[:len(got)])
	}
}

func exactly(all []*raft.Log) func(*Log, []*raft.Log) error { return between(all, len(all)) }

// random makes up to n entries.
func (r *crashRun) random(a *appender, n int) []*raft.Log {
	r.mu.Lock() // rng is the hook's too
	defer r.mu.Unlock()
	var out []*raft.Log
	for range 1 + r.rng.IntN(n) {
		out = append(out, a.random(r.rng))
	}
	return out
}

// store stores entries behind those that are there, and returns all.
func (r *crashRun) store(have []*raft.Log, entries []*raft.Log) []*raft.Log {
	all := append(have[:len(have):len(have)], entries...)
	r.expect(between(all, len(have)))
	mustStore(r.t, r.log, entries...)
	r.expect(exactly(all))
	r.crash("after a store")
	return all
}

func TestCrashStore(t *testing.T) {
	r := newCrashRun(t, DurabilityQuorum)
	var all []*raft.Log
	for range 12 {
		all = r.store(all, r.random(appenderFor(t, r.log), 6))
	}
	if len(r.log.Segments()) < 3 {
		t.Fatalf("%d segments: too few to say anything about rolling", len(r.log.Segments()))
	}
	r.close()
}

func TestCrashTruncate(t *testing.T) {
	r := newCrashRun(t, DurabilityQuorum)
	var all []*raft.Log
	for i := range 8 {
		for range 4 {
			a := appenderFor(t, r.log)
			a.term += uint64(i % 2)
			all = r.store(all, r.random(a, 5))
		}
		keep := len(all) * (i + 1) / 10
		old, cut := all, all[:keep:keep]
		r.expect(func(l *Log, got []*raft.Log) error {
			if len(got) == len(old) {
				return exactly(old)(l, got)
			}
			return exactly(cut)(l, got)
		})
		if err := r.log.DeleteRange(all[keep].Index, all[len(all)-1].Index); err != nil {
			t.Fatal(err)
		}
		all = cut
		r.expect(exactly(all))
		r.crash("after a truncation")
	}
	r.close()
}

// TestCrashKeepsSyncedUnderOS: what a checkpoint covers survives even when nothing else is synced.
func TestCrashKeepsSyncedUnderOS(t *testing.T) {
	r := newCrashRun(t, DurabilityOS)
	var all []*raft.Log
	synced := 0
	for i := range 12 {
		more := r.random(appenderFor(t, r.log), 6)
		all = append(all, more...)
		r.expect(between(all, synced))
		mustStore(t, r.log, more...)
		if i%3 == 2 {
			c := mustCheckpoint(t, r.log, Index(len(all)))
			synced = len(all)
			r.expect(func(l *Log, got []*raft.Log) error {
				if latest, ok, err := l.LatestCheckpoint(); err != nil || !ok || latest.Index != c.Index {
					return fmt.Errorf("checkpoint %d, %v, %v, want %d", latest.Index, ok, err, c.Index)
				}
				return between(all, synced)(l, got)
			})
			r.crash("after a checkpoint")
		}
	}
	r.expect(between(all, synced))
	r.close()
}

// TestKillKeepsAllUnderOS: the death of the process alone loses nothing.
func TestKillKeepsAllUnderOS(t *testing.T) {
	mem := newMem(t)
	opts := testOptions(mem)
	opts.Durability = DurabilityOS
	l := mustOpen(t, opts)
	all := fill(t, l, 30, 500)
	waitIndexes(l)
	mem.Kill()
	l.poison(vfs.ErrCrashed)
	l.Close()
	l = mustOpen(t, opts)
	defer l.Close()
	mustContain(t, l, all)
	mem.Crash(nil) // recovery made it durable
	l.poison(vfs.ErrCrashed)
	l.Close()
	l = mustOpen(t, opts)
	defer l.Close()
	mustContain(t, l, all)
}

func TestCrashCheckpointAndTrim(t *testing.T) {
	r := newCrashRun(t, DurabilityQuorum)
	var all []*raft.Log
	first := 0 // of all that the log still has
	for range 6 {
		for range 4 {
			all = append(all[:first:first], r.store(all[first:], r.random(appenderFor(t, r.log), 6))...)
		}
		newest := Index(0)
		if c, ok, err := r.log.LatestCheckpoint(); ok && err == nil {
			newest = c.Index
		}
		b, ok := r.log.Boundary(newest)
		if !ok {
			continue
		}
		r.expect(exactly(all[first:]))
		mustCheckpoint(t, r.log, b.Index)
		kept := all[first:]
		r.expect(func(l *Log, got []*raft.Log) error {
			if c, ok, err := l.LatestCheckpoint(); err != nil || !ok || c.Index != b.Index || string(c.State) != fmt.Sprint("state at ", b.Index) {
				return fmt.Errorf("checkpoint %d, %v, %v, want %d", c.Index, ok, err, b.Index)
			}
			return exactly(kept)(l, got)
		})
		r.crash("after a checkpoint")

		trimmed := all[b.Index:]
		r.expect(func(l *Log, got []*raft.Log) error {
			if len(got) == len(kept) {
				return exactly(kept)(l, got)
			}
			return exactly(trimmed)(l, got)
		})
		if err := r.log.Trim(r.log.NextOffset(), b.Index); err != nil {
			t.Fatal(err)
		}
		first = int(b.Index)
		r.expect(func(l *Log, got []*raft.Log) error {
			var stub raft.Log
			if err := l.GetLog(uint64(b.Index), &stub); err != nil || stub.Term != b.Term {
				return fmt.Errorf("stub at %d: term %d, %v, want %d", b.Index, stub.Term, err, b.Term)
			}
			return exactly(trimmed)(l, got)
		})
		r.crash("after a trim")
	}
	if first == 0 {
		t.Fatal("nothing was ever trimmed")
	}
	r.expect(exactly(all[first:]))
	r.close()
}

// installSnapshot receives a checkpoint as raft does.
func installSnapshot(l *Log, c Checkpoint) error {
	b, err := encodeCheckpoint(c, false, l.now())
	if err != nil {
		return err
	}
	sink, err := l.Snapshots().Create(1, uint64(c.Index), c.Term, c.Configuration, uint64(c.ConfigurationIndex), nil)
	if err != nil {
		return err
	}
	for len(b) > 0 { // in pieces
		n := min(len(b), 50)
		if _, err := sink.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return sink.Close()
}

func TestCrashInstall(t *testing.T) {
	r := newCrashRun(t, DurabilityQuorum)
	var all []*raft.Log
	for round := range 3 {
		for range 4 {
			all = r.store(all, r.random(appenderFor(t, r.log), 6))
		}
		old, oldStart := all, r.log.start.index
		c := Checkpoint{Index: r.log.last + 10, Term: r.log.lastTerm + 1, NextOffset: r.log.NextOffset() + 100, Configuration: testConfiguration(), State: []byte(fmt.Sprint(round))}
		r.expect(func(l *Log, got []*raft.Log) error {
			if l.start.index == oldStart {
				return exactly(old)(l, got)
			}
			return installed(c)(l, got)
		})
		if err := installSnapshot(r.log, c); err != nil {
			t.Fatal(err)
		}
		r.expect(installed(c))
		r.crash("after an installation")
		all = nil
	}
	r.store(all, r.random(appenderFor(t, r.log), 6))
	r.close()
}

// installed wants an empty log that begins after a checkpoint.
func installed(c Checkpoint) func(*Log, []*raft.Log) error {
	return func(l *Log, got []*raft.Log) error {
		latest, ok, err := l.LatestCheckpoint()
		switch {
		case err != nil || !ok || latest.Index != c.Index || string(latest.State) != string(c.State):
			return fmt.Errorf("checkpoint %d, %v, %v, want %d", latest.Index, ok, err, c.Index)
		case len(got) > 0 || l.NextOffset() != c.NextOffset || l.start.term != c.Term:
			return fmt.Errorf("%d entries, next offset %d, term %d", len(got), l.NextOffset(), l.start.term)
		}
		return nil
	}
}

// TestStaleFramesStayGone: entries that were cut off do not come back behind others, not even if the file system undoes the cut for bytes behind the new end, as
// long as it keeps the new bytes. Entries of equal size make old frames line up with new ones.
func TestStaleFramesStayGone(t *testing.T) {
	mem := newMem(t)
	opts := testOptions(mem)
	opts.SegmentBytes = 1 << 20
	l := mustOpen(t, opts)
	a := appenderFor(t, l)
	var old []*raft.Log
	for range 10 {
		old = append(old, a.command(strings.Repeat("x", 64)))
	}
	mustStore(t, l, old...)
	name := numbered(1, segmentExt)
	before, err := readFile(mem, testDir+"/"+name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(5, 10); err != nil {
		t.Fatal(err)
	}
	b := appenderFor(t, l) // the same term: a leader's older entries may have it
	fresh := []*raft.Log{b.command(strings.Repeat("y", 64))}
	mustStore(t, l, fresh...)
	f, err := mem.OpenFile(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	end := l.active().end
	if _, err := f.WriteAt(before[end:], end); err != nil {
		t.Fatal(err)
	}
	f.Sync()
	f.Close()
	mem.Crash(nil)
	l.poison(vfs.ErrCrashed)
	l.Close()
	l = mustOpen(t, opts)
	defer l.Close()
	mustContain(t, l, append(old[:4:4], fresh...))
}

// TestPreallocationOutlivesACrash: recovery leaves the zeros behind the last frame, and what comes next is written over them; an interrupted write is cut off.
func TestPreallocationOutlivesACrash(t *testing.T) {
	fs := newMem(t)
	opts := testOptions(fs)
	opts.SegmentBytes = 1 << 20
	l := mustOpen(t, opts)
	a := appenderFor(t, l)
	for range 3 {
		if err := l.StoreLog(a.batch(1, 100, 1)); err != nil {
			t.Fatal(err)
		}
	}
	seg := l.active()
	size := func(fs *vfs.Mem) int64 {
		fi, err := fs.Stat(seg.path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size
	}
	if size(fs) <= seg.end {
		t.Fatalf("nothing was preallocated: %d bytes, and frames up to %d", size(fs), seg.end)
	}
	for _, torn := range []bool{false, true} {
		crashed := fs.CrashClone(nil)
		want := size(crashed)
		if torn {
			f, err := crashed.OpenFile(seg.path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = f.WriteAt([]byte("half a frame"), seg.end); err != nil {
				t.Fatal(err)
			}
			want = seg.end
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		opts.FS = crashed
		again := mustOpen(t, opts)
		if got := size(crashed); got != want || again.alloc != want {
			t.Errorf("torn %v: %d bytes, %d allocated; want %d", torn, got, again.alloc, want)
		}
		b := appenderFor(t, again)
		if err := again.StoreLog(b.batch(1, 100, 1)); err != nil {
			t.Fatal(err)
		}
		opts.FS = crashed.CrashClone(nil)
		third := mustOpen(t, opts)
		if last, _ := third.LastIndex(); last != 4 {
			t.Errorf("torn %v: the last entry is %d", torn, last)
		}
		for _, l := range []*Log{third, again} {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
