package raftlog

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
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
		if s.Sealed {
			want += int(s.Bytes)
		}
	}
	if read == 0 || read > want || read < want*9/10 {
		t.Errorf("%d bytes were read, and the sealed segments have %d", read, want)
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
