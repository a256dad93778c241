package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/raftlog"
)

// Machine is the replicated state machine of one coordinator partition. It satisfies partition.Machine: Apply, Checkpoint and
// Restore are called from one goroutine; a Coordinator on the same broker reads at the same time.
//
// A command of a later release stops the machine for good: it applies nothing more, its checkpoints fail (so the last good one and the
// log behind it stay), and coordinators on it refuse service. After the broker's upgrade the log is applied from there.
type Machine struct {
	logger hclog.Logger

	mu     sync.RWMutex
	groups map[string]*group
	bytes  int64 // of all groups, estimated
	failed error
	clock  atomic.Int64 // of the newest command, Unix ms

	observer func(group string, actions []Action)
}

// NewMachine returns a machine without groups.
func NewMachine(logger hclog.Logger) *Machine {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Machine{logger: logger, groups: map[string]*group{}}
}

// Apply applies a command. It returns a []Result, one for each event, or an error for a command that cannot be read.
func (m *Machine) Apply(cmd []byte, at time.Time, _ raftlog.Index) any {
	limits, events, err := DecodeCommand(cmd)
	if err != nil {
		return m.refuse(err)
	}
	m.clock.Store(at.UnixMilli())
	results := make([]Result, 0, len(events))
	for _, ev := range events {
		res, err := m.apply(ev, at.UnixMilli(), limits)
		if err != nil {
			return err
		}
		results = append(results, res)
	}
	return results
}

func (m *Machine) refuse(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil && errors.Is(err, ErrNewerFormat) {
		m.failed = fmt.Errorf("stopped before a command it cannot read: %w", err)
		m.logger.Error("group coordinator: a command of a later release; upgrade this broker", "error", err)
	}
	return err
}

// apply steps one event and tells the observer, after the lock is released, what happened.
func (m *Machine) apply(ev Event, at int64, limits Limits) (Result, error) {
	m.mu.Lock()
	if m.failed != nil {
		defer m.mu.Unlock()
		return Result{}, m.failed
	}
	res, happened := m.step(ev, at, limits)
	observer := m.observer
	m.mu.Unlock()
	if observer != nil {
		for _, h := range happened {
			observer(h.group, h.actions)
		}
	}
	return res, nil
}

// happening is what one group went through in an event.
type happening struct {
	group   string
	actions []Action
}

func (m *Machine) step(ev Event, at int64, limits Limits) (Result, []happening) {
	switch e := ev.(type) {
	case *Barrier:
		return Result{}, nil
	case *ExpireOffsets:
		return Result{}, m.expireOffsets(e, at)
	}
	g := m.groups[ev.groupID()]
	if g == nil {
		g = newGroup(ev.groupID())
		g.fresh = true
		if limit := limits.GroupsMax; limit > 0 && len(m.groups) >= limit && creates(ev) {
			return Result{Err: api.Errorf(api.CodePolicyViolation, "group %q: its coordinator partition has %d groups, the most allowed", g.id, limit)}, nil
		}
	}
	s := &step{g: g, at: at, limits: limits, room: limits.StateBytesMax - m.bytes}
	before := g.bytes()
	s.run(ev)
	m.keep(g, before)
	if len(s.actions) == 0 {
		return s.res, nil
	}
	return s.res, []happening{{group: g.id, actions: s.actions}}
}

func creates(ev Event) bool {
	k := ev.kind()
	return k == kindJoin || k == kindCommit || k == kindSetOffsets
}

// keep stores, or forgets, a group after a step. before is its size at the step's start.
func (m *Machine) keep(g *group, before int64) {
	if !g.fresh {
		m.bytes -= before
	}
	if g.state == Dead || (g.fresh && !g.worthKeeping()) {
		delete(m.groups, g.id)
		return
	}
	if g.fresh {
		g.fresh = false
		g.recount()
		m.groups[g.id] = g
	}
	m.bytes += g.bytes()
}

func (m *Machine) expireOffsets(e *ExpireOffsets, at int64) []happening {
	var all []happening
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[id]
		s := &step{g: g, at: at}
		before := g.bytes()
		s.expireOffsets(e.RetentionMs)
		m.keep(g, before)
		if len(s.actions) > 0 {
			all = append(all, happening{group: id, actions: s.actions})
		}
	}
	return all
}

// Checkpoint encodes all groups. It fails after a command that the machine could not read.
func (m *Machine) Checkpoint() ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.failed != nil {
		return nil, m.failed
	}
	return encodeCheckpoint(m.groups), nil
}

// Restore replaces all groups by a checkpoint's; empty bytes mean none. After an error nothing has changed.
func (m *Machine) Restore(b []byte) error {
	groups := map[string]*group{}
	if len(b) > 0 {
		var err error
		if groups, err = decodeCheckpoint(b); err != nil {
			return fmt.Errorf("group checkpoint: %w", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups, m.bytes, m.failed = groups, 0, nil
	for _, g := range groups {
		m.bytes += g.bytes()
	}
	return nil
}

// Stats counts what the machine holds.
type Stats struct {
	Groups    int
	BytesHeld int64 // estimated
}

// Stats returns the machine's size.
func (m *Machine) Stats() Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Stats{Groups: len(m.groups), BytesHeld: m.bytes}
}

// observe sets who is told of all that happens, on the goroutine that applies; nil ends it.
func (m *Machine) observe(f func(group string, actions []Action)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observer = f
}

// view calls f with a group under the read lock; nil if there is none. f must not keep it.
func (m *Machine) view(id string, f func(g *group)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(m.groups[id])
}

// err is why the machine has stopped, or nil.
func (m *Machine) err() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.failed
}
