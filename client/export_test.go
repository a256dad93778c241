package client

import "sync/atomic"

// FreedBatches is how often memory of batches came back.
var FreedBatches atomic.Int64

// In all tests, memory of batches that has come back holds nothing of them any more.
func init() {
	onFree = func(b []byte) {
		FreedBatches.Add(1)
		for n := copy(b, "\xDB"); n > 0 && n < len(b); n *= 2 {
			copy(b[n:], b[:n])
		}
	}
}
