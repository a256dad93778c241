package partition

import (
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// overflowPoll is after how long a waiter beyond the limit is woken, to look for itself: polling, but not in a loop that does nothing else.
const overflowPoll = 100 * time.Millisecond

// watchers is who waits for the high watermark. It is woken by the state machine after each group of entries; nobody polls, and a waiter
// costs no goroutine.
type watchers struct {
	mu     sync.Mutex
	limit  int
	waits  map[*watcher]struct{}
	closed bool
}

type watcher struct {
	from record.Offset
	ch   chan<- struct{}
}

func (w *watcher) wake() {
	select {
	case w.ch <- struct{}{}:
	default: // a wake-up is already there
	}
}

// add registers a waiter for a high watermark above from; it is woken at once if reached says so, or after close, and beyond the limit after overflowPoll. reached
// is called after the waiter is in the list, so that no change between can be missed.
func (ws *watchers) add(from record.Offset, ch chan<- struct{}, reached func(record.Offset) bool) (cancel func()) {
	w := &watcher{from: from, ch: ch}
	ws.mu.Lock()
	closed, full := ws.closed, len(ws.waits) >= ws.limit
	if !closed && !full {
		if ws.waits == nil {
			ws.waits = make(map[*watcher]struct{})
		}
		ws.waits[w] = struct{}{}
	}
	ws.mu.Unlock()
	switch {
	case closed || reached(from):
		ws.remove(w)
		w.wake()
		return func() {}
	case full:
		timer := time.AfterFunc(overflowPoll, w.wake)
		return func() { timer.Stop() }
	}
	return func() { ws.remove(w) }
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	delete(ws.waits, w)
	ws.mu.Unlock()
}

// advance wakes those who wait for less than the high watermark.
func (ws *watchers) advance(highWatermark record.Offset) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.waits {
		if highWatermark > w.from {
			delete(ws.waits, w)
			w.wake()
		}
	}
}

// wakeAll wakes everyone: leadership was lost, or, with closed, the replica closes.
func (ws *watchers) wakeAll(closed bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = ws.closed || closed
	for w := range ws.waits {
		w.wake()
	}
	clear(ws.waits)
}
