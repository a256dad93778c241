package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// CreatePartitions, versions 0 to 3. v2: flexible. As in CreateTopics, replicas are placed by the cluster.

func (s *Server) createPartitions(ctx context.Context, _ *request, req *kmsg.CreatePartitionsRequest) reply {
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	for i := range req.Topics {
		in := &req.Topics[i]
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = in.Topic
		if len(in.Assignment) > 0 {
			out.ErrorCode, out.ErrorMessage = errInvalidReplicaAssignment, text("replicas are placed by the cluster")
		} else {
			err := s.growTopic(ctx, in.Topic, in.Count, req.ValidateOnly)
			out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) growTopic(ctx context.Context, name string, total int32, validateOnly bool) error {
	d, err := s.broker.DescribeTopic(ctx, name)
	if err != nil {
		return err
	}
	if has := int32(len(d.Partitions)); total <= has {
		return api.Errorf(api.CodeInvalidPartitions, "topic %q has %d partitions: it can only grow, not become %d", name, has, total)
	}
	if validateOnly {
		return nil
	}
	_, err = s.broker.CreatePartitions(ctx, name, total)
	return err
}
