package raftlog

import (
	"fmt"

	"github.com/flotilla-log/flotilla/proto/record"
)

const (
	indexHeaderSize = 128
	indexPointSize  = 32

	indexFlagSealed = 1 // a later segment exists
)

// indexRecord is an index file: what a segment's scan would tell. It can always be rebuilt, so a bad one is only a warning.
//
//	 0       8    10     12   14      16     24           32          40         48           56           64             72    76      80          84           88          96         104     108   124   128
//	+-------+----+------+----+-------+------+------------+-----------+----------+------------+------------+--------------+-----+-------+-----------+------------+-----------+----------+-------+-----+-----+
//	| magic | v  | 128  | 32 | flags | salt | firstIndex | lastIndex | lastTerm | baseOffset | nextOffset | maxTimestamp | end | count | pointsCRC | generation | createdAt | prevTerm | epoch | 0   | CRC |
//	+-------+----+------+----+-------+------+------------+-----------+----------+------------+------------+--------------+-----+-------+-----------+------------+-----------+----------+-------+-----+-----+
//
// followed by count points of 32 bytes:
//
//	 0       8        16             24         28  32
//	+-------+--------+--------------+----------+---+
//	| index | offset | maxTimestamp | position | 0 |
//	+-------+--------+--------------+----------+---+
type indexRecord struct {
	header     segmentHeader // of the segment
	sealed     bool
	last       Index // header.first-1 if the segment is empty
	lastTerm   uint64
	nextOffset record.Offset
	maxTS      int64
	end        int64 // position behind the last frame
	generation uint8
	count      int // of points
	pointsCRC  uint32
}

func (r indexRecord) encode(points sparse) []byte {
	b := make([]byte, indexHeaderSize+indexPointSize*len(points))
	for i, p := range points {
		q := b[indexHeaderSize+indexPointSize*i:]
		le.PutUint64(q[0:], uint64(p.index))
		le.PutUint64(q[8:], uint64(p.offset))
		le.PutUint64(q[16:], uint64(p.maxTS))
		le.PutUint32(q[24:], p.pos)
	}
	putPreamble(b, indexMagic)
	le.PutUint16(b[10:], indexHeaderSize)
	le.PutUint16(b[12:], indexPointSize)
	if r.sealed {
		le.PutUint16(b[14:], indexFlagSealed)
	}
	le.PutUint64(b[16:], r.header.salt)
	le.PutUint64(b[24:], uint64(r.header.first))
	le.PutUint64(b[32:], uint64(r.last))
	le.PutUint64(b[40:], r.lastTerm)
	le.PutUint64(b[48:], uint64(r.header.nextOffset))
	le.PutUint64(b[56:], uint64(r.nextOffset))
	le.PutUint64(b[64:], uint64(r.maxTS))
	le.PutUint32(b[72:], uint32(r.end))
	le.PutUint32(b[76:], uint32(len(points)))
	le.PutUint32(b[80:], crcOf(b[indexHeaderSize:]))
	b[84] = r.generation
	le.PutUint64(b[88:], uint64(r.header.createdAt))
	le.PutUint64(b[96:], r.header.prevTerm)
	le.PutUint32(b[104:], r.header.epoch)
	le.PutUint32(b[124:], crcOf(b[:124]))
	return b
}

// decodeIndexHeader reads the first indexHeaderSize bytes of an index file.
func decodeIndexHeader(b []byte) (indexRecord, error) {
	if err := checkPreamble(b, indexMagic, indexHeaderSize); err != nil {
		return indexRecord{}, err
	}
	if err := checkCRC(b[:indexHeaderSize]); err != nil {
		return indexRecord{}, err
	}
	r := indexRecord{
		header: segmentHeader{
			epoch:      le.Uint32(b[104:]),
			salt:       le.Uint64(b[16:]),
			first:      Index(le.Uint64(b[24:])),
			prevTerm:   le.Uint64(b[96:]),
			nextOffset: record.Offset(le.Uint64(b[48:])),
			createdAt:  int64(le.Uint64(b[88:])),
		},
		sealed:     le.Uint16(b[14:])&indexFlagSealed != 0,
		last:       Index(le.Uint64(b[32:])),
		lastTerm:   le.Uint64(b[40:]),
		nextOffset: record.Offset(le.Uint64(b[56:])),
		maxTS:      int64(le.Uint64(b[64:])),
		end:        int64(le.Uint32(b[72:])),
		generation: b[84],
		count:      int(le.Uint32(b[76:])),
		pointsCRC:  le.Uint32(b[80:]),
	}
	return r, r.check(int(le.Uint16(b[12:])))
}

// check refuses what no segment can have.
func (r indexRecord) check(pointSize int) error {
	switch {
	case pointSize != indexPointSize:
		return fmt.Errorf("points of %d bytes", pointSize)
	case r.header.first == 0 || r.last+1 < r.header.first || r.last+1 == 0:
		return fmt.Errorf("impossible indexes %d to %d", r.header.first, r.last)
	case r.header.nextOffset < 0 || r.nextOffset < r.header.nextOffset:
		return fmt.Errorf("impossible offsets %d to %d", r.header.nextOffset, r.nextOffset)
	case r.end < segmentHeaderSize || int64(r.count) > r.end/indexInterval+1:
		return fmt.Errorf("%d points for %d bytes", r.count, r.end)
	case (r.count == 0) != (r.last+1 == r.header.first):
		return fmt.Errorf("%d points for indexes %d to %d", r.count, r.header.first, r.last)
	}
	return nil
}

// decodeIndex reads a whole index file.
func decodeIndex(b []byte) (indexRecord, sparse, error) {
	r, err := decodeIndexHeader(b)
	if err != nil {
		return r, nil, err
	}
	body := b[indexHeaderSize:]
	if len(body) != r.count*indexPointSize {
		return r, nil, fmt.Errorf("%w: %d bytes for %d points", errTooShort, len(body), r.count)
	}
	if crcOf(body) != r.pointsCRC {
		return r, nil, errBadCRC
	}
	points := make(sparse, r.count)
	for i := range points {
		q := body[indexPointSize*i:]
		points[i] = point{
			index:  Index(le.Uint64(q[0:])),
			offset: record.Offset(le.Uint64(q[8:])),
			maxTS:  int64(le.Uint64(q[16:])),
			pos:    le.Uint32(q[24:]),
		}
	}
	return r, points, r.checkPoints(points)
}

// checkPoints makes sure that lookups in the points stay inside the segment.
func (r indexRecord) checkPoints(points sparse) error {
	for i, p := range points {
		ok := p.index >= r.header.first && p.index <= r.last && p.offset >= r.header.nextOffset && p.offset <= r.nextOffset &&
			p.pos >= segmentHeaderSize && int64(p.pos) < r.end
		if i == 0 {
			ok = ok && p.index == r.header.first && p.pos == segmentHeaderSize
		} else {
			q := points[i-1]
			ok = ok && p.index > q.index && p.offset >= q.offset && p.pos > q.pos
		}
		if !ok {
			return fmt.Errorf("impossible point %d", i)
		}
	}
	return nil
}
