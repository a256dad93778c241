package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteTopics, versions 0 to 6. v4: flexible; v5: messages; v6: topic IDs.

func (s *Server) deleteTopics(ctx context.Context, _ *request, req *kmsg.DeleteTopicsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	topics := req.Topics
	for _, name := range req.TopicNames {
		topics = append(topics, kmsg.DeleteTopicsRequestTopic{Topic: text(name)})
	}
	names, ids := map[string]int{}, map[[16]byte]int{}
	for _, t := range topics {
		if t.Topic != nil {
			names[*t.Topic]++
		} else {
			ids[t.TopicID]++
		}
	}
	for _, t := range topics {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		byID := t.Topic == nil
		switch {
		case byID == (t.TopicID == [16]byte{}):
			out.ErrorCode, out.ErrorMessage = errInvalidRequest, text("a topic has to be named, or to be given by its ID, and not both")
		case byID && ids[t.TopicID] > 1, !byID && names[*t.Topic] > 1:
			out.ErrorCode, out.ErrorMessage = errInvalidRequest, text(topicTwice)
		default:
			s.deleteTopic(ctx, t, &out)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) deleteTopic(ctx context.Context, t kmsg.DeleteTopicsRequestTopic, out *kmsg.DeleteTopicsResponseTopic) {
	name, code := s.topicNamed(orEmpty(t.Topic), t.TopicID, t.Topic == nil)
	if code != errNone {
		out.ErrorCode = code
		return
	}
	out.Topic = text(name)
	err := s.broker.DeleteTopic(ctx, name)
	out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
}
