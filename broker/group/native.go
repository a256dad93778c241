package group

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// Defaults of NativeJoinRequest, Kafka's consumer's.
const (
	defaultSession   = 45 * time.Second
	defaultRebalance = 300 * time.Second
)

// JoinAndSync is api.Groups' JoinAndSync: it returns with the member's partitions in a generation that has them. If the group rebalances again
// meanwhile, it joins again by itself. The errors are JoinGroup's and SyncGroup's.
func (c *Coordinator) JoinAndSync(ctx context.Context, req api.NativeJoinRequest) (api.NativeJoinResult, error) {
	t, err := c.lead()
	if err != nil {
		return api.NativeJoinResult{}, err
	}
	ev, err := c.nativeJoinEvent(req)
	if err != nil {
		return api.NativeJoinResult{}, err
	}
	for {
		joined, err := t.join(ctx, ev, isNew(req.MemberRef))
		if err != nil {
			return api.NativeJoinResult{}, err
		}
		ref := api.MemberRef{Group: req.Group, MemberID: joined.MemberID, InstanceID: req.InstanceID, Generation: joined.Generation}
		synced, err := t.awaitSync(ctx, ref)
		if err == nil {
			return nativeResult(ref, synced)
		}
		if api.CodeOf(err) != api.CodeRebalanceInProgress {
			if isNew(req.MemberRef) {
				t.abandon(req.Group, joined.MemberID)
			}
			return api.NativeJoinResult{}, err
		}
		ev = ev.as(joined.MemberID)
	}
}

// as is the same join by a member that has its ID now.
func (e *Join) as(memberID string) *Join {
	next := *e
	next.MemberID, next.NewID = memberID, memberID
	return &next
}

func nativeResult(ref api.MemberRef, res api.SyncResult) (api.NativeJoinResult, error) {
	tps, err := assign.DecodeAssignment(res.Assignment)
	if err != nil {
		return api.NativeJoinResult{}, api.Errorf(api.CodeInternal, "group %q: the leader's assignment for member %q: %w", ref.Group, ref.MemberID, err)
	}
	return api.NativeJoinResult{MemberID: ref.MemberID, Generation: ref.Generation, Strategy: res.Protocol, Assignment: tps}, nil
}

func (c *Coordinator) nativeJoinEvent(req api.NativeJoinRequest) (*Join, error) {
	protocols, err := c.nativeProtocols(req)
	if err != nil {
		return nil, err
	}
	def(&req.SessionTimeout, defaultSession)
	def(&req.RebalanceTimeout, defaultRebalance)
	ev, err := c.joinEvent(api.JoinRequest{
		MemberRef: req.MemberRef, ClientID: req.ClientID, ClientHost: req.ClientHost, SessionTimeout: req.SessionTimeout,
		RebalanceTimeout: req.RebalanceTimeout, ProtocolType: assign.ProtocolType, Protocols: protocols,
	})
	if err != nil {
		return nil, err
	}
	ev.Native = true
	return ev, nil
}

func (c *Coordinator) nativeProtocols(req api.NativeJoinRequest) ([]api.GroupProtocol, error) {
	strategies := req.Strategies
	if len(strategies) == 0 {
		strategies = []string{assign.CooperativeSticky}
	}
	if err := checkSubscription(req); err != nil {
		return nil, err
	}
	m := assign.Member{Topics: slices.Compact(slices.Sorted(slices.Values(req.Topics))), Owned: req.Owned, Generation: req.Generation}
	if len(m.Owned) == 0 {
		m.Generation = -1
	}
	protocols := make([]api.GroupProtocol, 0, len(strategies))
	for _, s := range strategies {
		if !assign.Known(s) {
			return nil, api.Errorf(api.CodeInconsistentProtocol, "group %q: unknown assignment strategy %q", req.Group, s)
		}
		protocols = append(protocols, api.GroupProtocol{Name: s, Metadata: assign.EncodeSubscription(s, m)})
	}
	return protocols, nil
}

func checkSubscription(req api.NativeJoinRequest) error {
	bad := func(topic string) bool { return topic == "" || len(topic) > nameBytesMax }
	if slices.ContainsFunc(req.Topics, bad) {
		return api.Errorf(api.CodeInvalidRequest, "group %q: a topic's name is empty or too long", clip(req.Group))
	}
	if slices.ContainsFunc(req.Owned, func(tp api.TopicPartition) bool { return bad(tp.Topic) || tp.Partition < 0 }) {
		return api.Errorf(api.CodeInvalidRequest, "group %q: an owned partition cannot exist", clip(req.Group))
	}
	if len(req.Strategies) > protocolsMax {
		return api.Errorf(api.CodeInvalidRequest, "group %q: more than %d strategies", clip(req.Group), protocolsMax)
	}
	return nil
}

