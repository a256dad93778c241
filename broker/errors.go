package broker

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// errorCodes is the one table from the errors of all parts to the codes that clients see. The first row that matches
// counts: what says more about the outcome stands above what says less.
var errorCodes = []struct {
	err  error
	code api.Code
}{
	{partition.ErrOutcomeUnknown, api.CodeRequestTimedOut},
	{partition.ErrNotLeader, api.CodeNotLeader},
	{partition.ErrOutOfOrderSequence, api.CodeOutOfOrderSequence},
	{partition.ErrDuplicateSequence, api.CodeDuplicateSequence},
	{partition.ErrProducerFenced, api.CodeProducerFenced},
	{partition.ErrExpectedOffset, api.CodeExpectedOffsetMismatch},
	{partition.ErrOffsetOutOfRange, api.CodeOffsetOutOfRange},
	{partition.ErrTooLarge, api.CodeMessageTooLarge},
	{partition.ErrStorageFull, api.CodeStorageFull},
	{partition.ErrThrottled, api.CodeThrottled},
	{partition.ErrClosed, api.CodeLeaderNotAvailable}, // closing: it moves elsewhere, or this broker stops
	{partition.ErrFailed, api.CodeStorageError},
	{partition.ErrBusy, api.CodeLeaderNotAvailable},
	{raftlog.ErrNoSpace, api.CodeStorageFull},
	{raftlog.ErrPoisoned, api.CodeStorageError},
	{record.ErrTooLarge, api.CodeMessageTooLarge},
	{record.ErrUnsupportedCompression, api.CodeUnsupportedCompression},
	{record.ErrCorrupt, api.CodeCorruptBatch},
	{record.ErrInvalid, api.CodeInvalidRecord},
	{metadata.ErrOutcomeUnknown, api.CodeRequestTimedOut},
	{metadata.ErrNoLeader, api.CodeControllerNotAvailable},
	{metadata.ErrNotLeader, api.CodeControllerNotAvailable},
	{metadata.ErrClosed, api.CodeShuttingDown},
	{transport.ErrClosed, api.CodeShuttingDown},
	{context.DeadlineExceeded, api.CodeRequestTimedOut},
	{context.Canceled, api.CodeRequestTimedOut},
}

// apiError makes an *api.Error of any error. tp, if not nil, is the partition concerned.
func (b *Broker) apiError(err error, tp *api.TopicPartition) error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	out := &api.Error{Code: codeFor(err), Message: err.Error(), TP: tp, Cause: err}
	var notLeader *partition.NotLeaderError
	var expected *partition.ExpectedOffsetError
	var bounds *partition.RangeError
	switch {
	case errors.As(err, &notLeader):
		out.Leader, out.LeaderEpoch = b.endpointAt(notLeader.Leader), int32(notLeader.Term)
	case errors.As(err, &expected):
		// The next offset is what a conditional producer wants to know; it counts batches in flight.
		out.LogStart, out.HighWatermark = expected.LogStart, expected.Next
	case errors.As(err, &bounds):
		out.LogStart, out.HighWatermark = bounds.LogStart, bounds.HighWatermark
	}
	if out.Code == api.CodeLeaderNotAvailable && b.stopping.Load() {
		out.Code = api.CodeShuttingDown
	}
	return out
}

func codeFor(err error) api.Code {
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return api.CodeInternal
}

// endpointAt is where clients reach the broker with that Raft address; nil if it is not known, or this very broker.
func (b *Broker) endpointAt(addr raft.ServerAddress) *api.Endpoint {
	id, ok := metadata.ParseServerAddress(addr)
	if !ok || id == b.cfg.ID {
		return nil
	}
	return b.endpoint(id)
}
