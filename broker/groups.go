package broker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"unicode/utf16"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
)

// offsetsTopic holds the coordinator partitions, under Kafka's name.
const offsetsTopic = "__consumer_offsets"

// coordinatorPartition is the partition that coordinates a group: the one that Kafka would choose, by the absolute value of Java's hash of the text.
// The number of partitions never changes once the topic exists.
func coordinatorPartition(groupID string, partitions int) int32 {
	var h int32
	for _, unit := range utf16.Encode([]rune(groupID)) {
		h = 31*h + int32(unit)
	}
	switch {
	case h == math.MinInt32:
		h = 0
	case h < 0:
		h = -h
	}
	return h % int32(partitions)
}

// coordinatorOf finds a group's coordinator partition. The topic is created on first use, when the cluster has had the time to
// grow to its size.
func (b *Broker) coordinatorOf(ctx context.Context, groupID string) (api.TopicPartition, error) {
	if groupID == "" {
		return api.TopicPartition{}, api.Errorf(api.CodeInvalidRequest, "the group has no name")
	}
	t := b.node.State().Topics[offsetsTopic]
	if t == nil {
		var err error
		if t, err = b.createOffsetsTopic(ctx); err != nil {
			return api.TopicPartition{}, err
		}
	}
	return api.TopicPartition{Topic: offsetsTopic, Partition: coordinatorPartition(groupID, len(t.Partitions))}, nil
}

func (b *Broker) createOffsetsTopic(ctx context.Context) (*metadata.Topic, error) {
	b.syncMetadata(ctx)
	if t := b.node.State().Topics[offsetsTopic]; t != nil {
		return t, nil
	}
	cmd, err := b.planTopic(api.CreateTopicRequest{
		Name: offsetsTopic, Partitions: b.cfg.OffsetsPartitions, ReplicationFactor: b.defaultRF(b.cfg.OffsetsReplicationFactor),
	}, metadata.KindCoordinator, true)
	if err == nil {
		_, err = b.node.Propose(ctx, cmd)
	}
	if err != nil && api.CodeOf(err) != api.CodeTopicAlreadyExists {
		return nil, &api.Error{Code: api.CodeCoordinatorNotAvailable, Message: fmt.Sprintf("creating %s: %v", offsetsTopic, err), Cause: err}
	}
	b.awaitLeaders(ctx, offsetsTopic)
	if t := b.node.State().Topics[offsetsTopic]; t != nil {
		return t, nil
	}
	return nil, api.Errorf(api.CodeCoordinatorNotAvailable, "%s is being created: try again shortly", offsetsTopic)
}

// coordinatorError turns the errors of routing into those that group members know.
func coordinatorError(err error, groupID string) error {
	e, ok := err.(*api.Error)
	if !ok {
		return err
	}
	switch e.Code {
	case api.CodeNotLeader:
		return &api.Error{Code: api.CodeNotCoordinator, Leader: e.Leader, Message: fmt.Sprintf("another broker coordinates group %q", groupID), Cause: e}
	case api.CodeLeaderNotAvailable, api.CodeUnknownTopicOrPartition:
		return &api.Error{Code: api.CodeCoordinatorNotAvailable, Message: fmt.Sprintf("group %q has no coordinator at the moment: try again shortly", groupID), Cause: e}
	}
	return e
}

// groupError completes an error of the group's coordinator here: if it does not lead any more, members are told who does.
func (b *Broker) groupError(err error, groupID string) error {
	err = b.apiError(err, nil)
	e, ok := err.(*api.Error)
	t := b.node.State().Topics[offsetsTopic]
	if !ok || e.Code != api.CodeNotCoordinator || e.Leader != nil || t == nil {
		return err
	}
	p := t.Partitions[coordinatorPartition(groupID, len(t.Partitions))]
	leader := b.leaderOf(p, b.replicas.get(p))
	if leader == api.NoBroker {
		return err
	}
	named := *e
	named.Leader = b.endpoint(leader)
	return &named
}

// coordinate returns the group's coordinator if it is here and serves.
func (b *Broker) coordinate(ctx context.Context, groupID string) (*group.Coordinator, error) {
	_, c, err := b.coordinating(ctx, groupID)
	return c, err
}

// coordinating is coordinate with the replica that the coordinator has its state from.
func (b *Broker) coordinating(ctx context.Context, groupID string) (*hosted, *group.Coordinator, error) {
	tp, err := b.coordinatorOf(ctx, groupID)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.LeaderWait)
	defer cancel()
	for {
		h, err := b.lead(ctx, tp)
		if err != nil {
			return nil, nil, coordinatorError(err, groupID)
		}
		routes := b.route.wait()
		if c := h.servingCoordinator(); c != nil {
			return h, c, nil
		}
		select {
		case <-routes:
		case <-ctx.Done():
			return nil, nil, api.Errorf(api.CodeCoordinatorNotAvailable, "the coordinator of group %q is starting: try again shortly", groupID)
		}
	}
}

