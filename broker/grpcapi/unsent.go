package grpcapi

import (
	"context"
	"sync"
	"time"
)

// unsent bounds the fetched data that gRPC has and has not yet given to a connection, over all of them. A response is counted from when its data was read until gRPC lets go of
// it, which for a client that does not read is never. Where there is no room, data that was read is dropped and read again later: a fetch waits, and never fails for it. Whoever has not
// taken its data for stallAfter while others wait loses its connection. gRPC forgets what it has for a connection that ends, without letting go of it: see drop.
type unsent struct {
	limit      int64
	stallAfter time.Duration
	connected  func(remote string) bool // there is a connection from there; called with mu held
	hangUp     func(remote string)      // closes it, which drops

	mu   sync.Mutex
	used int64
	held map[*holding]struct{}
	room chan struct{} // closed and replaced when something was let go; nil while nobody waits
}

// holding is the data of one response.
type holding struct {
	u      *unsent
	bytes  int64
	remote string // who is to take it
	since  time.Time
}

func newUnsent(limit int64, stallAfter time.Duration, connected func(string) bool, hangUp func(string)) *unsent {
	return &unsent{limit: limit, stallAfter: stallAfter, connected: connected, hangUp: hangUp, held: map[*holding]struct{}{}}
}

// take counts bytes, or returns nil where there is no room for them. One response always has room. For a connection that has ended meanwhile nothing is counted.
func (u *unsent) take(bytes int64, remote string) *holding {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.fits(bytes) {
		return nil
	}
	h := &holding{u: u, bytes: bytes, remote: remote, since: time.Now()}
	if u.connected(remote) {
		u.used += bytes
		u.held[h] = struct{}{}
	}
	return h
}

// drop releases what is held for a connection that has ended: connected says so already.
func (u *unsent) drop(remote string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for h := range u.held {
		if h.remote == remote {
			u.letGo(h)
		}
	}
}

// letGo ends a holding, if it is counted. Held: mu.
func (u *unsent) letGo(h *holding) {
	if _, ok := u.held[h]; !ok {
		return
	}
	u.used -= h.bytes
	delete(u.held, h)
	if u.room != nil {
		close(u.room)
		u.room = nil
	}
}

// fits says whether there is room. Held: mu.
func (u *unsent) fits(bytes int64) bool { return u.used == 0 || u.used+bytes <= u.limit }

// grow counts more than was taken: what was read turned out to be larger when it was decoded. Others wait for it.
func (h *holding) grow(bytes int64) {
	if h == nil {
		return
	}
	h.u.mu.Lock()
	defer h.u.mu.Unlock()
	if _, ok := h.u.held[h]; ok {
		h.bytes += bytes
		h.u.used += bytes
	}
}

// release may be called more than once, and on nil.
func (h *holding) release() {
	if h == nil {
		return
	}
	h.u.mu.Lock()
	defer h.u.mu.Unlock()
	h.u.letGo(h)
}

// await waits until there is room for bytes; that may be gone again when it returns. The error is ctx's.
func (u *unsent) await(ctx context.Context, bytes int64) error {
	check := time.NewTicker(max(u.stallAfter/8, time.Millisecond))
	defer check.Stop()
	for {
		room := u.wait(bytes)
		if room == nil {
			return nil
		}
		select {
		case <-room:
		case <-check.C:
			u.hangUpStalled()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait returns nil if there is room, or a channel that closes when it is worth looking again.
func (u *unsent) wait(bytes int64) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fits(bytes) {
		return nil
	}
	if u.room == nil {
		u.room = make(chan struct{})
	}
	return u.room
}

// hangUpStalled closes the connections of those who have not taken their data for too long.
func (u *unsent) hangUpStalled() {
	stalled := map[string]bool{}
	u.mu.Lock()
	for h := range u.held {
		if time.Since(h.since) > u.stallAfter {
			stalled[h.remote] = true
		}
	}
	u.mu.Unlock()
	for remote := range stalled {
		u.hangUp(remote)
	}
}
