package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// run is the member's goroutine: join, take the assignment over, send heartbeats until the group rebalances, and again.
func (g *GroupConsumer) run() {
	for attempt := 0; g.ctx.Err() == nil; attempt++ {
		err := g.round()
		if err == nil {
			attempt = -1
			continue
		}
		if g.ctx.Err() != nil || g.stop(err) {
			return
		}
		g.client.cfg.logger.Debug("rejoining the group", "group", g.group, "error", err)
		if g.client.pause(g.ctx, attempt) != nil {
			return
		}
	}
}

// round is one generation, from the join to the wish to rejoin.
func (g *GroupConsumer) round() error {
	if !g.cooperative() {
		g.revokeAll()
	}
	r, err := g.join()
	if err != nil {
		return g.removed(err)
	}
	g.setMember(r.MemberId, r.Generation)
	if g.ctx.Err() != nil {
		return g.ctx.Err() // Close leaves the group
	}
	again, err := g.takeOver(r)
	if err != nil || again {
		return err
	}
	return g.removed(g.heartbeats(nil))
}

func (g *GroupConsumer) cooperative() bool { return g.cfg.strategies[0] == CooperativeSticky }

// stop ends the membership if no retry will help.
func (g *GroupConsumer) stop(err error) bool {
	if IsRetriable(err) || errors.Is(err, CodeUnknownMember) || errors.Is(err, CodeIllegalGeneration) || errors.Is(err, CodeRebalanceInProgress) {
		return false
	}
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	g.lose()
	g.mu.Lock()
	g.fatal = err
	g.mu.Unlock()
	signal(g.interrupt)
	return true
}

// join calls Join, which answers when the group has rebalanced.
func (g *GroupConsumer) join() (*pb.JoinResponse, error) {
	g.mu.Lock()
	q := &pb.JoinRequest{
		Group: g.group, MemberId: g.memberID, InstanceId: g.cfg.instanceID, ClientId: g.client.cfg.clientID, Topics: g.topics,
		SessionTimeoutMs: int32(g.cfg.sessionTimeout.Milliseconds()), RebalanceTimeoutMs: int32(g.cfg.rebalanceTimeout.Milliseconds()),
		Owned: partitionsTo(g.ownedList()), OwnedGeneration: g.ownedIn,
	}
	g.mu.Unlock()
	for _, s := range g.cfg.strategies {
		q.Strategies = append(q.Strategies, pb.AssignmentStrategy(s))
	}
	ctx, cancel := context.WithTimeout(g.client.ctx, g.cfg.rebalanceTimeout+g.cfg.sessionTimeout)
	defer cancel()
	var asked atomic.Bool
	defer context.AfterFunc(g.ctx, func() {
		if asked.Load() && q.MemberId == "" && q.InstanceId == "" {
			select { // the coordinator may have a member by now whose ID only the answer tells
			case <-g.abort:
			case <-ctx.Done():
			}
		}
		cancel()
	})()
	var r *pb.JoinResponse
	err := g.co.once(ctx, g.client, g.group, "Join", func(ctx context.Context, cn *conn) (err error) {
		asked.Store(true)
		r, err = cn.groups.Join(ctx, q)
		return err
	})
	return r, err
}

// setMember takes over an identity; generation -1: none.
func (g *GroupConsumer) setMember(id string, generation int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.memberID, g.generation = id, generation
	close(g.changed)
	g.changed = make(chan struct{})
}

// removed draws the consequence of an error of Join, Heartbeat or a commit, and returns it.
func (g *GroupConsumer) removed(err error) error {
	switch {
	case errors.Is(err, CodeUnknownMember):
		g.lose()
		g.setMember("", -1)
	case errors.Is(err, CodeIllegalGeneration):
		g.lose()
		g.setMember(g.MemberID(), -1)
	case errors.Is(err, CodeRebalanceInProgress):
		return nil
	}
	return err
}

// takeOver brings what the member owns in line with a new assignment. It returns true if partitions were given up that others now wait for,
// so that the member has to join again.
func (g *GroupConsumer) takeOver(r *pb.JoinResponse) (again bool, err error) {
	assigned := make(map[TopicPartition]bool, len(r.Assignment))
	for _, tp := range partitionsFrom(r.Assignment) {
		assigned[tp] = true
	}
	revoked, added := g.compare(assigned)
	var starts []Assignment
	if len(added) > 0 {
		if starts, err = g.starts(added); err != nil {
			return false, err
		}
	}
	if len(revoked)+len(added) > 0 {
		err = g.inPoll(func(ctx context.Context) {
			if err := g.giveUp(ctx, revoked); err != nil {
				g.client.cfg.logger.Warn("cannot commit before giving partitions up", "group", g.group, "error", err)
			}
			g.obtain(ctx, starts)
		})
	}
	g.mu.Lock()
	g.ownedIn = r.Generation
	g.mu.Unlock()
	return len(revoked) > 0 && g.cooperative(), g.removed(err)
}

func (g *GroupConsumer) compare(assigned map[TopicPartition]bool) (revoked, added []TopicPartition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp := range g.owned {
		if !assigned[tp] {
			revoked = append(revoked, tp)
		}
	}
	for tp := range assigned {
		if !g.owned[tp] {
			added = append(added, tp)
		}
	}
	sortPartitions(revoked)
	sortPartitions(added)
	return revoked, added
}

// starts looks up where the group has got to in partitions. Whoever had them before has committed by now.
func (g *GroupConsumer) starts(tps []TopicPartition) ([]Assignment, error) {
	offsets, err := fetchOffsets(g.ctx, g.client, &g.co, g.group, tps)
	if err != nil {
		return nil, err
	}
	as := make([]Assignment, 0, len(tps))
	for _, tp := range tps {
		a := Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: g.cfg.start}
		if o, ok := offsets[tp]; ok && o.Offset >= 0 {
			a.Start = AtOffset(o.Offset)
		}
		as = append(as, a)
	}
	return as, nil
}

