package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/proto/record"
)

// groupOp is what brokers ask a coordinator's broker to do for an operator.
type groupOp string

const (
	opList     groupOp = "list" // all groups that this broker coordinates
	opDescribe groupOp = "describe"
	opDelete   groupOp = "delete"
	opSet      groupOp = "set-offsets"
	opForget   groupOp = "forget-offsets"
)

type groupRequest struct {
	Op      groupOp            `json:"op"`
	Group   string             `json:"group,omitempty"`
	Offsets []api.OffsetCommit `json:"offsets,omitempty"`
}

type groupReply struct {
	Groups      []api.GroupSummary   `json:"groups,omitempty"`
	Partitions  []int32              `json:"partitions,omitempty"` // the coordinator partitions that Groups is about
	Description api.GroupDescription `json:"description,omitzero"`
	Subscribed  []string             `json:"subscribed,omitempty"` // topics of which opForget left the offsets alone
}

// onGroups serves an operator's request here, for groups that this broker coordinates.
func (b *Broker) onGroups(ctx context.Context, req groupRequest) (groupReply, error) {
	if err := b.started(); err != nil {
		return groupReply{}, err
	}
	if req.Op == opList {
		return b.listHere(ctx)
	}
	c, err := b.coordinate(ctx, req.Group)
	if err != nil {
		return groupReply{}, err
	}
	switch req.Op {
	case opDescribe:
		d, err := c.Describe(ctx, req.Group)
		return groupReply{Description: d}, err
	case opDelete:
		return groupReply{}, c.Delete(ctx, req.Group)
	case opSet:
		return groupReply{}, c.SetOffsets(ctx, req.Group, req.Offsets)
	case opForget:
		tps := make([]api.TopicPartition, len(req.Offsets))
		for i, o := range req.Offsets {
			tps[i] = o.TopicPartition
		}
		subscribed, err := c.Forget(ctx, req.Group, tps)
		return groupReply{Subscribed: subscribed}, err
	}
	return groupReply{}, api.Errorf(api.CodeInvalidRequest, "broker %d does not know the group operation %q", b.cfg.ID, req.Op)
}

func (b *Broker) listHere(ctx context.Context) (groupReply, error) {
	var out groupReply
	for _, h := range b.replicas.all() {
		c := h.servingCoordinator()
		if c == nil || !h.leads() {
			continue
		}
		groups, err := c.List(ctx)
		if err != nil {
			return groupReply{}, err
		}
		out.Groups = append(out.Groups, groups...)
		out.Partitions = append(out.Partitions, h.tp.Partition)
	}
	return out, nil
}

// ListGroups implements api.GroupAdmin. It fails rather than leave out the groups of a coordinator that does not answer, or that has moved since
// this broker last heard of it: it tries for as long as two calls may take.
func (b *Broker) ListGroups(ctx context.Context) ([]api.GroupSummary, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*b.cfg.Timing.CallTimeout)
	defer cancel()
	for {
		changed := b.node.Changed()
		t := b.node.State().Topics[offsetsTopic]
		if t == nil {
			return nil, nil
		}
		out, err := b.listAll(ctx, t)
		if err == nil {
			return out, nil
		}
		again := time.NewTimer(100 * time.Millisecond)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, err
		}
		again.Stop()
	}
}

