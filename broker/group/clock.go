package group

import (
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

const (
	// expireAtOnce bounds how many deadlines are handled under one lock.
	expireAtOnce = 1000
	// retryAfter is how long a deadline waits whose event could not be proposed.
	retryAfter = time.Second
	// topicsKnownAfter is how long after the start of a term partitions that this broker does not know count as gone: what the coordinator
	// before it did not get round to is made up for then.
	topicsKnownAfter = time.Minute
)

// runClock turns deadlines that have passed into events.
func (t *term) runClock() {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-wait.C:
		case <-t.sooner:
		}
		t.mu.Lock()
		passed, next, more := t.timers.expire(time.Now(), expireAtOnce)
		t.mu.Unlock()
		for _, tm := range passed {
			t.fire(tm)
		}
		if more {
			wait.Reset(time.Until(next))
		} else {
			wait.Stop()
		}
	}
}

func (t *term) fire(tm *timer) {
	switch tm.key.kind {
	case sessionTimer:
		t.proposeFor(tm, &ExpireMember{Group: tm.key.group, MemberID: tm.key.member})
	case joinTimer:
		t.proposeFor(tm, &JoinDeadline{Group: tm.key.group, Round: tm.mark})
	case syncTimer:
		if missing := t.notSynced(tm); len(missing) > 0 {
			t.proposeFor(tm, &SyncDeadline{Group: tm.key.group, Generation: int32(tm.mark), Missing: missing})
		}
	case assignTimer:
		if tm.key.group == "" {
			t.assigner.lookAtTopics(lookForAll)
		} else {
			t.assigner.add(tm.key.group)
		}
	case sweepTimer:
		t.sweep(tm)
	}
}

// proposeFor proposes what a deadline led to. If that fails, the deadline comes again, unless there is a new one by then.
func (t *term) proposeFor(tm *timer, ev Event) {
	again := func(_ Result, err *api.Error) {
		if err == nil {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.timers.has(tm.key) {
			t.timers.set(tm.key, time.Now().Add(retryAfter), tm.mark)
		}
	}
	if err := t.queue.add(ev, again); err != nil {
		again(Result{}, api.Errorf(api.CodeThrottled, "%w", err))
	}
}

// notSynced lists the members that have not asked for their assignment of the deadline's generation.
func (t *term) notSynced(tm *timer) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.watch(tm.key.group)
	var missing []string
	t.machine.view(tm.key.group, func(g *group) {
		if g == nil || uint64(g.generation) != tm.mark || w.generation != g.generation {
			return
		}
		for _, m := range g.sorted() {
			if !w.synced[m.id] {
				missing = append(missing, m.id)
			}
		}
	})
	return missing
}

// sweep proposes the expiry of offsets if there is anything to expire, so that an idle partition's log does not grow.
//
// Two clocks may be wrong. If it is this broker's, which has just jumped ahead, nothing is proposed until it has stayed there for a day. If it was another
// leader's, the machine's time, which never goes back, is ahead of the true one since then, and the step counts ages by it: the retention that is proposed is longer
// by as much, so that nothing expires that is not old by this broker's clock.
func (t *term) sweep(tm *timer) {
	t.mu.Lock()
	t.timers.set(tm.key, time.Now().Add(t.c.settings.OffsetsRetentionCheck), 0)
	t.mu.Unlock()
	wall := t.c.now()
	if jumped := t.c.guard.jumped(wall, time.Now()); jumped > 0 {
		t.c.logger.Warn("the clock has jumped ahead: no offsets expire until it is right, or has been there for a day", "jumped", jumped)
		return
	}
	retention := t.c.settings.OffsetsRetention.Milliseconds()
	now, due := wall.UnixMilli(), false
	t.machine.each(func(g *group) {
		due = due || g.idle() || len(g.expired(now, retention)) > 0
	})
	if due {
		ahead := max(t.machine.clock.Load()-now, 0)
		_ = t.queue.add(&ExpireOffsets{RetentionMs: retention + ahead}, func(Result, *api.Error) {}) // else at the next check
	}
}
