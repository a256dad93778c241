package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DeleteRecords, versions 0 to 2. v2: flexible. Offset -1 means up to the high watermark. The space comes back when whole segments are below the new start.

func (s *Server) deleteRecords(ctx context.Context, _ *request, req *kmsg.DeleteRecordsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	g := newCrew()
	resp.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		in, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.Partitions = in.Topic, make([]kmsg.DeleteRecordsResponseTopicPartition, len(in.Partitions))
		for j, p := range in.Partitions {
			g.do(func() {
				rp := &out.Partitions[j]
				rp.Partition, rp.LowWatermark = p.Partition, -1
				start, err := s.broker.DeleteRecords(ctx, api.TopicPartition{Topic: in.Topic, Partition: p.Partition}, offset(p.Offset))
				if rp.ErrorCode = codeOf(err, data); err == nil {
					rp.LowWatermark = int64(start)
				}
			})
		}
	}
	g.wait()
	return resp
}
