package partition

import (
	"sync"
	"time"
)

// stallAfter is for how long nothing may be committed before a group counts as stalled.
const stallAfter = time.Second

// stall tells whether a leader waits in vain for its entries to be committed: then a quorum needs followers that are far behind, and the transport does not slow them down.
type stall struct {
	mu     sync.Mutex
	commit uint64    // the commit index when it was last seen to change, or to be all there is
	since  time.Time // when that was
}

// look takes the present state of a log and says whether it has been stuck for stallAfter.
func (s *stall) look(now time.Time, commit, last uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if commit != s.commit || commit >= last || s.since.IsZero() {
		s.commit, s.since = commit, now
		return false
	}
	return now.Sub(s.since) >= stallAfter
}

// stalled is for transport.GroupOptions. raft may call it before NewRaft has returned.
func (r *Replica) stalled() bool {
	return r.started.Load() && r.stall.look(time.Now(), r.raft.CommitIndex(), r.raft.LastIndex())
}
