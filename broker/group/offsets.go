package group

import (
	"context"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/api"
)

// CommitOffsets is api.Groups' CommitOffsets, all or none of them. Whether the partitions exist is the caller's business.
// CodeIllegalGeneration, CodeUnknownMember, CodeFencedInstance, CodeRebalanceInProgress, CodeOffsetMetadataTooLarge, CodeInvalidRequest.
func (c *Coordinator) CommitOffsets(ctx context.Context, ref api.MemberRef, offsets []api.OffsetCommit) error {
	t, err := c.lead()
	if err != nil {
		return err
	}
	if err := checkRef(ref); err != nil {
		return err
	}
	if err := c.checkOffsets(ref.Group, offsets, false); err != nil {
		return err
	}
	res, err := t.propose(ctx, &Commit{
		Group: ref.Group, MemberID: ref.MemberID, InstanceID: ref.InstanceID, Generation: ref.Generation, Offsets: offsets,
	})
	if err != nil {
		return err
	}
	if res.Err != nil {
		return res.Err
	}
	t.alive(ref)
	return nil
}

// alive prolongs the session of a member whose call got through.
func (t *term) alive(ref api.MemberRef) {
	if ref.MemberID == "" {
		return
	}
	var m *member
	t.machine.view(ref.Group, func(g *group) {
		if g != nil && g.members[ref.MemberID] != nil {
			copied := *g.members[ref.MemberID]
			m = &copied
		}
	})
	if m != nil {
		t.touch(ref.Group, m)
	}
}

func (c *Coordinator) checkOffsets(group string, offsets []api.OffsetCommit, negative bool) error {
	for _, o := range offsets {
		switch {
		case o.Topic == "" || len(o.Topic) > nameBytesMax || o.Partition < 0:
			return api.Errorf(api.CodeInvalidRequest, "group %q: %q/%d is no partition", group, clip(o.Topic), o.Partition)
		case o.Offset < 0 && !negative:
			return api.Errorf(api.CodeInvalidRequest, "group %q: offset %d of %s/%d is negative", group, o.Offset, o.Topic, o.Partition)
		case !utf8.ValidString(o.Metadata):
			return api.Errorf(api.CodeInvalidRequest, "group %q: the metadata of %s/%d is not UTF-8", group, o.Topic, o.Partition)
		case len(o.Metadata) > c.settings.OffsetMetadataMax:
			tp := o.TopicPartition
			err := api.Errorf(api.CodeOffsetMetadataTooLarge, "group %q: the metadata of %s/%d has %d bytes; %d are allowed",
				group, o.Topic, o.Partition, len(o.Metadata), c.settings.OffsetMetadataMax)
			err.TP = &tp
			return err
		}
	}
	return nil
}

// FetchOffsets is api.Groups' FetchOffsets: tps nil means all that the group has, in order. It reads this replica's state, which holds every commit
// acknowledged before the call as long as this broker leads: leadership was confirmed by LeaderStart's barrier, and Raft's leader lease bounds how long a leader
// that was replaced can go on not knowing it.
func (c *Coordinator) FetchOffsets(_ context.Context, name string, tps []api.TopicPartition) ([]api.OffsetCommit, error) {
	t, err := c.lead()
	if err != nil {
		return nil, err
	}
	if err := checkGroupName(name); err != nil {
		return nil, err
	}
	var commits []api.OffsetCommit
	t.machine.view(name, func(g *group) {
		if g == nil {
			g = newGroup(name)
		}
		if tps == nil {
			commits = g.commits()
			return
		}
		commits = make([]api.OffsetCommit, 0, len(tps))
		for _, tp := range tps {
			o, ok := g.offset(tp)
			if !ok {
				o = offset{offset: -1, leaderEpoch: -1, commitTime: -1}
			}
			commits = append(commits, o.commit(tp))
		}
	})
	return commits, nil
}

func (o offset) commit(tp api.TopicPartition) api.OffsetCommit {
	return api.OffsetCommit{TopicPartition: tp, Offset: o.offset, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata, CommitTime: o.commitTime}
}

// commits lists all offsets in the order of topic and partition.
func (g *group) commits() []api.OffsetCommit {
	all := make([]api.OffsetCommit, 0, g.offsetCount)
	g.eachOffset(func(tp api.TopicPartition, o offset) { all = append(all, o.commit(tp)) })
	return all
}

// SetOffsets sets the offsets of a group without members, all or none; that it has none is checked where it is
// applied, so no member can join in between. A negative offset removes the committed one. The group is made if there is
// none. CodeGroupNotEmpty.
func (c *Coordinator) SetOffsets(ctx context.Context, group string, offsets []api.OffsetCommit) error {
	if err := checkGroupName(group); err != nil {
		return err
	}
	if err := c.checkOffsets(group, offsets, true); err != nil {
		return err
	}
	return c.do(ctx, &SetOffsets{Group: group, Offsets: offsets})
}
