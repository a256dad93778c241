package raftlog

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// A window returns what the file holds, however reads lie to what it has read before.
func TestWindow(t *testing.T) {
	rng := testRand(t)
	data := make([]byte, 3*wholeChunk+123)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, chunk := range []int{entryChunk, scanChunk, wholeChunk} {
		limit := int64(len(data) - 11)
		w := newWindow(bytes.NewReader(data), limit, chunk)
		for pos, i := int64(0), 0; i < 300; i++ {
			n := 1 + rng.IntN(1<<(1+rng.IntN(20)))
			b, err := w.at(pos, n)
			switch {
			case pos+int64(n) > limit:
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("chunk %d: %d bytes at %d: %v", chunk, n, pos, err)
				}
				pos = 0
				continue
			case err != nil || !bytes.Equal(b, data[pos:pos+int64(n)]):
				t.Fatalf("chunk %d: %d bytes at %d are others, or %v", chunk, n, pos, err)
			}
			switch rng.IntN(8) {
			case 0: // again, or a part
			case 1:
				pos = rng.Int64N(limit)
			default:
				pos += int64(n)
			}
		}
		w.close()
	}
}

func TestZeros(t *testing.T) {
	for _, c := range []struct {
		size  int
		other int // position of a byte that is not zero; -1: none
	}{{0, -1}, {1, -1}, {3*scanChunk + 5, -1}, {10, 0}, {10, 9}, {3 * scanChunk, scanChunk}, {3 * scanChunk, 3*scanChunk - 1}} {
		data := make([]byte, c.size)
		if c.other >= 0 {
			data[c.other] = 7
		}
		only, last, err := zeros(bytes.NewReader(data), 0, int64(c.size))
		if err != nil || only != (c.other < 0) || last != int64(c.other+1) {
			t.Errorf("%+v: %v, %d, %v", c, only, last, err)
		}
	}
}

// After a crash the log knows of the entries that recovery has read which are commands; of others, and later, it says nothing.
func TestWasCommand(t *testing.T) {
	fs := newMem(t)
	l := mustOpen(t, testOptions(fs))
	a := appenderFor(t, l)
	var entries []*raft.Log
	for range 40 { // several segments
		entries = append(entries, a.batch(2, 300, 1), a.noop(), a.command("x"), a.dead(1, 20))
		for _, e := range entries[len(entries)-4:] {
			if err := l.StoreLog(e); err != nil {
				t.Fatal(err)
			}
		}
		if l.WasCommand(entries[len(entries)-1].Index) {
			t.Fatal("it knows of an entry that recovery has not read")
		}
	}
	crashed := fs.CrashClone(nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(crashed))
	known := 0
	for _, e := range entries {
		if l.WasCommand(e.Index) {
			known++
			if e.Type != raft.LogCommand {
				t.Errorf("entry %d is of type %d", e.Index, e.Type)
			}
		} else if e.Type == raft.LogCommand && e.Index >= uint64(l.segs[len(l.segs)-1].header.first) {
			t.Errorf("entry %d, of the newest segment, was read", e.Index)
		}
	}
	if known == 0 || l.WasCommand(0) || l.WasCommand(uint64(len(entries)+1)) {
		t.Errorf("%d of %d entries are known", known, len(entries))
	}
	later := appenderFor(t, l).batch(1, 10, 1)
	if err := l.StoreLog(later); err != nil {
		t.Fatal(err)
	}
	if l.WasCommand(later.Index) {
		t.Error("it knows of an entry that was stored afterwards")
	}
	l.ServeFollowers()
	if l.WasCommand(entries[len(entries)-1].Index) {
		t.Error("it knows after raft has started")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(crashed)) // closed in order: nothing was read
	if l.WasCommand(entries[len(entries)-1].Index) {
		t.Error("it knows of an entry that nobody read")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
