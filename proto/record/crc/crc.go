// Package crc computes with CRC-32Cs (Castagnoli), without the bytes that they are of.
package crc

import "hash/crc32"

// Combine is the CRC of a followed by b, of which only the CRCs and the length of b are known. It takes less than a microsecond, which is what some KiB take to sum.
// It is its own inverse in b: Combine(a, ab, len(b)) is the CRC of b. The method is zlib's: to append n zero bits to a message is to multiply its CRC by x^n modulo the polynomial.
func Combine(a, b uint32, lenB int) uint32 { return mul(pow(uint64(lenB)), a) ^ b }

// one is 1, the polynomial; the most significant bit of a CRC is the coefficient of x^0.
const one = 1 << 31

// powers[i][k] is x^(8 k 16^i) modulo the polynomial.
var powers = func() (p [16][16]uint32) {
	base := uint32(one >> 8)
	for i := range p {
		p[i][0] = one
		for k := 1; k < 16; k++ {
			p[i][k] = mul(p[i][k-1], base)
		}
		base = mul(p[i][15], base)
	}
	return p
}()

// pow is x^(8n) modulo the polynomial.
func pow(n uint64) uint32 {
	p := uint32(one)
	for i := 0; n > 0; i, n = i+1, n>>4 {
		if k := n & 15; k != 0 {
			p = mul(powers[i][k], p)
		}
	}
	return p
}

// mul multiplies modulo the polynomial.
func mul(a, b uint32) uint32 {
	p := uint32(0)
	for ; a != 0; a <<= 1 {
		p ^= b & uint32(int32(a)>>31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}
