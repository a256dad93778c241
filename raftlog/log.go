package raftlog

import (
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Log is an open log. It implements raft.LogStore and raft.MonotonicLogStore.
//
// Locks are taken in the order adm, wmu, mu. adm is for what changes the log's beginning or its checkpoints, wmu for what changes its end, and both are
// held during disk writes. mu guards the state below it and is held only while memory is read or changed; readers take nothing else. Segments and end
// are changed with wmu and mu held, so either is enough to read them; checkpoints likewise with adm and mu.
//
// The only goroutines are those that write the index of a segment just sealed; background counts them, and Close waits for them.
type Log struct {
	fs       vfs.FS
	dir      string
	logger   hclog.Logger
	now      func() time.Time
	lock     io.Closer
	maxEntry int
	settings atomic.Pointer[settings]
	files    fileCache
	cursors  cursors

	failure    atomic.Pointer[error]
	onFailure  func(error)
	onSync     func(took time.Duration)
	onRepair   func(file string)
	failFast   atomic.Bool
	serve      atomic.Bool // ServeFollowers was called
	closed     atomic.Bool
	lastSealed atomic.Uint64 // last index of the newest sealed segment, 0 if none
	background sync.WaitGroup

	adm gate

	wmu       gate
	alloc     int64 // size of the active file with what was preallocated
	truncated bool  // by a conflict, and nothing was stored since: raft may remember entries that are gone
	failedGen bool  // a write was undone: the next frames need a generation of their own

	mu          sync.RWMutex
	version     uint64 // grows when entries go away, at either end
	start       startRecord
	segs        []*segment // ascending; only the last is not sealed
	tail        tailCache
	last        Index // start.index if there are no entries
	lastTerm    uint64
	next        record.Offset
	checkpoints []checkpointInfo // ascending
	clean       bool             // the file "clean" is there
	storeErr    error
}

// settings are what Reconfigure changes.
type settings struct {
	segmentBytes int64
	segmentAge   time.Duration
	durability   Durability
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)

// Reconfigure changes settings from the next append on. The values mean what they mean in Options.
func (l *Log) Reconfigure(segmentBytes int64, segmentAge time.Duration, d Durability) {
	if segmentAge == 0 {
		segmentAge = DefaultSegmentAge
	}
	l.settings.Store(&settings{clampSegmentBytes(segmentBytes), segmentAge, d})
}

// IsMonotonic tells raft that indexes have no gaps, so that it empties the log when a snapshot is installed.
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex is the index of the first entry, and 0 if there is none.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.last == l.start.index {
		return 0, nil
	}
	return uint64(l.start.index + 1), nil
}

// LastIndex is the index of the last entry, and 0 if there is none.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.last == l.start.index {
		return 0, nil
	}
	return uint64(l.last), nil
}

// NextOffset is the offset after the last stored entry, be it committed or not.
func (l *Log) NextOffset() record.Offset {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.next
}

// FirstOffset is the first offset that is physically there, and NextOffset if none is.
func (l *Log) FirstOffset() record.Offset {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.start.nextOffset
}

// Size is the number of bytes in all segments, without preallocated space.
func (l *Log) Size() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var n int64
	for _, s := range l.segs {
		n += s.end
	}
	return n
}

// Segments describes all segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	l.mu.RLock()
	defer l.mu.RUnlock()
	infos := make([]SegmentInfo, len(l.segs))
	for i, s := range l.segs {
		infos[i] = s.info()
	}
	return infos
}

// Boundary returns the end of the first sealed segment that ends above an index. The state of the state machine there is worth a checkpoint: Trim needs
// one. It costs one atomic load when there is none, so it may be asked for before every entry is applied.
func (l *Log) Boundary(after Index) (Boundary, bool) {
	if l.lastSealed.Load() <= uint64(after) {
		return Boundary{}, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := sort.Search(len(l.segs), func(k int) bool { return l.segs[k].last > after })
	if i == len(l.segs) || !l.segs[i].sealed {
		return Boundary{}, false
	}
	return Boundary{Index: l.segs[i].last, Term: l.segs[i].lastTerm}, true
}

// FreeSpace is how many bytes may still be written on the disk that holds the log.
func (l *Log) FreeSpace() (int64, error) { return l.fs.FreeBytes(l.dir) }

// LastStoreError is why the latest StoreLogs failed, and nil after one that succeeded. Raft answers a leader no more than "no" when its own StoreLogs
// fails, which the leader would take for a conflict: see partition.
func (l *Log) LastStoreError() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.storeErr
}

// Err is why the log is poisoned, or ErrClosed, or nil.
func (l *Log) Err() error {
	if p := l.failure.Load(); p != nil {
		return *p
	}
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

// FailFast chooses what GetLog does when it cannot read an entry that must be there. hashicorp/raft v1.7.3 panics then, which would take every
// partition of the broker with it; so while raft runs (on), GetLog poisons the log, calls OnFailure, and ends the calling goroutine with
// runtime.Goexit. Before (off, the default) it returns the error.
func (l *Log) FailFast(on bool) { l.failFast.Store(on) }

// Poison is for a cause that only raft's side can see, such as a leader that wants entries removed which this replica has applied: no change is
// possible afterwards, and OnFailure is called. The result wraps ErrPoisoned and the cause.
func (l *Log) Poison(cause error) error { return l.poison(cause) }

// poison ends all changes. The first cause is kept and reported; the result wraps both it and ErrPoisoned.
func (l *Log) poison(cause error) error {
	err := fmt.Errorf("%s: %w: %w", l.dir, ErrPoisoned, cause)
	if l.failure.CompareAndSwap(nil, &err) {
		l.logger.Error("log is poisoned: no further writes", "dir", l.dir, "cause", cause)
		l.onFailure(err)
	}
	return err
}

// active is the newest segment, or nil. The caller holds wmu or mu.
func (l *Log) active() *segment {
	if len(l.segs) == 0 {
		return nil
	}
	return l.segs[len(l.segs)-1]
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

// setEnd derives last, lastTerm and next, and the fast path of Boundary. The caller holds mu.
func (l *Log) setEnd() {
	l.last, l.lastTerm, l.next = l.start.index, l.start.term, l.start.nextOffset
	sealed := uint64(0)
	for _, s := range l.segs {
		l.last, l.lastTerm, l.next = s.last, s.lastTerm, s.next
		if s.sealed {
			sealed = uint64(s.last)
		}
	}
	l.lastSealed.Store(sealed)
}
