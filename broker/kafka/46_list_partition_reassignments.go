package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// ListPartitionReassignments, version 0 (KIP-455): those that operators asked for and that have not ended. No topics named (null) means all.

func (s *Server) listPartitionReassignments(ctx context.Context, _ *request, req *kmsg.ListPartitionReassignmentsRequest) reply {
	resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	var tps []api.TopicPartition
	if req.Topics != nil {
		tps = []api.TopicPartition{}
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			tps = append(tps, api.TopicPartition{Topic: t.Topic, Partition: p})
		}
	}
	list, err := s.broker.Reassignments(ctx, tps)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = codeOf(err, admin), messageOf(err)
		return resp
	}
	for _, r := range list {
		p := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas = r.Partition, fromBrokerIDs(r.Replicas), fromBrokerIDs(r.Adding), fromBrokerIDs(r.Removing)
		if n := len(resp.Topics); n == 0 || resp.Topics[n-1].Topic != r.Topic {
			t := kmsg.NewListPartitionReassignmentsResponseTopic()
			t.Topic = r.Topic
			resp.Topics = append(resp.Topics, t)
		}
		t := &resp.Topics[len(resp.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return resp
}
