package record

import "math/bits"

// maxVarintBytes is the longest encoding of 64 bits.
const maxVarintBytes = 10

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// varintSize is the number of bytes that appendVarint writes.
func varintSize(v int64) int {
	return (bits.Len64(zigzag(v)|1) + 6) / 7
}

func appendVarint(b []byte, v int64) []byte {
	u := zigzag(v)
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

// readVarint reads a zigzag varint; n is 0 if b does not begin with one. Most are of one byte, or of two.
func readVarint(b []byte) (v int64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return unzigzag(uint64(b[0])), 1
	}
	return readLongVarint(b)
}

func readLongVarint(b []byte) (v int64, n int) {
	if len(b) > 1 && b[1] < 0x80 {
		return unzigzag(uint64(b[0]&0x7f) | uint64(b[1])<<7), 2
	}
	var u uint64
	for i := 0; i < len(b) && i < maxVarintBytes; i++ {
		c := b[i]
		if i == maxVarintBytes-1 && c > 1 {
			return 0, 0
		}
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return unzigzag(u), i + 1
		}
	}
	return 0, 0
}
