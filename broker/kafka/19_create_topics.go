package kafka

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// CreateTopics, versions 0 to 7. v1: validate only, messages; v4: -1 means the cluster's default; v5: flexible, the result in the response; v7: topic
// IDs. Replicas are placed by the cluster: an assignment of one's own is refused.

func (s *Server) createTopics(ctx context.Context, _ *request, req *kmsg.CreateTopicsRequest) reply {
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	resp.Topics = make([]kmsg.CreateTopicsResponseTopic, len(req.Topics))
	count := map[string]int{}
	for _, t := range req.Topics {
		count[t.Topic]++
	}
	var g errgroup.Group
	g.SetLimit(workers)
	for i := range req.Topics {
		out := &resp.Topics[i]
		*out = kmsg.NewCreateTopicsResponseTopic()
		out.Topic = req.Topics[i].Topic
		if count[out.Topic] > 1 {
			out.ErrorCode, out.ErrorMessage = errInvalidRequest, text("the topic is in the request more than once")
			continue
		}
		g.Go(func() error {
			s.createTopic(ctx, &req.Topics[i], req.ValidateOnly, out)
			return nil
		})
	}
	_ = g.Wait()
	return resp
}

func (s *Server) createTopic(ctx context.Context, in *kmsg.CreateTopicsRequestTopic, validateOnly bool, out *kmsg.CreateTopicsResponseTopic) {
	refuse := func(code int16, message string) { out.ErrorCode, out.ErrorMessage = code, text(message) }
	create := api.CreateTopicRequest{
		Name: in.Topic, Partitions: in.NumPartitions, ReplicationFactor: in.ReplicationFactor, Settings: map[string]string{}, ValidateOnly: validateOnly,
	}
	switch {
	case len(in.ReplicaAssignment) > 0:
		refuse(errInvalidReplicaAssignment, "replicas are placed by the cluster: give the number of partitions and the replication factor")
		return
	case in.NumPartitions == 0 || in.NumPartitions < -1:
		refuse(errInvalidPartitions, "a topic has at least one partition")
		return
	case in.ReplicationFactor == 0 || in.ReplicationFactor < -1:
		refuse(errInvalidReplicationFactor, "the replication factor must be at least 1")
		return
	}
	create.Partitions, create.ReplicationFactor = max(create.Partitions, 0), max(create.ReplicationFactor, 0)
	for _, c := range in.Configs {
		if c.Value != nil {
			create.Settings[c.Name] = *c.Value
		}
	}
	d, err := s.broker.CreateTopic(ctx, create)
	if err != nil {
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		return
	}
	out.TopicID, out.NumPartitions, out.ReplicationFactor = d.ID, int32(len(d.Partitions)), d.ReplicationFactor
	for _, c := range d.Settings {
		e := kmsg.NewCreateTopicsResponseTopicConfig()
		e.Name, e.Value, e.Source = c.Key, text(c.Value), int8(configSources[c.Source])
		out.Configs = append(out.Configs, e)
	}
}
