package raftlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Index is a Raft log index: it counts entries of every kind, from 1. It is not a record.Offset, which counts records.
type Index uint64

// Sentinels of this package.
var (
	// ErrNoSpace comes from StoreLogs and the checkpoint methods when the disk is full. Nothing of the call is left behind and the log is
	// healthy: try again when there is space.
	ErrNoSpace = vfs.ErrNoSpace
	// ErrPoisoned comes from every mutation after a failed fsync, or after damage was found by a read. Reads go on. The log has to be closed; after
	// a failed fsync what was acknowledged before is intact and reopening is safe, after damage reopening reports it again or the replica must be rebuilt.
	ErrPoisoned = errors.New("log is poisoned")
	// ErrOutOfStep says that what raft or the state machine has in memory no longer fits the log, such as raft's memory of the last entry, which hashicorp/raft
	// v1.7.3 cannot repair while it runs (see README.md): close raft and the log, and open both again. Nothing is damaged.
	ErrOutOfStep = errors.New("memory is out of step with the log")
	// ErrClosed comes after Close.
	ErrClosed = errors.New("log is closed")
	// ErrNewerFormat comes from Open for a file that a later release wrote. Upgrade; the files are untouched.
	ErrNewerFormat = errors.New("written by a newer release, upgrade to read it")
	// ErrInvalid comes for a request that breaks a rule of this package, such as a gap in the indexes. Nothing was done.
	ErrInvalid = errors.New("invalid request to the log")
	// ErrTooLarge comes for an entry above MaxEntryBytes, or a checkpoint above 256 MiB. Nothing was done.
	ErrTooLarge = errors.New("too large for the log")
	// ErrOutOfRange comes from ReadBatches for offsets that are not in the log.
	ErrOutOfRange = errors.New("offset is not in the log")
	// ErrHaveEntry comes from Snapshots().Create for a checkpoint of an index that the log already holds: installing it would remove entries that may
	// have been acknowledged.
	ErrHaveEntry = errors.New("log already holds the entry of this snapshot")
	// ErrLocked comes from Open when another process, or another Log in this one, has the directory open.
	ErrLocked = vfs.ErrLocked
)

// DamageError says where bytes on the disk are not what was written there. Nothing was changed: the replica has to be set aside and rebuilt from its peers.
type DamageError struct {
	File   string // path
	Offset int64  // position in the file, in bytes
	Reason string
}

// Error says it in plain words.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d: %s", e.File, e.Offset, e.Reason)
}

// Durability says when StoreLogs returns.
type Durability uint8

const (
	// DurabilityQuorum is one fdatasync per StoreLogs: what it returned for survives power loss. The default.
	DurabilityQuorum Durability = iota
	// DurabilityOS returns when the operating system has the bytes: they survive the death of the process, but not of the machine. Segments are
	// still synced when they are sealed, and before a checkpoint that covers them; and configurations of the group at once.
	DurabilityOS
)

// String is "quorum" or "os", as in topic settings.
func (d Durability) String() string {
	if d == DurabilityOS {
		return "os"
	}
	return "quorum"
}

// Boundary is the last entry of a sealed segment.
type Boundary struct {
	Index Index
	Term  uint64
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	FirstIndex Index
	LastIndex  Index // FirstIndex-1 if the segment is empty
	// BaseOffset is the offset that the first accepted batch in the segment has or will have; NextOffset the one after its last.
	BaseOffset record.Offset
	NextOffset record.Offset
	Bytes      int64 // of header and frames, without preallocated space
	// MaxTimestamp is the largest of its accepted batches in milliseconds since 1970, and -1 if there are none.
	MaxTimestamp int64
	Sealed       bool
	CreatedAt    time.Time
}

// ReadResult is what ReadBatches found.
type ReadResult struct {
	// Batches are whole record batches in offset order. They are shared with other readers and must not be changed.
	Batches [][]byte
	Bytes   int
	// Next is the offset after the last batch, where the next read continues; from itself if there was none.
	Next record.Offset
	// Release, if it is not nil, gives the memory of Batches back to other reads. It may be called once, when nobody reads them any more, by anyone. Who does not call it
	// leaves the memory to the garbage collector.
	Release func()
}

// Checkpoint is the state of the state machine after the entry at Index.
type Checkpoint struct {
	Index              Index
	Term               uint64        // of the entry at Index
	NextOffset         record.Offset // after the entry at Index
	Configuration      raft.Configuration
	ConfigurationIndex Index
	State              []byte // opaque here
}
