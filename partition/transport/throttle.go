package transport

import (
	"sync"
	"time"
)

// throttle spaces out bytes so that no more than a rate of them is under way in the long run. It only computes; whoever asks has to wait. Reservations
// are served in the order of asking.
type throttle struct {
	mu   sync.Mutex
	rate int64         // bytes per second; 0 or less: no limit
	free time.Duration // when what was reserved so far will have passed
}

// throttleBurst is how much unused time may be made up for at once.
const throttleBurst = 50 * time.Millisecond

// reserve takes n bytes, and returns how long after now they may be sent.
func (l *throttle) reserve(now time.Duration, n int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate <= 0 {
		return 0
	}
	start := max(l.free, now-throttleBurst)
	l.free = start + time.Duration(float64(n)/float64(l.rate)*float64(time.Second))
	return max(0, start-now)
}

// setRate changes the rate, also for what is reserved and has not passed; those who wait for that already wait as long as they were told.
func (l *throttle) setRate(now time.Duration, rate int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free > now && l.rate > 0 && rate > 0 {
		l.free = now + time.Duration(float64(l.free-now)*float64(l.rate)/float64(rate))
	}
	l.rate = rate
}
