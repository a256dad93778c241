package raftlog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func freePace(context.Context, int) error { return nil }

func TestScrubOfGoodLog(t *testing.T) {
	mem, _ := damagedLog(t, true)
	l := mustOpen(t, testOptions(mem))
	defer l.Close()
	read := 0
	if err := l.Scrub(t.Context(), func(_ context.Context, n int) error { read += n; return nil }); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, s := range l.Segments() {
		want += int(s.Bytes)
	}
	for _, c := range l.checkpoints {
		_, b, err := l.readCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		want += len(b)
	}
	if read == 0 || read > want || read < want*9/10 {
		t.Errorf("%d bytes were read, and there are %d", read, want)
	}
}

// TestScrubFindsDamage: a flipped bit in a sealed segment, which opening does not read, is found, named, and poisons the log.
func TestScrubFindsDamage(t *testing.T) {
	mem, segs := damagedLog(t, true)
	name := numbered(segs[1].FirstIndex, segmentExt)
	flip(t, mem, name, segs[1].Bytes/2)
	opts := testOptions(mem)
	var failures atomic.Int32
	opts.OnFailure = func(error) { failures.Add(1) }
	l := mustOpen(t, opts)
	defer l.Close()
	err := l.Scrub(t.Context(), freePace)
	var damage *DamageError
	if !errors.As(err, &damage) || damage.File != filepath.Join(testDir, name) {
		t.Fatalf("the scrub said %v, and the damage is in %s", err, name)
	}
	if l.Err() == nil || failures.Load() != 1 {
		t.Errorf("the log says %v and reported %d failures", l.Err(), failures.Load())
	}
}

func TestScrubOfDeletedSegment(t *testing.T) {
	mem, segs := damagedLog(t, true)
	l := mustOpen(t, testOptions(mem))
	defer l.Close()
	name := numbered(segs[1].FirstIndex, segmentExt)
	remove(t, mem, name)
	var damage *DamageError
	if err := l.Scrub(t.Context(), freePace); !errors.As(err, &damage) || damage.File != filepath.Join(testDir, name) {
		t.Fatalf("the scrub said %v, and %s is missing", err, name)
	}
}

// TestScrubBesideTrim: segments that go away during the scrub are no damage.
func TestScrubBesideTrim(t *testing.T) {
	mem, segs := damagedLog(t, true)
	l := mustOpen(t, testOptions(mem))
	defer l.Close()
	upTo, steps := segs[1].LastIndex, 0
	err := l.Scrub(t.Context(), func(context.Context, int) error {
		if steps++; steps > 1 {
			return nil
		}
		return l.Trim(l.NextOffset(), upTo)
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := l.Segments()[0].FirstIndex; now <= segs[0].FirstIndex {
		t.Errorf("nothing was trimmed: the log begins at %d", now)
	}
}

func TestScrubEnds(t *testing.T) {
	mem, _ := damagedLog(t, true)
	l := mustOpen(t, testOptions(mem))
	stop := errors.New("stop")
	if err := l.Scrub(t.Context(), func(context.Context, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("with an error of pace: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Scrub(t.Context(), freePace); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed log: %v", err)
	}
}

// TestScrubEverywhere flips one bit at a time, in every file of a log that runs, at places all over it, and also cuts each file short and deletes it. A scrub
// finds all of it, names the file, and poisons the log; index files, which are copies, are written anew as they were.
func TestScrubEverywhere(t *testing.T) {
	mem, segs := damagedLog(t, true)
	// What is of no meaning while the log runs, or a file without content.
	skip := []string{lockName, cleanName, numbered(segs[len(segs)-1].FirstIndex, indexExt)}
	files := map[string]int{}
	for _, name := range mustList(t, mem) {
		if !slices.Contains(skip, name) {
			files[name] = len(readMem(t, mem, name))
		}
	}
	if len(files) < 6 {
		t.Fatalf("only %d files: %v", len(files), files)
	}
	for name, size := range files {
		for what, harm := range harms(t, name, size) {
			mem, _ := damagedLog(t, true)
			opts := testOptions(mem)
			repaired := ""
			opts.OnRepair = func(file string) { repaired = filepath.Base(file) }
			l := mustOpen(t, opts)
			before := readMem(t, mem, name)
			harm(mem)
			err := l.Scrub(t.Context(), freePace)
			var damage *DamageError
			switch {
			case filepath.Ext(name) == indexExt:
				if err != nil || repaired != name || string(readMem(t, mem, name)) != string(before) {
					t.Errorf("%s, %s: error %v, and %q was written anew", name, what, err, repaired)
				}
			case !errors.As(err, &damage) || filepath.Base(damage.File) != name || l.Err() == nil:
				t.Errorf("%s, %s: the scrub said %v", name, what, err)
			}
			_ = l.Close()
		}
	}
}

// harms are the ways in which a file is damaged, by a name for messages.
func harms(t *testing.T, name string, size int) map[string]func(*vfs.Mem) {
	out := map[string]func(*vfs.Mem){
		"deleted":       func(mem *vfs.Mem) { remove(t, mem, name) },
		"emptied":       func(mem *vfs.Mem) { truncateFile(t, mem, name, 0) },
		"cut in half":   func(mem *vfs.Mem) { truncateFile(t, mem, name, int64(size/2)) },
		"one byte less": func(mem *vfs.Mem) { truncateFile(t, mem, name, int64(size-1)) },
	}
	for at := 0; at < size; at += max(1, size/37) {
		out[fmt.Sprintf("bit flipped at byte %d", at)] = func(mem *vfs.Mem) { flip(t, mem, name, int64(at)) }
	}
	if filepath.Ext(name) == segmentExt {
		size -= 8 // it may end with up to seven zeros, which carry nothing and are not looked at
	}
	out["bit flipped at the end"] = func(mem *vfs.Mem) { flip(t, mem, name, int64(size-1)) }
	return out
}

func mustList(t *testing.T, mem *vfs.Mem) (names []string) {
	t.Helper()
	list, err := mem.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name)
	}
	return names
}

func readMem(t *testing.T, mem *vfs.Mem, name string) []byte {
	t.Helper()
	b, err := readFile(mem, filepath.Join(testDir, name), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