// listAll asks the leaders of all coordinator partitions once.
func (b *Broker) listAll(ctx context.Context, t *metadata.Topic) ([]api.GroupSummary, error) {
	leaders := map[api.BrokerID]bool{}
	for _, p := range t.Partitions {
		leaders[b.leaderFor(p)] = true
	}
	delete(leaders, api.NoBroker)
	var mu sync.Mutex
	groups := map[string]api.GroupSummary{} // one that moves meanwhile may be in two lists
	covered := map[int32]bool{}
	var g errgroup.Group
	for id := range leaders {
		g.Go(func() error {
			list, err := b.askGroups(ctx, id, groupRequest{Op: opList})
			mu.Lock()
			defer mu.Unlock()
			for _, s := range list.Groups {
				groups[s.Group] = s
			}
			for _, p := range list.Partitions {
				covered[p] = true
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, p := range t.Partitions {
		if !covered[p.Partition] {
			return nil, api.Errorf(api.CodeCoordinatorNotAvailable, "%s has no coordinator at the moment: try again shortly", p)
		}
	}
	return slices.SortedFunc(maps.Values(groups), func(x, y api.GroupSummary) int { return strings.Compare(x.Group, y.Group) }), nil
}

func (b *Broker) askGroups(ctx context.Context, id api.BrokerID, req groupRequest) (groupReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*b.cfg.Timing.CallTimeout)
	defer cancel()
	r, err := call[groupRequest, groupReply](ctx, b, metadata.ServerAddress(id), methodGroups, req)
	if err != nil && api.CodeOf(err) == api.CodeInternal {
		err = &api.Error{Code: api.CodeCoordinatorNotAvailable, Message: fmt.Sprintf("broker %d does not answer: %v", id, err), Cause: err}
	}
	return r, err
}

// askCoordinator sends an operator's request to the group's coordinator, wherever it is; once again if it has just moved.
func (b *Broker) askCoordinator(ctx context.Context, req groupRequest) (groupReply, error) {
	var r groupReply
	for attempt := 0; ; attempt++ {
		e, err := b.FindCoordinator(ctx, req.Group)
		if err == nil {
			r, err = b.askGroups(ctx, e.ID, req)
		}
		code := api.CodeOf(err)
		if err == nil || attempt == 2 || code != api.CodeNotCoordinator && code != api.CodeCoordinatorNotAvailable {
			return r, b.apiError(err, nil)
		}
	}
}

// DescribeGroup implements api.GroupAdmin.
func (b *Broker) DescribeGroup(ctx context.Context, groupID string) (api.GroupDescription, error) {
	r, err := b.askCoordinator(ctx, groupRequest{Op: opDescribe, Group: groupID})
	if err != nil {
		return api.GroupDescription{}, err
	}
	b.fillLag(ctx, &r.Description)
	return r.Description, nil
}

// fillLag adds the bounds of the partitions. What nothing was committed for lags from the log's start on.
func (b *Broker) fillLag(ctx context.Context, d *api.GroupDescription) {
	tps := make([]api.TopicPartition, len(d.Offsets))
	for i, o := range d.Offsets {
		tps[i] = o.TopicPartition
	}
	bounds := b.boundsOf(ctx, tps)
	for i := range d.Offsets {
		o := &d.Offsets[i]
		o.LogStart, o.HighWatermark, o.Lag = -1, -1, -1
		if s := bounds[o.TopicPartition]; s.Leads {
			o.LogStart, o.HighWatermark = s.LogStart, s.HighWatermark
			o.Lag = max(0, int64(s.HighWatermark-max(o.Offset, s.LogStart)))
		}
	}
}

// boundsOf asks the leaders of partitions. What does not exist, or cannot be asked, does not lead.
func (b *Broker) boundsOf(ctx context.Context, tps []api.TopicPartition) map[api.TopicPartition]replicaStatus {
	s := b.node.State()
	var partitions []*metadata.Partition
	for _, tp := range tps {
		if p := s.Find(tp); p != nil {
			partitions = append(partitions, p)
		}
	}
	out := map[api.TopicPartition]replicaStatus{}
	for i, st := range b.leaderStatuses(ctx, partitions) {
		out[partitions[i].TP()] = st
	}
	return out
}

// DeleteGroup implements api.GroupAdmin.
func (b *Broker) DeleteGroup(ctx context.Context, groupID string) error {
	_, err := b.askCoordinator(ctx, groupRequest{Op: opDelete, Group: groupID})
	return err
}

// ResetOffsets implements api.GroupAdmin: what to set is found out here, and set by the coordinator, all or nothing.
func (b *Broker) ResetOffsets(ctx context.Context, req api.ResetOffsetsRequest) ([]api.OffsetReset, error) {
	committed, err := b.committedOffsets(ctx, req.Group)
	if err != nil {
		return nil, err
	}
	tps, err := b.resetTargets(req, committed)
	if err != nil {
		return nil, err
	}
	resets, err := b.planReset(ctx, req, tps, committed)
	if err != nil || req.DryRun || len(resets) == 0 {
		return resets, err
	}
	set := groupRequest{Op: opSet, Group: req.Group}
	for _, r := range resets {
		set.Offsets = append(set.Offsets, api.OffsetCommit{TopicPartition: r.TopicPartition, Offset: r.To, LeaderEpoch: -1})
	}
	_, err = b.askCoordinator(ctx, set)
	return resets, err
}

// DeleteOffsets implements api.GroupAdmin. Who subscribes to what is checked where it is applied.
func (b *Broker) DeleteOffsets(ctx context.Context, groupID string, tps []api.TopicPartition) ([]error, error) {
	req := groupRequest{Op: opForget, Group: groupID}
	for _, tp := range tps {
		req.Offsets = append(req.Offsets, api.OffsetCommit{TopicPartition: tp, Offset: -1, LeaderEpoch: -1})
	}
	r, err := b.askCoordinator(ctx, req)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(tps))
	for i, tp := range tps {
		if slices.Contains(r.Subscribed, tp.Topic) {
			errs[i] = api.Errorf(api.CodeGroupSubscribedToTopic, "group %q has members that subscribe to topic %q", groupID, tp.Topic)
		}
	}
	return errs, nil
}

// committedOffsets are the group's, refusing a group with members; a group that does not exist has none.
func (b *Broker) committedOffsets(ctx context.Context, groupID string) (map[api.TopicPartition]record.Offset, error) {
	out := map[api.TopicPartition]record.Offset{}
	r, err := b.askCoordinator(ctx, groupRequest{Op: opDescribe, Group: groupID})
	if api.CodeOf(err) == api.CodeUnknownGroup && err != nil {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if n := len(r.Description.Members); n > 0 {
		return nil, api.Errorf(api.CodeGroupNotEmpty, "group %q has %d members: stop them before its offsets are reset", groupID, n)
	}
	for _, o := range r.Description.Offsets {
		if o.Offset >= 0 {
			out[o.TopicPartition] = o.Offset
		}
	}
	return out, nil
}

// resetTargets lists the partitions meant, in order.
func (b *Broker) resetTargets(req api.ResetOffsetsRequest, committed map[api.TopicPartition]record.Offset) ([]api.TopicPartition, error) {
	s := b.node.State()
	tps := slices.Clone(req.Partitions)
	for _, name := range req.Topics {
		t := s.Topics[name]
		if t == nil {
			return nil, api.Errorf(api.CodeUnknownTopicOrPartition, "there is no topic %q", name)
		}
		if slices.ContainsFunc(req.Partitions, func(tp api.TopicPartition) bool { return tp.Topic == name }) {
			continue // of this topic, some partitions are named
		}
		for _, p := range t.Partitions {
			tps = append(tps, p.TP())
		}
	}
	if len(req.Topics) == 0 && len(req.Partitions) == 0 {
		for tp := range committed {
			if s.Find(tp) != nil { // the offset of a deleted topic goes by itself
				tps = append(tps, tp)
			}
		}
	}
	for _, tp := range tps {
		if s.Find(tp) == nil {
			return nil, unknownPartition(tp)
		}
	}
	slices.SortFunc(tps, func(x, y api.TopicPartition) int {
		if c := strings.Compare(x.Topic, y.Topic); c != 0 {
			return c
		}
		return int(x.Partition) - int(y.Partition)
	})
	return slices.Compact(tps), nil
}

func (b *Broker) planReset(ctx context.Context, req api.ResetOffsetsRequest, tps []api.TopicPartition, committed map[api.TopicPartition]record.Offset) ([]api.OffsetReset, error) {
	bounds := b.boundsOf(ctx, tps)
	var out []api.OffsetReset
	for _, tp := range tps {
		s := bounds[tp]
		if !s.Leads {
			return nil, &api.Error{Code: api.CodeLeaderNotAvailable, TP: &tp, Message: fmt.Sprintf("the leader of %s/%d cannot be asked at the moment", tp.Topic, tp.Partition)}
		}
		r := api.OffsetReset{TopicPartition: tp, From: -1}
		if o, ok := committed[tp]; ok {
			r.From = o
		}
		to, err := b.resetTo(ctx, req, r, s)
		if err != nil {
			return nil, err
		}
		r.To = min(max(to, s.LogStart), s.HighWatermark)
		out = append(out, r)
	}
	return out, nil
}

// resetTo is where one partition goes, before it is brought into the log's bounds.
func (b *Broker) resetTo(ctx context.Context, req api.ResetOffsetsRequest, r api.OffsetReset, s replicaStatus) (record.Offset, error) {
	switch req.Kind {
	case api.ResetEarliest:
		return s.LogStart, nil
	case api.ResetLatest:
		return s.HighWatermark, nil
	case api.ResetOffset:
		return record.Offset(req.Value), nil
	case api.ResetShift:
		if r.From < 0 {
			return 0, api.Errorf(api.CodeInvalidRequest, "group %q has no offset for %s/%d to shift from", req.Group, r.Topic, r.Partition)
		}
		return shifted(r.From, req.Value), nil
	case api.ResetTimestamp:
		return b.offsetAt(ctx, r.TopicPartition, req.Value, s.HighWatermark)
	}
	return 0, api.Errorf(api.CodeInvalidRequest, "kind of reset %d is unknown", req.Kind)
}

// shifted adds without overflow; from is not negative.
func shifted(from record.Offset, by int64) record.Offset {
	if sum := int64(from) + by; by <= 0 || sum >= int64(from) {
		return record.Offset(sum)
	}
	return record.Offset(1<<63 - 1)
}

// offsetAt asks the partition's leader for the first record at or after a time; the end if there is none.
func (b *Broker) offsetAt(ctx context.Context, tp api.TopicPartition, ms int64, end record.Offset) (record.Offset, error) {
	p := b.node.State().Find(tp)
	if p == nil {
		return 0, unknownPartition(tp)
	}
	leader := b.leaderFor(p)
	if leader == api.NoBroker {
		return 0, b.leaderElsewhere(tp, leader)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	l, err := call[listOffsetRequest, api.ListedOffset](ctx, b, metadata.ServerAddress(leader), methodListOffset,
		listOffsetRequest{TP: tp, Position: api.Position{Kind: api.PositionTimestamp, Timestamp: ms}})
	if err != nil {
		return 0, b.apiError(err, &tp)
	}
	if l.Offset < 0 {
		return end, nil
	}
	return l.Offset, nil
}
