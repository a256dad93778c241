package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// OffsetFetch, versions 1 to 10. v2: null topics mean all, an error for the whole; v5: leader epoch; v6: flexible; v7: stable offsets (all are);
// v8: several groups (KIP-709); v9: members of the new protocol (ignored); v10: topic IDs.

func (s *Server) offsetFetch(ctx context.Context, _ *request, req *kmsg.OffsetFetchRequest) reply {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version < 8 {
		s.offsetFetchOne(ctx, req, resp)
		return resp
	}
	resp.Groups = make([]kmsg.OffsetFetchResponseGroup, len(req.Groups))
	each(len(req.Groups), func(i int) { resp.Groups[i] = s.groupOffsets(ctx, &req.Groups[i], req.Version) })
	return resp
}

// offsetFetchOne answers the versions with one group.
func (s *Server) offsetFetchOne(ctx context.Context, req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics != nil {
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range req.Topics {
		g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	out := s.groupOffsets(ctx, &g, req.Version)
	resp.ErrorCode = out.ErrorCode
	for _, t := range out.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

func (s *Server) groupOffsets(ctx context.Context, in *kmsg.OffsetFetchRequestGroup, version int16) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = in.Group
	if in.Topics == nil {
		commits, err := s.broker.FetchOffsets(ctx, in.Group, nil)
		out.ErrorCode, out.Topics = codeOf(err, group), s.byTopic(commits, version)
		return out
	}
	var tps []api.TopicPartition
	var places []*kmsg.OffsetFetchResponseGroupTopicPartition
	out.Topics = make([]kmsg.OffsetFetchResponseGroupTopic, len(in.Topics))
	for i, t := range in.Topics {
		rt := &out.Topics[i]
		*rt = kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID, rt.Partitions = t.Topic, t.TopicID, make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(t.Partitions))
		name, unknown := s.topicNamed(t.Topic, t.TopicID, version >= 10)
		for j, p := range t.Partitions {
			rt.Partitions[j] = noOffset(p, unknown)
			if unknown == errNone {
				tps, places = append(tps, api.TopicPartition{Topic: name, Partition: p}), append(places, &rt.Partitions[j])
			}
		}
	}
	// An empty list asks whether the coordinator is here; nil would ask for everything.
	commits, err := s.broker.FetchOffsets(ctx, in.Group, append([]api.TopicPartition{}, tps...))
	out.ErrorCode = codeOf(err, group)
	for i := range places {
		switch {
		case err != nil:
			places[i].ErrorCode = out.ErrorCode
		case i < len(commits):
			setOffset(places[i], commits[i])
		}
	}
	return out
}

func noOffset(partition int32, code int16) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = partition, -1, -1, text(""), code
	return p
}

// byTopic arranges all of a group's offsets, which come sorted.
func (s *Server) byTopic(commits []api.OffsetCommit, version int16) []kmsg.OffsetFetchResponseGroupTopic {
	out := []kmsg.OffsetFetchResponseGroupTopic{}
	last := ""
	for _, c := range commits {
		if len(out) == 0 || c.Topic != last {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = c.Topic
			if version >= 10 {
				if m := s.broker.Metadata([]string{c.Topic}).Topics; len(m) == 1 {
					t.TopicID = m[0].ID
				}
			}
			out, last = append(out, t), c.Topic
		}
		p := noOffset(c.Partition, errNone)
		setOffset(&p, c)
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return out
}

func setOffset(p *kmsg.OffsetFetchResponseGroupTopicPartition, c api.OffsetCommit) {
	p.Offset, p.LeaderEpoch, p.Metadata = int64(c.Offset), c.LeaderEpoch, text(c.Metadata)
}
