package partition

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Replica is one replica of a partition.
type Replica struct{}

// Open opens a replica and starts its Raft node. *raftlog.DamageError (errors.As): set the directory aside and rebuild.
func Open(cfg Config) (*Replica, error) { return nil, ErrClosed }

// Bootstrap gives a group its first configuration. Only for a group's first replicas, all with the same list; ignored if there is state already.
func (r *Replica) Bootstrap(servers []raft.Server) error { return ErrClosed }

// Append appends one batch and waits until it is committed.
func (r *Replica) Append(ctx context.Context, req AppendRequest) (AppendResult, error) {
	return AppendResult{}, ErrClosed
}

// AppendAsync enters the batch into the sequencer before it returns, and calls done once, from another goroutine; done must not block.
func (r *Replica) AppendAsync(ctx context.Context, req AppendRequest, done func(AppendResult, error)) {
}

// Propose replicates a command for the Machine and returns what its Apply returned here. The first byte is 0x80 to 0xEF.
func (r *Replica) Propose(ctx context.Context, cmd []byte) (any, error) { return nil, ErrClosed }

// Read reads committed batches from the leader, without waiting.
func (r *Replica) Read(offset record.Offset, maxBytes int) (ReadResult, error) {
	return ReadResult{}, ErrClosed
}

// ReadLocal is Read from whatever replica this is: it may lag behind the leader.
func (r *Replica) ReadLocal(offset record.Offset, maxBytes int) (ReadResult, error) {
	return ReadResult{}, ErrClosed
}

// Fetch reads and waits for MinBytes.
func (r *Replica) Fetch(ctx context.Context, req FetchRequest) (ReadResult, error) {
	return ReadResult{}, ErrClosed
}

// Watch sends on ch once, without blocking, when the high watermark passes from, leadership is lost, or the replica closes.
func (r *Replica) Watch(from record.Offset, ch chan<- struct{}) (cancel func()) { return func() {} }

// OffsetForTimestamp finds the first record at or after ms (Unix). Leader only.
func (r *Replica) OffsetForTimestamp(ms int64) (offset record.Offset, ts int64, found bool, err error) {
	return 0, 0, false, ErrClosed
}

// MaxTimestamp finds the record with the largest timestamp. Leader only.
func (r *Replica) MaxTimestamp() (offset record.Offset, ts int64, found bool, err error) {
	return 0, 0, false, ErrClosed
}

// Bounds returns the log start and the high watermark as this replica knows them.
func (r *Replica) Bounds() (logStart, highWatermark record.Offset) { return 0, 0 }

// DeleteRecords moves the log start up to before (-1: the high watermark) and returns the new one.
func (r *Replica) DeleteRecords(ctx context.Context, before record.Offset) (record.Offset, error) {
	return 0, ErrClosed
}

// Status describes the replica.
func (r *Replica) Status() Status { return Status{} }

// IsLeader tells whether this replica leads and serves.
func (r *Replica) IsLeader() bool { return false }

// Leader returns the leader as far as this replica knows, and the term.
func (r *Replica) Leader() (raft.ServerAddress, uint64) { return "", 0 }

// Reconcile moves the Raft configuration one step towards desired voters.
func (r *Replica) Reconcile(ctx context.Context, desired []raft.Server, caughtUp func(raft.Server) bool) (done bool, err error) {
	return false, ErrClosed
}

// TransferLeadership hands leadership to a server; nil means the most up-to-date voter.
func (r *Replica) TransferLeadership(ctx context.Context, to *raft.Server) error { return ErrClosed }

// UpdateSettings changes the settings.
func (r *Replica) UpdateSettings(s Settings) {}

// Close stops the replica: appends in flight are waited for, a checkpoint is written, raft and the log are closed.
func (r *Replica) Close(ctx context.Context) error { return nil }

// Destroy removes the files of a replica that was closed.
func (r *Replica) Destroy() error { return nil }
