package record

import (
	"fmt"
	"math"
)

// BuilderOptions say what kind of batch a Builder makes. The zero value makes uncompressed batches without a producer ID and without a
// limit of their own.
type BuilderOptions struct {
	Compression Compression
	// ProducerID makes the batch an idempotent producer's if it is above 0 (Flotilla hands out IDs from 1).
	ProducerID    int64
	ProducerEpoch int16
	BaseSequence  int32
	// LeaderEpoch and BaseOffset are overwritten by the broker; tests may want them. Zero values are written as they are.
	BaseOffset  Offset
	LeaderEpoch int32
	// Attributes beside the compression, for tests and for brokers' own batches.
	Attributes Attributes
	// MaxBytes bounds the batch before compression, in bytes: Append fails with ErrTooLarge rather than go beyond it. 0: as much as the
	// format holds, 2 GiB.
	MaxBytes int
}

// Builder encodes records into one batch. It can be used again after Reset. It is not safe for concurrent use.
type Builder struct {
	opts  BuilderOptions
	buf   []byte // header (written by Build) and encoded records
	count int32
	base  int64 // timestamp of the first record
	max   int64 // largest timestamp
}

// NewBuilder returns an empty builder. An unknown compression type fails in Build.
func NewBuilder(opts BuilderOptions) *Builder {
	if opts.MaxBytes <= 0 || opts.MaxBytes > math.MaxInt32 {
		opts.MaxBytes = math.MaxInt32
	}
	return &Builder{opts: opts}
}

// Append adds a record and copies all that it holds. The record's Offset is ignored: offsets follow from the order. It fails with
// ErrTooLarge, leaving the builder as it was, when the batch would grow beyond MaxBytes.
func (b *Builder) Append(r Record) error {
	base := b.base
	if b.count == 0 {
		base = r.Timestamp
	}
	body := bodySize(&r, base, b.count)
	size := b.Size() + varintSize(int64(body)) + body
	if size > b.opts.MaxBytes {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, size, b.opts.MaxBytes)
	}
	if len(b.buf) == 0 {
		b.buf = append(b.buf, make([]byte, HeaderSize)...)
	}
	b.buf = appendRecord(b.buf, &r, body, r.Timestamp-base, b.count)
	if b.count == 0 || r.Timestamp > b.max {
		b.max = r.Timestamp
	}
	b.base = base
	b.count++
	return nil
}

// AppendSize is by how many bytes Append of r would make Size grow.
func (b *Builder) AppendSize(r Record) int {
	base := b.base
	if b.count == 0 {
		base = r.Timestamp
	}
	body := bodySize(&r, base, b.count)
	return varintSize(int64(body)) + body
}

// Size is the length of the batch in bytes if it were built now without compression.
func (b *Builder) Size() int { return max(len(b.buf), HeaderSize) }

// Len is the number of records.
func (b *Builder) Len() int { return int(b.count) }

// SetProducer changes the producer ID, epoch and sequence of the batch to be built. ID -1 makes an ordinary batch.
func (b *Builder) SetProducer(id int64, epoch int16, baseSequence int32) {
	b.opts.ProducerID, b.opts.ProducerEpoch, b.opts.BaseSequence = id, epoch, baseSequence
}

// Build returns the batch, compressed unless that makes it larger. The caller owns it. Reset must be called before the next batch. It
// fails with ErrInvalid if there are no records and with ErrUnsupportedCompression.
func (b *Builder) Build() ([]byte, error) {
	if b.count == 0 {
		return nil, fmt.Errorf("%w: no records", ErrInvalid)
	}
	c := b.opts.Compression
	var batch []byte
	if c != None {
		var err error
		if batch, err = appendCompressed(make([]byte, HeaderSize, len(b.buf)), c, b.buf[HeaderSize:]); err != nil {
			return nil, err
		}
	}
	if c == None || len(batch) > len(b.buf) {
		c = None
		batch = append([]byte(nil), b.buf...) // which, unlike make, does not clear what is overwritten
	}
	putHeader(batch, b.header(c, len(batch)))
	seal(batch)
	return batch, nil
}

// Take is Build that does not copy: unless it was compressed, the batch has the builder's memory. The builder is empty afterwards, and ready for the next batch, for which Use may give
// it memory.
func (b *Builder) Take() ([]byte, error) {
	if b.opts.Compression != None {
		batch, err := b.Build()
		b.Reset()
		return batch, err
	}
	if b.count == 0 {
		return nil, fmt.Errorf("%w: no records", ErrInvalid)
	}
	batch := b.buf
	putHeader(batch, b.header(None, len(batch)))
	seal(batch)
	b.buf = nil
	b.Reset()
	return batch, nil
}

// Use gives an empty builder memory to encode into, which it only leaves for more when that is full.
func (b *Builder) Use(memory []byte) { b.buf = memory[:0] }

// Cap is how much memory the builder has, in bytes.
func (b *Builder) Cap() int { return cap(b.buf) }

func (b *Builder) header(c Compression, size int) Header {
	h := Header{
		BaseOffset:      b.opts.BaseOffset,
		Length:          int32(size - lengthOverhead),
		LeaderEpoch:     b.opts.LeaderEpoch,
		Attributes:      b.opts.Attributes.withCompression(c),
		LastOffsetDelta: b.count - 1,
		BaseTimestamp:   b.base,
		MaxTimestamp:    b.max,
		ProducerID:      -1,
		ProducerEpoch:   -1,
		BaseSequence:    -1,
		Count:           b.count,
	}
	if b.opts.ProducerID > 0 {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = b.opts.ProducerID, b.opts.ProducerEpoch, b.opts.BaseSequence
	}
	return h
}

// Reset empties the builder and keeps its options and its memory.
func (b *Builder) Reset() {
	b.buf = b.buf[:0]
	b.count, b.base, b.max = 0, 0, 0
}

// bodySize is the length of a record after its length field.
func bodySize(r *Record, baseTimestamp int64, delta int32) int {
	n := 1 + varintSize(r.Timestamp-baseTimestamp) + varintSize(int64(delta)) + nullableSize(r.Key) + nullableSize(r.Value) +
		varintSize(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		n += varintSize(int64(len(h.Key))) + len(h.Key) + nullableSize(h.Value)
	}
	return n
}

func nullableSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

func appendRecord(b []byte, r *Record, body int, timestampDelta int64, offsetDelta int32) []byte {
	b = appendVarint(b, int64(body))
	b = append(b, 0)
	b = appendVarint(b, timestampDelta)
	b = appendVarint(b, int64(offsetDelta))
	b = appendNullable(b, r.Key)
	b = appendNullable(b, r.Value)
	b = appendVarint(b, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		b = appendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendNullable(b, h.Value)
	}
	return b
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return appendVarint(b, -1)
	}
	b = appendVarint(b, int64(len(v)))
	return append(b, v...)
}

// RecordSizeMax is the most bytes that a record adds to a batch, wherever it stands in it. Only the timestamp and offset, which are encoded
// relative to the first record's, make it differ from Builder.AppendSize.
func RecordSizeMax(r Record) int {
	body := bodySize(&r, r.Timestamp, 0) - 2 + maxVarintBytes + 5
	return varintSize(int64(body)) + body
}
