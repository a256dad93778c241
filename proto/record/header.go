package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/flotilla-log/flotilla/proto/record/crc"
)

// HeaderSize is the length of a batch's header in bytes: the least that a batch can have.
const HeaderSize = 61

// Magic is the one format version that this package reads and writes.
const Magic = 2

// lengthOverhead is what the batchLength field does not count: baseOffset and itself.
const lengthOverhead = 12

// minRecordSize is the length of the shortest record: null key, null value, no headers.
const minRecordSize = 7

// Positions of the fields in a batch.
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the header of a batch, without the magic, which is always 2.
type Header struct {
	BaseOffset      Offset
	Length          int32 // bytes after the length field: Size less 12
	LeaderEpoch     int32 // Raft term of the leader that stamped it; -1 if none did
	CRC             uint32
	Attributes      Attributes
	LastOffsetDelta int32
	BaseTimestamp   int64 // Unix ms
	MaxTimestamp    int64 // Unix ms
	ProducerID      int64 // -1: not idempotent
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32 // records
}

// Size is the length of the whole batch in bytes.
func (h Header) Size() int { return lengthOverhead + int(h.Length) }

// LastOffset is the offset of the last record.
func (h Header) LastOffset() Offset { return h.BaseOffset + Offset(h.LastOffsetDelta) }

// Next is the offset after the last record.
func (h Header) Next() Offset { return h.LastOffset() + 1 }

// LastSequence is the sequence number of the last record of an idempotent producer's batch. Sequence numbers wrap from 2^31-1 to 0.
func (h Header) LastSequence() int32 { return AddSequence(h.BaseSequence, h.LastOffsetDelta) }

// Idempotent tells whether the batch carries a producer ID.
func (h Header) Idempotent() bool { return h.ProducerID >= 0 }

// AddSequence is seq+n in Kafka's sequence numbers, which wrap from 2^31-1 to 0. n is not negative.
func AddSequence(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & math.MaxInt32)
}

// CountOf is the number of records that a stored batch's header says; 0 if it is too short.
func CountOf(batch []byte) int {
	if len(batch) < posCount+4 {
		return 0
	}
	return int(int32(binary.BigEndian.Uint32(batch[posCount:])))
}

// ParseHeader reads the header at the beginning of b, which may hold more than one batch, or less: only HeaderSize bytes are
// needed. The CRC is not checked. It fails with ErrInvalid for another magic and with ErrCorrupt for lengths and counts that no batch
// can have; the latter also wraps io.ErrUnexpectedEOF when b is shorter than a header.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are too few for a header: %w", ErrCorrupt, len(b), io.ErrUnexpectedEOF)
	}
	if m := int8(b[posMagic]); m != Magic {
		return Header{}, fmt.Errorf("%w: magic %d, want %d", ErrInvalid, m, Magic)
	}
	h := readHeader(b)
	switch {
	case h.Length < HeaderSize-lengthOverhead || h.Length > math.MaxInt32-lengthOverhead:
		return Header{}, fmt.Errorf("%w: batch length %d", ErrCorrupt, h.Length)
	case h.Count < 0:
		return Header{}, fmt.Errorf("%w: %d records", ErrCorrupt, h.Count)
	case h.LastOffsetDelta < 0:
		return Header{}, fmt.Errorf("%w: last offset delta %d", ErrCorrupt, h.LastOffsetDelta)
	}
	return h, nil
}

func readHeader(b []byte) Header {
	_ = b[HeaderSize-1]
	return Header{
		BaseOffset:      Offset(binary.BigEndian.Uint64(b[posBaseOffset:])),
		Length:          int32(binary.BigEndian.Uint32(b[posLength:])),
		LeaderEpoch:     int32(binary.BigEndian.Uint32(b[posLeaderEpoch:])),
		CRC:             binary.BigEndian.Uint32(b[posCRC:]),
		Attributes:      Attributes(binary.BigEndian.Uint16(b[posAttributes:])),
		LastOffsetDelta: int32(binary.BigEndian.Uint32(b[posLastOffsetDelta:])),
		BaseTimestamp:   int64(binary.BigEndian.Uint64(b[posBaseTimestamp:])),
		MaxTimestamp:    int64(binary.BigEndian.Uint64(b[posMaxTimestamp:])),
		ProducerID:      int64(binary.BigEndian.Uint64(b[posProducerID:])),
		ProducerEpoch:   int16(binary.BigEndian.Uint16(b[posProducerEpoch:])),
		BaseSequence:    int32(binary.BigEndian.Uint32(b[posBaseSequence:])),
		Count:           int32(binary.BigEndian.Uint32(b[posCount:])),
	}
}

