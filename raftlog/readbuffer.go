package raftlog

import "sync"

const (
	// readBufferSize is that of the buffers which are used again: what a consumer's stream asks for at once, and what may be read in vain before it.
	readBufferSize = 1<<20 + indexInterval
	// readBufferMin is the smallest read that takes such a one, so that no more than half of it is in vain.
	readBufferMin = readBufferSize / 2
)

var readBuffers = sync.Pool{New: func() any { b := make([]byte, readBufferSize); return &b }}

// onReturn sees each buffer that is given back, before anybody else can get it. Tests spoil it, so that whoever still reads it is found out.
var onReturn func([]byte)

// readBuffer is the memory of one read.
type readBuffer struct {
	b      []byte
	pooled *[]byte // nil: it is left to the garbage collector
}

func newReadBuffer(n int64) readBuffer {
	if n < readBufferMin || n > readBufferSize {
		return readBuffer{b: make([]byte, n)}
	}
	pooled := readBuffers.Get().(*[]byte)
	return readBuffer{b: (*pooled)[:n], pooled: pooled}
}

// release gives the buffer back. Nobody may read it any more, and nobody may release it again.
func (r *readBuffer) release() {
	if r.pooled == nil {
		return
	}
	if onReturn != nil {
		onReturn(*r.pooled)
	}
	readBuffers.Put(r.pooled)
	r.b, r.pooled = nil, nil
}
