package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// memory is the bytes that a producer may still use. Taking and giving back cost one atomic operation as long as nobody waits; those who do are served in turn.
type memory struct {
	free    atomic.Int64
	waiting atomic.Int32 // len(queue)

	mu    sync.Mutex
	queue []*memoryWaiter // in the order in which they came
}

type memoryWaiter struct {
	n     int64
	ready chan struct{} // closed when it has got its bytes
}

// tryAcquire takes n bytes if they are free and nobody waits.
func (m *memory) tryAcquire(n int64) bool { return m.waiting.Load() == 0 && m.take(n) }

func (m *memory) take(n int64) bool {
	for {
		free := m.free.Load()
		if free < n {
			return false
		}
		if m.free.CompareAndSwap(free, free-n) {
			return true
		}
	}
}

// acquire takes n bytes, behind those who wait already. The error is that of ctx.
func (m *memory) acquire(ctx context.Context, n int64) error {
	w := &memoryWaiter{n: n, ready: make(chan struct{})}
	m.mu.Lock()
	m.queue = append(m.queue, w)
	m.waiting.Add(1) // before serve looks at free: whoever gives back adds to free before it looks for those who wait
	m.serve()
	m.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.queue, w)
	if i < 0 {
		return nil // it got them at the same time
	}
	m.queue = slices.Delete(m.queue, i, i+1)
	m.waiting.Add(-1)
	m.serve() // those behind it may need less
	return ctx.Err()
}

// release gives n bytes back.
func (m *memory) release(n int64) {
	m.free.Add(n)
	if m.waiting.Load() > 0 {
		m.mu.Lock()
		m.serve()
		m.mu.Unlock()
	}
}

// serve gives to those who wait, in turn. mu is held.
func (m *memory) serve() {
	for len(m.queue) > 0 && m.take(m.queue[0].n) {
		close(m.queue[0].ready)
		m.queue = slices.Delete(m.queue, 0, 1)
		m.waiting.Add(-1)
	}
}
