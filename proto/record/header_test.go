package record_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

// reseal renews the CRC after a test has changed a field.
func reseal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestHeaderAgreesWithKmsg(t *testing.T) {
	b := recordtest.Batch(50, 100, recordtest.Producer(7, 3, 42), recordtest.At(1000, 9), recordtest.Compression(record.Zstd))
	var k kmsg.RecordBatch
	if err := k.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	h, err := record.Validate(b)
	if err != nil {
		t.Fatal(err)
	}
	want := record.Header{
		BaseOffset: record.Offset(k.FirstOffset), Length: k.Length, LeaderEpoch: k.PartitionLeaderEpoch, CRC: uint32(k.CRC),
		Attributes: record.Attributes(k.Attributes), LastOffsetDelta: k.LastOffsetDelta, BaseTimestamp: k.FirstTimestamp,
		MaxTimestamp: k.MaxTimestamp, ProducerID: k.ProducerID, ProducerEpoch: k.ProducerEpoch, BaseSequence: k.FirstSequence,
		Count: k.NumRecords,
	}
	if h != want {
		t.Errorf("header %+v\n  kmsg %+v", h, want)
	}
	if h.Size() != len(b) || h.LastOffset() != 1049 || h.Next() != 1050 || h.LastSequence() != 91 || !h.Idempotent() {
		t.Errorf("derived values of %+v are wrong", h)
	}
	if h.Attributes.Compression() != record.Zstd || h.MaxTimestamp != recordtest.Timestamp+49 {
		t.Errorf("header %+v", h)
	}
}

func TestParseHeaderNeedsTheHeaderOnly(t *testing.T) {
	b := recordtest.Batch(3, 10)
	short, err := record.ParseHeader(b[:record.HeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	long, err := record.ParseHeader(append(b, b...))
	if err != nil || short != long {
		t.Errorf("%+v, %+v, %v", short, long, err)
	}
	if _, err := record.ParseHeader(b[:60]); !errors.Is(err, record.ErrCorrupt) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("60 bytes: %v", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	put32 := func(pos int, v int32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[pos:], uint32(v)); return reseal(b) }
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"bit flip":          {recordtest.Corrupt, record.ErrCorrupt},
		"cut":               {func(b []byte) []byte { return b[:len(b)-1] }, record.ErrCorrupt},
		"too long":          {func(b []byte) []byte { return append(b, 0) }, record.ErrCorrupt},
		"magic 1":           {func(b []byte) []byte { b[16] = 1; return b }, record.ErrInvalid},
		"length negative":   {put32(8, -1), record.ErrCorrupt},
		"length 48":         {put32(8, 48), record.ErrCorrupt},
		"length max":        {put32(8, math.MaxInt32), record.ErrCorrupt},
		"count 0":           {put32(57, 0), record.ErrInvalid},
		"count negative":    {put32(57, -3), record.ErrCorrupt},
		"count too high":    {func(b []byte) []byte { put32(23, 999)(b); return put32(57, 1000)(b) }, record.ErrInvalid},
		"offset delta":      {put32(23, 7), record.ErrInvalid},
		"offset delta < 0":  {put32(23, -1), record.ErrCorrupt},
		"compression 5":     {func(b []byte) []byte { b[22] |= 5; return reseal(b) }, record.ErrUnsupportedCompression},
		"unknown attribute": {func(b []byte) []byte { b[21] = 0x40; return reseal(b) }, record.ErrInvalid},
		"sequence negative": {func(b []byte) []byte { record.SetProducer(b, 4, 0, -1); return b }, record.ErrInvalid},
		"epoch negative":    {func(b []byte) []byte { record.SetProducer(b, 4, -1, 0); return b }, record.ErrInvalid},
		"empty":             {func([]byte) []byte { return nil }, record.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := record.Validate(c.change(recordtest.Batch(4, 20))); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestStampLeavesTheCRCValid(t *testing.T) {
	b := recordtest.Batch(2, 10)
	record.Stamp(b, 77, 5)
	h, err := record.Validate(b)
	if err != nil || h.BaseOffset != 77 || h.LeaderEpoch != 5 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestSetLogAppendTime(t *testing.T) {
	b := recordtest.Batch(100, 10, recordtest.Compression(record.LZ4))
	record.SetLogAppendTime(b, 123456)
	h, err := record.Validate(b)
	if err != nil || h.Attributes.TimestampType() != record.LogAppendTime || h.Attributes.Compression() != record.LZ4 {
		t.Fatalf("%+v, %v", h, err)
	}
	for _, r := range recordtest.Records(b) {
		if r.Timestamp != 123456 {
			t.Errorf("record %d has time %d", r.Offset, r.Timestamp)
		}
	}
}

func TestSetProducer(t *testing.T) {
	b := recordtest.Batch(3, 10)
	record.SetProducer(b, 5, 2, math.MaxInt32-1)
	h, err := record.Validate(b)
	if err != nil || h.ProducerID != 5 || h.ProducerEpoch != 2 || h.LastSequence() != 0 {
		t.Errorf("%+v (last sequence %d), %v", h, h.LastSequence(), err)
	}
}

func TestAddSequenceWraps(t *testing.T) {
	for _, c := range []struct{ seq, n, want int32 }{
		{0, 1, 1}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 1, math.MaxInt32}, {math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1},
	} {
		if got := record.AddSequence(c.seq, c.n); got != c.want {
			t.Errorf("%d+%d = %d, want %d", c.seq, c.n, got, c.want)
		}
	}
}

func TestNextSplits(t *testing.T) {
	one, two := recordtest.Batch(1, 5), recordtest.Batch(9, 50)
	all := append(append([]byte(nil), one...), two...)
	first, rest, err := record.Next(all)
	if err != nil || string(first) != string(one) {
		t.Fatal(err)
	}
	second, rest, err := record.Next(rest)
	if err != nil || string(second) != string(two) {
		t.Fatal(err)
	}
	if _, _, err := record.Next(rest); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < len(one); n++ {
		if _, _, err := record.Next(one[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", n, len(one), err)
		}
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	b := recordtest.Batch(50, 100)
	builder := record.NewBuilder(record.BuilderOptions{})
	r := record.Record{Key: []byte("key"), Value: make([]byte, 100), Headers: []record.HeaderField{{Key: "h", Value: []byte("v")}}}
	for range 1000 {
		if err := builder.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	builder.Reset()
	for name, f := range map[string]func(){
		"ParseHeader":     func() { _, _ = record.ParseHeader(b) },
		"Validate":        func() { _, _ = record.Validate(b) },
		"ValidateRecords": func() { _ = record.ValidateRecords(b, 1<<20) },
		"Stamp":           func() { record.Stamp(b, 3, 4) },
		"Next":            func() { _, _, _ = record.Next(b) },
		"Builder.Append":  func() { _ = builder.Append(r) },
	} {
		if n := testing.AllocsPerRun(100, f); n > 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestChecksumOfAKnownSum(t *testing.T) {
	for _, n := range []int{0, 20, 21, 22, 61, 5000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7)
		}
		if got, want := record.ChecksumOf(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), record.Checksum(b); got != want {
			t.Errorf("%d bytes: got %08x, want %08x", n, got, want)
		}
	}
}
