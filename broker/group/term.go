package group

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

// term is one period of leadership. It owns three goroutines, which end when ctx does and which stop waits for: the proposer
// (queue.go), the clock (clock.go) and the assigner (native.go).
//
// What it keeps is not replicated and may be lost at any time: deadlines, who waits, who has asked for its assignment.
//
// Locks: mu before the machine's; the machine tells term.happened while it holds none.
type term struct {
	c        *Coordinator
	machine  *Machine
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	ready    atomic.Bool
	raftTerm uint64 // by Config.Term, read before the barrier
	queue    *queue
	assigner *assigner

	// sooner has something in it when a deadline has become the earliest.
	sooner chan struct{}

	mu      sync.Mutex
	timers  timers
	watches map[string]*watch
}

// nudge leaves a note that there is something to do, unless there is one already.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// watch is what the term knows of a group beside its replicated state.
type watch struct {
	// changed is closed, and replaced, when calls that wait should look again.
	changed chan struct{}
	// generation is the one that synced and failed are about.
	generation int32
	// synced holds who has asked for its assignment.
	synced map[string]bool
	// failed is why the coordinator could not make an assignment.
	failed *api.Error
}

func newTerm(c *Coordinator) *term {
	t := &term{c: c, machine: c.cfg.Machine, watches: map[string]*watch{}, sooner: make(chan struct{}, 1)}
	t.timers = newTimers(func() { nudge(t.sooner) })
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.queue = newQueue(t)
	t.assigner = newAssigner(t)
	return t
}

// start waits for the barrier before it arms anything: until then the groups may not be those that were committed.
func (t *term) start(ctx context.Context) error {
	if t.c.cfg.Term != nil {
		if t.raftTerm = t.c.cfg.Term(); t.raftTerm == 0 {
			return t.c.notCoordinator()
		}
	}
	t.machine.observe(t.happened)
	t.wg.Go(t.queue.run)
	if _, err := t.propose(ctx, &Barrier{}); err != nil {
		return err
	}
	t.armAll()
	t.wg.Go(t.runClock)
	t.assigner.lookAtTopics(lookForNew)
	t.wg.Go(t.assigner.run)
	t.ready.Store(true)
	return nil
}

// over says that the term has ended, also where LeaderStop has not been called yet: what it knows of deadlines may be out of date then, even
// if this broker leads again.
func (t *term) over() bool {
	return t.ctx.Err() != nil || t.c.cfg.Term != nil && t.c.cfg.Term() != t.raftTerm
}

func (t *term) stop() {
	t.cancel()
	t.machine.observe(nil)
	t.wg.Wait()
}

// armAll gives all members and phases fresh deadlines: a failover counts against nobody.
func (t *term) armAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.timers.set(timerKey{kind: sweepTimer}, now.Add(t.c.settings.OffsetsRetentionCheck), 0)
	t.timers.set(timerKey{kind: assignTimer}, now.Add(topicsKnownAfter), 0)
	t.machine.each(func(g *group) {
		for id := range g.pending {
			t.armSession(g, id)
		}
		t.armMissingSessions(g)
		switch g.state {
		case PreparingRebalance:
			t.armJoin(g)
		case CompletingRebalance:
			t.beginSync(g)
		}
	})
}

// each visits all groups, in order, under the read lock.
func (m *Machine) each(f func(g *group)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		f(m.groups[id])
	}
}

// happened is told of everything that is applied, on the goroutine that applies: it must be quick.
func (t *term) happened(id string, actions []Action) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.machine.view(id, func(g *group) {
		for _, a := range actions {
			t.log(id, g, a)
			t.react(id, g, a)
		}
	})
}

// react follows one action. g is the group after all of the event's actions; nil if it is gone.
func (t *term) react(id string, g *group, a Action) {
	switch a.Kind {
	case MemberTouched:
		t.armSession(g, a.Member)
	case MemberRemoved:
		t.timers.drop(timerKey{sessionTimer, id, a.Member})
		t.wake(id)
	case JoinPhase:
		t.timers.drop(timerKey{kind: syncTimer, group: id})
		t.armJoin(g)
		t.wake(id)
	case NewGeneration:
		t.c.cfg.Rebalanced()
		t.timers.drop(timerKey{kind: joinTimer, group: id})
		t.armMissingSessions(g)
		t.beginSync(g)
		t.wake(id)
	case Assigned:
		t.wake(id)
	case BecameEmpty, Removed:
		t.timers.drop(timerKey{kind: joinTimer, group: id})
		t.timers.drop(timerKey{kind: syncTimer, group: id})
		t.wake(id)
		delete(t.watches, id)
	}
}

