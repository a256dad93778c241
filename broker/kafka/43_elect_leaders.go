package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// ElectLeaders, versions 0 to 2. v1: the type of election (KIP-460), an error for the whole; v2: flexible. No topics named (null) means all
// partitions, of which those that need no election are left out. Unclean elections never happen: see api.ElectRequest.

const (
	electPreferred = 0
	electUnclean   = 1
	// electWait bounds the wait for elections, whatever the client asks for: the connection stands still meanwhile.
	electWait = 20 * time.Second
)

func (s *Server) electLeaders(ctx context.Context, _ *request, req *kmsg.ElectLeadersRequest) reply {
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	if req.ElectionType != electPreferred && req.ElectionType != electUnclean {
		resp.ErrorCode = errInvalidRequest
		return resp
	}
	elect := api.ElectRequest{Unclean: req.ElectionType == electUnclean}
	if req.Topics != nil {
		elect.Partitions = []api.TopicPartition{}
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			elect.Partitions = append(elect.Partitions, api.TopicPartition{Topic: t.Topic, Partition: p})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(0, time.Duration(req.TimeoutMillis)*time.Millisecond), electWait))
	defer cancel()
	for _, r := range s.broker.ElectLeaders(ctx, elect) {
		p := kmsg.NewElectLeadersResponseTopicPartition()
		p.Partition, p.ErrorCode, p.ErrorMessage = r.Partition, codeOf(r.Err, admin), messageOf(r.Err)
		if n := len(resp.Topics); n == 0 || resp.Topics[n-1].Topic != r.Topic {
			t := kmsg.NewElectLeadersResponseTopic()
			t.Topic = r.Topic
			resp.Topics = append(resp.Topics, t)
		}
		t := &resp.Topics[len(resp.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return resp
}
