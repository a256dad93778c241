package raftlog

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Limits and defaults of Options.
const (
	DefaultSegmentBytes   = 128 << 20
	DefaultSegmentAge     = 7 * 24 * time.Hour
	DefaultTailCacheBytes = 1 << 20
	DefaultMaxEntryBytes  = 64 << 20
	MinSegmentBytes       = 4 << 10
	MaxSegmentBytes       = 2 << 30 // positions in a segment have 32 bits
	MaxEntryBytes         = 1 << 30
)

// Options say how to open a Log. Only Dir is needed.
type Options struct {
	// FS is where Dir is; nil means the operating system's.
	FS vfs.FS
	// Dir holds this log and nothing else; it is created if need be.
	Dir string
	// SegmentBytes is the size at which a new segment begins, between MinSegmentBytes and MaxSegmentBytes. An entry that is larger than that gets
	// a segment of its own. 0 means 128 MiB.
	SegmentBytes int64
	// SegmentAge is the age at which the next append begins a new segment. 0 means 7 days, and below 0 never.
	SegmentAge time.Duration
	// Durability is quorum unless said otherwise.
	Durability Durability
	// TailCacheBytes bounds the newest entries kept in memory. They are shared with the caller of StoreLogs, not copied. 0 means 1 MiB, below 0
	// none.
	TailCacheBytes int64
	// MaxEntryBytes bounds one entry (data and extensions). 0 means 64 MiB, at most 1 GiB.
	MaxEntryBytes int
	// Logger; nil means none.
	Logger hclog.Logger
	// Now is the clock for segment ages; nil means time.Now.
	Now func() time.Time
	// OnSync is told how long each fdatasync of StoreLogs took. It must not block. Nil: nobody is.
	OnSync func(took time.Duration)
	// OnRepair is told of each damaged index file that was written anew. It must not block. Nil: nobody is.
	OnRepair func(file string)
	// OnFailure is called once, when the log is poisoned, from the goroutine that found out. It must neither block nor call the log.
	OnFailure func(error)
}

// withDefaults fills in what was left out and checks the rest. The error wraps ErrInvalid.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, fmt.Errorf("%w: no directory given", ErrInvalid)
	}
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	o.SegmentBytes = clampSegmentBytes(o.SegmentBytes)
	if o.SegmentAge == 0 {
		o.SegmentAge = DefaultSegmentAge
	}
	if o.TailCacheBytes == 0 {
		o.TailCacheBytes = DefaultTailCacheBytes
	}
	if o.MaxEntryBytes == 0 {
		o.MaxEntryBytes = DefaultMaxEntryBytes
	}
	if o.MaxEntryBytes < 0 || o.MaxEntryBytes > MaxEntryBytes {
		return o, fmt.Errorf("%w: MaxEntryBytes is %d, and may be at most %d", ErrInvalid, o.MaxEntryBytes, MaxEntryBytes)
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnSync == nil {
		o.OnSync = func(time.Duration) {}
	}
	if o.OnRepair == nil {
		o.OnRepair = func(string) {}
	}
	if o.OnFailure == nil {
		o.OnFailure = func(error) {}
	}
	return o, nil
}

// clampSegmentBytes brings a segment size into the allowed range; 0 and less mean the default.
func clampSegmentBytes(n int64) int64 {
	switch {
	case n <= 0:
		return DefaultSegmentBytes
	case n < MinSegmentBytes:
		return MinSegmentBytes
	case n > MaxSegmentBytes:
		return MaxSegmentBytes
	}
	return n
}
