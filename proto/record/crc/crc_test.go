package crc

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func TestCombinedCRCsAreThoseOfTheWhole(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		b := make([]byte, rnd.IntN(5000))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		cut := rnd.IntN(len(b) + 1)
		head, tail, whole := crc32.Checksum(b[:cut], castagnoli), crc32.Checksum(b[cut:], castagnoli), crc32.Checksum(b, castagnoli)
		if got := Combine(head, tail, len(b)-cut); got != whole {
			t.Fatalf("%d and %d bytes: got %08x, want %08x", cut, len(b)-cut, got, whole)
		}
		if got := Combine(head, whole, len(b)-cut); got != tail {
			t.Fatalf("%d and %d bytes: the inverse is %08x, want %08x", cut, len(b)-cut, got, tail)
		}
	}
	b := make([]byte, 100<<20) // beyond the lengths above
	want := crc32.Checksum(b, castagnoli)
	if got := Combine(crc32.Checksum(b[:7], castagnoli), crc32.Checksum(b[7:], castagnoli), len(b)-7); got != want {
		t.Errorf("got %08x, want %08x", got, want)
	}
}

func BenchmarkCombine(b *testing.B) {
	for b.Loop() {
		Combine(0x12345678, 0x9abcdef0, 65000)
	}
}
