package partition

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Budget bounds bytes that are in memory at a time, such as those of all appends in flight of a broker. Callers beyond it wait their turn; a
// bounded number of them. The zero value is not usable.
type Budget struct {
	bytes   int64
	sem     *semaphore.Weighted
	waiting atomic.Int64
	waiters int64
}

// NewBudget makes a budget of so many bytes for which at most so many callers may wait at a time.
func NewBudget(bytes int64, waiters int) *Budget {
	return &Budget{bytes: bytes, sem: semaphore.NewWeighted(bytes), waiters: int64(waiters)}
}

// acquire takes n bytes, waiting while they are not there, in the order of calls. It returns what has to be given back: what is larger than
// the whole budget counts as the whole. It fails with ErrThrottled when too many wait, or with the context's error.
func (b *Budget) acquire(ctx context.Context, n int64) (int64, error) {
	n = min(n, b.bytes)
	if b.sem.TryAcquire(n) {
		return n, nil
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > b.waiters {
		return 0, ErrThrottled
	}
	if err := b.sem.Acquire(ctx, n); err != nil {
		return 0, fmt.Errorf("waiting for room among the appends in flight: %w", err)
	}
	return n, nil
}

func (b *Budget) release(n int64) {
	if n > 0 {
		b.sem.Release(n)
	}
}
