package group

import (
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// commit stores a member's offsets, all or none. Outside of a generation (simple consumers, tools) only a group without members
// takes them.
func (s *step) commit(e *Commit) {
	if err := s.g.checkCommit(e); err != nil {
		s.res.Err = err
		return
	}
	if s.offsetsFit(e.Offsets) {
		s.store(e.Offsets)
	}
}

// checkCommit follows Kafka: commits of the current generation pass during the join phase (members finish what they began) but
// not during the sync phase, when the partitions may be another's already.
func (g *group) checkCommit(e *Commit) *api.Error {
	if e.Generation < 0 && e.MemberID == "" && e.InstanceID == "" {
		if g.state != Empty {
			return api.Errorf(api.CodeUnknownMember, "group %q has members: only they may commit", g.id)
		}
		return nil
	}
	if g.fresh {
		return api.Errorf(api.CodeIllegalGeneration, "group %q has no members, so there is no generation %d: commit as a member, or outside of a group with generation -1",
			g.id, e.Generation)
	}
	if _, err := g.check(e.MemberID, e.InstanceID); err != nil {
		return err
	}
	if err := g.checkGeneration(e.Generation); err != nil {
		return err
	}
	if g.state == CompletingRebalance {
		return g.rebalancing()
	}
	return nil
}

func (s *step) setOffsets(e *SetOffsets) {
	if s.g.state != Empty {
		s.fail(api.CodeGroupNotEmpty, "has members: stop them before setting offsets")
		return
	}
	if s.offsetsFit(e.Offsets) {
		s.store(e.Offsets)
	}
}

// offsetsFit refuses what would grow the state past its limits. An offset that exists may always be moved on.
func (s *step) offsetsFit(offsets []api.OffsetCommit) bool {
	count, need := 0, int64(0)
	for _, o := range offsets {
		if o.Offset < 0 {
			continue
		}
		if old, ok := s.g.offset(o.TopicPartition); ok {
			need += int64(len(o.Metadata) - len(old.metadata))
			continue
		}
		count++
		need += int64(offsetBytes + topicBytes + len(o.Topic) + len(o.Metadata))
	}
	if limit := s.limits.OffsetsMax; count > 0 && limit > 0 && s.g.offsetCount+count > limit {
		s.fail(api.CodePolicyViolation, "would have %d committed offsets; %d are allowed", s.g.offsetCount+count, limit)
		return false
	}
	return need <= 0 || !s.outOfRoom(need)
}

func (s *step) store(offsets []api.OffsetCommit) {
	for _, o := range offsets {
		if o.Offset < 0 {
			s.g.dropOffset(o.TopicPartition)
			continue
		}
		s.g.setOffset(o.TopicPartition, offset{offset: o.Offset, leaderEpoch: o.LeaderEpoch, commitTime: s.at, metadata: o.Metadata})
	}
}

// expired returns the offsets that have outlived the retention (KIP-211): of an Empty group since it became empty; of one that never had
// members since their commit; of a Stable group of consumers, topics that nobody subscribes to any more since their commit.
// An offset set after the group became empty counts from then (Kafka would drop a fresh reset at its next check).
func (g *group) expired(at, retentionMs int64) []api.TopicPartition {
	due := g.expiryRule(at, retentionMs)
	if due == nil {
		return nil
	}
	var tps []api.TopicPartition
	g.eachOffset(func(tp api.TopicPartition, o offset) {
		if due(tp.Topic, o) {
			tps = append(tps, tp)
		}
	})
	return tps
}

func (g *group) expiryRule(at, retentionMs int64) func(topic string, o offset) bool {
	old := func(since int64) bool { return at-since >= retentionMs }
	switch {
	case g.state == Empty:
		return func(_ string, o offset) bool { return old(max(o.commitTime, g.emptySince)) }
	case g.state == Stable && g.protocolType == assign.ProtocolType:
		topics, ok := g.subscribed()
		if !ok {
			return nil
		}
		return func(topic string, o offset) bool { return !topics[topic] && old(o.commitTime) }
	}
	return nil
}

// subscribed is the union of the members' topics; false if a subscription cannot be read.
func (g *group) subscribed() (map[string]bool, bool) {
	union := map[string]bool{}
	for _, m := range g.members {
		topics, err := assign.Topics(m.metadata(g.protocol))
		if err != nil {
			return nil, false
		}
		for _, t := range topics {
			union[t] = true
		}
	}
	return union, true
}

// idle says that nothing is left of a group but its name.
func (g *group) idle() bool {
	return g.state == Empty && g.offsetCount == 0 && len(g.pending) == 0
}

func (s *step) expireOffsets(retentionMs int64) {
	tps := s.g.expired(s.at, retentionMs)
	for _, tp := range tps {
		s.g.dropOffset(tp)
	}
	if len(tps) > 0 {
		s.act(OffsetsExpired, "", "")
	}
	if s.g.idle() {
		s.g.state = Dead
		s.act(Removed, "", "empty, and without offsets")
	}
}
