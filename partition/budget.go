package partition

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Budget bounds bytes that are in memory at a time, such as those of all appends in flight of a broker. Callers beyond it wait their turn, but not
// more of them than a number, nor than hold as many bytes as the budget: whoever waits has a batch in memory too. The zero value is not usable.
type Budget struct {
	bytes        int64
	sem          *semaphore.Weighted
	used         atomic.Int64
	waiting      atomic.Int64
	waitingBytes atomic.Int64
	waiters      int64
	decoders     chan struct{}
}

// decodersMax bounds the batches of a broker that are decompressed at a time: a small one may be large inside (Limits.StateBytes).
const decodersMax = 8

// NewBudget makes a budget of so many bytes for which at most so many callers may wait at a time.
func NewBudget(bytes int64, waiters int) *Budget {
	return &Budget{
		bytes: bytes, sem: semaphore.NewWeighted(bytes), waiters: int64(waiters),
		decoders: make(chan struct{}, min(runtime.GOMAXPROCS(0), decodersMax)),
	}
}

// decode runs f, which decompresses a batch, when it is its turn.
func (b *Budget) decode(ctx context.Context, f func() error) error {
	select {
	case b.decoders <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting to look into the batch: %w", ctx.Err())
	}
	defer func() { <-b.decoders }()
	return f()
}

// acquire takes n bytes for a batch of size bytes, waiting while they are not there, in the order of calls. It returns what has to be given back:
// what is larger than the whole budget counts as the whole. It fails with ErrThrottled when too many wait, or with the context's error.
func (b *Budget) acquire(ctx context.Context, n, size int64) (int64, error) {
	n, size = min(n, b.bytes), min(size, b.bytes)
	if b.sem.TryAcquire(n) {
		b.used.Add(n)
		return n, nil
	}
	defer b.waiting.Add(-1)
	defer b.waitingBytes.Add(-size)
	if waiters, bytes := b.waiting.Add(1), b.waitingBytes.Add(size); waiters > b.waiters || bytes > b.bytes {
		return 0, fmt.Errorf("%w: %d of them, %d bytes", ErrThrottled, waiters, bytes)
	}
	if err := b.sem.Acquire(ctx, n); err != nil {
		return 0, fmt.Errorf("waiting for room among the appends in flight: %w", err)
	}
	b.used.Add(n)
	return n, nil
}

func (b *Budget) release(n int64) {
	if n > 0 {
		b.used.Add(-n)
		b.sem.Release(n)
	}
}

// Used is how many bytes are taken at the moment, and the most that can be.
func (b *Budget) Used() (bytes, limit int64) { return b.used.Load(), b.bytes }
