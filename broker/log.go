package broker

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Append implements api.Log. An append is handed to the replica once only: after a refusal the batch is the replica's all the same.
func (b *Broker) Append(ctx context.Context, req api.AppendRequest) (api.AppendResult, error) {
	ctx, cancel := b.appendDeadline(ctx)
	defer cancel()
	r, err := b.leadReplica(ctx, req.TopicPartition)
	if err != nil {
		return api.AppendResult{}, err
	}
	res, err := r.Append(ctx, partition.AppendRequest{Batch: req.Batch, Expected: req.Expected})
	return toAppendResult(res), b.apiError(err, &req.TopicPartition)
}

func (b *Broker) appendDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, b.cfg.Timing.AppendTimeout)
}

// AppendAsync implements api.Log. It does not wait for elections: a stream of appends to many partitions must not stand still for one.
func (b *Broker) AppendAsync(ctx context.Context, req api.AppendRequest, done func(api.AppendResult, error)) {
	r, err := b.recordsNow(req.TopicPartition)
	if err != nil {
		go done(api.AppendResult{}, err)
		return
	}
	r.AppendAsync(ctx, partition.AppendRequest{Batch: req.Batch, Expected: req.Expected}, func(res partition.AppendResult, err error) {
		done(toAppendResult(res), b.apiError(err, &req.TopicPartition))
	})
}

// leadReplica is lead for those who only need the partition's replica.
func (b *Broker) leadReplica(ctx context.Context, tp api.TopicPartition) (*partition.Replica, error) {
	h, err := b.lead(ctx, tp)
	if err != nil {
		return nil, err
	}
	return b.records(h, tp)
}

// recordsNow is leadReplica without waiting.
func (b *Broker) recordsNow(tp api.TopicPartition) (*partition.Replica, error) {
	h, err := b.leadNow(tp)
	if err != nil {
		return nil, err
	}
	return b.records(h, tp)
}

// records is the open replica of a partition that holds records: the others take their commands from coordinators only.
func (b *Broker) records(h *hosted, tp api.TopicPartition) (*partition.Replica, error) {
	if t, _ := h.assigned(); t.Kind == metadata.KindCoordinator {
		return nil, &api.Error{Code: api.CodeInvalidTopic, TP: &tp, Message: tp.Topic + " holds consumer groups, not records"}
	}
	if r := h.open(); r != nil {
		return r, nil
	}
	return nil, b.apiError(partition.ErrClosed, &tp)
}

func toAppendResult(r partition.AppendResult) api.AppendResult {
	return api.AppendResult{
		BaseOffset: r.BaseOffset, LogAppendTime: r.LogAppendTime, LogStart: r.LogStart, Duplicate: r.Duplicate, LeaderEpoch: r.LeaderEpoch,
	}
}

// confirm makes sure that what was read of the leader of a term was not stale, for as long as a request waits for a leader.
func (b *Broker) confirm(ctx context.Context, r *partition.Replica, term uint64) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.LeaderWait)
	defer cancel()
	return r.ConfirmLeader(ctx, term)
}

// ListOffset implements api.Log.
func (b *Broker) ListOffset(ctx context.Context, tp api.TopicPartition, pos api.Position) (api.ListedOffset, error) {
	r, err := b.leadReplica(ctx, tp)
	if err != nil {
		return api.ListedOffset{}, err
	}
	term, err := r.Serving()
	if err != nil {
		return api.ListedOffset{}, b.apiError(err, &tp)
	}
	out := api.ListedOffset{Offset: -1, Timestamp: -1, LeaderEpoch: int32(term)}
	start, hw := r.Bounds()
	found := true
	switch pos.Kind {
	case api.PositionEarliest:
		out.Offset = start
	case api.PositionLatest:
		out.Offset = hw
	case api.PositionTimestamp:
		out.Offset, out.Timestamp, found, err = r.OffsetForTimestamp(pos.Timestamp)
	case api.PositionMaxTimestamp:
		out.Offset, out.Timestamp, found, err = r.MaxTimestamp()
	default:
		err = api.Errorf(api.CodeInvalidRequest, "position kind %d is unknown", pos.Kind)
	}
	if err != nil {
		return api.ListedOffset{}, b.apiError(err, &tp)
	}
	if !found {
		out.Offset, out.Timestamp = -1, -1
	}
	// Only now: a leader that was cut off may not know yet that another one has acknowledged more.
	if err := b.confirm(ctx, r, term); err != nil {
		return api.ListedOffset{}, b.apiError(err, &tp)
	}
	return out, nil
}

// DeleteRecords implements api.Log.
func (b *Broker) DeleteRecords(ctx context.Context, tp api.TopicPartition, before record.Offset) (record.Offset, error) {
	ctx, cancel := b.appendDeadline(ctx)
	defer cancel()
	r, err := b.leadReplica(ctx, tp)
	if err != nil {
		return 0, err
	}
	start, err := r.DeleteRecords(ctx, before)
	return start, b.apiError(err, &tp)
}

// producerIDs is this broker's block of producer IDs. Who holds turn (capacity 1) owns the rest, also while it fetches a new block, so
// that only one is fetched at a time; the others wait for as long as their callers do.
type producerIDs struct {
	turn      chan struct{}
	next, end int64
}

// producerBlock is how many IDs a broker takes at a time; the rest of a block is given up when the broker stops.
const producerBlock = 1000

// InitProducer implements api.Log.
func (b *Broker) InitProducer(ctx context.Context) (api.ProducerID, error) {
	ctx, cancel := b.appendDeadline(ctx)
	defer cancel()
	ids := &b.producers
	select {
	case ids.turn <- struct{}{}:
		defer func() { <-ids.turn }()
	case <-ctx.Done():
		return api.ProducerID{}, api.Errorf(api.CodeRequestTimedOut, "no producer ID yet, the metadata group does not answer: %w", ctx.Err())
	}
	if ids.next == ids.end {
		res, err := b.node.Propose(ctx, &metadata.AllocateProducerIDs{Count: producerBlock})
		if err != nil {
			return api.ProducerID{}, b.apiError(err, nil)
		}
		ids.next, ids.end = res.FirstProducerID, res.FirstProducerID+producerBlock
	}
	ids.next++
	return api.ProducerID{ID: ids.next - 1}, nil
}
