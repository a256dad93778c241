package fakebroker

import (
	"context"

	"google.golang.org/grpc/codes"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type adminServer struct {
	pb.UnimplementedAdminServer
	b *Broker
}

func (s *adminServer) CreateTopic(_ context.Context, req *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	c := s.b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.topics[req.Topic] != nil {
		return nil, fail(codes.AlreadyExists, detail(pb.ErrorCode_ERROR_CODE_TOPIC_ALREADY_EXISTS, req.Topic, -1))
	}
	c.createTopic(req.Topic, int(max(req.Partitions, 1)))
	return &pb.CreateTopicResponse{Topic: c.describe(req.Topic)}, nil
}

func (s *adminServer) DescribeTopic(_ context.Context, req *pb.DescribeTopicRequest) (*pb.DescribeTopicResponse, error) {
	c := s.b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.topics[req.Topic] == nil {
		return nil, fail(codes.NotFound, detail(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION, req.Topic, -1))
	}
	return &pb.DescribeTopicResponse{Topic: c.describe(req.Topic)}, nil
}

func (c *Cluster) describe(name string) *pb.TopicDescription {
	d := &pb.TopicDescription{Topic: name, ReplicationFactor: 1}
	for i, p := range c.topics[name].partitions {
		d.Partitions = append(d.Partitions, &pb.PartitionDescription{
			Partition: int32(i), Leader: p.leader, LeaderEpoch: p.epoch, LogStartOffset: int64(p.start), HighWatermark: int64(p.next), SizeBytes: -1,
		})
	}
	return d
}

func (s *adminServer) ListTopics(context.Context, *pb.ListTopicsRequest) (*pb.ListTopicsResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	r := &pb.ListTopicsResponse{}
	for n, t := range s.b.c.topics {
		r.Topics = append(r.Topics, &pb.TopicSummary{Topic: n, Partitions: int32(len(t.partitions)), ReplicationFactor: 1})
	}
	return r, nil
}

func (s *adminServer) DeleteTopic(_ context.Context, req *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	if s.b.c.topics[req.Topic] == nil {
		return nil, fail(codes.NotFound, detail(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION, req.Topic, -1))
	}
	delete(s.b.c.topics, req.Topic)
	s.b.c.announce()
	return &pb.DeleteTopicResponse{}, nil
}
