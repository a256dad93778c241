package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/pierrec/lz4/v4"
)

// Compress compresses b as Kafka's producers do: gzip, snappy in xerial framing, an LZ4 frame of independent 64 KiB blocks, or one zstd
// frame. With None it returns a copy.
func Compress(c Compression, b []byte) ([]byte, error) { return appendCompressed(nil, c, b) }

// Decompress undoes Compress, and takes raw snappy blocks too. It returns at most limit bytes: more fail with ErrTooLarge, damaged input
// with ErrCorrupt. Memory grows with what really comes out, not with what the input claims. With None it returns b itself.
func Decompress(c Compression, b []byte, limit int) ([]byte, error) {
	out, err := decompress(c, b, limit)
	if err != nil {
		return nil, err
	}
	if len(out) > limit {
		return nil, fmt.Errorf("%w: %s decompresses to more than %d bytes", ErrTooLarge, c, limit)
	}
	return out, nil
}

// Recompress returns a whole batch with its records compressed by c and all else kept, offsets and times included; the batch itself if
// it is compressed so already. limit bounds the decompressed records in bytes.
func Recompress(batch []byte, c Compression, limit int) ([]byte, error) {
	h, err := ParseHeader(batch)
	if err != nil {
		return nil, err
	}
	if h.Size() != len(batch) {
		return nil, fmt.Errorf("%w: header says %d bytes, there are %d", ErrCorrupt, h.Size(), len(batch))
	}
	from := h.Attributes.Compression()
	if from == c {
		return batch, nil
	}
	records, err := Decompress(from, batch[HeaderSize:], limit)
	if err != nil {
		return nil, err
	}
	out, err := appendCompressed(make([]byte, HeaderSize, HeaderSize+len(records)), c, records)
	if err != nil {
		return nil, err
	}
	h.Attributes = h.Attributes.withCompression(c)
	h.Length = int32(len(out) - lengthOverhead)
	putHeader(out, h)
	seal(out)
	return out, nil
}

func appendCompressed(dst []byte, c Compression, b []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, b...), nil
	case Gzip:
		return appendStream(dst, b, &gzipWriters)
	case Snappy:
		return appendXerial(dst, b), nil
	case LZ4:
		return appendStream(dst, b, &lz4Writers)
	case Zstd:
		return zstdEncoder().EncodeAll(b, dst), nil
	}
	return nil, fmt.Errorf("%w: %d", ErrUnsupportedCompression, int8(c))
}

func decompress(c Compression, b []byte, limit int) ([]byte, error) {
	switch c {
	case None:
		return b, nil
	case Gzip:
		return readStream(b, limit, &gzipReaders)
	case Snappy:
		return decodeSnappy(b, limit)
	case LZ4:
		return readStream(b, limit, &lz4Readers)
	case Zstd:
		return decodeZstd(b, limit)
	}
	return nil, fmt.Errorf("%w: %d", ErrUnsupportedCompression, int8(c))
}

// The pools keep compressors, which are large, from one batch to the next.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	lz4Writers  = sync.Pool{New: func() any { return newLZ4Writer() }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4Reader{lz4.NewReader(nil)} }}
)

type resetWriter interface {
	io.WriteCloser
	Reset(io.Writer)
}

type resetReader interface {
	io.Reader
	Reset(io.Reader) error
}

// lz4Reader gives lz4's Reset the signature of gzip's.
type lz4Reader struct{ *lz4.Reader }

func (r lz4Reader) Reset(src io.Reader) error {
	r.Reader.Reset(src)
	return nil
}

// newLZ4Writer writes frames as Kafka's Java producer does: Java's reader wants independent blocks.
func newLZ4Writer() *lz4.Writer {
	w := lz4.NewWriter(nil)
	// The options are constants: they cannot fail.
	_ = w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1))
	return w
}

// sliceWriter appends to a slice.
type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func appendStream(dst, b []byte, pool *sync.Pool) ([]byte, error) {
	out := sliceWriter{dst}
	w := pool.Get().(resetWriter)
	defer func() {
		w.Reset(io.Discard) // keep no reference to the batch
		pool.Put(w)
	}()
	w.Reset(&out)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.b, nil
}

// readStream decompresses at most limit+1 bytes; Decompress refuses the last one.
func readStream(b []byte, limit int, pool *sync.Pool) ([]byte, error) {
	r := pool.Get().(resetReader)
	defer pool.Put(r)
	if err := r.Reset(bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, unwrapEOF(err))
	}
	var out bytes.Buffer
	out.Grow(min(2*len(b), limit) + bytes.MinRead)
	if _, err := out.ReadFrom(io.LimitReader(r, int64(limit)+1)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, unwrapEOF(err))
	}
	return out.Bytes(), nil
}

// unwrapEOF keeps a bare io.EOF, which to callers means a regular end, from being reported for input that breaks off.
func unwrapEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