func (t *term) log(id string, g *group, a Action) {
	switch a.Kind {
	case JoinPhase:
		t.c.logger.Debug("group rebalances", "group", id, "reason", a.Reason)
	case NewGeneration:
		if g != nil {
			t.c.logger.Debug("group has a new generation", "group", id, "generation", g.generation, "members", len(g.members), "leader", a.Member)
		}
	case MemberRemoved:
		t.c.logger.Debug("member removed", "group", id, "member", a.Member, "reason", a.Reason)
	case Removed:
		t.c.logger.Debug("group removed", "group", id, "reason", a.Reason)
	}
}

// armSession starts the member's session anew, or stops it while the member waits in the join phase: its call is held, so it is alive.
func (t *term) armSession(g *group, id string) {
	if g == nil {
		return
	}
	key := timerKey{sessionTimer, g.id, id}
	if ms, ok := g.pending[id]; ok {
		t.timers.set(key, time.Now().Add(time.Duration(ms)*time.Millisecond), 0)
		return
	}
	m := g.members[id]
	if m == nil || m.joined {
		t.timers.drop(key)
		return
	}
	t.timers.set(key, time.Now().Add(m.session()), 0)
}

// armMissingSessions leaves the sessions of static members that did not take part in the rebalance running.
func (t *term) armMissingSessions(g *group) {
	if g == nil {
		return
	}
	for id := range g.members {
		if !t.timers.has(timerKey{sessionTimer, g.id, id}) {
			t.armSession(g, id)
		}
	}
}

func (m *member) session() time.Duration { return time.Duration(m.sessionMs) * time.Millisecond }

func (t *term) armJoin(g *group) {
	if g == nil {
		return
	}
	wait := g.rebalanceTimeout()
	if g.initial {
		wait = min(wait, t.c.settings.InitialRebalanceDelay)
	}
	t.timers.set(timerKey{kind: joinTimer, group: g.id}, time.Now().Add(wait), g.round)
}

func (t *term) beginSync(g *group) {
	if g == nil || g.state != CompletingRebalance {
		return
	}
	w := t.watch(g.id)
	w.generation, w.synced, w.failed = g.generation, map[string]bool{}, nil
	t.timers.set(timerKey{kind: syncTimer, group: g.id}, time.Now().Add(g.rebalanceTimeout()), uint64(g.generation))
	if g.members[g.leader].native {
		t.assigner.add(g.id)
	}
}

// touch prolongs a session that exists: what a member does says that it is alive.
func (t *term) touch(group string, m *member) { t.extend(group, m.id, m.session()) }

func (t *term) extend(group, member string, session time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timers.extend(timerKey{sessionTimer, group, member}, time.Now().Add(session))
}

// watch needs mu.
func (t *term) watch(group string) *watch {
	w := t.watches[group]
	if w == nil {
		w = &watch{changed: make(chan struct{})}
		t.watches[group] = w
	}
	return w
}

// forget drops the watch of a group that does not exist.
func (t *term) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.machine.view(id, func(g *group) {
		if g == nil {
			delete(t.watches, id)
		}
	})
}

// wake needs mu.
func (t *term) wake(group string) {
	if w := t.watches[group]; w != nil {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// await calls look until it says that it is done: at once, and after each change of the group. look runs under the machine's read lock.
func (t *term) await(ctx context.Context, id string, look func(g *group, w watch) (done bool, err *api.Error)) error {
	for {
		t.mu.Lock()
		w := *t.watch(id)
		t.mu.Unlock()
		var done bool
		var err *api.Error
		t.machine.view(id, func(g *group) {
			if g == nil {
				g = newGroup(id) // has nobody in it
			}
			done, err = look(g, w)
		})
		if err != nil {
			t.forget(id)
			return err
		}
		if done {
			return nil
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return timedOut(ctx)
		case <-t.ctx.Done():
			return t.c.notCoordinator()
		}
	}
}

func timedOut(ctx context.Context) *api.Error {
	return api.Errorf(api.CodeRequestTimedOut, "the caller's time is up: %w", ctx.Err())
}
