package broker

import (
	"sync"
	"time"
)

// tailShares divides the memory for tail caches among the replicas as they open: a good share while there is plenty, less
// when there is not. The sum stays within the total.
type tailShares struct {
	mu   sync.Mutex
	left int64
}

const (
	maxTailShare = 4 << 20
	minTailShare = 64 << 10
	// leastTail is what replicas without a share have: a leader looks up the last entry whenever it tells a follower that nothing is new, and that entry is small where nothing happens.
	leastTail = 4 << 10
)

// take gives a share, 0 if nothing worth having is left.
func (t *tailShares) take() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	share := min(maxTailShare, max(minTailShare, t.left/16))
	if share > t.left {
		return 0
	}
	t.left -= share
	return share
}

func (t *tailShares) giveBack(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left += n
}

// throttle lets one caller through per interval.
type throttle struct {
	mu    sync.Mutex
	every time.Duration
	last  time.Time
}

func newThrottle(every time.Duration) *throttle { return &throttle{every: every} }

func (t *throttle) allow(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last) < t.every {
		return false
	}
	t.last = now
	return true
}
