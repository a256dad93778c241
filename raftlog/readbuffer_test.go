package raftlog

import (
	"bytes"
	"sync"
	"testing"

	"github.com/flotilla-log/flotilla/proto/record"
)

// spoil is onReturn in all tests of this package: what was released cannot be mistaken for batches any more.
func spoil(b []byte) {
	for n := copy(b, "\xDB"); n > 0 && n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// logOnDisk has 4 MiB of batches, of which none is cached, and returns them.
func logOnDisk(t *testing.T) (*Log, [][]byte) {
	opts := testOptions(newMem(t))
	opts.SegmentBytes, opts.TailCacheBytes, opts.Durability = 8<<20, -1, DurabilityOS
	l := mustOpen(t, opts)
	t.Cleanup(func() { l.Close() })
	var batches [][]byte
	for _, e := range fill(t, l, 64, 64<<10) {
		batches = append(batches, e.Data)
	}
	return l, batches
}

// read reads up to 1 MiB from a batch on, checks it, and returns the number of the batch after it, and what gives its memory back.
func checkRead(t *testing.T, l *Log, batches [][]byte, at int) (next int, res ReadResult) {
	res, err := l.ReadBatches(record.Offset(2*at), l.NextOffset(), 1<<20)
	if err != nil || len(res.Batches) == 0 {
		t.Errorf("at batch %d: %d batches, %v", at, len(res.Batches), err)
		return len(batches), res
	}
	for i, b := range res.Batches {
		if !bytes.Equal(b, batches[at+i]) {
			t.Errorf("batch %d is not what was stored", at+i)
		}
	}
	return at + len(res.Batches), res
}

// Readers that give their memory back, some later than others, and some never, never see another one's.
func TestReleasedMemoryIsNobodysAnyMore(t *testing.T) {
	l, batches := logOnDisk(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			type kept struct {
				res ReadResult
				at  int
			}
			var held []kept
			for round := range 3 {
				for at := 0; at < len(batches); {
					next, res := checkRead(t, l, batches, at)
					held = append(held, kept{res, at})
					if len(held) > g {
						old := held[0]
						held = held[1:]
						for i, b := range old.res.Batches {
							if !bytes.Equal(b, batches[old.at+i]) {
								t.Errorf("batch %d changed while it was held", old.at+i)
							}
						}
						if old.res.Release != nil && (round+g)%3 > 0 {
							old.res.Release()
						}
					}
					at = next
				}
			}
		})
	}
	wg.Wait()
}

// A large read's memory is lent, and spoilt once it is given back, or the test above would show nothing. What comes from the tail cache is never lent.
func TestLargeReadsAreLent(t *testing.T) {
	l, batches := logOnDisk(t)
	_, res := checkRead(t, l, batches, 0)
	if res.Release == nil {
		t.Fatal("a read of 1 MiB has memory of its own")
	}
	first := res.Batches[0]
	res.Release()
	if first[0] != 0xDB || first[len(first)-1] != 0xDB {
		t.Error("the memory was not given back")
	}
	if _, last := checkRead(t, l, batches, len(batches)-1); last.Release != nil {
		t.Error("a small read takes a large buffer")
	}
	opts := testOptions(newMem(t))
	opts.SegmentBytes, opts.TailCacheBytes = 8<<20, 8<<20
	cached := mustOpen(t, opts)
	defer cached.Close()
	fill(t, cached, 40, 64<<10)
	if res, err := cached.ReadBatches(0, cached.NextOffset(), 1<<20); err != nil || len(res.Batches) == 0 || res.Release != nil {
		t.Errorf("from the tail cache: %d batches, %v, lent: %v", len(res.Batches), err, res.Release != nil)
	}
}

// A read allocates what its result takes, however much it reads.
func TestReadAllocations(t *testing.T) {
	l, _ := logOnDisk(t)
	end := l.NextOffset()
	read := func(maxBytes int) float64 {
		return testing.AllocsPerRun(50, func() {
			res, err := l.ReadBatches(0, end, maxBytes)
			if err != nil {
				t.Fatal(err)
			}
			res.Release()
		})
	}
	if few, many := read(600<<10), read(1<<20); many > few+1 || many > 12 {
		t.Errorf("%.0f allocations for 600 KiB and %.0f for 1 MiB, want the same, up to 12", few, many)
	}
}
