package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

func TestParseCompression(t *testing.T) {
	for _, c := range compressions {
		if got, err := record.ParseCompression(c.String()); got != c || err != nil {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if _, err := record.ParseCompression("brotli"); !errors.Is(err, record.ErrUnsupportedCompression) {
		t.Errorf("brotli: %v", err)
	}
	if s := record.Compression(6).String(); s != "compression(6)" {
		t.Error(s)
	}
}

func TestCompressRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 100, 32 << 10, 32<<10 + 1, 300_000} {
		data := recordtest.Value(3, size)
		for _, c := range compressions {
			packed, err := record.Compress(c, data)
			if err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			got, err := record.Decompress(c, packed, size)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%v, %d bytes: %d back, %v", c, size, len(got), err)
			}
			if size == 0 {
				continue
			}
			if _, err := record.Decompress(c, packed, size-1); !errors.Is(err, record.ErrTooLarge) {
				t.Errorf("%v, %d bytes with a limit one lower: %v", c, size, err)
			}
			if c != record.None {
				if _, err := record.Decompress(c, packed[:len(packed)/2], size); err == nil {
					t.Errorf("%v: half of the input is accepted", c)
				}
			}
		}
	}
}

// TestForeignFramings takes what other producers than Java's send.
func TestForeignFramings(t *testing.T) {
	data := recordtest.Value(1, 100_000)
	var frame bytes.Buffer
	w := lz4.NewWriter(&frame) // 4 MiB blocks and a content checksum
	_, _ = w.Write(data)
	_ = w.Close()
	var stream bytes.Buffer
	zw, _ := zstd.NewWriter(&stream) // no content size
	_, _ = zw.Write(data[:50_000])
	_ = zw.Flush()
	_, _ = zw.Write(data[50_000:])
	_ = zw.Close()
	var wide bytes.Buffer // as level 22 does
	zw, _ = zstd.NewWriter(&wide, zstd.WithWindowSize(128<<20))
	_, _ = zw.Write(data[:10])
	_ = zw.Flush()
	_, _ = zw.Write(data[10:])
	_ = zw.Close()
	xerial, _ := record.Compress(record.Snappy, data[:40_000])
	second, _ := record.Compress(record.Snappy, data[40_000:])
	for name, c := range map[string]struct {
		compression record.Compression
		in          []byte
	}{
		"raw snappy":                  {record.Snappy, s2.EncodeSnappy(nil, data)},
		"concatenated xerial streams": {record.Snappy, append(xerial, second...)},
		"lz4 with checksum":           {record.LZ4, frame.Bytes()},
		"zstd stream":                 {record.Zstd, stream.Bytes()},
		"zstd with a wide window":     {record.Zstd, wide.Bytes()},
	} {
		got, err := record.Decompress(c.compression, c.in, 1<<20)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, err := record.Decompress(c.compression, c.in, 99_999); !errors.Is(err, record.ErrTooLarge) {
			t.Errorf("%s with too low a limit: %v", name, err)
		}
	}
}

// TestXerialFraming pins the layout that snappy-java reads.
func TestXerialFraming(t *testing.T) {
	packed, _ := record.Compress(record.Snappy, bytes.Repeat([]byte("a"), 40<<10))
	if !bytes.HasPrefix(packed, []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")) {
		t.Fatalf("header % x", packed[:16])
	}
	var sizes []int
	for rest := packed[16:]; len(rest) > 0; {
		n := binary.BigEndian.Uint32(rest)
		size, err := s2.DecodedLen(rest[4 : 4+n])
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size)
		rest = rest[4+n:]
	}
	if !reflect.DeepEqual(sizes, []int{32 << 10, 8 << 10}) {
		t.Errorf("blocks of %v bytes", sizes)
	}
}

// TestLyingSizesDoNotAllocate gives each decoder a few bytes that claim to hold much.
func TestLyingSizesDoNotAllocate(t *testing.T) {
	claim := binary.AppendUvarint(nil, 900<<20)
	xerial := append([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x06"), append(claim, 0)...)
	// Magic, descriptor (8 bytes of content size, single segment), size, one empty last block.
	zs := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0x38, 0, 0, 0, 0, 1, 0, 0}
	for name, c := range map[string]struct {
		compression record.Compression
		in          []byte
	}{
		"raw snappy": {record.Snappy, append(claim, 0, 'x')}, "xerial": {record.Snappy, xerial}, "zstd": {record.Zstd, zs},
		"block beyond": {record.Snappy, []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff")},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := record.Decompress(c.compression, c.in, 1<<30)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
			t.Errorf("%s: %d bytes allocated for %d bytes of input", name, grown, len(c.in))
		}
	}
}

// TestBombs gives each decoder input that really expands a lot.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 20<<20)
	for _, c := range compressions[1:] {
		packed, err := record.Compress(c, zeros)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Decompress(c, packed, 1<<20); !errors.Is(err, record.ErrTooLarge) {
			t.Errorf("%v: %d bytes: %v", c, len(packed), err)
		}
	}
}

func TestRecompress(t *testing.T) {
	original := recordtest.Batch(100, 200, recordtest.Producer(3, 1, 10), recordtest.At(500, 2))
	want := recordtest.Records(original)
	b := original
	for _, c := range []record.Compression{record.Gzip, record.Zstd, record.Snappy, record.LZ4, record.None} {
		var err error
		if b, err = record.Recompress(b, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		h, err := record.Validate(b)
		if err != nil || h.Attributes.Compression() != c || h.ProducerID != 3 || h.BaseSequence != 10 || h.BaseOffset != 500 {
			t.Fatalf("%v: %+v, %v", c, h, err)
		}
		if got := recordtest.Records(b); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v: records differ", c)
		}
	}
	if !bytes.Equal(b, original) {
		t.Error("back at no compression, the batch is another one")
	}
	packed, _ := record.Recompress(original, record.Zstd, 1<<20)
	if _, err := record.Recompress(packed, record.Gzip, 100); !errors.Is(err, record.ErrTooLarge) {
		t.Errorf("limit: %v", err)
	}
}

func TestCompressionIsConcurrencySafe(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			data := recordtest.Value(i, 50_000)
			for _, c := range compressions {
				packed, err := record.Compress(c, data)
				if err != nil {
					t.Error(err)
				}
				if got, err := record.Decompress(c, packed, 1<<20); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%v: %v", c, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzDecompress(f *testing.F) {
	for _, c := range compressions {
		packed, _ := record.Compress(c, recordtest.Value(1, 5000))
		f.Add(int8(c), packed)
	}
	f.Fuzz(func(t *testing.T, c int8, b []byte) {
		const limit = 1 << 18
		out, err := record.Decompress(record.Compression(c), b, limit)
		if err != nil && !knownError(err) {
			t.Fatalf("unclassified error %v", err)
		}
		if len(out) > limit && record.Compression(c) != record.None {
			t.Fatalf("%d bytes", len(out))
		}
	})
}
