package grpcapi

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func (s *adminService) Reassign(ctx context.Context, req *pb.ReassignRequest) (*pb.ReassignResponse, error) {
	var ask api.ReassignRequest
	for _, p := range req.GetPartitions() {
		ask.Partitions = append(ask.Partitions, api.ReassignPartition{
			TopicPartition: api.TopicPartition{Topic: p.GetTopic(), Partition: p.GetPartition()}, Replicas: toBrokerIDs(p.GetReplicas()), Cancel: p.GetCancel(),
		})
	}
	resp := &pb.ReassignResponse{}
	for _, err := range s.moves.Reassign(ctx, ask) {
		o := &pb.ReassignOutcome{}
		if err != nil {
			e := asError(err)
			o.Error, o.Message = toDetail(e), clip(e.Message)
		}
		resp.Outcomes = append(resp.Outcomes, o)
	}
	return resp, nil
}

func (s *adminService) ListReassignments(ctx context.Context, _ *pb.ListReassignmentsRequest) (*pb.ListReassignmentsResponse, error) {
	list, err := s.moves.Reassignments(ctx, nil)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.ListReassignmentsResponse{}
	for _, r := range list {
		resp.Reassignments = append(resp.Reassignments, &pb.Reassignment{
			Topic: r.Topic, Partition: r.Partition, Replicas: fromBrokerIDs(r.Replicas), Adding: fromBrokerIDs(r.Adding), Removing: fromBrokerIDs(r.Removing),
		})
	}
	return resp, nil
}

func toBrokerIDs(list []int32) []api.BrokerID {
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
