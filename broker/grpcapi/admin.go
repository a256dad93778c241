package grpcapi

import (
	"context"
	"math"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type adminService struct {
	pb.UnimplementedAdminServer
	topics api.Topics
	groups api.GroupAdmin
	moves  api.Reassignments
}

func (s *adminService) CreateTopic(ctx context.Context, req *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	rf := req.GetReplicationFactor()
	if rf < 0 || rf > math.MaxInt16 {
		return nil, toStatus(api.Errorf(api.CodeInvalidReplicationFactor, "replication factor %d: it must be at least 1, or 0 for the default", rf))
	}
	d, err := s.topics.CreateTopic(ctx, api.CreateTopicRequest{
		Name: req.GetTopic(), Partitions: req.GetPartitions(), ReplicationFactor: int16(rf),
		Settings: req.GetSettings(), ValidateOnly: req.GetValidateOnly(),
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.CreateTopicResponse{Topic: toTopic(d)}, nil
}

func (s *adminService) DeleteTopic(ctx context.Context, req *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	if err := s.topics.DeleteTopic(ctx, req.GetTopic()); err != nil {
		return nil, toStatus(err)
	}
	return &pb.DeleteTopicResponse{}, nil
}

func (s *adminService) ListTopics(ctx context.Context, req *pb.ListTopicsRequest) (*pb.ListTopicsResponse, error) {
	list, err := s.topics.ListTopics(ctx, req.GetInternal())
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.ListTopicsResponse{}
	for _, t := range list {
		resp.Topics = append(resp.Topics, &pb.TopicSummary{
			Topic: t.Name, Partitions: t.Partitions, ReplicationFactor: int32(t.ReplicationFactor), Internal: t.Internal,
		})
	}
	return resp, nil
}

func (s *adminService) DescribeTopic(ctx context.Context, req *pb.DescribeTopicRequest) (*pb.DescribeTopicResponse, error) {
	d, err := s.topics.DescribeTopic(ctx, req.GetTopic())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.DescribeTopicResponse{Topic: toTopic(d)}, nil
}

func (s *adminService) AlterTopic(ctx context.Context, req *pb.AlterTopicRequest) (*pb.AlterTopicResponse, error) {
	d, err := s.topics.AlterTopic(ctx, req.GetTopic(), req.GetSet(), req.GetUnset())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.AlterTopicResponse{Topic: toTopic(d)}, nil
}

func (s *adminService) CreatePartitions(ctx context.Context, req *pb.CreatePartitionsRequest) (*pb.CreatePartitionsResponse, error) {
	d, err := s.topics.CreatePartitions(ctx, api.CreatePartitionsRequest{Name: req.GetTopic(), Total: req.GetPartitions()})
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.CreatePartitionsResponse{Topic: toTopic(d)}, nil
}

func toTopic(d api.TopicDescription) *pb.TopicDescription {
	t := &pb.TopicDescription{
		Topic: d.Name, TopicId: d.ID[:], Internal: d.Internal, ReplicationFactor: int32(d.ReplicationFactor),
	}
	for _, s := range d.Settings {
		t.Settings = append(t.Settings, &pb.TopicSetting{Key: s.Key, Value: s.Value, IsDefault: s.IsDefault, Documentation: s.Documentation})
	}
	for _, p := range d.Partitions {
		t.Partitions = append(t.Partitions, &pb.PartitionDescription{
			Partition: p.Partition, Leader: int32(p.Leader), LeaderEpoch: p.LeaderEpoch,
			Replicas: toIDs(p.Replicas), Voters: toIDs(p.Voters),
			LogStartOffset: int64(p.LogStart), HighWatermark: int64(p.HighWatermark), SizeBytes: p.SizeBytes,
		})
	}
	return t
}

func toIDs(ids []api.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func (s *adminService) ListGroups(ctx context.Context, _ *pb.ListGroupsRequest) (*pb.ListGroupsResponse, error) {
	list, err := s.groups.ListGroups(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.ListGroupsResponse{}
	for _, g := range list {
		resp.Groups = append(resp.Groups, &pb.GroupSummary{
			Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Members: int32(g.Members), Coordinator: int32(g.Coordinator),
		})
	}
	return resp, nil
}

func (s *adminService) DescribeGroup(ctx context.Context, req *pb.DescribeGroupRequest) (*pb.DescribeGroupResponse, error) {
	g, err := s.groups.DescribeGroup(ctx, req.GetGroup())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.DescribeGroupResponse{Group: toGroup(g)}, nil
}

func toGroup(g api.GroupDescription) *pb.GroupDescription {
	d := &pb.GroupDescription{
		Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Protocol: g.Protocol, Generation: g.Generation,
		LeaderMemberId: g.Leader, Coordinator: toEndpoint(g.Coordinator),
	}
	for _, m := range g.Members {
		d.Members = append(d.Members, &pb.GroupMember{
			MemberId: m.MemberID, InstanceId: m.InstanceID, ClientId: m.ClientID, ClientHost: m.ClientHost,
			SessionTimeoutMs: int32(m.SessionTimeout.Milliseconds()), Topics: m.Topics, Assignment: toTPs(m.Assigned),
		})
	}
	for _, o := range g.Offsets {
		d.Offsets = append(d.Offsets, &pb.GroupOffset{
			Topic: o.Topic, Partition: o.Partition, CommittedOffset: int64(o.Offset), Metadata: o.Metadata,
			LogStartOffset: int64(o.LogStart), HighWatermark: int64(o.HighWatermark), Lag: o.Lag,
			MemberId: o.MemberID, CommitTimeMs: o.CommitTime,
		})
	}
	return d
}

func (s *adminService) DeleteGroup(ctx context.Context, req *pb.DeleteGroupRequest) (*pb.DeleteGroupResponse, error) {
	if err := s.groups.DeleteGroup(ctx, req.GetGroup()); err != nil {
		return nil, toStatus(err)
	}
	return &pb.DeleteGroupResponse{}, nil
}

func (s *adminService) ResetOffsets(ctx context.Context, req *pb.ResetOffsetsRequest) (*pb.ResetOffsetsResponse, error) {
	reset := api.ResetOffsetsRequest{
		Group: req.GetGroup(), Topics: req.GetTopics(), Partitions: fromTPs(req.GetPartitions()), DryRun: req.GetDryRun(),
	}
	switch to := req.GetTo().(type) {
	case *pb.ResetOffsetsRequest_Earliest:
		reset.Kind = api.ResetEarliest
	case *pb.ResetOffsetsRequest_Latest:
		reset.Kind = api.ResetLatest
	case *pb.ResetOffsetsRequest_Offset:
		reset.Kind, reset.Value = api.ResetOffset, to.Offset
	case *pb.ResetOffsetsRequest_TimestampMs:
		reset.Kind, reset.Value = api.ResetTimestamp, to.TimestampMs
	case *pb.ResetOffsetsRequest_Shift:
		reset.Kind, reset.Value = api.ResetShift, to.Shift
	default:
		return nil, toStatus(invalid("where to reset the offsets to is missing: earliest, latest, offset, timestamp_ms or shift"))
	}
	resets, err := s.groups.ResetOffsets(ctx, reset)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.ResetOffsetsResponse{}
	for _, r := range resets {
		resp.Resets = append(resp.Resets, &pb.OffsetReset{
			Topic: r.Topic, Partition: r.Partition, FromOffset: int64(r.From), ToOffset: int64(r.To),
		})
	}
	return resp, nil
}