// assigner makes the assignments of groups whose leader is a native member. It is the coordinator's work and not that of the leader's
// call: that may have gone to another broker before a failover, and be on its way back.
type assigner struct {
	t    *term
	kick chan struct{}

	mu     sync.Mutex
	groups map[string]bool
	look   lookFor
}

// lookFor says what to look for in all groups whose assignment is made here.
type lookFor uint8

const (
	lookForNothing lookFor = iota
	// lookForNew partitions that nobody has. Done once at the start: the change may have come between two coordinators. Partitions that
	// this broker has not heard of yet do not count as gone then: it may lag, and a failover shall force no rebalance.
	lookForNew
	// lookForAll also finds partitions that are gone.
	lookForAll
)

func newAssigner(t *term) *assigner {
	return &assigner{t: t, kick: make(chan struct{}, 1), groups: map[string]bool{}}
}

func (a *assigner) add(group string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups[group] = true
	nudge(a.kick)
}

func (a *assigner) lookAtTopics(what lookFor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look = max(a.look, what)
	nudge(a.kick)
}

func (a *assigner) run() {
	for {
		select {
		case <-a.t.ctx.Done():
			return
		case <-a.kick:
		}
		groups, look := a.take()
		for _, id := range groups {
			a.assign(id)
		}
		if look != lookForNothing {
			a.rebalanceChanged(look)
		}
	}
}

func (a *assigner) take() ([]string, lookFor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	groups, look := slices.Sorted(maps.Keys(a.groups)), a.look
	a.groups, a.look = map[string]bool{}, lookForNothing
	return groups, look
}

// snapshot is what an assignment depends on. The bytes are shared with the group, which replaces but never changes them.
type snapshot struct {
	leader, protocol string
	generation       int32
	members          []api.JoinedMember
}

func (a *assigner) snapshot(id string) (snapshot, bool) {
	var s snapshot
	ok := false
	a.t.machine.view(id, func(g *group) {
		if ok = g != nil && g.state == CompletingRebalance && g.members[g.leader].native; ok {
			s = g.snapshot()
		}
	})
	return s, ok
}

func (g *group) snapshot() snapshot {
	return snapshot{leader: g.leader, protocol: g.protocol, generation: g.generation, members: g.joinResult(g.members[g.leader]).Members}
}

// assign works out and proposes an assignment. If the proposal fails it tries again, as long as the generation waits for it.
func (a *assigner) assign(id string) {
	s, ok := a.snapshot(id)
	if !ok {
		return
	}
	assignments, counts, err := a.compute(id, s)
	if err == nil {
		ev := &Sync{Group: id, MemberID: s.leader, Generation: s.generation, Assignments: assignments}
		err = a.t.queue.add(ev, func(res Result, err *api.Error) {
			switch {
			case err != nil:
				a.later(id)
			case res.Err != nil && res.Err.Code == api.CodeStorageFull:
				a.t.failSync(id, s.generation, res.Err)
			case counts.changed(a.t.c.cfg.Partitions):
				a.lookAtTopics(lookForAll) // a look in the meantime passed over the group, which was not Stable yet
			}
		})
	}
	switch {
	case err == nil:
	case api.CodeOf(err) == api.CodeThrottled:
		a.later(id)
	default:
		a.t.failSync(id, s.generation, err)
	}
}

// later tries an assignment again, by way of the clock; with no group, the look at the topics.
func (a *assigner) later(id string) {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	a.t.timers.set(timerKey{kind: assignTimer, group: id}, time.Now().Add(retryAfter), 0)
}

// failSync answers all who wait for an assignment that cannot be made.
func (t *term) failSync(id string, generation int32, cause error) {
	t.c.logger.Error("no assignment for a group", "group", id, "generation", generation, "error", cause)
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watch(id); w.generation == generation {
		w.failed = api.Errorf(api.CodeOf(cause), "group %q: no assignment: %w", id, cause)
		t.wake(id)
	}
}

// topicCounts is how many partitions each topic of an assignment had when it was made; 0 for those that were not there.
type topicCounts map[string]int32

func (c topicCounts) changed(count func(topic string) (int32, bool)) bool {
	for topic, n := range c {
		if now, _ := count(topic); now != n {
			return true
		}
	}
	return false
}

