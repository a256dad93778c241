package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// OffsetDelete, version 0 (KIP-496): of groups without members, and of others for topics that none of the members subscribes to.

func (s *Server) offsetDelete(ctx context.Context, _ *request, req *kmsg.OffsetDeleteRequest) reply {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	names := make([]string, len(req.Topics))
	for i, t := range req.Topics {
		names[i] = t.Topic
	}
	partitions := s.partitionCounts(names)
	var tps []api.TopicPartition
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			if p.Partition >= 0 && p.Partition < partitions[t.Topic] {
				tps = append(tps, api.TopicPartition{Topic: t.Topic, Partition: p.Partition})
			}
		}
	}
	errs, err := s.broker.DeleteOffsets(ctx, req.Group, tps)
	if resp.ErrorCode = codeOf(err, group); err != nil {
		return resp
	}
	outcome := map[api.TopicPartition]error{}
	for i, tp := range tps {
		outcome[tp] = errs[i]
	}
	for _, t := range req.Topics {
		out := kmsg.NewOffsetDeleteResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, errUnknownTopicOrPartition
			if err, known := outcome[api.TopicPartition{Topic: t.Topic, Partition: p.Partition}]; known {
				rp.ErrorCode = codeOf(err, group)
			}
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
