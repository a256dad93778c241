package partition

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/raftlog"
)

// How often the file system is asked, at most: while there is space, and while there is none.
const (
	spaceInterval     = time.Second
	spaceIntervalFull = 100 * time.Millisecond
)

// spaceGuard refuses appends before the disk is really full: raft needs some space for its own entries, and a leader whose log cannot write has to step down. It
// recovers by itself, since it asks again.
type spaceGuard struct {
	log interface {
		FreeSpace() (int64, error)
		LastStoreError() error
	}
	reserve int64 // bytes; below 0: do not guard

	mu   sync.Mutex
	next time.Time // when to ask again
	err  error
}

// check returns ErrStorageFull while less than the reserve is free.
func (g *spaceGuard) check() error {
	if g.reserve < 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Before(g.next) {
		return g.err
	}
	g.err = g.ask()
	g.next = now.Add(spaceInterval)
	if g.err != nil {
		g.next = now.Add(spaceIntervalFull)
	}
	return g.err
}

func (g *spaceGuard) ask() error {
	free, err := g.log.FreeSpace()
	if err == nil && free < g.reserve {
		return fmt.Errorf("%w (%d bytes are free, and %d are kept in reserve)", ErrStorageFull, free, g.reserve)
	}
	return nil // a file system that cannot tell: writing will show
}

// lastStore returns the error of the log's last write if that was for lack of space.
func (g *spaceGuard) lastStore() error {
	if err := g.log.LastStoreError(); errors.Is(err, raftlog.ErrNoSpace) {
		return err
	}
	return nil
}
