package partition

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Sentinels. Those that say "definite" promise that nothing was or will be stored by the call.
var (
	// ErrNotLeader: this replica does not lead the partition, or does not serve yet. Definite. errors.As finds a *NotLeaderError with
	// the leader, if known; otherwise ask again shortly.
	ErrNotLeader = errors.New("not the leader")
	// ErrOutcomeUnknown: the batch or command may have been stored, or may yet be. Repeat an idempotent batch with the same sequence; anything else may
	// appear twice if it is repeated.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrOutOfOrderSequence: a batch before this one is missing. Definite. Send the missing ones first.
	ErrOutOfOrderSequence = errors.New("out of order sequence number")
	// ErrDuplicateSequence: stored long ago; its offset is no longer remembered.
	ErrDuplicateSequence = errors.New("duplicate sequence number")
	// ErrProducerFenced: a newer epoch of the producer has written. Definite.
	ErrProducerFenced = errors.New("producer is fenced by a newer epoch")
	// ErrExpectedOffset: the partition's next offset is not the expected one. Definite. errors.As finds an *ExpectedOffsetError.
	ErrExpectedOffset = errors.New("expected offset does not match")
	// ErrOffsetOutOfRange: before the log start or after the high watermark. errors.As finds a *RangeError.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrTooLarge: the batch is larger than max.message.bytes. Definite.
	ErrTooLarge = errors.New("batch too large")
	// ErrStorageFull: the disk is full, or nearly so. Definite; try again later.
	ErrStorageFull = errors.New("the disk is full: reads go on, writes will again once there is space")
	// ErrThrottled: too many callers wait for the budget of bytes in flight. Definite; try again later.
	ErrThrottled = errors.New("too many appends wait for the disk: try again in a moment")
	// ErrClosed: the replica is closed or closing. Definite.
	ErrClosed = errors.New("replica is closed")
	// ErrFailed: the replica's log has failed (a failed fsync, damage); it refuses everything. errors.Is finds the cause too. Definite.
	ErrFailed = errors.New("replica has failed")
	// ErrBusy: another change of the configuration or the leadership is under way. Try again.
	ErrBusy = errors.New("busy with another change")
)

// NotLeaderError names the leader to go to. It wraps ErrNotLeader.
type NotLeaderError struct {
	Name     string
	Leader   raft.ServerAddress // "" if there is none, or it is not known
	LeaderID raft.ServerID
	Term     uint64
}

// Error says it in plain words.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return fmt.Sprintf("%s: %v, and no leader is known in term %d", e.Name, ErrNotLeader, e.Term)
	}
	return fmt.Sprintf("%s: %v; the leader in term %d is %s", e.Name, ErrNotLeader, e.Term, e.Leader)
}

// Unwrap returns ErrNotLeader.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

// ExpectedOffsetError carries the next offset that an append would get, counting batches in flight. It wraps ErrExpectedOffset.
type ExpectedOffsetError struct {
	Name           string
	Expected, Next record.Offset
	LogStart       record.Offset
	HighWatermark  record.Offset
}

// Error says it in plain words.
func (e *ExpectedOffsetError) Error() string {
	return fmt.Sprintf("%s: %v: expected %d, the next one is %d: read what was written in between and decide again", e.Name, ErrExpectedOffset, e.Expected, e.Next)
}

// Unwrap returns ErrExpectedOffset.
func (e *ExpectedOffsetError) Unwrap() error { return ErrExpectedOffset }

// RangeError carries the bounds of what can be read: from LogStart to HighWatermark. It wraps ErrOffsetOutOfRange.
type RangeError struct {
	Name                            string
	Offset, LogStart, HighWatermark record.Offset
}

// Error says it in plain words.
func (e *RangeError) Error() string {
	why := "there are no negative offsets"
	switch {
	case e.Offset > e.HighWatermark:
		why = "nothing was written there yet"
	case e.Offset >= 0:
		why = "older records were deleted"
	}
	return fmt.Sprintf("%s: %v: %d, where %s; there is %d to %d", e.Name, ErrOffsetOutOfRange, e.Offset, why, e.LogStart, e.HighWatermark)
}

// Unwrap returns ErrOffsetOutOfRange.
func (e *RangeError) Unwrap() error { return ErrOffsetOutOfRange }
