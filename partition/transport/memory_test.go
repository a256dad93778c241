package transport

import (
	"runtime"
	"testing"
)

func TestUnclearedMemoryIsOnesOwn(t *testing.T) {
	var all [][]byte
	for i, n := range []int{0, 1, unclearedMin - 1, unclearedMin, unclearedMin + 1, 64<<10 + 13, 1<<20 + 1} {
		b := uncleared(n)
		if len(b) != n || cap(b) < n {
			t.Fatalf("%d bytes: got %d of %d", n, len(b), cap(b))
		}
		for k := range b {
			b[k] = byte(i + 1)
		}
		all = append(all, b)
	}
	runtime.GC()
	for i, b := range all {
		for k := range b {
			if b[k] != byte(i+1) {
				t.Fatalf("%d bytes: byte %d changed", len(b), k)
			}
		}
	}
}
