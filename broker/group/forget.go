package group

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// Forget removes committed offsets (KIP-496), also of a group with members: of such a group only those of topics that no member subscribes to, as the
// others are in use. Result.Subscribed has the topics that were left alone.
type Forget struct {
	Group   string
	Offsets []api.OffsetCommit // only the partitions count
}

func (*Forget) kind() eventKind   { return kindForget }
func (e *Forget) groupID() string { return e.Group }

func (s *step) forget(e *Forget) {
	if s.g.fresh {
		s.fail(api.CodeUnknownGroup, "no such group")
		return
	}
	inUse, ok := s.g.inUse()
	if !ok {
		s.fail(api.CodeGroupNotEmpty, "has members that are no consumers, so what they use is not known: stop them first")
		return
	}
	told := map[string]bool{}
	for _, o := range e.Offsets {
		switch {
		case !inUse(o.Topic):
			s.g.dropOffset(o.TopicPartition)
		case !told[o.Topic]:
			told[o.Topic] = true
			s.res.Subscribed = append(s.res.Subscribed, o.Topic)
		}
	}
}

// inUse tells of a topic whether any member may have subscribed to it, by any of its protocols: one need not be chosen at the moment. A subscription that
// cannot be read may be for everything. false if the members are no consumers.
func (g *group) inUse() (func(topic string) bool, bool) {
	if len(g.members) > 0 && g.protocolType != assign.ProtocolType {
		return nil, false
	}
	topics := map[string]bool{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			list, err := assign.Topics(p.Metadata)
			if err != nil {
				return func(string) bool { return true }, true
			}
			for _, t := range list {
				topics[t] = true
			}
		}
	}
	return func(topic string) bool { return topics[topic] }, true
}

// Forget removes committed offsets, and returns the topics of which it did not, because members subscribe to them. CodeUnknownGroup,
// CodeGroupNotEmpty.
func (c *Coordinator) Forget(ctx context.Context, group string, tps []api.TopicPartition) (subscribed []string, err error) {
	if err := checkGroupName(group); err != nil {
		return nil, err
	}
	ev := &Forget{Group: group, Offsets: make([]api.OffsetCommit, len(tps))}
	for i, tp := range tps {
		ev.Offsets[i] = api.OffsetCommit{TopicPartition: tp, Offset: -1, LeaderEpoch: -1}
	}
	if err := c.checkOffsets(group, ev.Offsets, true); err != nil {
		return nil, err
	}
	t, err := c.lead()
	if err != nil {
		return nil, err
	}
	res, err := t.propose(ctx, ev)
	if err != nil {
		return nil, err
	}
	if res.Err != nil {
		return nil, res.Err
	}
	return res.Subscribed, nil
}
