package kafka

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// ListOffsets, versions 1 to 11. v2: isolation level; v4: leader epoch; v6: flexible; v7: max timestamp (KIP-734); v8: earliest local
// (KIP-405); v9: latest tiered; v11: earliest pending upload. Nothing is tiered: what is local is everything.

// The timestamps that mean something else.
const (
	timestampLatest        = -1
	timestampEarliest      = -2
	timestampMax           = -3
	timestampEarliestLocal = -4
	timestampTiered        = -5
	timestampPendingUpload = -6
)

func offset(n int64) record.Offset { return record.Offset(n) }

func (s *Server) listOffsets(ctx context.Context, _ *request, req *kmsg.ListOffsetsRequest) reply {
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	var g errgroup.Group
	g.SetLimit(workers)
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		in, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.Partitions = in.Topic, make([]kmsg.ListOffsetsResponseTopicPartition, len(in.Partitions))
		for j := range in.Partitions {
			g.Go(func() error {
				out.Partitions[j] = s.listOffset(ctx, in.Topic, &in.Partitions[j])
				return nil
			})
		}
	}
	_ = g.Wait()
	return resp
}

func (s *Server) listOffset(ctx context.Context, topic string, in *kmsg.ListOffsetsRequestTopicPartition) kmsg.ListOffsetsResponseTopicPartition {
	out := kmsg.NewListOffsetsResponseTopicPartition()
	out.Partition, out.Offset, out.Timestamp, out.LeaderEpoch = in.Partition, -1, -1, -1
	pos, known := toPosition(in.Timestamp)
	if !known {
		if in.Timestamp < timestampPendingUpload {
			out.ErrorCode = errInvalidRequest
		}
		return out
	}
	l, err := s.broker.ListOffset(ctx, api.TopicPartition{Topic: topic, Partition: in.Partition}, pos)
	if err != nil {
		out.ErrorCode = codeOf(err, data)
		return out
	}
	if out.ErrorCode = checkEpoch(in.CurrentLeaderEpoch, l.LeaderEpoch); out.ErrorCode != errNone {
		return out
	}
	out.Offset, out.Timestamp = int64(l.Offset), l.Timestamp
	if l.Offset >= 0 {
		out.LeaderEpoch = l.LeaderEpoch
	}
	return out
}

// toPosition is false for positions that no partition has.
func toPosition(ts int64) (api.Position, bool) {
	switch {
	case ts >= 0:
		return api.Position{Kind: api.PositionTimestamp, Timestamp: ts}, true
	case ts == timestampLatest:
		return api.Position{Kind: api.PositionLatest}, true
	case ts == timestampEarliest, ts == timestampEarliestLocal:
		return api.Position{Kind: api.PositionEarliest}, true
	case ts == timestampMax:
		return api.Position{Kind: api.PositionMaxTimestamp}, true
	}
	return api.Position{}, false
}
