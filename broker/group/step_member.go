package group

import "github.com/flotilla-log/flotilla/broker/api"

// sync is the leader's SyncGroup: its assignment makes the group Stable. Sent again it changes nothing.
func (s *step) sync(e *Sync) {
	m, err := s.g.checkSync(e.MemberID, e.InstanceID, e.Generation, e.ProtocolType, e.Protocol)
	if err != nil {
		s.res.Err = err
		return
	}
	if s.g.state == Stable || m.id != s.g.leader {
		return
	}
	need := int64(0)
	for _, a := range e.Assignments {
		need += int64(len(a.Assignment))
	}
	for _, m := range s.g.members {
		need -= int64(len(m.assignment))
	}
	if need > 0 && s.outOfRoom(need) {
		return
	}
	s.assign(e.Assignments)
}

func (s *step) assign(as []MemberAssignment) {
	for _, m := range s.g.members {
		m.assignment = nil
	}
	for _, a := range as {
		if m := s.g.members[a.MemberID]; m != nil {
			m.assignment = a.Assignment
		}
	}
	s.g.state = Stable
	s.act(Assigned, "", "")
}

// checkSync validates a SyncGroup. It is used for the calls that are not replicated, too.
func (g *group) checkSync(memberID, instanceID string, generation int32, protocolType, protocol string) (*member, *api.Error) {
	m, err := g.check(memberID, instanceID)
	if err != nil {
		return nil, err
	}
	if err := g.checkGeneration(generation); err != nil {
		return nil, err
	}
	if (protocolType != "" && protocolType != g.protocolType) || (protocol != "" && protocol != g.protocol) {
		return nil, api.Errorf(api.CodeInconsistentProtocol, "group %q uses protocol type %q with protocol %q, not %q with %q",
			g.id, g.protocolType, g.protocol, protocolType, protocol)
	}
	if g.state == PreparingRebalance {
		return nil, g.rebalancing()
	}
	return m, nil
}

func (g *group) checkGeneration(generation int32) *api.Error {
	if generation != g.generation {
		return api.Errorf(api.CodeIllegalGeneration, "group %q is in generation %d, not %d: join again", g.id, g.generation, generation)
	}
	return nil
}

func (g *group) rebalancing() *api.Error {
	return api.Errorf(api.CodeRebalanceInProgress, "group %q rebalances: join again", g.id)
}

// checkHeartbeat is Heartbeat. It changes nothing that is replicated, so there is no event for it.
func (g *group) checkHeartbeat(ref api.MemberRef) *api.Error {
	if _, err := g.check(ref.MemberID, ref.InstanceID); err != nil {
		return err
	}
	if err := g.checkGeneration(ref.Generation); err != nil {
		return err
	}
	if g.state == PreparingRebalance {
		return g.rebalancing()
	}
	return nil
}

func (s *step) leave(e *Leave) {
	if _, ok := s.g.pending[e.MemberID]; ok {
		s.dropPending(e.MemberID, "left")
		return
	}
	id := e.MemberID
	if id == "" && e.InstanceID != "" {
		id = s.g.static[e.InstanceID]
	}
	if m := s.check(id, e.InstanceID); m != nil {
		s.remove(m, "left")
	}
}

func (s *step) dropPending(id, reason string) {
	delete(s.g.pending, id)
	s.act(MemberRemoved, id, reason)
	s.completeIfAllJoined()
}

// expireMember ends a session. A member that waits for the join phase to end is alive by definition: its call is held here.
func (s *step) expireMember(e *ExpireMember) {
	if _, ok := s.g.pending[e.MemberID]; ok {
		s.dropPending(e.MemberID, "was not heard of again")
		return
	}
	if m := s.g.members[e.MemberID]; m != nil && !m.joined {
		s.remove(m, "was not heard of for its session timeout")
	}
}
