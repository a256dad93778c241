package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// CreatePartitions, versions 0 to 3. v2: flexible. Brokers of the new partitions may be named.

func (s *Server) createPartitions(ctx context.Context, _ *request, req *kmsg.CreatePartitionsRequest) reply {
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	resp.Topics = make([]kmsg.CreatePartitionsResponseTopic, len(req.Topics))
	count := map[string]int{}
	for _, t := range req.Topics {
		count[t.Topic]++
	}
	each(len(req.Topics), func(i int) {
		in, out := &req.Topics[i], &resp.Topics[i]
		*out = kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = in.Topic
		if count[in.Topic] > 1 {
			out.ErrorCode, out.ErrorMessage = errInvalidRequest, text(topicTwice)
			return
		}
		grow := api.CreatePartitionsRequest{Name: in.Topic, Total: in.Count, ValidateOnly: req.ValidateOnly}
		for _, a := range in.Assignment {
			grow.Assignment = append(grow.Assignment, brokerIDs(a.Replicas))
		}
		_, err := s.broker.CreatePartitions(ctx, grow)
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
	})
	return resp
}

const topicTwice = "the topic is in the request more than once"