func (a *assigner) compute(id string, s snapshot) ([]MemberAssignment, topicCounts, error) {
	as, counts, unreadable, err := s.assign(a.t.c.cfg.Partitions)
	for _, member := range unreadable {
		a.t.c.logger.Warn("member with a subscription that cannot be read gets no partitions", "group", id, "member", member)
	}
	if err != nil {
		return nil, nil, api.Errorf(api.CodeInconsistentProtocol, "group %q: %w", id, err)
	}
	return as, counts, nil
}

// assign divides the partitions that there are. It also returns the members whose subscriptions it could not read.
func (s snapshot) assign(count func(topic string) (int32, bool)) (as []MemberAssignment, counts topicCounts, unreadable []string, err error) {
	members := make([]assign.Member, 0, len(s.members))
	partitions := topicCounts{}
	for _, jm := range s.members {
		m, err := assign.DecodeSubscription(s.protocol, jm.Metadata)
		if err != nil {
			unreadable = append(unreadable, jm.MemberID)
			m = assign.Member{Generation: -1}
		}
		m.ID, m.InstanceID = jm.MemberID, jm.InstanceID
		members = append(members, m)
		for _, t := range m.Topics {
			if _, ok := partitions[t]; !ok {
				partitions[t], _ = count(t)
			}
		}
	}
	assignment, err := assign.Assign(s.protocol, members, partitions)
	if err != nil {
		return nil, nil, unreadable, err
	}
	encoded := map[string][]byte{}
	for member, tps := range assignment {
		encoded[member] = assign.EncodeAssignment(tps)
	}
	return sortedAssignments(encoded), partitions, unreadable, nil
}

func sortedAssignments(m map[string][]byte) []MemberAssignment {
	as := make([]MemberAssignment, 0, len(m))
	for id, b := range m {
		as = append(as, MemberAssignment{MemberID: id, Assignment: b})
	}
	slices.SortFunc(as, func(a, b MemberAssignment) int { return cmp.Compare(a.MemberID, b.MemberID) })
	return as
}

// rebalanceChanged asks for a new generation of the Stable groups that cover other partitions than their topics have now.
func (a *assigner) rebalanceChanged(look lookFor) {
	type candidate struct {
		id         string
		generation int32
		covered    coverage
	}
	var all []candidate
	a.t.machine.each(func(g *group) {
		if g.state == Stable && g.members[g.leader].native {
			all = append(all, candidate{g.id, g.generation, g.coverage()})
		}
	})
	for _, c := range all {
		if !c.covered.outdated(a.t.c.cfg.Partitions, look) {
			continue
		}
		ev := &Rebalance{Group: c.id, Generation: c.generation, Reason: "its topics' partitions have changed"}
		again := func(_ Result, err *api.Error) {
			if err != nil {
				a.later("")
			}
		}
		if err := a.t.queue.add(ev, again); err != nil {
			a.later("")
		}
	}
}

// coverage is the topics a group subscribes to, with the partitions that are assigned of each (true), or withheld while a cooperative
// rebalance waits for their owner to give them up (false): its second half is on its way.
type coverage map[string]map[int32]bool

func (g *group) coverage() coverage {
	c := coverage{}
	var withheld, assigned []api.TopicPartition
	for _, m := range g.members {
		sub, _ := assign.DecodeSubscription(g.protocol, m.metadata(g.protocol))
		for _, t := range sub.Topics {
			c[t] = map[int32]bool{}
		}
		if g.protocol == assign.CooperativeSticky {
			withheld = append(withheld, sub.Owned...)
		}
		tps, _ := assign.DecodeAssignment(m.assignment)
		assigned = append(assigned, tps...)
	}
	c.mark(withheld, false)
	c.mark(assigned, true)
	return c
}

// mark leaves out what nobody subscribes to any more.
func (c coverage) mark(tps []api.TopicPartition, assigned bool) {
	for _, tp := range tps {
		if covered := c[tp.Topic]; covered != nil {
			covered[tp.Partition] = assigned
		}
	}
}

func (c coverage) outdated(count func(topic string) (int32, bool), look lookFor) bool {
	for topic, covered := range c {
		n, _ := count(topic)
		for p := range n {
			if _, ok := covered[p]; !ok {
				return true
			}
		}
		for p, assigned := range covered {
			if look == lookForAll && assigned && p >= n {
				return true
			}
		}
	}
	return false
}
