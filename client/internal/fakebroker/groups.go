package fakebroker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// group is a consumer group. It has no timers but the one of a rebalance; tests expire members themselves.
type group struct {
	members    map[string]*member
	generation int32
	preparing  bool
	names      int
}

type member struct {
	id, instance string
	topics       []string
	strategies   []pb.AssignmentStrategy
	owned        map[tp]bool
	assigned     map[tp]bool
	answer       chan joined // of the join that waits
}

type joined struct {
	resp *pb.JoinResponse
	err  error
}

type groupsServer struct {
	pb.UnimplementedGroupsServer
	b *Broker
}

func groupError(c *Cluster, code pb.ErrorCode) error {
	d := detail(code, "", -1)
	if code == pb.ErrorCode_ERROR_CODE_NOT_COORDINATOR {
		d.Leader = c.endpoint(int32(c.coordinate))
	}
	return fail(codes.FailedPrecondition, d)
}

// enter locks the cluster and returns the group; the caller unlocks if there is no error.
func (s *groupsServer) enter(name string) (*group, error) {
	c := s.b.c
	c.mu.Lock()
	if c.coordinate != int(s.b.id) {
		defer c.mu.Unlock()
		return nil, groupError(c, pb.ErrorCode_ERROR_CODE_NOT_COORDINATOR)
	}
	g := c.groups[name]
	if g == nil {
		g = &group{members: make(map[string]*member)}
		c.groups[name] = g
	}
	return g, nil
}

func (s *groupsServer) FindCoordinator(context.Context, *pb.FindCoordinatorRequest) (*pb.FindCoordinatorResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	return &pb.FindCoordinatorResponse{Coordinator: s.b.c.endpoint(int32(s.b.c.coordinate))}, nil
}

