package record

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// xerialHeader begins a stream of snappy-java's SnappyOutputStream, which is what Java producers send: magic, version 1, compatible
// from version 1. Blocks follow, each after its compressed length (int32, big-endian).
var xerialHeader = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

// xerialMagic is the part of the header that does not depend on the version.
var xerialMagic = xerialHeader[:8]

// xerialBlock is snappy-java's default block size, before compression.
const xerialBlock = 32 << 10

// snappyRatioMax bounds what a raw block can expand to: its best element turns three bytes into 64.
const snappyRatioMax = 22

func appendXerial(dst, b []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(b) > 0 {
		block := b[:min(len(b), xerialBlock)]
		b = b[len(block):]
		pos := len(dst)
		dst = append(dst, make([]byte, 4+s2.MaxEncodedLen(len(block)))...)
		n := len(s2.EncodeSnappy(dst[pos+4:], block))
		binary.BigEndian.PutUint32(dst[pos:], uint32(n))
		dst = dst[:pos+4+n]
	}
	return dst
}

// decodeSnappy takes xerial streams, concatenated ones included, and raw blocks, which other clients send.
func decodeSnappy(b []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(b, xerialMagic) {
		return appendSnappyBlock(nil, b, limit)
	}
	var out []byte
	for len(b) > 0 {
		if bytes.HasPrefix(b, xerialMagic) {
			if len(b) < len(xerialHeader) {
				return nil, fmt.Errorf("%w: snappy: header of %d bytes", ErrCorrupt, len(b))
			}
			b = b[len(xerialHeader):]
			continue
		}
		if len(b) < 4 {
			return nil, fmt.Errorf("%w: snappy: %d bytes after the last block", ErrCorrupt, len(b))
		}
		n := int64(binary.BigEndian.Uint32(b))
		if b = b[4:]; n > int64(len(b)) {
			return nil, fmt.Errorf("%w: snappy: block of %d bytes with %d left", ErrCorrupt, n, len(b))
		}
		var err error
		if out, err = appendSnappyBlock(out, b[:n], limit); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return out, nil
}

func appendSnappyBlock(dst, block []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy: %w", ErrCorrupt, err)
	}
	if n > limit-len(dst) {
		return nil, fmt.Errorf("%w: snappy decompresses to more than %d bytes", ErrTooLarge, limit)
	}
	if n > snappyRatioMax*len(block) {
		return nil, fmt.Errorf("%w: snappy: %d bytes cannot hold %d", ErrCorrupt, len(block), n)
	}
	pos := len(dst)
	dst = append(dst, make([]byte, n)...)
	out, err := s2.Decode(dst[pos:pos+n:pos+n], block)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy: %w", ErrCorrupt, err)
	}
	return dst[:pos+len(out)], nil
}
