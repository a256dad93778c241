package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// ListOffsets, versions 1 to 11. v2: isolation level (there are no transactions: all that is committed is stable); v4: leader epoch; v6: flexible; v7: max
// timestamp (KIP-734); v8: earliest local (KIP-405); v9: latest tiered; v10: a timeout; v11: earliest pending upload. Nothing is tiered: what is local is everything.

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
	g := newCrew()
	count := map[api.TopicPartition]int{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			count[api.TopicPartition{Topic: t.Topic, Partition: p.Partition}]++
		}
	}
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		in, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.Partitions = in.Topic, make([]kmsg.ListOffsetsResponseTopicPartition, len(in.Partitions))
		for j := range in.Partitions {
			g.do(func() {
				tp := api.TopicPartition{Topic: in.Topic, Partition: in.Partitions[j].Partition}
				out.Partitions[j] = s.listOffset(ctx, tp, &in.Partitions[j], req.Version, count[tp] > 1)
			})
		}
	}
	g.wait()
	return resp
}

func (s *Server) listOffset(ctx context.Context, tp api.TopicPartition, in *kmsg.ListOffsetsRequestTopicPartition, version int16, twice bool) kmsg.ListOffsetsResponseTopicPartition {
	out := kmsg.NewListOffsetsResponseTopicPartition()
	out.Partition, out.Offset, out.Timestamp, out.LeaderEpoch = tp.Partition, -1, -1, -1
	since, known := timestampSince[in.Timestamp]
	switch {
	case twice:
		out.ErrorCode = errInvalidRequest
		return out
	case in.Timestamp < 0 && (!known || version < since):
		out.ErrorCode = errUnsupportedVersion
		return out
	}
	pos, there := toPosition(in.Timestamp)
	l, err := s.broker.ListOffset(ctx, tp, pos)
	if err != nil {
		out.ErrorCode = codeOf(err, data)
		return out
	}
	if out.ErrorCode = checkEpoch(in.CurrentLeaderEpoch, l.LeaderEpoch); out.ErrorCode != errNone || !there {
		return out
	}
	out.Offset, out.Timestamp = int64(l.Offset), l.Timestamp
	if l.Offset >= 0 {
		out.LeaderEpoch = s.epochAt(ctx, tp, pos, l)
	}
	return out
}

// epochAt is the epoch in which the record found was written; at the end of the log, the leader's.
func (s *Server) epochAt(ctx context.Context, tp api.TopicPartition, pos api.Position, l api.ListedOffset) int32 {
	if pos.Kind == api.PositionLatest {
		return l.LeaderEpoch
	}
	if h, ok, err := s.batchAt(ctx, tp, l.Offset); err == nil && ok {
		return h.LeaderEpoch
	}
	return l.LeaderEpoch
}

// timestampSince says from which version on a timestamp means something else.
var timestampSince = map[int64]int16{
	timestampLatest: 1, timestampEarliest: 1, timestampMax: 7, timestampEarliestLocal: 8, timestampTiered: 9, timestampPendingUpload: 11,
}

// toPosition is false for positions that no partition has, with one that every partition has.
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
	return api.Position{Kind: api.PositionLatest}, false
}