// giveUp commits for partitions, if commits are automatic, tells the program and drops them. It runs inside Poll or Close.
func (g *GroupConsumer) giveUp(ctx context.Context, tps []TopicPartition) error {
	if len(tps) == 0 {
		return nil
	}
	var err error
	if g.cfg.autoCommit > 0 {
		err = g.commitProcessed(ctx, tps)
	}
	g.cfg.onRevoked(ctx, tps)
	g.drop(tps)
	return err
}

func (g *GroupConsumer) drop(tps []TopicPartition) {
	g.consumer.Unassign(tps...)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, tp := range tps {
		delete(g.owned, tp)
		delete(g.delivered, tp)
		delete(g.processed, tp)
		delete(g.committed, tp)
	}
}

// obtain begins to read partitions and tells the program. It runs inside Poll.
func (g *GroupConsumer) obtain(ctx context.Context, as []Assignment) {
	if len(as) == 0 {
		return
	}
	tps := make([]TopicPartition, len(as))
	g.mu.Lock()
	for i, a := range as {
		tps[i] = TopicPartition{a.Topic, a.Partition}
		g.owned[tps[i]] = true
	}
	g.mu.Unlock()
	_ = g.consumer.Assign(as...) // fails only when closed
	g.cfg.onAssigned(ctx, tps)
}

// revokeAll gives everything up before a rebalance, as the strategies other than the cooperative one have it.
func (g *GroupConsumer) revokeAll() {
	tps := g.Assigned()
	if len(tps) == 0 {
		return
	}
	err := g.inPoll(func(ctx context.Context) {
		if err := g.giveUp(ctx, tps); err != nil {
			g.client.cfg.logger.Warn("cannot commit before giving partitions up", "group", g.group, "error", err)
		}
	})
	_ = g.removed(err)
}

// lose drops everything at once, for it may belong to others by now, and tells the program in Poll.
func (g *GroupConsumer) lose() {
	tps := g.Assigned()
	g.mu.Lock()
	g.ownedIn = -1
	g.mu.Unlock()
	if len(tps) == 0 {
		return
	}
	g.drop(tps)
	t := g.submit(true, func(ctx context.Context) { g.cfg.onLost(ctx, tps) })
	select {
	case <-t.done:
	case <-g.ctx.Done():
	}
}

func (g *GroupConsumer) submit(late bool, f func(context.Context)) *safeTask {
	t := &safeTask{run: f, late: late, done: make(chan struct{})}
	g.mu.Lock()
	g.task = t
	g.mu.Unlock()
	signal(g.interrupt)
	return t
}

// inPoll lets Poll run f and sends heartbeats until it has. The error is that of a heartbeat after which the partitions are lost.
func (g *GroupConsumer) inPoll(f func(context.Context)) error {
	t := g.submit(false, f)
	err := g.heartbeats(t.done)
	if err == nil {
		select {
		case <-t.done:
		case <-g.ctx.Done():
		}
	}
	return err
}

// heartbeats keeps the membership alive, and commits now and then. Without until, it returns nil when the group rebalances; with until, it goes on
// through that until the channel is closed. It returns errors that end the membership.
func (g *GroupConsumer) heartbeats(until <-chan struct{}) error {
	every := g.cfg.sessionTimeout / 3
	beat := time.NewTimer(every)
	defer beat.Stop()
	var commit <-chan time.Time
	if g.cfg.autoCommit > 0 {
		t := time.NewTicker(g.cfg.autoCommit)
		defer t.Stop()
		commit = t.C
	}
	for failures := 0; ; {
		select {
		case <-g.ctx.Done():
			return g.ctx.Err()
		case <-until:
			return nil
		case <-commit:
			g.autoCommit()
			continue
		case <-g.beat:
		case <-beat.C:
		}
		rebalance, err := g.heartbeat(every)
		switch {
		case err == nil:
			failures = 0
			beat.Reset(every)
		case IsRetriable(err) && !errors.Is(err, CodeRebalanceInProgress):
			failures++
			beat.Reset(backoffFor(failures-1, g.client.cfg.backoffMin, g.client.cfg.backoffMax))
		case errors.Is(err, CodeRebalanceInProgress):
			rebalance = true
			beat.Reset(every)
		case g.ctx.Err() != nil || CodeOf(err) == CodeInternal:
			beat.Reset(every)
		default:
			return err
		}
		if rebalance && until == nil {
			return nil
		}
	}
}

func (g *GroupConsumer) heartbeat(limit time.Duration) (rebalance bool, err error) {
	g.mu.Lock()
	q := &pb.HeartbeatRequest{Group: g.group, MemberId: g.memberID, InstanceId: g.cfg.instanceID, Generation: g.generation}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.ctx, limit)
	defer cancel()
	err = g.co.once(ctx, g.client, g.group, "Heartbeat", func(ctx context.Context, cn *conn) error {
		r, err := cn.groups.Heartbeat(ctx, q)
		rebalance = r.GetRebalance()
		return err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		g.co.set("")
		err = &Error{Op: "Heartbeat", Code: CodeRequestTimedOut, Message: "no answer", Retriable: true, Partition: -1}
	}
	return rebalance, err
}

func (g *GroupConsumer) sendLeave(ctx context.Context, id string) error {
	return g.co.call(ctx, g.client, g.group, "Leave", func(ctx context.Context, cn *conn) error {
		_, err := cn.groups.Leave(ctx, &pb.LeaveRequest{Group: g.group, MemberId: id, InstanceId: g.cfg.instanceID})
		return err
	})
}
