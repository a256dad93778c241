package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeTopicPartitions, version 0 (KIP-966): Metadata of topics in pages. No topic named means all.

// describedMax is the most partitions in one response.
const describedMax = 2000

func (s *Server) describeTopicPartitions(ctx context.Context, r *request, req *kmsg.DescribeTopicPartitionsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	var names []string
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	m, synced := s.current(ctx, names)
	slices.SortFunc(m.Topics, func(a, b api.TopicMetadata) int { return strings.Compare(a.Name, b.Name) })
	m.Topics = slices.CompactFunc(m.Topics, func(a, b api.TopicMetadata) bool { return a.Name == b.Name })
	left := min(max(int(req.ResponsePartitionLimit), 1), describedMax)
	alive := aliveBrokers(m)
	away := unreachable(m, r.conn.listener)
	for _, t := range m.Topics {
		first := 0
		if c := req.Cursor; c != nil {
			if t.Name < c.Topic {
				continue
			}
			if t.Name == c.Topic {
				first = min(max(int(c.Partition), 0), len(t.Partitions))
			}
		}
		if left == 0 {
			resp.NextCursor = cursor(t.Name, first)
			return resp
		}
		last := min(len(t.Partitions), first+left)
		resp.Topics = append(resp.Topics, describedTopic(t, t.Partitions[first:last], alive, away, synced))
		if left -= last - first; last < len(t.Partitions) {
			resp.NextCursor = cursor(t.Name, last)
			return resp
		}
	}
	return resp
}

func cursor(topic string, partition int) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, int32(partition)
	return &c
}

func describedTopic(t api.TopicMetadata, partitions []api.PartitionMetadata, alive map[api.BrokerID]bool, away map[int32]bool, synced bool) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.TopicID, out.IsInternal = text(t.Name), t.ID, t.Internal
	if t.Unknown {
		out.ErrorCode = unknownTopic(t.Name, synced)
	}
	for _, p := range partitions {
		m := toPartition(p, alive)
		withoutListener(&m, away, listenerErrorSince)
		e := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		e.ErrorCode, e.Partition, e.LeaderID, e.LeaderEpoch = m.ErrorCode, m.Partition, m.Leader, m.LeaderEpoch
		e.Replicas, e.ISR, e.OfflineReplicas = m.Replicas, m.ISR, m.OfflineReplicas
		// Null would be legal, and is more than the Java client can take.
		e.EligibleLeaderReplicas, e.LastKnownELR = []int32{}, []int32{}
		out.Partitions = append(out.Partitions, e)
	}
	return out
}
