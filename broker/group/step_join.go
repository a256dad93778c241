package group

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// join is Kafka's JoinGroup: a new member (dynamic, or static under an instance ID: KIP-345), one that comes back with the
// ID it was given (KIP-394), or one that joins again.
func (s *step) join(e *Join) {
	if !s.compatible(e) {
		s.fail(api.CodeInconsistentProtocol, "protocol type %q with protocols %v does not fit the group's (type %q, protocols %v)",
			e.ProtocolType, protocolNames(e.Protocols), s.g.protocolType, s.g.protocols())
		return
	}
	_, pending := s.g.pending[e.MemberID]
	switch {
	case e.MemberID == "" && e.InstanceID != "" && s.g.static[e.InstanceID] != "":
		s.replaceStatic(e)
	case e.MemberID == "" && e.InstanceID == "" && e.RequireMemberID:
		s.handOutID(e)
	case e.MemberID == "":
		s.add(e, e.NewID)
	case pending && e.InstanceID == "":
		s.add(e, e.MemberID)
	default:
		s.joinAgain(e)
	}
}

// compatible says whether all members, had e's been admitted, would have a protocol in common. The member that e replaces or updates
// does not count.
func (s *step) compatible(e *Join) bool {
	g := s.g
	if e.ProtocolType == "" || len(e.Protocols) == 0 {
		return false
	}
	if len(g.members) == 0 {
		return true
	}
	self := g.members[e.MemberID]
	if e.MemberID == "" && e.InstanceID != "" {
		self = g.members[g.static[e.InstanceID]]
	}
	if self == nil || len(g.members) > 1 {
		if e.ProtocolType != g.protocolType {
			return false
		}
	}
	return slices.ContainsFunc(e.Protocols, func(p api.GroupProtocol) bool { return g.common(p.Name, self) })
}

// full is Kafka's acceptJoiningMember for a member that the group does not have.
func (s *step) full(e *Join) bool {
	g := s.g
	n := len(g.members)
	if g.state == PreparingRebalance {
		n = 0
		for _, m := range g.members {
			if m.joined || m.instanceID != "" {
				n++
			}
		}
	}
	if limit := s.limits.MembersMax; limit > 0 && n >= limit {
		s.fail(api.CodeGroupFull, "has %d members, the most allowed", n)
		return true
	}
	return s.outOfRoom(int64(memberBytes + len(e.NewID) + protocolsBytes(e.Protocols)))
}

func (s *step) outOfRoom(need int64) bool {
	if s.limits.StateBytesMax <= 0 || need <= s.room {
		return false
	}
	s.fail(api.CodeStorageFull, "the coordinator partition's groups have reached their limit of %d bytes", s.limits.StateBytesMax)
	return true
}

func protocolsBytes(ps []api.GroupProtocol) int {
	n := 0
	for _, p := range ps {
		n += protocolBytes + len(p.Name) + len(p.Metadata)
	}
	return n
}

func (s *step) handOutID(e *Join) {
	if s.full(e) {
		return
	}
	if limit := s.limits.MembersMax; limit > 0 && len(s.g.pending) >= limit {
		s.fail(api.CodeGroupFull, "has given out %d member IDs that were not used yet, the most allowed", len(s.g.pending))
		return
	}
	s.g.pending[e.NewID] = e.SessionMs
	s.act(MemberTouched, e.NewID, "")
	s.fail(api.CodeMemberIDRequired, "join again as member %q", e.NewID)
	s.res.MemberID = e.NewID
	s.res.Err.MemberID = e.NewID
}

func (s *step) add(e *Join, id string) {
	if s.full(e) {
		return
	}
	g := s.g
	delete(g.pending, id)
	m := &member{id: id, instanceID: e.InstanceID, seq: g.nextSeq}
	g.nextSeq++
	m.update(e)
	if len(g.members) == 0 {
		g.protocolType = e.ProtocolType
		g.leader = id
	}
	g.members[id] = m
	if e.InstanceID != "" {
		g.static[e.InstanceID] = id
	}
	g.newcomer = g.state == PreparingRebalance && g.initial
	s.res.MemberID = id
	s.act(MemberTouched, id, "joined")
	s.rebalanceOrComplete(fmt.Sprintf("member %s joined", id))
}

// update takes over what a join says of its member.
func (m *member) update(e *Join) {
	m.clientID, m.clientHost = e.ClientID, e.ClientHost
	m.sessionMs, m.rebalanceMs = e.SessionMs, e.RebalanceMs
	m.native = e.Native
	m.protocols = e.Protocols
	m.joined = true
}

