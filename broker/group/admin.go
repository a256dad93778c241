package group

import (
	"cmp"
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// List returns this partition's groups, sorted by name.
func (c *Coordinator) List(_ context.Context) ([]api.GroupSummary, error) {
	t, err := c.lead()
	if err != nil {
		return nil, err
	}
	var all []api.GroupSummary
	t.machine.each(func(g *group) {
		all = append(all, api.GroupSummary{
			Group: g.id, State: g.state.String(), ProtocolType: g.protocolType, Members: len(g.members), Coordinator: c.cfg.Self.ID,
		})
	})
	return all, nil
}

// Describe returns all about a group but the partitions' bounds and lag (those are -1). CodeUnknownGroup.
func (c *Coordinator) Describe(_ context.Context, name string) (api.GroupDescription, error) {
	t, err := c.lead()
	if err != nil {
		return api.GroupDescription{}, err
	}
	var d api.GroupDescription
	found := false
	t.machine.view(name, func(g *group) {
		if g != nil {
			d, found = g.describe(), true
		}
	})
	if !found {
		return d, api.Errorf(api.CodeUnknownGroup, "group %q: no such group", name)
	}
	d.Coordinator = c.cfg.Self
	return d, nil
}

func (g *group) describe() api.GroupDescription {
	d := api.GroupDescription{
		Group: g.id, State: g.state.String(), ProtocolType: g.protocolType, Protocol: g.protocol, Generation: g.generation, Leader: g.leader,
	}
	owner := map[api.TopicPartition]string{}
	for _, m := range g.sorted() {
		gm := g.describeMember(m)
		for _, tp := range gm.Assigned {
			owner[tp] = m.id
		}
		d.Members = append(d.Members, gm)
	}
	g.eachOffset(func(tp api.TopicPartition, o offset) {
		d.Offsets = append(d.Offsets, unknownBounds(o.commit(tp), owner[tp]))
		delete(owner, tp)
	})
	for tp, member := range owner { // assigned, but nothing committed yet
		d.Offsets = append(d.Offsets, unknownBounds(offset{offset: -1, leaderEpoch: -1, commitTime: -1}.commit(tp), member))
	}
	slices.SortFunc(d.Offsets, func(a, b api.GroupOffset) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return d
}

func unknownBounds(o api.OffsetCommit, member string) api.GroupOffset {
	return api.GroupOffset{OffsetCommit: o, LogStart: -1, HighWatermark: -1, Lag: -1, MemberID: member}
}

func (g *group) describeMember(m *member) api.GroupMember {
	gm := api.GroupMember{
		MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost, SessionTimeout: m.session(),
		Metadata: slices.Clone(m.metadata(g.protocol)),
	}
	if g.state == Stable {
		gm.Assignment = slices.Clone(m.assignment)
	}
	if g.protocolType == assign.ProtocolType {
		metadata := gm.Metadata
		if metadata == nil && len(m.protocols) > 0 {
			metadata = m.protocols[0].Metadata // no protocol is chosen yet
		}
		gm.Topics, _ = assign.Topics(metadata)
		gm.Assigned, _ = assign.DecodeAssignment(gm.Assignment)
	}
	return gm
}

// Delete removes a group without members, and its offsets. CodeGroupNotEmpty, CodeUnknownGroup.
func (c *Coordinator) Delete(ctx context.Context, name string) error {
	if err := checkGroupName(name); err != nil {
		return err
	}
	return c.do(ctx, &Delete{Group: name})
}
