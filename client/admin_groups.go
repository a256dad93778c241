package client

import (
	"context"
	"fmt"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// ListGroups lists the consumer groups of the whole cluster.
func (a *Admin) ListGroups(ctx context.Context) ([]GroupSummary, error) {
	r, err := admin(ctx, a, "ListGroups", &pb.ListGroupsRequest{}, func(cn *conn, ctx context.Context, q *pb.ListGroupsRequest) (*pb.ListGroupsResponse, error) {
		return cn.admin.ListGroups(ctx, q)
	})
	out := make([]GroupSummary, 0, len(r.GetGroups()))
	for _, g := range r.GetGroups() {
		out = append(out, GroupSummary{Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Members: g.Members, Coordinator: g.Coordinator})
	}
	return out, err
}

// DescribeGroup tells all about a group: members, offsets and lag.
func (a *Admin) DescribeGroup(ctx context.Context, group string) (GroupDescription, error) {
	r, err := admin(ctx, a, "DescribeGroup", &pb.DescribeGroupRequest{Group: group}, func(cn *conn, ctx context.Context, q *pb.DescribeGroupRequest) (*pb.DescribeGroupResponse, error) {
		return cn.admin.DescribeGroup(ctx, q)
	})
	if err != nil {
		return GroupDescription{}, err
	}
	return groupFrom(r.GetGroup()), nil
}

func groupFrom(g *pb.GroupDescription) GroupDescription {
	out := GroupDescription{
		Group: g.GetGroup(), State: g.GetState(), ProtocolType: g.GetProtocolType(), Protocol: g.GetProtocol(), Generation: g.GetGeneration(),
		LeaderMemberID: g.GetLeaderMemberId(), Coordinator: Broker{ID: -1},
	}
	if c := g.GetCoordinator(); c != nil {
		out.Coordinator = Broker{ID: c.BrokerId, Address: c.Address}
	}
	for _, m := range g.GetMembers() {
		out.Members = append(out.Members, GroupMember{
			MemberID: m.MemberId, InstanceID: m.InstanceId, ClientID: m.ClientId, ClientHost: m.ClientHost, Topics: m.Topics,
			SessionTimeout: time.Duration(m.SessionTimeoutMs) * time.Millisecond, Assignment: partitionsFrom(m.Assignment),
		})
	}
	for _, o := range g.GetOffsets() {
		out.Offsets = append(out.Offsets, GroupOffset{
			TopicPartition: TopicPartition{o.Topic, o.Partition}, CommittedOffset: o.CommittedOffset, Metadata: o.Metadata,
			LogStartOffset: o.LogStartOffset, HighWatermark: o.HighWatermark, Lag: o.Lag, MemberID: o.MemberId, CommitTime: timeFrom(o.CommitTimeMs),
		})
	}
	return out
}

func partitionsFrom(tps []*pb.TopicPartition) []TopicPartition {
	out := make([]TopicPartition, 0, len(tps))
	for _, tp := range tps {
		out = append(out, TopicPartition{tp.Topic, tp.Partition})
	}
	return out
}

func partitionsTo(tps []TopicPartition) []*pb.TopicPartition {
	out := make([]*pb.TopicPartition, 0, len(tps))
	for _, tp := range tps {
		out = append(out, &pb.TopicPartition{Topic: tp.Topic, Partition: tp.Partition})
	}
	return out
}

// DeleteGroup deletes a group that has no members, with its offsets.
func (a *Admin) DeleteGroup(ctx context.Context, group string) error {
	_, err := admin(ctx, a, "DeleteGroup", &pb.DeleteGroupRequest{Group: group}, func(cn *conn, ctx context.Context, q *pb.DeleteGroupRequest) (*pb.DeleteGroupResponse, error) {
		return cn.admin.DeleteGroup(ctx, q)
	})
	return err
}

// ResetOffsets sets the committed offsets of a group without members, or says what it would set. A shift is not repeated by itself when
// its outcome is unknown.
func (a *Admin) ResetOffsets(ctx context.Context, req ResetRequest) ([]OffsetReset, error) {
	q := &pb.ResetOffsetsRequest{Group: req.Group, Topics: req.Topics, Partitions: partitionsTo(req.Partitions), DryRun: req.DryRun}
	if err := req.To.set(q); err != nil {
		return nil, err
	}
	var r *pb.ResetOffsetsResponse
	tried := false
	err := a.client.callAny(ctx, "ResetOffsets", func(ctx context.Context, cn *conn) (err error) {
		if tried && req.To.isShift && !req.DryRun {
			return fmt.Errorf("the shift may have been made: %w", ErrOutcomeUnknown)
		}
		r, err = cn.admin.ResetOffsets(ctx, q)
		tried = outcomeUnknown(toError(context.WithoutCancel(ctx), "", err)) && err != nil
		return err
	})
	out := make([]OffsetReset, 0, len(r.GetResets()))
	for _, o := range r.GetResets() {
		out = append(out, OffsetReset{TopicPartition{o.Topic, o.Partition}, o.FromOffset, o.ToOffset})
	}
	return out, err
}

func (t ResetTo) set(q *pb.ResetOffsetsRequest) error {
	switch {
	case t.isShift:
		q.To = &pb.ResetOffsetsRequest_Shift{Shift: t.shift}
	case t.position.kind == posEarliest:
		q.To = &pb.ResetOffsetsRequest_Earliest{Earliest: true}
	case t.position.kind == posLatest:
		q.To = &pb.ResetOffsetsRequest_Latest{Latest: true}
	case t.position.kind == posOffset:
		q.To = &pb.ResetOffsetsRequest_Offset{Offset: t.position.value}
	case t.position.kind == posTime:
		q.To = &pb.ResetOffsetsRequest_TimestampMs{TimestampMs: t.position.value}
	default:
		return &Error{Op: "ResetOffsets", Code: CodeInvalidRequest, Message: fmt.Sprintf("cannot reset to %v", t.position), Partition: -1}
	}
	return nil
}

// CommitOffsets commits offsets for a group from outside, which it allows while it has no members.
func (a *Admin) CommitOffsets(ctx context.Context, group string, offsets map[TopicPartition]Commit) error {
	q := &pb.CommitOffsetsRequest{Group: group, Generation: -1, Offsets: commitsTo(offsets)}
	var co coordinator
	return co.call(ctx, a.client, group, "CommitOffsets", func(ctx context.Context, cn *conn) error {
		_, err := cn.groups.CommitOffsets(ctx, q)
		return err
	})
}

// FetchOffsets returns a group's committed offsets, of all partitions for which it has some or of those given; Offset is -1 where there is none.
func (a *Admin) FetchOffsets(ctx context.Context, group string, tps ...TopicPartition) (map[TopicPartition]Commit, error) {
	var co coordinator
	return fetchOffsets(ctx, a.client, &co, group, tps)
}

// RemoveMember removes a static member from a group by its instance ID.
func (a *Admin) RemoveMember(ctx context.Context, group, instanceID string) error {
	var co coordinator
	return co.call(ctx, a.client, group, "Leave", func(ctx context.Context, cn *conn) error {
		_, err := cn.groups.Leave(ctx, &pb.LeaveRequest{Group: group, InstanceId: instanceID})
		return err
	})
}
