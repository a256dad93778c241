package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeLogDirs, versions 0 to 5, of the broker that is asked. v2: flexible; v3: an error for the whole; v4: sizes of the volume (KIP-827); v5: cordoned
// directories, which there are none of. A broker has one directory; replicas do not move between directories, so none is a future one.

func (s *Server) describeLogDirs(ctx context.Context, _ *request, req *kmsg.DescribeLogDirsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	d, err := s.broker.LogDir(ctx)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir, dir.TotalBytes, dir.UsableBytes = d.Path, d.TotalBytes, d.UsableBytes
	if dir.ErrorCode = codeOf(err, admin); err != nil && req.Version >= 3 {
		resp.ErrorCode = dir.ErrorCode
		return resp
	}
	asked := askedLogDirs(req)
	for _, r := range d.Replicas {
		if asked != nil && !asked[r.TopicPartition] {
			continue
		}
		if n := len(dir.Topics); n == 0 || dir.Topics[n-1].Topic != r.Topic {
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = r.Topic
			dir.Topics = append(dir.Topics, t)
		}
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition, p.Size, p.OffsetLag = r.Partition, r.SizeBytes, r.Lag
		t := &dir.Topics[len(dir.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp
}

// askedLogDirs are the partitions asked for; nil means all.
func askedLogDirs(req *kmsg.DescribeLogDirsRequest) map[api.TopicPartition]bool {
	if req.Topics == nil {
		return nil
	}
	asked := map[api.TopicPartition]bool{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			asked[api.TopicPartition{Topic: t.Topic, Partition: p}] = true
		}
	}
	return asked
}
