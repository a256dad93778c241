package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

var compressions = []record.Compression{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd}

func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func randomBytes(r *rand.Rand, n int) []byte {
	if r.IntN(8) == 0 {
		return nil
	}
	b := make([]byte, r.IntN(n+1))
	for i := range b {
		b[i] = byte(r.IntN(1 + r.IntN(256)))
	}
	return b
}

func randomRecords(r *rand.Rand) []record.Record {
	rs := make([]record.Record, 1+r.IntN(200))
	for i := range rs {
		rs[i] = record.Record{Offset: record.Offset(i), Timestamp: r.Int64N(1 << 45), Key: randomBytes(r, 20), Value: randomBytes(r, 500)}
		for range r.IntN(4) {
			rs[i].Headers = append(rs[i].Headers, record.HeaderField{Key: string(randomBytes(r, 10)), Value: randomBytes(r, 30)})
		}
	}
	return rs
}

func build(t testing.TB, rs []record.Record, opts record.BuilderOptions) []byte {
	t.Helper()
	b := record.NewBuilder(opts)
	for _, r := range rs {
		before, grow := b.Size(), b.AppendSize(r)
		if err := b.Append(r); err != nil {
			t.Fatal(err)
		}
		if b.Size() != before+grow {
			t.Fatalf("size %d after %d + %d", b.Size(), before, grow)
		}
	}
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func TestRoundTrip(t *testing.T) {
	r := newRand(t)
	for range 40 {
		rs := randomRecords(r)
		c := compressions[r.IntN(len(compressions))]
		b := build(t, rs, record.BuilderOptions{Compression: c})
		if _, err := record.Validate(b); err != nil {
			t.Fatal(err)
		}
		if err := record.ValidateRecords(b, 1<<20); err != nil {
			t.Fatal(err)
		}
		got, err := record.Decode(b, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, rs) {
			t.Fatalf("%v: records differ after a round trip", c)
		}
		i := 0
		err = record.Walk(b, 1<<20, func(r *record.Record) error {
			if r.Offset != rs[i].Offset || !bytes.Equal(r.Value, rs[i].Value) || len(r.Headers) != len(rs[i].Headers) {
				t.Fatalf("walk: record %d differs", i)
			}
			i++
			return nil
		})
		if err != nil || i != len(rs) {
			t.Fatalf("walked over %d of %d: %v", i, len(rs), err)
		}
	}
}

// TestRecordsAgreeWithKmsg encodes with our encoder and decodes with kmsg's, and the other way round.
func TestRecordsAgreeWithKmsg(t *testing.T) {
	rs := randomRecords(newRand(t))
	b := build(t, rs, record.BuilderOptions{})
	h, _ := record.ParseHeader(b)
	var again []byte
	rest := b[record.HeaderSize:]
	for i, r := range rs {
		n, w := binary.Varint(rest)
		one := rest[:w+int(n)]
		rest = rest[len(one):]
		var k kmsg.Record
		if err := k.ReadFrom(one); err != nil {
			t.Fatal(err)
		}
		if k.TimestampDelta64 != r.Timestamp-h.BaseTimestamp || int(k.OffsetDelta) != i || !reflect.DeepEqual(k.Key, r.Key) || !reflect.DeepEqual(k.Value, r.Value) {
			t.Fatalf("record %d: kmsg reads %+v, want %+v", i, k, r)
		}
		if len(k.Headers) != len(r.Headers) {
			t.Fatalf("record %d: %d headers", i, len(k.Headers))
		}
		again = k.AppendTo(again)
	}
	if !bytes.Equal(again, b[record.HeaderSize:]) {
		t.Error("kmsg encodes the records differently")
	}
}

func TestBuilderLimitsAndReuse(t *testing.T) {
	b := record.NewBuilder(record.BuilderOptions{MaxBytes: 200})
	if _, err := b.Build(); !errors.Is(err, record.ErrInvalid) {
		t.Errorf("empty: %v", err)
	}
	r := record.Record{Value: make([]byte, 100)}
	if err := b.Append(r); err != nil {
		t.Fatal(err)
	}
	size := b.Size()
	if err := b.Append(r); !errors.Is(err, record.ErrTooLarge) || b.Size() != size || b.Len() != 1 {
		t.Errorf("beyond the limit: %v, size %d -> %d", err, size, b.Size())
	}
	first, err := b.Build()
	if err != nil || len(first) != size {
		t.Fatalf("%d bytes, announced %d: %v", len(first), size, err)
	}
	keep := string(first)
	b.Reset()
	if err := b.Append(record.Record{Timestamp: 5, Key: []byte("other"), Value: bytes.Repeat([]byte("x"), 99)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(); err != nil {
		t.Fatal(err)
	}
	if string(first) != keep {
		t.Error("reuse of the builder changed the batch built before")
	}
	if _, err := record.NewBuilder(record.BuilderOptions{Compression: 6}).Build(); err == nil {
		t.Error("unknown compression accepted")
	}
}

func TestBuilderKeepsIncompressibleRecordsAsTheyAre(t *testing.T) {
	for _, c := range compressions {
		b := build(t, []record.Record{{Value: []byte("x")}}, record.BuilderOptions{Compression: c})
		h, err := record.Validate(b)
		if err != nil || h.Attributes.Compression() != record.None {
			t.Errorf("%v: %+v, %v", c, h, err)
		}
	}
}

func TestValidateRecordsRefuses(t *testing.T) {
	good := recordtest.Batch(3, 4)
	// One record of the batch: length 10 (1 byte), attributes, timestamp delta, offset delta, key, value length, 4 bytes, headers.
	const recordLen = 11
	for name, c := range map[string]struct {
		change func(b []byte)
		want   error
	}{
		"offset delta":      {func(b []byte) { b[61+3] = 2 }, record.ErrInvalid},
		"record too long":   {func(b []byte) { b[61] = 0x7e }, record.ErrCorrupt},
		"record too short":  {func(b []byte) { b[61] = 2 }, record.ErrCorrupt},
		"negative length":   {func(b []byte) { b[61] = 1 }, record.ErrCorrupt},
		"value beyond":      {func(b []byte) { b[61+5] = 0x7e }, record.ErrCorrupt},
		"value length -2":   {func(b []byte) { b[61+5] = 3 }, record.ErrCorrupt},
		"headers promised":  {func(b []byte) { b[61+recordLen-1] = 8 }, record.ErrCorrupt},
		"headers negative":  {func(b []byte) { b[61+recordLen-1] = 1 }, record.ErrCorrupt},
		"fewer than said":   {func(b []byte) { b[60], b[26] = 2, 1 }, record.ErrCorrupt},
		"more than said":    {func(b []byte) { b[60], b[26] = 4, 3 }, record.ErrCorrupt},
		"count of 16777219": {func(b []byte) { b[57], b[23] = 1, 1 }, record.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			b := append([]byte(nil), good...)
			c.change(b)
			if err := record.ValidateRecords(reseal(b), 1<<20); !errors.Is(err, c.want) {
				t.Errorf("ValidateRecords: %v, want %v", err, c.want)
			}
			if c.want == record.ErrCorrupt {
				if _, err := record.Decode(b, 1<<20); !errors.Is(err, c.want) {
					t.Errorf("Decode: %v, want %v", err, c.want)
				}
			}
		})
	}
	if err := record.ValidateRecords(good, 1); err != nil {
		t.Errorf("limit applies to what is decompressed only: %v", err)
	}
}

func TestMurmur2(t *testing.T) {
	// From Kafka's UtilsTest.
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(record.Murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionForKey(t *testing.T) {
	// toPositive clears the sign bit: -973932308 & 0x7fffffff = 1173551340.
	for _, c := range []struct {
		key  string
		n    int32
		want int32
	}{{"21", 12, 1173551340 % 12}, {"abc", 7, 479470107 % 7}, {"abc", 1, 0}, {"abc", 0, -1}, {"foobar", 1000, (-790332482 & 0x7fffffff) % 1000}} {
		if got := record.PartitionForKey([]byte(c.key), c.n); got != c.want {
			t.Errorf("%q of %d: %d, want %d", c.key, c.n, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range compressions {
		f.Add(recordtest.Batch(20, 60, recordtest.Compression(c)))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		if h, err := record.ParseHeader(b); err == nil && h.Size() == len(b) {
			reseal(b) // so that the fuzzer gets past the CRC
		}
		_, verr := record.Validate(b)
		rerr := record.ValidateRecords(b, limit)
		rs, derr := record.Decode(b, limit)
		if verr == nil && rerr == nil {
			if derr != nil {
				t.Fatalf("valid, but does not decode: %v", derr)
			}
			checkReencode(t, b, rs)
		}
		for _, err := range []error{verr, rerr, derr} {
			if err != nil && !knownError(err) {
				t.Fatalf("unclassified error %v", err)
			}
		}
		for rest := b; ; {
			var err error
			if _, rest, err = record.Next(rest); err != nil {
				break
			}
		}
	})
}

func knownError(err error) bool {
	for _, e := range []error{record.ErrCorrupt, record.ErrInvalid, record.ErrTooLarge, record.ErrUnsupportedCompression} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// checkReencode builds the records again and decodes the result.
func checkReencode(t *testing.T, b []byte, rs []record.Record) {
	h, _ := record.ParseHeader(b)
	again := build(t, rs, record.BuilderOptions{BaseOffset: h.BaseOffset})
	got, err := record.Decode(again, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(rs) {
		t.Fatal("records differ after encoding them again")
	}
}

func BenchmarkValidate64KiB(b *testing.B) {
	batch := recordtest.Batch(64, 1000)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.Validate(batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecords is what looks at each record: on the way in (ValidateRecords) and at a consumer (Decode, Walk); and what makes a batch.
func BenchmarkRecords(b *testing.B) {
	for _, size := range []int{100, 1000} {
		batch := recordtest.Batch(256<<10/size, size)
		run := func(name string, f func() error) {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				b.SetBytes(int64(len(batch)))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("validate", func() error { return record.ValidateRecords(batch, 1<<20) })
		run("walk", func() error { return record.Walk(batch, 1<<20, func(*record.Record) error { return nil }) })
		run("decode", func() error {
			_, err := record.Decode(batch, 1<<20)
			return err
		})
		rs, err := record.Decode(batch, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		builder := record.NewBuilder(record.BuilderOptions{})
		run("build", func() error {
			builder.Reset()
			for _, r := range rs {
				if err := builder.Append(r); err != nil {
					return err
				}
			}
			_, err := builder.Build()
			return err
		})
	}
}

// TestTake: a batch that takes the builder's memory is the one that Build would have copied, and what is built next does not touch it.
func TestTake(t *testing.T) {
	for _, c := range compressions {
		b := record.NewBuilder(record.BuilderOptions{Compression: c, ProducerID: 3})
		fill := func(char string) {
			for i := range 20 {
				if err := b.Append(record.Record{Timestamp: int64(i), Value: bytes.Repeat([]byte(char), 100)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := b.Take(); !errors.Is(err, record.ErrInvalid) {
			t.Fatalf("%v: empty: %v", c, err)
		}
		fill("a")
		want, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Take()
		if err != nil || !bytes.Equal(got, want) || b.Len() != 0 {
			t.Fatalf("%v: %d bytes, %v; want %d; %d records are left", c, len(got), err, len(want), b.Len())
		}
		memory := make([]byte, 10, 1<<16)
		if c == record.None {
			if b.Cap() != 0 {
				t.Fatalf("%v: the builder has %d bytes of memory left", c, b.Cap())
			}
			b.Use(memory)
		}
		fill("b")
		next, err := b.Take()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v: the first batch has changed, %v", c, err)
		}
		if _, err := record.Validate(next); err != nil || c == record.None && &next[0] != &memory[0] {
			t.Fatalf("%v: %v, in the memory that it was given: %v", c, err, &next[0] == &memory[0])
		}
	}
}
