package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/crc"
)

// All numbers are little-endian. Every file begins with eight bytes of magic and a version; a reader refuses a newer version (ErrNewerFormat).

const (
	formatVersion = 1

	segmentMagic = "FLOTLOG\n"
	indexMagic   = "FLOTIDX\n"
	startMagic   = "FLOTSTA\n"
	cleanMagic   = "FLOTCLN\n"
	cutMagic     = "FLOTCUT\n"
	ckptMagic    = "FLOTCKP\n"

	segmentHeaderSize = 64
	frameHeaderSize   = 40
	frameAlign        = 8
	startSize         = 64
	cleanSize         = 64
	cutSize           = 64

	maxExtensions = 1<<16 - 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian

	errBadMagic = errors.New("the first bytes are not those of such a file")
	errBadCRC   = errors.New("the CRC does not match")
	errTooShort = errors.New("the file is too short")
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// checkPreamble checks the magic and version that every file begins with; size is that of the header, which ends in a CRC. A version that is newer only because of a
// flipped bit is damage and not a later release's: the CRC is right with the version of this one.
func checkPreamble(b []byte, magic string, size int) error {
	switch {
	case len(b) < size:
		return fmt.Errorf("%w: %d of %d bytes", errTooShort, len(b), size)
	case string(b[:8]) != magic:
		return errBadMagic
	}
	if v := le.Uint16(b[8:]); v > formatVersion {
		own := append([]byte(nil), b[:size]...)
		le.PutUint16(own[8:], formatVersion)
		if checkCRC(own) == nil {
			return fmt.Errorf("%w: format version %d, which should be %d", errBadCRC, v, formatVersion)
		}
		return fmt.Errorf("%w: format version %d, this release reads up to %d", ErrNewerFormat, v, formatVersion)
	}
	return nil
}

// putPreamble writes magic and version.
func putPreamble(b []byte, magic string) {
	copy(b, magic)
	le.PutUint16(b[8:], formatVersion)
}

// checkCRC compares the last four bytes with the CRC of those before.
func checkCRC(b []byte) error {
	n := len(b) - 4
	if le.Uint32(b[n:]) != crcOf(b[:n]) {
		return errBadCRC
	}
	return nil
}

// segmentHeader is the beginning of a segment file.
//
//	 0       8    10    12      16      24           32         40           48          56        60    64
//	+-------+----+-----+-------+-------+------------+----------+------------+-----------+---------+-----+
//	| magic | v  | 64  | epoch | salt  | firstIndex | prevTerm | nextOffset | createdAt | 0       | CRC |
//	+-------+----+-----+-------+-------+------------+----------+------------+-----------+---------+-----+
type segmentHeader struct {
	epoch      uint32        // of the log, see startRecord
	salt       uint64        // random; part of every frame's CRC, so that bytes of another segment are never taken for frames of this one
	first      Index         // of the first frame
	prevTerm   uint64        // of the entry before
	nextOffset record.Offset // before the first frame
	createdAt  int64         // ns since 1970
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	putPreamble(b, segmentMagic)
	le.PutUint16(b[10:], segmentHeaderSize)
	le.PutUint32(b[12:], h.epoch)
	le.PutUint64(b[16:], h.salt)
	le.PutUint64(b[24:], uint64(h.first))
	le.PutUint64(b[32:], h.prevTerm)
	le.PutUint64(b[40:], uint64(h.nextOffset))
	le.PutUint64(b[48:], uint64(h.createdAt))
	le.PutUint32(b[60:], crcOf(b[:60]))
	return b
}

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	if err := checkPreamble(b, segmentMagic, segmentHeaderSize); err != nil {
		return segmentHeader{}, err
	}
	if err := checkCRC(b[:segmentHeaderSize]); err != nil {
		return segmentHeader{}, err
	}
	h := segmentHeader{
		epoch:      le.Uint32(b[12:]),
		salt:       le.Uint64(b[16:]),
		first:      Index(le.Uint64(b[24:])),
		prevTerm:   le.Uint64(b[32:]),
		nextOffset: record.Offset(le.Uint64(b[40:])),
		createdAt:  int64(le.Uint64(b[48:])),
	}
	if h.first == 0 || h.nextOffset < 0 {
		return h, fmt.Errorf("impossible header: first index %d, next offset %d", h.first, h.nextOffset)
	}
	return h, nil
}

// saltCRC is where the CRC of each of the segment's frames starts.
func (h segmentHeader) saltCRC() uint32 {
	var b [8]byte
	le.PutUint64(b[:], h.salt)
	return crcOf(b[:])
}

