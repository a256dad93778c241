package client

import (
	"sync"
	"time"
)

// Batches that skip the linger: one in eagerInterval on average, and eagerBurst at once.
const (
	eagerInterval = 500 * time.Microsecond
	eagerBurst    = 16 * eagerInterval
)

// eagerness decides which batches need not linger: while nothing of the producer is in flight there is nothing to wait for, and what has gathered until the last
// answer goes at once, as Nagle's algorithm has it. So a producer of few records pays no linger, and one of many still sends full batches; in between, the rate
// of such batches is bounded, since each costs its brokers as much as a large one. The bound is the generic cell rate algorithm's.
//
// Its lock is innermost.
type eagerness struct {
	on bool // set before use: the linger is the default

	mu        sync.Mutex
	inFlight  int
	lingering []*partitionProducer // to be woken when nothing is in flight
	next      time.Time            // when the next such batch would be due if they came evenly
}

// may says whether a batch may go now. If not, and nothing but batches in flight is in the way, pp will be woken.
func (e *eagerness) may(pp *partitionProducer, now time.Time) bool {
	if !e.on {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inFlight == 0 {
		return !e.next.After(now.Add(eagerBurst))
	}
	if !pp.lingers {
		pp.lingers = true
		e.lingering = append(e.lingering, pp)
	}
	return false
}

// spend counts a batch that went because may said so.
func (e *eagerness) spend(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next.Before(now) {
		e.next = now
	}
	e.next = e.next.Add(eagerInterval)
}

func (e *eagerness) sent() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inFlight++
}

// answered counts a batch that is no longer in flight, whatever became of it.
func (e *eagerness) answered() {
	e.mu.Lock()
	e.inFlight--
	var wake []*partitionProducer
	if e.inFlight == 0 {
		wake, e.lingering = e.lingering, nil
	}
	for _, pp := range wake {
		pp.lingers = false
	}
	e.mu.Unlock()
	for _, pp := range wake {
		pp.signal()
	}
}
