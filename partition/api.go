package partition

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// AppendRequest is one batch to append.
type AppendRequest struct {
	// Batch is one RecordBatch v2. The replica keeps and changes it: after the call, whatever its outcome, the caller must neither change it
	// nor pass it again (a second stamp would alter an entry that is already in the log's cache).
	Batch []byte
	// Expected, if not nil, must be the partition's next offset. A duplicate of an idempotent producer's batch is answered first.
	Expected *record.Offset
}

// AppendResult says where a batch went.
type AppendResult struct {
	BaseOffset    record.Offset
	LogAppendTime int64 // Unix ms; -1 with CreateTime
	LogStart      record.Offset
	LeaderEpoch   int32
	Duplicate     bool // it was stored by an earlier call; BaseOffset is from then
}

// ReadResult is what Read and Fetch return.
type ReadResult struct {
	// Batches as stored, shared with the log's cache: read only. The first may begin before the offset asked for.
	Batches       [][]byte
	Bytes         int
	Next          record.Offset // what to ask for next
	HighWatermark record.Offset
	LogStart      record.Offset
	LeaderEpoch   int32
	// Release, if it is not nil, gives the memory of Batches back: once, when nobody reads them any more (see raftlog.ReadResult).
	Release func()
}

// FetchRequest reads from Offset and waits until MinBytes are there, at most MaxWait.
type FetchRequest struct {
	Offset   record.Offset
	MaxBytes int // the first batch is returned even if it is larger
	MinBytes int // 0 and 1: anything
	MaxWait  time.Duration
}

// Status is a replica at a glance.
type Status struct {
	State         raft.RaftState
	Ready         bool               // leads and serves
	Leader        raft.ServerAddress // "" if not known
	LeaderID      raft.ServerID
	Term          uint64
	LastIndex     uint64
	CommitIndex   uint64
	AppliedIndex  uint64 // by the state machine; no-ops and barriers do not count, so it may stay below CommitIndex
	LogStart      record.Offset
	HighWatermark record.Offset
	Digest        uint64        // over all accepted batches; equal on all replicas at equal HighWatermark
	Bytes         int64         // on disk
	Servers       []raft.Server // latest configuration, perhaps not committed yet
	// ConfigurationCommitted says that Servers is committed, and applied here.
	ConfigurationCommitted bool
	LocalID                raft.ServerID
	Producers              int
	Followers              []Follower // of a leader: the other servers
	Err                    error      // why it failed
}
