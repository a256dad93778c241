package partition

import (
	"bytes"
	"errors"
	"testing"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// sampleSnapshot has some of everything.
func sampleSnapshot() *snapshot {
	s := &snapshot{next: 1000, logStart: 17, clock: 1_700_000_000_000_000_000, lastBatch: 1_600_000_000_000_000_000, writing: 12345, digest: 0xFEEDFACE, trimIndex: 9, machine: []byte("machine")}
	for i := range int64(20) {
		for seq := range int32(i%7 + 1) {
			s.producers.record(record.Header{ProducerID: i, ProducerEpoch: int16(i % 3), BaseSequence: seq, Count: 1, BaseOffset: record.Offset(i), MaxTimestamp: -1}, s.clock+i)
		}
	}
	return s
}

func TestSnapshotRoundTrip(t *testing.T) {
	for name, s := range map[string]*snapshot{"full": sampleSnapshot(), "empty": {}, "empty machine": {machine: []byte{}}} {
		b := s.encode()
		got, err := decodeSnapshot(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got.encode(), b) {
			t.Errorf("%s: encodes differently after decoding", name)
		}
		if (got.machine == nil) != (s.machine == nil) || got.producers.len() != s.producers.len() {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestDecodeSnapshotRefuses(t *testing.T) {
	good := sampleSnapshot().encode()
	for n := range len(good) {
		if _, err := decodeSnapshot(good[:n]); !errors.Is(err, errState) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	newer := bytes.Clone(good)
	newer[0] = stateVersion + 1
	beyond := (&snapshot{next: 1, logStart: 2}).encode()
	for name, b := range map[string][]byte{"newer": newer, "too long": append(bytes.Clone(good), 0), "log start beyond the end": beyond} {
		if _, err := decodeSnapshot(b); !errors.Is(err, errState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProducerTableIsBounded(t *testing.T) {
	var tab producerTable
	for i := range int64(maxProducers + 100) {
		tab.record(record.Header{ProducerID: i, Count: 1}, i)
	}
	if tab.len() != maxProducers || tab.get(99) != nil || tab.get(100) == nil {
		t.Errorf("%d producers are known; 99: %v, 100: %v", tab.len(), tab.get(99), tab.get(100))
	}
	tab.record(record.Header{ProducerID: 100, BaseSequence: 1, Count: 1}, 1<<40)
	tab.record(record.Header{ProducerID: -1 << 40, Count: 1}, 1<<40)
	if tab.get(100) == nil || tab.get(101) != nil {
		t.Error("the one unheard of for longest should have gone, and not the one that wrote again")
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add(sampleSnapshot().encode())
	f.Add((&snapshot{}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshot(b)
		if err != nil {
			return
		}
		again, err := decodeSnapshot(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(trimCommand{logStart: 1, index: 2}.encode())
	f.Add([]byte{0xF1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		if c.logStart < 0 {
			t.Fatalf("negative log start %d", c.logStart)
		}
		if again, err := decodeCommand(c.encode()); err != nil || again != c {
			t.Fatalf("%+v comes back as %+v, %v", c, again, err)
		}
	})
}

func TestDecodeCommandRefuses(t *testing.T) {
	good := trimCommand{logStart: 300, index: raftlog.Index(1 << 40)}.encode()
	for _, b := range [][]byte{nil, {0xF1}, {0xF2, 1, 0, 0}, {0xF1, 2, 0, 0}, good[:len(good)-1], append(bytes.Clone(good), 0)} {
		if _, err := decodeCommand(b); !errors.Is(err, errCommand) {
			t.Errorf("%x: %v", b, err)
		}
	}
}
