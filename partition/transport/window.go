package transport

import "sync"

// window bounds how much is under way, in units and bytes. One item is always let in when nothing else is, so
// that an item larger than the limit cannot wait for ever.
type window struct {
	maxCount int
	maxBytes int64

	mu    sync.Mutex
	count int
	bytes int64
	room  chan struct{} // closed and replaced when room is made; nil while nobody waits
}

// enter waits for room for n bytes. It returns false when one of the stop channels closes first.
func (w *window) enter(n int64, stop, stop2 <-chan struct{}) bool {
	for {
		room := w.tryEnter(n)
		if room == nil {
			return true
		}
		select {
		case <-room:
		case <-stop:
			return false
		case <-stop2:
			return false
		}
	}
}

// tryEnter returns nil after entering, or a channel that closes when it is worth trying again.
func (w *window) tryEnter(n int64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	full := w.count >= w.maxCount || w.bytes+n > w.maxBytes
	if full && w.count > 0 {
		if w.room == nil {
			w.room = make(chan struct{})
		}
		return w.room
	}
	w.count++
	w.bytes += n
	return nil
}

// force enters without regard to the limits: for replies, which the requests they answer have bounded already.
func (w *window) force(n int64) {
	w.mu.Lock()
	w.count++
	w.bytes += n
	w.mu.Unlock()
}

// leave takes count items of n bytes together out.
func (w *window) leave(count int, n int64) {
	w.mu.Lock()
	w.count -= count
	w.bytes -= n
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	w.mu.Unlock()
}
