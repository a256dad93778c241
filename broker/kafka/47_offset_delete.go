package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// OffsetDelete, version 0 (KIP-496). Only of groups without members: Kafka also allows it for topics that none of the members has subscribed to.

func (s *Server) offsetDelete(ctx context.Context, _ *request, req *kmsg.OffsetDeleteRequest) reply {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	names := make([]string, len(req.Topics))
	for i, t := range req.Topics {
		names[i] = t.Topic
	}
	partitions := s.partitionCounts(names)
	var tps []api.TopicPartition
	for _, t := range req.Topics {
		out := kmsg.NewOffsetDeleteResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			if p.Partition < 0 || p.Partition >= partitions[t.Topic] {
				rp.ErrorCode = errUnknownTopicOrPartition
			} else {
				tps = append(tps, api.TopicPartition{Topic: t.Topic, Partition: p.Partition})
			}
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	if resp.ErrorCode = codeOf(s.broker.DeleteOffsets(ctx, req.Group, tps), group); resp.ErrorCode != errNone {
		resp.Topics = nil
	}
	return resp
}
