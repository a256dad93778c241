package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DeleteRecords, versions 0 to 2. v2: flexible. The space comes back when whole segments are below the new start.

func (s *Server) deleteRecords(ctx context.Context, _ *request, req *kmsg.DeleteRecordsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	for _, t := range req.Topics {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition, rp.LowWatermark = p.Partition, -1
			start, err := s.broker.DeleteRecords(ctx, api.TopicPartition{Topic: t.Topic, Partition: p.Partition}, offset(p.Offset))
			if rp.ErrorCode = codeOf(err, data); err == nil {
				rp.LowWatermark = int64(start)
			}
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
