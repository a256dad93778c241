package client

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// batchMemory keeps the memory of large batches for the next ones. A batch's memory is read by gRPC, perhaps after the batch is done, and comes back when nobody reads it
// any more: gRPC counts.
type batchMemory struct{ pool sync.Pool }

var _ mem.BufferPool = (*batchMemory)(nil)

// onFree sees memory that has come back, before it is used again. Tests spoil it, so that whoever still reads it is found out.
var onFree func([]byte)

// take returns memory that was used before, nil if there is none.
func (m *batchMemory) take() []byte {
	if b, _ := m.pool.Get().(*[]byte); b != nil {
		return *b
	}
	return nil
}

// lend makes a reference to a batch, whose memory comes back when that and all that were made of it are free.
func (m *batchMemory) lend(batch []byte) mem.Buffer { return mem.NewBuffer(&batch, m) }

// Get implements mem.BufferPool; gRPC only uses Put.
func (m *batchMemory) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (m *batchMemory) Put(b *[]byte) {
	if onFree != nil {
		onFree((*b)[:cap(*b)])
	}
	m.pool.Put(b)
}
