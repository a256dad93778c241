package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeProducers, version 0 (KIP-664): the idempotent producers that the partition's leader remembers. There are no transactions, hence no
// coordinator's epoch and no start of a transaction.

func (s *Server) describeProducers(ctx context.Context, _ *request, req *kmsg.DescribeProducersRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	for _, t := range req.Topics {
		out := kmsg.NewDescribeProducersResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			out.Partitions = append(out.Partitions, s.producersOf(ctx, api.TopicPartition{Topic: t.Topic, Partition: p}))
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) producersOf(ctx context.Context, tp api.TopicPartition) kmsg.DescribeProducersResponseTopicPartition {
	out := kmsg.NewDescribeProducersResponseTopicPartition()
	out.Partition = tp.Partition
	list, err := s.broker.Producers(ctx, tp)
	if err != nil {
		out.ErrorCode, out.ErrorMessage = codeOf(err, data), messageOf(err)
		return out
	}
	for _, p := range list {
		e := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		e.ProducerID, e.ProducerEpoch, e.LastSequence, e.LastTimestamp = p.ID, int32(p.Epoch), p.LastSequence, p.LastTimestamp
		e.CoordinatorEpoch, e.CurrentTxnStartOffset = -1, -1
		out.ActiveProducers = append(out.ActiveProducers, e)
	}
	return out
}