// frameHeader stands before each entry's payload and extensions; zeros fill up to the next multiple of 8.
//
//	 0        4     8       16     24           32           36     37           38       40
//	+--------+-----+-------+------+------------+------------+------+------------+--------+---------+------------+------+
//	| length | CRC | index | term | appendedAt | durableEnd | type | generation | extLen | payload | extensions | zero |
//	+--------+-----+-------+------+------------+------------+------+------------+--------+---------+------------+------+
//
// The CRC covers the segment's salt and everything but itself and the zeros.
type frameHeader struct {
	length     uint32
	crc        uint32
	index      Index
	term       uint64
	appendedAt int64  // ns since 1970; 0: not known
	durableEnd uint32 // position up to which the file was known to be synced when this frame was written
	kind       raft.LogType
	generation uint8 // grows with each truncation and restart: frames of a lower one are leftovers
	extLen     uint16
}

func (h frameHeader) put(b []byte) {
	le.PutUint32(b[0:], h.length)
	le.PutUint32(b[4:], h.crc)
	le.PutUint64(b[8:], uint64(h.index))
	le.PutUint64(b[16:], h.term)
	le.PutUint64(b[24:], uint64(h.appendedAt))
	le.PutUint32(b[32:], h.durableEnd)
	b[36] = byte(h.kind)
	b[37] = h.generation
	le.PutUint16(b[38:], h.extLen)
}

// readFrameHeader reads without judging; b has at least frameHeaderSize bytes.
func readFrameHeader(b []byte) frameHeader {
	_ = b[frameHeaderSize-1]
	return frameHeader{
		length:     le.Uint32(b[0:]),
		crc:        le.Uint32(b[4:]),
		index:      Index(le.Uint64(b[8:])),
		term:       le.Uint64(b[16:]),
		appendedAt: int64(le.Uint64(b[24:])),
		durableEnd: le.Uint32(b[32:]),
		kind:       raft.LogType(b[36]),
		generation: b[37],
		extLen:     le.Uint16(b[38:]),
	}
}

// size is the whole frame in the file, in bytes.
func (h frameHeader) size() int64 { return frameSize(int(h.length), int(h.extLen)) }

// body is payload and extensions, in bytes.
func (h frameHeader) body() int64 { return int64(h.length) + int64(h.extLen) }

func frameSize(payload, extensions int) int64 {
	n := int64(frameHeaderSize) + int64(payload) + int64(extensions)
	return (n + frameAlign - 1) &^ (frameAlign - 1)
}

// frameCRC is the checksum of a frame whose header is hdr.
func frameCRC(saltCRC uint32, hdr, payload, extensions []byte) uint32 {
	c := crc32.Update(saltCRC, castagnoli, hdr[0:4])
	c = crc32.Update(c, castagnoli, hdr[8:frameHeaderSize])
	c = crc32.Update(c, castagnoli, payload)
	return crc32.Update(c, castagnoli, extensions)
}

// sumFrame is frameCRC for a frame that is to be written. Of a large payload it returns the CRC by itself too, so that others need not read it all again; else 0.
func sumFrame(saltCRC uint32, hdr, payload, extensions []byte) (sum, payloadSum uint32) {
	if len(payload) < sumMin {
		return frameCRC(saltCRC, hdr, payload, extensions), 0
	}
	payloadSum = crc32.Checksum(payload, castagnoli)
	sum = crc.Combine(frameCRC(saltCRC, hdr, nil, nil), payloadSum, len(payload))
	return crc32.Update(sum, castagnoli, extensions), payloadSum
}

// checkFrame verifies the frame at the beginning of b, all of which is there.
func checkFrame(saltCRC uint32, b []byte) bool {
	h := readFrameHeader(b)
	body := b[frameHeaderSize : frameHeaderSize+int(h.body())]
	return frameCRC(saltCRC, b[:frameHeaderSize], body, nil) == h.crc
}

// entry is the raft.Log of a verified frame at the beginning of b; it shares b.
func (h frameHeader) entry(b []byte) raft.Log {
	data := b[frameHeaderSize : frameHeaderSize+int(h.length) : frameHeaderSize+int(h.length)]
	e := raft.Log{Index: uint64(h.index), Term: h.term, Type: h.kind, Data: data}
	if h.extLen > 0 {
		at := frameHeaderSize + int(h.length)
		e.Extensions = b[at : at+int(h.extLen) : at+int(h.extLen)]
	}
	if h.appendedAt != 0 {
		e.AppendedAt = time.Unix(0, h.appendedAt)
	}
	return e
}

// startRecord is the file "start": where the log begins. It is replaced in one step by a trim and by an installed checkpoint, before any file of
// the old log goes, so that an interrupted deletion can be told from a lost file.
//
//	 0       8    10    12      16      24     32           40              60    64
//	+-------+----+-----+-------+-------+------+------------+----------------+-----+
//	| magic | v  | 64  | epoch | index | term | nextOffset | 0              | CRC |
//	+-------+----+-----+-------+-------+------+------------+----------------+-----+
type startRecord struct {
	epoch      uint32        // counts installed checkpoints, from 1; segments of an earlier epoch are leftovers
	index      Index         // the last entry that is no longer there: FirstIndex-1
	term       uint64        // its term
	nextOffset record.Offset // after it
}

