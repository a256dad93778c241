package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// AlterPartitionReassignments, versions 0 to 1 (KIP-455). v1: the number of replicas may be kept from changing (KIP-860). Null replicas cancel.

func (s *Server) alterPartitionAssignments(ctx context.Context, _ *request, req *kmsg.AlterPartitionAssignmentsRequest) reply {
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	var ask api.ReassignRequest
	ask.KeepFactor = req.Version >= 1 && !req.AllowReplicationFactorChange
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			ask.Partitions = append(ask.Partitions, api.ReassignPartition{
				TopicPartition: api.TopicPartition{Topic: t.Topic, Partition: p.Partition}, Replicas: brokerIDs(p.Replicas), Cancel: p.Replicas == nil,
			})
		}
	}
	errs := s.broker.Reassign(ctx, ask)
	i := 0
	for _, t := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			e := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			e.Partition, e.ErrorCode, e.ErrorMessage = p.Partition, codeOf(errs[i], admin), messageOf(errs[i])
			out.Partitions = append(out.Partitions, e)
			i++
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func brokerIDs(list []int32) []api.BrokerID {
	out := make([]api.BrokerID, len(list))
	for i, id := range list {
		out[i] = api.BrokerID(id)
	}
	return out
}

func fromBrokerIDs(list []api.BrokerID) []int32 {
	out := make([]int32, len(list))
	for i, id := range list {
		out[i] = int32(id)
	}
	return out
}