// putHeader writes everything but the CRC, which seal adds once the records are there.
func putHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(h.BaseOffset))
	binary.BigEndian.PutUint32(b[posLength:], uint32(h.Length))
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(h.LeaderEpoch))
	b[posMagic] = Magic
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(h.Attributes))
	binary.BigEndian.PutUint32(b[posLastOffsetDelta:], uint32(h.LastOffsetDelta))
	binary.BigEndian.PutUint64(b[posBaseTimestamp:], uint64(h.BaseTimestamp))
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(h.MaxTimestamp))
	binary.BigEndian.PutUint64(b[posProducerID:], uint64(h.ProducerID))
	binary.BigEndian.PutUint16(b[posProducerEpoch:], uint16(h.ProducerEpoch))
	binary.BigEndian.PutUint32(b[posBaseSequence:], uint32(h.BaseSequence))
	binary.BigEndian.PutUint32(b[posCount:], uint32(h.Count))
}

// checksum is the CRC of one whole batch: of all that follows the CRC field, so that offset and epoch can be stamped without it.
func checksum(batch []byte) uint32 { return crc32.Checksum(batch[posAttributes:], castagnoli) }

// Checksum is the CRC of a batch's bytes as they are, which its header should say; 0 if it is too short to have one.
func Checksum(batch []byte) uint32 {
	if len(batch) < posAttributes {
		return 0
	}
	return checksum(batch)
}

// ChecksumOf is Checksum for a batch whose bytes are known to have, all together, the CRC-32C sum.
func ChecksumOf(batch []byte, sum uint32) uint32 {
	if len(batch) < posAttributes {
		return 0
	}
	return crc.Combine(crc32.Checksum(batch[:posAttributes], castagnoli), sum, len(batch)-posAttributes)
}

// seal writes the CRC of one whole batch.
func seal(batch []byte) { binary.BigEndian.PutUint32(batch[posCRC:], checksum(batch)) }

// Validate checks that b is exactly one whole batch with at least one record: size, magic, CRC, count, offsets and compression type. It
// does not look into the records (ValidateRecords does), and leaves it to the caller to accept control or transactional batches.
// Errors are ErrCorrupt, ErrInvalid and ErrUnsupportedCompression.
func Validate(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, err
	}
	if h.Size() != len(b) {
		return Header{}, fmt.Errorf("%w: header says %d bytes, there are %d", ErrCorrupt, h.Size(), len(b))
	}
	if c := checksum(b); c != h.CRC {
		return Header{}, fmt.Errorf("%w: CRC is %08x, header says %08x", ErrCorrupt, c, h.CRC)
	}
	if err := h.check(); err != nil {
		return Header{}, err
	}
	return h, nil
}

// check looks for what the CRC cannot find: nonsense that was encoded faithfully.
func (h Header) check() error {
	switch {
	case h.Count < 1:
		return fmt.Errorf("%w: no records", ErrInvalid)
	case h.LastOffsetDelta != h.Count-1:
		return fmt.Errorf("%w: %d records but last offset delta %d", ErrInvalid, h.Count, h.LastOffsetDelta)
	case h.Attributes&^attributesKnown != 0:
		return fmt.Errorf("%w: unknown attributes %#x", ErrInvalid, uint16(h.Attributes))
	case !h.Attributes.Compression().valid():
		return fmt.Errorf("%w: %d", ErrUnsupportedCompression, h.Attributes.Compression())
	case h.Idempotent() && (h.ProducerEpoch < 0 || h.BaseSequence < 0):
		return fmt.Errorf("%w: producer %d with epoch %d and sequence %d", ErrInvalid, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
	case h.Attributes.Compression() == None && int(h.Count) > (h.Size()-HeaderSize)/minRecordSize:
		return fmt.Errorf("%w: %d records in %d bytes", ErrInvalid, h.Count, h.Size()-HeaderSize)
	}
	return nil
}

// Next cuts the first batch off a sequence of batches, without checking its CRC. It fails with io.ErrUnexpectedEOF (wrapped) when the
// first batch is cut off by the end of b, with io.EOF when b is empty, and else like ParseHeader.
func Next(b []byte) (batch, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, io.EOF
	}
	h, err := ParseHeader(b)
	if err != nil {
		return nil, b, err
	}
	n := h.Size()
	if n > len(b) {
		return nil, b, fmt.Errorf("batch at offset %d: %d of %d bytes: %w", h.BaseOffset, len(b), n, io.ErrUnexpectedEOF)
	}
	return b[:n:n], b[n:], nil
}
