package membership

import (
	"reflect"
	"slices"
	"sync"
	"time"
)

// Members that are gone stay in the table for a day, for status displays, and no more than maxMembers in all.
const (
	keepGone   = 24 * time.Hour
	maxMembers = 4096
)

// table is the last known state of all members. memberlist's callbacks, which must not block, write into it; one dispatcher
// goroutine turns what changed into events. Its queue is the set of members that changed, so it is bounded by their number.
type table struct {
	now func() time.Time

	mu      sync.Mutex
	members map[int32]Member
	dirty   []int32          // in order of change, each ID once
	told    map[int32]Member // as of the last event
	wake    chan struct{}    // 1: something is dirty
}

func newTable(now func() time.Time) *table {
	return &table{now: now, members: map[int32]Member{}, told: map[int32]Member{}, wake: make(chan struct{}, 1)}
}

// put records a member; m.Since is set where State changed or the member came back under another incarnation.
func (t *table) put(m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.members[m.ID]
	m.Since = old.Since
	if !known || old.State != m.State || old.Incarnation != m.Incarnation {
		m.Since = t.now()
	}
	t.prune()
	if !known && len(t.members) >= maxMembers {
		return
	}
	t.members[m.ID] = m
	if !slices.Contains(t.dirty, m.ID) {
		t.dirty = append(t.dirty, m.ID)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// prune forgets who has been gone for long. Called with mu held.
func (t *table) prune() {
	limit := t.now().Add(-keepGone)
	for id, m := range t.members {
		if m.State != Alive && m.Since.Before(limit) && !slices.Contains(t.dirty, id) {
			delete(t.members, id)
			delete(t.told, id)
		}
	}
}

// next takes one event off the queue.
func (t *table) next() (Event, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.dirty) > 0 {
		m := t.members[t.dirty[0]]
		t.dirty = t.dirty[1:]
		old, known := t.told[m.ID]
		t.told[m.ID] = m
		if e, ok := eventFor(old, known, m); ok {
			return e, true
		}
	}
	return Event{}, false
}

func eventFor(old Member, known bool, m Member) (Event, bool) {
	switch {
	case m.State == Failed && (!known || old.State != Failed):
		return Event{EventFailed, m}, true
	case m.State == Left && (!known || old.State != Left):
		return Event{EventLeft, m}, true
	case m.State == Alive && (!known || old.State != Alive || !old.Since.Equal(m.Since)):
		return Event{EventJoined, m}, true
	case !reflect.DeepEqual(old, m):
		return Event{EventUpdated, m}, true
	}
	return Event{}, false
}

func (t *table) get(id int32) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[id]
	return m, ok
}

func (t *table) all() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, len(t.members))
	for _, m := range t.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return int(a.ID) - int(b.ID) })
	return out
}