func (s *step) joinAgain(e *Join) {
	m := s.check(e.MemberID, e.InstanceID)
	if m == nil {
		return
	}
	s.res.MemberID = m.id
	switch {
	case s.g.state == CompletingRebalance && m.same(e):
		// The answer to its last join was lost.
		s.answer(m)
	case s.g.state == Stable && m.same(e) && (m.id != s.g.leader || (m.native && e.Native)):
		// A Kafka leader joins again to ask for a rebalance; for native ones the coordinator watches the topics.
		s.answer(m)
	case s.g.state == Stable && m.same(e):
		s.rejoin(m, e, fmt.Sprintf("leader %s asks for a rebalance", m.id))
	default:
		s.rejoin(m, e, fmt.Sprintf("member %s joined again with another subscription", m.id))
	}
}

// same says whether the join brings nothing new.
func (m *member) same(e *Join) bool {
	return slices.EqualFunc(m.protocols, e.Protocols, func(a, b api.GroupProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

func (s *step) answer(m *member) {
	res := s.g.joinResult(m)
	s.res.Joined = &res
	s.act(MemberTouched, m.id, "")
}

func (s *step) rejoin(m *member, e *Join, reason string) {
	if grown := int64(protocolsBytes(e.Protocols) - protocolsBytes(m.protocols)); grown > 0 && s.outOfRoom(grown) {
		return
	}
	m.update(e)
	if len(s.g.members) == 1 {
		s.g.protocolType = e.ProtocolType
	}
	s.act(MemberTouched, m.id, "joined")
	s.rebalanceOrComplete(reason)
}

// replaceStatic lets a restarted static member take over from its former self: same place, same assignment, new member ID, so that the
// old one is fenced if it still runs. Only a change of what it subscribes to makes a Stable group rebalance.
func (s *step) replaceStatic(e *Join) {
	g := s.g
	m := g.members[g.static[e.InstanceID]]
	grown := int64(protocolsBytes(e.Protocols) - protocolsBytes(m.protocols))
	if grown > 0 && s.outOfRoom(grown) {
		return
	}
	same := g.sameSubscription(m, protocolMetadata(e.Protocols, g.protocol))
	s.rename(m, e.NewID)
	m.update(e)
	if len(g.members) == 1 {
		g.protocolType = e.ProtocolType
	}
	s.res.MemberID = m.id
	s.act(MemberTouched, m.id, "took over")
	if g.state == Stable && same && g.choose() == g.protocol {
		m.joined = false
		s.answer(m)
		s.res.Joined.SkipAssignment = m.id == g.leader // KIP-814
		return
	}
	s.rebalanceOrComplete(fmt.Sprintf("static member %s came back as %s", e.InstanceID, m.id))
}

func (s *step) rename(m *member, id string) {
	g := s.g
	old := m.id
	delete(g.members, old)
	m.id = id
	g.members[id] = m
	g.static[m.instanceID] = id
	if g.leader == old {
		g.leader = id
	}
	s.act(MemberRemoved, old, fmt.Sprintf("replaced by %s", id))
}

// sameSubscription says whether a static member's return can leave the assignment as it is. What it owned before the restart it does not
// know any more, so only the topics count; but if it died before it gave up what a cooperative rebalance takes from it,
// that rebalance has to be finished. Subscriptions in formats that are not known here are taken to be the same, as Kafka does with all.
func (g *group) sameSubscription(m *member, metadata []byte) bool {
	if g.protocolType != assign.ProtocolType {
		return true
	}
	before, err := assign.DecodeSubscription(g.protocol, m.metadata(g.protocol))
	if err != nil {
		return true
	}
	now, err := assign.Topics(metadata)
	if err != nil {
		return true
	}
	return slices.Equal(before.Topics, now) && (g.protocol != assign.CooperativeSticky || hasAll(m.assignment, before.Owned))
}

func hasAll(assignment []byte, owned []api.TopicPartition) bool {
	if len(owned) == 0 {
		return true
	}
	assigned, err := assign.DecodeAssignment(assignment)
	if err != nil {
		return true
	}
	for _, tp := range owned {
		if !slices.Contains(assigned, tp) {
			return false
		}
	}
	return true
}

func protocolMetadata(ps []api.GroupProtocol, name string) []byte {
	for _, p := range ps {
		if p.Name == name {
			return p.Metadata
		}
	}
	return nil
}

func protocolNames(ps []api.GroupProtocol) []string {
	names := make([]string, 0, len(ps))
	for _, p := range ps {
		names = append(names, p.Name)
	}
	return names
}

// protocols lists what all members have in common, for messages.
func (g *group) protocols() []string {
	m := g.members[g.leader]
	if m == nil {
		return nil
	}
	names := protocolNames(m.protocols)
	return slices.DeleteFunc(names, func(n string) bool { return !g.common(n, m) })
}