func (h *hosted) servingCoordinator() *group.Coordinator {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.serving {
		return nil
	}
	return h.coordinator
}

// FindCoordinator implements api.Groups.
func (b *Broker) FindCoordinator(ctx context.Context, groupID string) (api.Endpoint, error) {
	tp, err := b.coordinatorOf(ctx, groupID)
	if err != nil {
		return api.Endpoint{}, err
	}
	_, err = b.lead(ctx, tp)
	if err == nil {
		return b.self(), nil
	}
	if e, ok := err.(*api.Error); ok && e.Code == api.CodeNotLeader && e.Leader != nil {
		return *e.Leader, nil
	}
	if api.CodeOf(err) == api.CodeNotLeader { // known, but not its address
		err = api.Errorf(api.CodeLeaderNotAvailable, "the address of the coordinator is not known yet")
	}
	return api.Endpoint{}, coordinatorError(err, groupID)
}

// JoinGroup implements api.Groups.
func (b *Broker) JoinGroup(ctx context.Context, req api.JoinRequest) (api.JoinResult, error) {
	c, err := b.coordinate(ctx, req.Group)
	if err != nil {
		return api.JoinResult{}, err
	}
	res, err := c.JoinGroup(ctx, req)
	return res, b.groupError(err, req.Group)
}

// SyncGroup implements api.Groups.
func (b *Broker) SyncGroup(ctx context.Context, req api.SyncRequest) (api.SyncResult, error) {
	c, err := b.coordinate(ctx, req.Group)
	if err != nil {
		return api.SyncResult{}, err
	}
	res, err := c.SyncGroup(ctx, req)
	return res, b.groupError(err, req.Group)
}

// JoinAndSync implements api.Groups.
func (b *Broker) JoinAndSync(ctx context.Context, req api.NativeJoinRequest) (api.NativeJoinResult, error) {
	c, err := b.coordinate(ctx, req.Group)
	if err != nil {
		return api.NativeJoinResult{}, err
	}
	res, err := c.JoinAndSync(ctx, req)
	return res, b.groupError(err, req.Group)
}

// Heartbeat implements api.Groups.
func (b *Broker) Heartbeat(ctx context.Context, m api.MemberRef) error {
	c, err := b.coordinate(ctx, m.Group)
	if err != nil {
		return err
	}
	return b.groupError(c.Heartbeat(ctx, m), m.Group)
}

// LeaveGroup implements api.Groups.
func (b *Broker) LeaveGroup(ctx context.Context, m api.MemberRef) error {
	c, err := b.coordinate(ctx, m.Group)
	if err != nil {
		return err
	}
	return b.groupError(c.LeaveGroup(ctx, m), m.Group)
}

// CommitOffsets implements api.Groups. Offsets of partitions that do not exist are refused.
func (b *Broker) CommitOffsets(ctx context.Context, m api.MemberRef, offsets []api.OffsetCommit) error {
	c, err := b.coordinate(ctx, m.Group)
	if err != nil {
		return err
	}
	if err := b.checkPartitions(ctx, offsets); err != nil {
		return err
	}
	return b.groupError(c.CommitOffsets(ctx, m, offsets), m.Group)
}

func (b *Broker) checkPartitions(ctx context.Context, offsets []api.OffsetCommit) error {
	missing := func(o api.OffsetCommit) bool { return b.node.State().Find(o.TopicPartition) == nil }
	if !slices.ContainsFunc(offsets, missing) {
		return nil
	}
	synced := b.syncMetadata(ctx)
	i := slices.IndexFunc(offsets, missing)
	if i < 0 {
		return nil
	}
	tp := offsets[i].TopicPartition
	if !synced {
		return &api.Error{Code: api.CodeCoordinatorNotAvailable, TP: &tp, Cause: b.cannotTell(tp),
			Message: "the group's coordinator cannot tell at the moment which partitions there are: try again shortly"}
	}
	return unknownPartition(tp)
}

// FetchOffsets implements api.Groups. The leadership is confirmed, as a coordinator that was cut off may not know yet that there is another.
func (b *Broker) FetchOffsets(ctx context.Context, groupID string, tps []api.TopicPartition) ([]api.OffsetCommit, error) {
	h, c, err := b.coordinating(ctx, groupID)
	if err != nil {
		return nil, err
	}
	r := h.open()
	if r == nil {
		return nil, coordinatorError(b.apiError(partition.ErrClosed, &h.tp), groupID)
	}
	term, err := r.Serving()
	if err != nil {
		return nil, coordinatorError(b.apiError(err, &h.tp), groupID)
	}
	offsets, err := c.FetchOffsets(ctx, groupID, tps)
	if err != nil {
		return nil, b.groupError(err, groupID)
	}
	if err := b.confirm(ctx, r, term); err != nil {
		return nil, coordinatorError(b.apiError(err, &h.tp), groupID)
	}
	return offsets, nil
}
