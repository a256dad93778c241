package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// OffsetForLeaderEpoch, versions 0 to 4. v1: the epoch found; v2: fencing (KIP-320); v3: replica ID; v4: flexible.
//
// There is no table of epochs: each stored batch carries its epoch, and epochs only grow along the log, so the end of an epoch is searched for.
// Consumers see only committed records, which are never truncated, so no answer can be the end of something that they have read.

func (s *Server) offsetForLeaderEpoch(ctx context.Context, _ *request, req *kmsg.OffsetForLeaderEpochRequest) reply {
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	g := newCrew()
	resp.Topics = make([]kmsg.OffsetForLeaderEpochResponseTopic, len(req.Topics))
	for i := range req.Topics {
		in, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.Partitions = in.Topic, make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(in.Partitions))
		for j := range in.Partitions {
			g.do(func() {
				out.Partitions[j] = s.epochEnd(ctx, in.Topic, &in.Partitions[j])
			})
		}
	}
	g.wait()
	return resp
}

func (s *Server) epochEnd(ctx context.Context, topic string, in *kmsg.OffsetForLeaderEpochRequestTopicPartition) kmsg.OffsetForLeaderEpochResponseTopicPartition {
	out := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
	out.Partition, out.LeaderEpoch, out.EndOffset = in.Partition, -1, -1
	tp := api.TopicPartition{Topic: topic, Partition: in.Partition}
	first, err := s.broker.ListOffset(ctx, tp, api.Position{Kind: api.PositionEarliest})
	var last api.ListedOffset
	if err == nil {
		last, err = s.broker.ListOffset(ctx, tp, api.Position{Kind: api.PositionLatest})
	}
	if err != nil {
		out.ErrorCode = codeOf(err, data)
		return out
	}
	if out.ErrorCode = checkEpoch(in.CurrentLeaderEpoch, last.LeaderEpoch); out.ErrorCode != errNone {
		return out
	}
	switch {
	case in.LeaderEpoch < 0 || in.LeaderEpoch > last.LeaderEpoch:
		return out // undefined
	case in.LeaderEpoch == last.LeaderEpoch:
		out.LeaderEpoch, out.EndOffset = in.LeaderEpoch, int64(last.Offset)
		return out
	}
	epoch, end, err := s.searchEpoch(ctx, tp, in.LeaderEpoch, first.Offset, last.Offset)
	if err != nil {
		out.ErrorCode = codeOf(err, data)
		return out
	}
	out.LeaderEpoch, out.EndOffset = epoch, int64(end)
	return out
}

// searchEpoch finds the first offset in [from, to) whose batch has a later epoch, to if none has, and the epoch before it. If there is nothing
// before it, that is the epoch asked for, as in Kafka.
func (s *Server) searchEpoch(ctx context.Context, tp api.TopicPartition, epoch int32, from, to record.Offset) (int32, record.Offset, error) {
	found := epoch
	for from < to {
		middle := from + (to-from)/2
		h, ok, err := s.batchAt(ctx, tp, middle)
		switch {
		case err != nil:
			return 0, 0, err
		case !ok: // deleted meanwhile
			from = middle + 1
		case h.LeaderEpoch > epoch:
			to = max(from, h.BaseOffset)
		default:
			found, from = h.LeaderEpoch, h.Next()
		}
	}
	return found, to, nil
}

// batchAt reads the header of the batch that holds an offset; false if there is none any more.
func (s *Server) batchAt(ctx context.Context, tp api.TopicPartition, at record.Offset) (record.Header, bool, error) {
	results, err := s.broker.Fetch(ctx, api.FetchRequest{MaxBytes: 1, Partitions: []api.FetchPartition{{TopicPartition: tp, Offset: at, MaxBytes: 1}}})
	if err != nil {
		return record.Header{}, false, err
	}
	if len(results) != 1 || results[0].Err != nil {
		if len(results) == 1 && api.CodeOf(results[0].Err) != api.CodeOffsetOutOfRange {
			return record.Header{}, false, results[0].Err
		}
		return record.Header{}, false, nil
	}
	if len(results[0].Batches) == 0 {
		return record.Header{}, false, nil
	}
	h, err := record.ParseHeader(results[0].Batches[0])
	return h, err == nil, err
}
