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
	for _, t := range topics {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		name, code := s.topicNamed(orEmpty(t.Topic), t.TopicID, t.Topic == nil)
		if code == errNone {
			out.Topic = text(name)
			err := s.broker.DeleteTopic(ctx, name)
			code, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		}
		out.ErrorCode = code
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