func (s *groupsServer) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	g, err := s.enter(req.Group)
	if err != nil {
		return nil, err
	}
	c := s.b.c
	m, err := g.admit(c, req)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	m.topics, m.strategies, m.owned = req.Topics, req.Strategies, make(map[tp]bool)
	for _, p := range req.Owned {
		m.owned[tp{p.Topic, p.Partition}] = true
	}
	answer := make(chan joined, 1)
	m.answer = answer
	g.preparing = true
	c.completeIfAll(g)
	c.mu.Unlock()
	timeout := time.NewTimer(time.Duration(req.RebalanceTimeoutMs) * time.Millisecond)
	defer timeout.Stop()
	for {
		select {
		case a := <-answer:
			return a.resp, a.err
		case <-timeout.C:
			c.mu.Lock()
			g.dropSilent()
			c.completeIfAll(g)
			c.mu.Unlock()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (g *group) admit(c *Cluster, req *pb.JoinRequest) (*member, error) {
	if req.MemberId != "" {
		if m := g.members[req.MemberId]; m != nil {
			return m, nil
		}
		if req.InstanceId != "" && g.byInstance(req.InstanceId) != nil {
			return nil, groupError(c, pb.ErrorCode_ERROR_CODE_FENCED_INSTANCE)
		}
		return nil, groupError(c, pb.ErrorCode_ERROR_CODE_UNKNOWN_MEMBER)
	}
	g.names++
	m := &member{id: fmt.Sprintf("%s-%d", req.ClientId, g.names), instance: req.InstanceId}
	if old := g.byInstance(req.InstanceId); req.InstanceId != "" && old != nil {
		delete(g.members, old.id)
	}
	g.members[m.id] = m
	return m, nil
}

func (g *group) byInstance(id string) *member {
	for _, m := range g.members {
		if m.instance == id {
			return m
		}
	}
	return nil
}

func (g *group) dropSilent() {
	for id, m := range g.members {
		if m.answer == nil {
			delete(g.members, id)
		}
	}
}

// completeIfAll ends a rebalance for which all members have joined.
func (c *Cluster) completeIfAll(g *group) {
	var ms []*member
	for _, m := range g.members {
		if m.answer == nil {
			return
		}
		ms = append(ms, m)
	}
	if !g.preparing || len(ms) == 0 {
		return
	}
	slices.SortFunc(ms, func(a, b *member) int { return cmp.Compare(a.id, b.id) })
	g.generation++
	g.preparing = false
	c.assign(ms)
	for _, m := range ms {
		r := &pb.JoinResponse{MemberId: m.id, Generation: g.generation, Strategy: m.strategies[0]}
		for p := range m.assigned {
			r.Assignment = append(r.Assignment, &pb.TopicPartition{Topic: p.topic, Partition: p.partition})
		}
		m.answer <- joined{resp: r}
		m.answer = nil
	}
}

// assign shares all partitions out evenly. Cooperatively, members keep what they own up to their share, and what one has to give up goes to
// nobody yet.
func (c *Cluster) assign(ms []*member) {
	var all []tp
	for _, name := range ms[0].topics {
		if t := c.topics[name]; t != nil {
			for i := range t.partitions {
				all = append(all, tp{name, int32(i)})
			}
		}
	}
	share := (len(all) + len(ms) - 1) / len(ms)
	owner := make(map[tp]bool)
	for _, m := range ms {
		m.assigned = make(map[tp]bool)
		if m.strategies[0] != pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_COOPERATIVE_STICKY {
			continue
		}
		for _, p := range all {
			if m.owned[p] && !owner[p] {
				owner[p] = true
				if len(m.assigned) < share {
					m.assigned[p] = true
				}
			}
		}
	}
	for _, p := range all {
		if !owner[p] {
			least := slices.MinFunc(ms, func(a, b *member) int { return cmp.Compare(len(a.assigned), len(b.assigned)) })
			least.assigned[p] = true
		}
	}
}

// check finds the member that a request comes from.
func (g *group) check(c *Cluster, id, instance string, generation int32) (*member, error) {
	m := g.members[id]
	switch {
	case m == nil && instance != "" && g.byInstance(instance) != nil:
		return nil, groupError(c, pb.ErrorCode_ERROR_CODE_FENCED_INSTANCE)
	case m == nil:
		return nil, groupError(c, pb.ErrorCode_ERROR_CODE_UNKNOWN_MEMBER)
	case generation != g.generation:
		return nil, groupError(c, pb.ErrorCode_ERROR_CODE_ILLEGAL_GENERATION)
	}
	return m, nil
}

func (s *groupsServer) Heartbeat(_ context.Context, req *pb.HeartbeatRequest) (*pb.HeartbeatResponse, error) {
	g, err := s.enter(req.Group)
	if err != nil {
		return nil, err
	}
	defer s.b.c.mu.Unlock()
	s.b.c.heartbeats++
	if _, err := g.check(s.b.c, req.MemberId, req.InstanceId, req.Generation); err != nil {
		return nil, err
	}
	return &pb.HeartbeatResponse{Rebalance: g.preparing}, nil
}

func (s *groupsServer) Leave(_ context.Context, req *pb.LeaveRequest) (*pb.LeaveResponse, error) {
	g, err := s.enter(req.Group)
	if err != nil {
		return nil, err
	}
	defer s.b.c.mu.Unlock()
	if g.members[req.MemberId] == nil {
		return nil, groupError(s.b.c, pb.ErrorCode_ERROR_CODE_UNKNOWN_MEMBER)
	}
	s.b.c.remove(g, req.MemberId)
	return &pb.LeaveResponse{}, nil
}

func (c *Cluster) remove(g *group, id string) {
	delete(g.members, id)
	g.preparing = len(g.members) > 0
	c.completeIfAll(g)
}

func (s *groupsServer) CommitOffsets(_ context.Context, req *pb.CommitOffsetsRequest) (*pb.CommitOffsetsResponse, error) {
	g, err := s.enter(req.Group)
	if err != nil {
		return nil, err
	}
	defer s.b.c.mu.Unlock()
	if req.MemberId != "" || len(g.members) > 0 {
		if _, err := g.check(s.b.c, req.MemberId, req.InstanceId, req.Generation); err != nil {
			return nil, err
		}
	}
	if s.b.c.committed[req.Group] == nil {
		s.b.c.committed[req.Group] = make(map[tp]*pb.OffsetCommit)
	}
	for _, o := range req.Offsets {
		s.b.c.committed[req.Group][tp{o.Topic, o.Partition}] = o
	}
	return &pb.CommitOffsetsResponse{}, nil
}

func (s *groupsServer) FetchOffsets(_ context.Context, req *pb.FetchOffsetsRequest) (*pb.FetchOffsetsResponse, error) {
	if _, err := s.enter(req.Group); err != nil {
		return nil, err
	}
	defer s.b.c.mu.Unlock()
	r := &pb.FetchOffsetsResponse{}
	known := s.b.c.committed[req.Group]
	for _, p := range req.Partitions {
		o := known[tp{p.Topic, p.Partition}]
		if o == nil {
			o = &pb.OffsetCommit{Topic: p.Topic, Partition: p.Partition, Offset: -1}
		}
		r.Offsets = append(r.Offsets, o)
	}
	if len(req.Partitions) == 0 {
		for _, o := range known {
			r.Offsets = append(r.Offsets, o)
		}
	}
	return r, nil
}

// Committed is a group's committed offset, -1 if there is none.
func (c *Cluster) Committed(group, topic string, partition int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.committed[group][tp{topic, partition}]; o != nil {
		return o.Offset
	}
	return -1
}

// Members are the IDs of a group's members.
func (c *Cluster) Members(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	if g := c.groups[name]; g != nil {
		for id := range g.members {
			ids = append(ids, id)
		}
	}
	return ids
}

// Expire removes a member as if its session had run out.
func (c *Cluster) Expire(group, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.groups[group], id)
}

// MoveCoordinator makes another broker the coordinator of all groups. Joins that wait are refused.
func (c *Cluster) MoveCoordinator(broker int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coordinate = broker
	for _, g := range c.groups {
		for _, m := range g.members {
			if m.answer != nil {
				m.answer <- joined{err: groupError(c, pb.ErrorCode_ERROR_CODE_NOT_COORDINATOR)}
				m.answer = nil
			}
		}
	}
}

// Heartbeats is how many the coordinators have had.
func (c *Cluster) Heartbeats() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heartbeats
}
