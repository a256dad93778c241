package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// CreateTopics, versions 0 to 7. v1: validate only, messages; v4: -1 means the cluster's default; v5: flexible, the result in the response; v7: topic
// IDs. Instead of numbers, brokers may be named for each partition.

func (s *Server) createTopics(ctx context.Context, _ *request, req *kmsg.CreateTopicsRequest) reply {
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	resp.Topics = make([]kmsg.CreateTopicsResponseTopic, len(req.Topics))
	count := map[string]int{}
	for _, t := range req.Topics {
		count[t.Topic]++
	}
	each(len(req.Topics), func(i int) {
		out := &resp.Topics[i]
		*out = kmsg.NewCreateTopicsResponseTopic()
		out.Topic = req.Topics[i].Topic
		if count[out.Topic] > 1 {
			out.ErrorCode, out.ErrorMessage = errInvalidRequest, text(topicTwice)
			return
		}
		s.createTopic(ctx, &req.Topics[i], req.ValidateOnly, out)
	})
	return resp
}

func (s *Server) createTopic(ctx context.Context, in *kmsg.CreateTopicsRequestTopic, validateOnly bool, out *kmsg.CreateTopicsResponseTopic) {
	refuse := func(code int16, message string) { out.ErrorCode, out.ErrorMessage = code, text(message) }
	create := api.CreateTopicRequest{Name: in.Topic, Settings: map[string]string{}, ValidateOnly: validateOnly}
	byHand := len(in.ReplicaAssignment) > 0
	switch {
	case byHand && (in.NumPartitions != -1 || in.ReplicationFactor != -1):
		refuse(errInvalidRequest, "brokers are named for each partition: the numbers of partitions and replicas must be -1 then")
		return
	case !byHand && (in.NumPartitions == 0 || in.NumPartitions < -1):
		refuse(errInvalidPartitions, "a topic has at least one partition")
		return
	case !byHand && (in.ReplicationFactor == 0 || in.ReplicationFactor < -1):
		refuse(errInvalidReplicationFactor, "the replication factor must be at least 1")
		return
	}
	create.Partitions, create.ReplicationFactor = max(in.NumPartitions, 0), max(in.ReplicationFactor, 0)
	for _, c := range in.Configs {
		if c.Value == nil {
			refuse(errInvalidConfig, c.Name+" has no value")
			return
		}
		create.Settings[c.Name] = *c.Value
	}
	if byHand {
		var ok bool
		if create.Assignment, ok = assignmentOf(in.ReplicaAssignment); !ok {
			refuse(errInvalidReplicaAssignment, "brokers must be named once for each partition, from 0 on without a gap")
			return
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

// assignmentOf puts the partitions of an assignment in order; false unless they are 0 to n-1, each once.
func assignmentOf(list []kmsg.CreateTopicsRequestTopicReplicaAssignment) ([][]api.BrokerID, bool) {
	out := make([][]api.BrokerID, len(list))
	for _, a := range list {
		if a.Partition < 0 || int(a.Partition) >= len(out) || out[a.Partition] != nil {
			return nil, false
		}
		out[a.Partition] = brokerIDs(a.Replicas) // not nil
	}
	return out, true
}
