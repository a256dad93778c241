package partition

import "sync"

// lazy runs fn on a goroutine that exists only while there is something to do: hundreds of idle replicas cost no goroutines. Runs never overlap, and a kick
// during a run makes another one follow. close is the stop signal and waits.
type lazy struct {
	fn func()

	mu      sync.Mutex
	running bool
	again   bool
	closed  bool
	wg      sync.WaitGroup
}

// kick never blocks.
func (l *lazy) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.again = true
	if !l.running {
		l.running = true
		l.wg.Add(1)
		go l.run()
	}
}

func (l *lazy) run() {
	defer l.wg.Done()
	for l.more() {
		l.fn()
	}
}

func (l *lazy) more() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.again {
		l.running = false
		return false
	}
	l.again = false
	return true
}

// close lets no further run begin and waits for the present one.
func (l *lazy) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}
