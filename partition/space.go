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

	mu    sync.Mutex
	next  time.Time // when to ask again
	free  int64     // as of the last time; -1: the file system cannot tell, and writing will show
	since int64     // bytes let through since
}

// commandShare is how much of the reserve commands of a Machine leave: they are small, and what only reads (a consumer group) needs them too.
const commandShare = 4

// askShare of the reserve is how much may be let through before the file system is asked again, however soon that is: a disk may fill up in less than a
// second, and other partitions write to it too.
const askShare = 64

// check lets n bytes through, or returns ErrStorageFull while less than the reserve is free, or, for a command of a Machine, a share of it.
func (g *spaceGuard) check(n int, command bool) error {
	if g.reserve < 0 {
		return nil
	}
	keep := g.reserve
	if command {
		keep /= commandShare
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); !now.Before(g.next) || g.since > g.reserve/askShare {
		g.free, g.since = g.ask(), 0
		g.next = now.Add(spaceInterval)
		if g.lacks(g.reserve) {
			g.next = now.Add(spaceIntervalFull)
		}
	}
	if g.lacks(keep) {
		return fmt.Errorf("%w (%d bytes are free, and %d are kept in reserve)", ErrStorageFull, g.free, keep)
	}
	g.since += int64(n)
	return nil
}

func (g *spaceGuard) lacks(keep int64) bool { return g.free >= 0 && g.free < keep }

func (g *spaceGuard) ask() int64 {
	free, err := g.log.FreeSpace()
	if err != nil {
		return -1
	}
	return free
}

// shortAsOfLate tells whether there was too little space when somebody last asked, without asking: that costs nothing. Who appends asks.
func (g *spaceGuard) shortAsOfLate() bool {
	if g.lastStore() != nil {
		return true
	}
	if g.reserve < 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.next.IsZero() && g.lacks(g.reserve)
}

// lastStore returns the error of the log's last write if that was for lack of space.
func (g *spaceGuard) lastStore() error {
	if err := g.log.LastStoreError(); errors.Is(err, raftlog.ErrNoSpace) {
		return err
	}
	return nil
}

// ShortOfSpace tells whether the last append found less free than the reserve, or could not be written for lack of space. Unlike StorageFull it does not ask the
// file system, so that many replicas can be looked at often.
func (r *Replica) ShortOfSpace() bool { return r.seq.space.shortAsOfLate() }

// StorageFull returns ErrStorageFull while this replica's last write failed for lack of space, or less than the reserve is free. With no leader in sight,
// that is why: a leader has to write before it serves, and its followers too.
func (r *Replica) StorageFull() error {
	if err := r.seq.space.lastStore(); err != nil {
		return fmt.Errorf("%s: %w: %w", r.cfg.Name, ErrStorageFull, err)
	}
	if err := r.seq.space.check(0, false); err != nil {
		return fmt.Errorf("%s: %w", r.cfg.Name, err)
	}
	return nil
}