func (s startRecord) encode() []byte {
	b := make([]byte, startSize)
	putPreamble(b, startMagic)
	le.PutUint16(b[10:], startSize)
	le.PutUint32(b[12:], s.epoch)
	le.PutUint64(b[16:], uint64(s.index))
	le.PutUint64(b[24:], s.term)
	le.PutUint64(b[32:], uint64(s.nextOffset))
	le.PutUint32(b[60:], crcOf(b[:60]))
	return b
}

func decodeStart(b []byte) (startRecord, error) {
	if err := checkPreamble(b, startMagic, startSize); err != nil {
		return startRecord{}, err
	}
	if err := checkCRC(b[:startSize]); err != nil {
		return startRecord{}, err
	}
	s := startRecord{
		epoch:      le.Uint32(b[12:]),
		index:      Index(le.Uint64(b[16:])),
		term:       le.Uint64(b[24:]),
		nextOffset: record.Offset(le.Uint64(b[32:])),
	}
	if s.nextOffset < 0 {
		return s, fmt.Errorf("impossible next offset %d", s.nextOffset)
	}
	return s, nil
}

// cleanRecord is the file "clean": how a log looked when it was closed in order. It is removed, durably, before the next change.
//
//	 0       8    10    12   16        24          32         40           48   52        60    64
//	+-------+----+-----+----+---------+-----------+----------+------------+----+---------+-----+
//	| magic | v  | 64  | 0  | segment | lastIndex | lastTerm | nextOffset | end| 0       | CRC |
//	+-------+----+-----+----+---------+-----------+----------+------------+----+---------+-----+
type cleanRecord struct {
	segment    Index // first index of the newest segment; 0: there was none
	last       Index
	lastTerm   uint64
	nextOffset record.Offset
	end        uint32 // of the newest segment's last frame
}

func (c cleanRecord) encode() []byte {
	b := make([]byte, cleanSize)
	putPreamble(b, cleanMagic)
	le.PutUint16(b[10:], cleanSize)
	le.PutUint64(b[16:], uint64(c.segment))
	le.PutUint64(b[24:], uint64(c.last))
	le.PutUint64(b[32:], c.lastTerm)
	le.PutUint64(b[40:], uint64(c.nextOffset))
	le.PutUint32(b[48:], c.end)
	le.PutUint32(b[60:], crcOf(b[:60]))
	return b
}

func decodeClean(b []byte) (cleanRecord, error) {
	if err := checkPreamble(b, cleanMagic, cleanSize); err != nil {
		return cleanRecord{}, err
	}
	if err := checkCRC(b[:cleanSize]); err != nil {
		return cleanRecord{}, err
	}
	return cleanRecord{
		segment:    Index(le.Uint64(b[16:])),
		last:       Index(le.Uint64(b[24:])),
		lastTerm:   le.Uint64(b[32:]),
		nextOffset: record.Offset(le.Uint64(b[40:])),
		end:        le.Uint32(b[48:]),
	}, nil
}

// cutRecord is the file "cut": a truncation of the log's end that is under way. It is durable before the first byte goes, and gone, durably, before the next
// entry is stored; recovery completes what it says.
//
//	 0       8    10    12      16        24          32    36         60    64
//	+-------+----+-----+-------+---------+-----------+-----+----------+-----+
//	| magic | v  | 64  | epoch | segment | lastIndex | end | 0        | CRC |
//	+-------+----+-----+-------+---------+-----------+-----+----------+-----+
type cutRecord struct {
	epoch   uint32
	segment Index  // first index of the segment that is to be the newest
	last    Index  // last entry that stays; segment-1 if the segment is to be empty
	end     uint32 // position behind that entry
}

func (c cutRecord) encode() []byte {
	b := make([]byte, cutSize)
	putPreamble(b, cutMagic)
	le.PutUint16(b[10:], cutSize)
	le.PutUint32(b[12:], c.epoch)
	le.PutUint64(b[16:], uint64(c.segment))
	le.PutUint64(b[24:], uint64(c.last))
	le.PutUint32(b[32:], c.end)
	le.PutUint32(b[60:], crcOf(b[:60]))
	return b
}

func decodeCut(b []byte) (cutRecord, error) {
	if err := checkPreamble(b, cutMagic, cutSize); err != nil {
		return cutRecord{}, err
	}
	if err := checkCRC(b[:cutSize]); err != nil {
		return cutRecord{}, err
	}
	c := cutRecord{epoch: le.Uint32(b[12:]), segment: Index(le.Uint64(b[16:])), last: Index(le.Uint64(b[24:])), end: le.Uint32(b[32:])}
	if c.segment == 0 || c.last+1 < c.segment || c.last+1 == 0 || c.end < segmentHeaderSize {
		return c, fmt.Errorf("impossible cut after index %d, byte %d of segment %d", c.last, c.end, c.segment)
	}
	return c, nil
}
