package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// OffsetCommit, versions 1 to 10. v2 to v4: retention time (the cluster's counts); v6: leader epoch; v7: static members; v8: flexible; v10: topic IDs.

// commitRetries bounds how many partitions that stand in the way of the others are set aside one by one.
const commitRetries = 64

func (s *Server) offsetCommit(ctx context.Context, _ *request, req *kmsg.OffsetCommitRequest) reply {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	places := map[api.TopicPartition]*kmsg.OffsetCommitResponseTopicPartition{}
	offsets := s.toCommits(req, resp, places)
	ref := api.MemberRef{Group: req.Group, MemberID: req.MemberID, InstanceID: orEmpty(req.InstanceID), Generation: req.Generation}
	// The core commits all or nothing, Kafka each partition for itself.
	for range commitRetries {
		if len(offsets) == 0 {
			return resp
		}
		err := s.broker.CommitOffsets(ctx, ref, offsets)
		if err == nil {
			return resp
		}
		code := codeOf(err, group)
		culprit := partitionOf(err)
		if culprit == nil || places[*culprit] == nil {
			fail(offsets, places, code)
			return resp
		}
		places[*culprit].ErrorCode = code
		offsets = without(offsets, *culprit)
	}
	fail(offsets, places, errInvalidRequest)
	return resp
}

func fail(offsets []api.OffsetCommit, places map[api.TopicPartition]*kmsg.OffsetCommitResponseTopicPartition, code int16) {
	for _, o := range offsets {
		places[o.TopicPartition].ErrorCode = code
	}
}

// partitionOf is the partition that alone is to blame for err, or nil.
func partitionOf(err error) *api.TopicPartition {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeOffsetMetadataTooLarge && e.Code != api.CodeUnknownTopicOrPartition {
		return nil
	}
	return e.TP
}

func without(offsets []api.OffsetCommit, tp api.TopicPartition) []api.OffsetCommit {
	var out []api.OffsetCommit
	for _, o := range offsets {
		if o.TopicPartition != tp {
			out = append(out, o)
		}
	}
	return out
}

// toCommits lists what is to be committed, makes the response, and notes the place of each partition in it.
func (s *Server) toCommits(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, places map[api.TopicPartition]*kmsg.OffsetCommitResponseTopicPartition) []api.OffsetCommit {
	var offsets []api.OffsetCommit
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	names := make([]string, len(req.Topics))
	unknown := make([]int16, len(req.Topics))
	for i, t := range req.Topics {
		names[i], unknown[i] = s.topicNamed(t.Topic, t.TopicID, req.Version >= 10)
	}
	partitions := s.partitionCounts(names)
	for i, t := range req.Topics {
		out := &resp.Topics[i]
		*out = kmsg.NewOffsetCommitResponseTopic()
		out.Topic, out.TopicID, out.Partitions = t.Topic, t.TopicID, make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			place := &out.Partitions[j]
			place.Partition, place.ErrorCode = p.Partition, unknown[i]
			tp := api.TopicPartition{Topic: names[i], Partition: p.Partition}
			switch {
			case place.ErrorCode != errNone:
			case p.Partition < 0 || partitions[names[i]] > 0 && p.Partition >= partitions[names[i]]:
				place.ErrorCode = errUnknownTopicOrPartition
			case p.Offset < 0:
				place.ErrorCode = errInvalidRequest
			case places[tp] == nil:
				places[tp] = place
				offsets = append(offsets, api.OffsetCommit{TopicPartition: tp, Offset: offset(p.Offset), LeaderEpoch: p.LeaderEpoch, Metadata: orEmpty(p.Metadata)})
			}
		}
	}
	return offsets
}

// partitionCounts has the numbers of partitions of those topics that this broker knows.
func (s *Server) partitionCounts(names []string) map[string]int32 {
	out := map[string]int32{}
	for _, t := range s.broker.Metadata(append([]string{}, names...)).Topics {
		out[t.Name] = int32(len(t.Partitions))
	}
	return out
}
