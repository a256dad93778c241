package grpcapi

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

type groupsService struct {
	pb.UnimplementedGroupsServer
	broker api.Groups
}

// strategyNames are Kafka's names of the assignors.
var strategyNames = map[pb.AssignmentStrategy]string{
	pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_RANGE:              "range",
	pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_ROUND_ROBIN:        "roundrobin",
	pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_STICKY:             "sticky",
	pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_COOPERATIVE_STICKY: "cooperative-sticky",
}

func strategyOf(name string) pb.AssignmentStrategy {
	for s, n := range strategyNames {
		if n == name {
			return s
		}
	}
	return pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_UNSPECIFIED
}

func (s *groupsService) FindCoordinator(ctx context.Context, req *pb.FindCoordinatorRequest) (*pb.FindCoordinatorResponse, error) {
	e, err := s.broker.FindCoordinator(ctx, req.GetGroup())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.FindCoordinatorResponse{Coordinator: toEndpoint(e)}, nil
}

func (s *groupsService) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	join := api.NativeJoinRequest{
		MemberRef: api.MemberRef{
			Group: req.GetGroup(), MemberID: req.GetMemberId(), InstanceID: req.GetInstanceId(), Generation: req.GetOwnedGeneration(),
		},
		ClientID: req.GetClientId(), ClientHost: clientHost(ctx),
		SessionTimeout:   time.Duration(req.GetSessionTimeoutMs()) * time.Millisecond,
		RebalanceTimeout: time.Duration(req.GetRebalanceTimeoutMs()) * time.Millisecond,
		Topics:           req.GetTopics(), Owned: fromTPs(req.GetOwned()),
	}
	for _, st := range req.GetStrategies() {
		name, ok := strategyNames[st]
		if !ok {
			return nil, toStatus(invalid("assignment strategy %d is unknown", st))
		}
		join.Strategies = append(join.Strategies, name)
	}
	res, err := s.broker.JoinAndSync(ctx, join)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.JoinResponse{
		MemberId: res.MemberID, Generation: res.Generation, Strategy: strategyOf(res.Strategy), Assignment: toTPs(res.Assignment),
	}, nil
}

// clientHost is the peer's host, as Kafka shows it to operators.
func clientHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

func (s *groupsService) Heartbeat(ctx context.Context, req *pb.HeartbeatRequest) (*pb.HeartbeatResponse, error) {
	err := s.broker.Heartbeat(ctx, api.MemberRef{
		Group: req.GetGroup(), MemberID: req.GetMemberId(), InstanceID: req.GetInstanceId(), Generation: req.GetGeneration(),
	})
	if errors.Is(err, &api.Error{Code: api.CodeRebalanceInProgress}) {
		return &pb.HeartbeatResponse{Rebalance: true}, nil
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.HeartbeatResponse{}, nil
}

func (s *groupsService) Leave(ctx context.Context, req *pb.LeaveRequest) (*pb.LeaveResponse, error) {
	err := s.broker.LeaveGroup(ctx, api.MemberRef{
		Group: req.GetGroup(), MemberID: req.GetMemberId(), InstanceID: req.GetInstanceId(), Generation: -1,
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.LeaveResponse{}, nil
}

func (s *groupsService) CommitOffsets(ctx context.Context, req *pb.CommitOffsetsRequest) (*pb.CommitOffsetsResponse, error) {
	m := api.MemberRef{
		Group: req.GetGroup(), MemberID: req.GetMemberId(), InstanceID: req.GetInstanceId(), Generation: req.GetGeneration(),
	}
	offsets := make([]api.OffsetCommit, 0, len(req.GetOffsets()))
	for _, o := range req.GetOffsets() {
		if o.GetOffset() < 0 {
			return nil, toStatus(invalid("%s/%d: offset %d is negative", o.GetTopic(), o.GetPartition(), o.GetOffset()))
		}
		offsets = append(offsets, api.OffsetCommit{
			TopicPartition: api.TopicPartition{Topic: o.GetTopic(), Partition: o.GetPartition()},
			Offset:         record.Offset(o.GetOffset()), LeaderEpoch: o.GetLeaderEpoch(), Metadata: o.GetMetadata(),
		})
	}
	if err := s.broker.CommitOffsets(ctx, m, offsets); err != nil {
		return nil, toStatus(err)
	}
	return &pb.CommitOffsetsResponse{}, nil
}

func (s *groupsService) FetchOffsets(ctx context.Context, req *pb.FetchOffsetsRequest) (*pb.FetchOffsetsResponse, error) {
	offsets, err := s.broker.FetchOffsets(ctx, req.GetGroup(), fromTPs(req.GetPartitions()))
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.FetchOffsetsResponse{}
	for _, o := range offsets {
		resp.Offsets = append(resp.Offsets, &pb.OffsetCommit{
			Topic: o.Topic, Partition: o.Partition, Offset: int64(o.Offset), LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		})
	}
	return resp, nil
}

// fromTPs gives nil for none: "all" where that is meant.
func fromTPs(ps []*pb.TopicPartition) []api.TopicPartition {
	var out []api.TopicPartition
	for _, p := range ps {
		out = append(out, api.TopicPartition{Topic: p.GetTopic(), Partition: p.GetPartition()})
	}
	return out
}

func toTPs(ps []api.TopicPartition) []*pb.TopicPartition {
	out := make([]*pb.TopicPartition, 0, len(ps))
	for _, p := range ps {
		out = append(out, &pb.TopicPartition{Topic: p.Topic, Partition: p.Partition})
	}
	return out
}
