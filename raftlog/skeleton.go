package raftlog

import (
	"errors"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

type Log struct{}

var errSkeleton = errors.New("not built yet")

func Open(Options) (*Log, error)                                                      { return nil, errSkeleton }
func (l *Log) FirstIndex() (uint64, error)                                            { return 0, errSkeleton }
func (l *Log) LastIndex() (uint64, error)                                             { return 0, errSkeleton }
func (l *Log) GetLog(index uint64, log *raft.Log) error                               { return errSkeleton }
func (l *Log) StoreLog(log *raft.Log) error                                           { return errSkeleton }
func (l *Log) StoreLogs(logs []*raft.Log) error                                       { return errSkeleton }
func (l *Log) DeleteRange(min, max uint64) error                                      { return errSkeleton }
func (l *Log) IsMonotonic() bool                                                      { return true }
func (l *Log) FailFast(on bool)                                                       {}
func (l *Log) Reconfigure(segmentBytes int64, segmentAge time.Duration, d Durability) {}
func (l *Log) ReadBatches(from, limit record.Offset, maxBytes int) (ReadResult, error) {
	return ReadResult{}, errSkeleton
}
func (l *Log) BatchForTimestamp(ms int64, from, limit record.Offset) (batch []byte, ok bool, err error) {
	return nil, false, errSkeleton
}
func (l *Log) MaxTimestampBatch(from, limit record.Offset) (batch []byte, ok bool, err error) {
	return nil, false, errSkeleton
}
func (l *Log) NextOffset() record.Offset             { return 0 }
func (l *Log) FirstOffset() record.Offset            { return 0 }
func (l *Log) Size() int64                           { return 0 }
func (l *Log) Segments() []SegmentInfo               { return nil }
func (l *Log) Boundary(after Index) (Boundary, bool) { return Boundary{}, false }

// Roll seals the active segment if it has entries (for retention by age of an idle partition).
func (l *Log) Roll() error                                   { return errSkeleton }
func (l *Log) WriteCheckpoint(Checkpoint) error              { return errSkeleton }
func (l *Log) LatestCheckpoint() (Checkpoint, bool, error)   { return Checkpoint{}, false, errSkeleton }
func (l *Log) Trim(logStart record.Offset, upTo Index) error { return errSkeleton }
func (l *Log) Snapshots() raft.SnapshotStore                 { return nil }
func (l *Log) ServeFollowers()                               {}
func (l *Log) Err() error                                    { return nil }
func (l *Log) LastStoreError() error                         { return nil }
func (l *Log) FreeSpace() (int64, error)                     { return 0, errSkeleton }
func (l *Log) Sync() error                                   { return errSkeleton }
func (l *Log) Close() error                                  { return errSkeleton }
func (l *Log) Destroy() error                                { return errSkeleton }

// ReadCheckpoint decodes what Snapshots().Open streams: FSM.Restore gets exactly this.
func ReadCheckpoint(r io.Reader) (Checkpoint, error) { return Checkpoint{}, errSkeleton }

// Inspect reads the files of a log that nobody has open, changes nothing, and reports. fn may be nil; it is called for each entry in order.
func Inspect(fs vfs.FS, dir string, opts InspectOptions, fn func(EntryInfo) error) (*Report, error) {
	return nil, errSkeleton
}
