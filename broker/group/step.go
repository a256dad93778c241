package group

import (
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/broker/api"
)

// step is one event's passage through a group: the group it changes, what it may use, and what came of it.
// It is pure: the same group, event, time and limits give the same outcome on every replica.
type step struct {
	g      *group
	at     int64 // Unix ms, by the proposers' clocks, never falling
	limits Limits
	// room is how many bytes the machine's state may still grow; negative only if the limit was lowered.
	room    int64
	res     Result
	actions []Action
}

// run applies an event that concerns s.g.
func (s *step) run(ev Event) {
	switch e := ev.(type) {
	case *Join:
		s.join(e)
	case *Sync:
		s.sync(e)
	case *Leave:
		s.leave(e)
	case *ExpireMember:
		s.expireMember(e)
	case *JoinDeadline:
		s.joinDeadline(e)
	case *SyncDeadline:
		s.syncDeadline(e)
	case *Rebalance:
		s.rebalance(e)
	case *Commit:
		s.commit(e)
	case *SetOffsets:
		s.setOffsets(e)
	case *Forget:
		s.forget(e)
	case *Delete:
		s.delete()
	}
	if changesMembers(ev) {
		s.g.recount()
	}
}

func changesMembers(ev Event) bool {
	k := ev.kind()
	return k != kindCommit && k != kindSetOffsets && k != kindForget
}

func (s *step) fail(code api.Code, format string, args ...any) {
	s.res.Err = api.Errorf(code, "group %q: %s", s.g.id, fmt.Sprintf(format, args...))
}

func (s *step) act(kind ActionKind, member, reason string) {
	s.actions = append(s.actions, Action{Kind: kind, Member: member, Reason: reason})
}

// check validates who a call claims to come from: CodeUnknownMember, or CodeFencedInstance where another member has taken the
// instance ID over. nil means failure.
func (s *step) check(memberID, instanceID string) *member {
	m, err := s.g.check(memberID, instanceID)
	if err != nil {
		s.res.Err = err
	}
	return m
}

func (g *group) check(memberID, instanceID string) (*member, *api.Error) {
	if instanceID != "" {
		owner, ok := g.static[instanceID]
		if ok && owner != memberID {
			return nil, api.Errorf(api.CodeFencedInstance, "group %q: instance %q is now member %q, not %q", g.id, instanceID, owner, memberID)
		}
		if !ok {
			return nil, api.Errorf(api.CodeUnknownMember, "group %q has no static member %q", g.id, instanceID)
		}
	}
	m := g.members[memberID]
	if m == nil {
		return nil, g.unknown(memberID)
	}
	return m, nil
}

func (g *group) unknown(memberID string) *api.Error {
	return api.Errorf(api.CodeUnknownMember, "group %q has no member %q", g.id, memberID)
}

// prepare begins a join phase.
func (s *step) prepare(reason string) {
	g := s.g
	g.initial = g.state == Empty
	g.newcomer = false
	g.state = PreparingRebalance
	g.phaseSince = s.at
	g.round++
	s.act(JoinPhase, "", reason)
	s.completeIfAllJoined()
}

// completeIfAllJoined ends the join phase early. An initial one always takes its time: members that it waits for are not known.
func (s *step) completeIfAllJoined() {
	if s.g.state == PreparingRebalance && !s.g.initial && s.g.allJoined() {
		s.completeJoin()
	}
}

// rebalanceOrComplete follows the change of a member that has just joined.
func (s *step) rebalanceOrComplete(reason string) {
	if s.g.state == PreparingRebalance {
		s.completeIfAllJoined()
		return
	}
	s.prepare(reason)
}

// completeJoin ends the join phase: dynamic members that have not joined are out, static ones stay until their session ends.
func (s *step) completeJoin() {
	g := s.g
	joined := false
	for _, m := range g.sorted() {
		if !m.joined && m.instanceID == "" {
			s.drop(m, "did not join again in time")
		}
		joined = joined || m.joined
	}
	if len(g.members) > 0 && !joined {
		g.round++
		s.act(JoinPhase, "", "prolonged: no member has joined, and static members have time until their sessions end")
		return
	}
	s.nextGeneration()
}

func (s *step) nextGeneration() {
	g := s.g
	g.initial, g.newcomer = false, false
	if g.generation++; g.generation == math.MaxInt32 {
		g.generation = 1
	}
	if len(g.members) == 0 {
		g.state, g.protocol, g.leader = Empty, "", ""
		g.emptySince = s.at
		s.act(BecameEmpty, "", "")
		return
	}
	s.elect()
	g.protocol = g.choose()
	g.state = CompletingRebalance
	for _, m := range g.members {
		m.joined = false
	}
	s.act(NewGeneration, g.leader, "")
}

// elect keeps the leader if it has joined; else the longest member of those that have.
func (s *step) elect() {
	if m := s.g.members[s.g.leader]; m != nil && m.joined {
		return
	}
	for _, m := range s.g.sorted() {
		if m.joined {
			s.g.leader = m.id
			return
		}
	}
}

// drop takes a member out of the maps and hands leadership on.
func (s *step) drop(m *member, reason string) {
	g := s.g
	delete(g.members, m.id)
	if m.instanceID != "" {
		delete(g.static, m.instanceID)
	}
	if g.leader == m.id {
		g.leader = ""
		if ms := g.sorted(); len(ms) > 0 {
			g.leader = ms[0].id
		}
	}
	s.act(MemberRemoved, m.id, reason)
}

// remove drops a member and lets the group react.
func (s *step) remove(m *member, reason string) {
	s.drop(m, reason)
	s.react(fmt.Sprintf("member %s %s", m.id, reason))
}

func (s *step) react(reason string) {
	switch s.g.state {
	case Stable, CompletingRebalance:
		s.prepare(reason)
	case PreparingRebalance:
		s.completeIfAllJoined()
	}
}

func (s *step) joinDeadline(e *JoinDeadline) {
	g := s.g
	if g.state != PreparingRebalance || g.round != e.Round {
		return
	}
	if g.initial && g.newcomer && s.at-g.phaseSince < g.rebalanceTimeout().Milliseconds() {
		g.newcomer = false
		g.round++
		s.act(JoinPhase, "", "prolonged: members keep arriving")
		return
	}
	s.completeJoin()
}

func (s *step) syncDeadline(e *SyncDeadline) {
	g := s.g
	if g.generation != e.Generation || (g.state != CompletingRebalance && g.state != Stable) {
		return
	}
	dropped := false
	for _, id := range e.Missing {
		if m := g.members[id]; m != nil {
			s.drop(m, "did not fetch its assignment in time")
			dropped = true
		}
	}
	if dropped {
		s.prepare("members did not fetch their assignments in time")
	}
}

func (s *step) rebalance(e *Rebalance) {
	if s.g.state == Stable && s.g.generation == e.Generation {
		s.prepare(e.Reason)
	}
}

func (s *step) delete() {
	switch {
	case s.g.fresh:
		s.fail(api.CodeUnknownGroup, "no such group")
	case s.g.state != Empty:
		s.fail(api.CodeGroupNotEmpty, "has members")
	default:
		s.g.state = Dead
		s.act(Removed, "", "deleted")
	}
}
