package raftlog

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// seal puts a right CRC at the end of a record, so that fuzzing reaches what is behind the check.
func seal(b []byte, at int) []byte {
	b = bytes.Clone(b)
	if len(b) >= at+4 {
		le.PutUint32(b[at:], crcOf(b[:at]))
	}
	return b
}

// FuzzRecords: the decoders of small files neither panic nor accept what they would not write.
func FuzzRecords(f *testing.F) {
	f.Add(segmentHeader{epoch: 1, salt: 2, first: 3, prevTerm: 4, nextOffset: 5, createdAt: 6}.encode())
	f.Add(startRecord{epoch: 1, index: 2, term: 3, nextOffset: 4}.encode())
	f.Add(cleanRecord{segment: 1, last: 2, lastTerm: 3, nextOffset: 4, end: 100}.encode())
	f.Add(cutRecord{epoch: 1, segment: 1, last: 2, end: 100}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, seal(b, 60)} {
			if h, err := decodeSegmentHeader(b); err == nil {
				same(t, "segment header", b[16:56], h.encode()[16:56])
			}
			if s, err := decodeStart(b); err == nil {
				same(t, "start", b[12:40], s.encode()[12:40])
			}
			if c, err := decodeClean(b); err == nil {
				same(t, "clean", b[16:52], c.encode()[16:52])
			}
			if c, err := decodeCut(b); err == nil {
				same(t, "cut", b[12:36], c.encode()[12:36])
			}
		}
	})
}

func same(t *testing.T, what string, a, b []byte) {
	t.Helper()
	if !bytes.Equal(a, b) {
		t.Fatalf("%s: %x became %x", what, a, b)
	}
}

func FuzzIndex(f *testing.F) {
	points := sparse{{index: 3, offset: 5, maxTS: 7, pos: segmentHeaderSize}, {index: 9, offset: 8, maxTS: 9, pos: 40000}}
	rec := indexRecord{header: segmentHeader{epoch: 1, first: 3, nextOffset: 5}, sealed: true, last: 12, lastTerm: 2, nextOffset: 20, maxTS: 9, end: 50000}
	f.Add(rec.encode(points))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= indexHeaderSize {
			b = bytes.Clone(b)
			le.PutUint32(b[80:], crcOf(b[indexHeaderSize:]))
			b = append(seal(b[:indexHeaderSize], 124), b[indexHeaderSize:]...)
		}
		r, points, err := decodeIndex(b)
		if err != nil {
			return
		}
		for i := r.header.first; i <= min(r.last, r.header.first+5); i++ {
			if len(points) > 0 && points.byIndex(i).index > i {
				t.Fatalf("the point of %d is at %d", i, points.byIndex(i).index)
			}
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	c := Checkpoint{Index: 4, Term: 2, NextOffset: 9, Configuration: testConfiguration(), ConfigurationIndex: 1, State: []byte("state")}
	good, err := encodeCheckpoint(c, true, time.Unix(5, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > ckptHeaderSize+4 {
			b = append(seal(b[:ckptHeaderSize], 92), b[ckptHeaderSize:]...)
			b = seal(b, len(b)-4)
		}
		c, err := ReadCheckpoint(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := encodeCheckpoint(c, false, time.Unix(5, 0))
		if err != nil {
			t.Fatal(err)
		}
		if d, err := ReadCheckpoint(bytes.NewReader(again)); err != nil || !bytes.Equal(c.State, d.State) || c.Index != d.Index {
			t.Fatalf("%+v became %+v, %v", c, d, err)
		}
	})
}

// FuzzSegment: whatever stands behind a valid header, opening neither panics nor accepts a frame that is not right; what it accepts survives reopening, and
// what it refuses is damage.
func FuzzSegment(f *testing.F) {
	seg := newSegment(testDir, segmentHeader{epoch: 1, salt: 1, first: 1})
	r := newRun(seg, []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogNoop}, {Index: 2, Term: 1, Data: []byte{0xF0, 1, 2, 3}, Extensions: []byte("x")}, {Index: 3, Term: 2, Data: make([]byte, 100)},
	})
	good := bytes.Join(r.vec, nil)
	f.Add(good, uint16(0), byte(0), false)
	f.Add(good, uint16(50), byte(1), false)
	f.Add(append(bytes.Clone(good), good...), uint16(8), byte(9), true)
	f.Fuzz(func(t *testing.T, frames []byte, at uint16, xor byte, fix bool) {
		mem := vfs.NewMem()
		mem.MkdirAll(testDir)
		frames = bytes.Clone(frames)
		if int(at) < len(frames) {
			frames[at] ^= xor
		}
		if fix {
			fixFirstCRC(seg, frames)
		}
		writeFile(mem, testDir+"/"+startName, startRecord{epoch: 1}.encode())
		writeFile(mem, seg.path, append(seg.header.encode(), frames...))
		l, err := Open(testOptions(mem))
		var damage *DamageError
		if err != nil {
			if !errors.As(err, &damage) {
				t.Fatalf("open: %v", err)
			}
			return
		}
		all, err := contents(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(testOptions(mem)); err != nil {
			t.Fatalf("reopen: %v", err)
		}
		mustContain(t, l, all)
		l.Close()
	})
}

// fixFirstCRC makes the first frame pass its CRC.
func fixFirstCRC(seg *segment, b []byte) {
	if len(b) < frameHeaderSize {
		return
	}
	h := readFrameHeader(b)
	if h.size() <= int64(len(b)) {
		h.crc = frameCRC(seg.saltCRC, b[:frameHeaderSize], b[frameHeaderSize:frameHeaderSize+int(h.body())], nil)
		h.put(b)
	}
}
