package fakebroker

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type clusterServer struct {
	pb.UnimplementedClusterServer
	b *Broker
}

func (s *clusterServer) GetMetadata(_ context.Context, req *pb.GetMetadataRequest) (*pb.Metadata, error) {
	s.b.lookups.Add(1)
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	return s.b.c.metadata(req.Topics), nil
}

func (s *clusterServer) WatchMetadata(req *pb.GetMetadataRequest, stream grpc.ServerStreamingServer[pb.Metadata]) error {
	for {
		s.b.c.mu.Lock()
		m, changed := s.b.c.metadata(req.Topics), s.b.c.changed
		s.b.c.mu.Unlock()
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (c *Cluster) metadata(names []string) *pb.Metadata {
	m := &pb.Metadata{ClusterId: "fake", Version: c.version}
	for i := range c.brokers {
		m.Brokers = append(m.Brokers, c.endpoint(int32(i)))
	}
	if len(names) == 0 {
		for n := range c.topics {
			names = append(names, n)
		}
	}
	for _, n := range names {
		tm := &pb.TopicMetadata{Topic: n, Unknown: c.topics[n] == nil}
		if t := c.topics[n]; t != nil {
			for i, p := range t.partitions {
				tm.Partitions = append(tm.Partitions, &pb.PartitionMetadata{Partition: int32(i), Leader: p.leader, LeaderEpoch: p.epoch})
			}
		}
		m.Topics = append(m.Topics, tm)
	}
	return m
}

func (s *clusterServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	r := &pb.StatusResponse{ClusterId: "fake", BrokerId: s.b.id, Topics: int32(len(s.b.c.topics))}
	for i, b := range s.b.c.brokers {
		r.Brokers = append(r.Brokers, &pb.BrokerStatus{BrokerId: int32(i), GrpcAddress: b.addr, State: pb.BrokerState_BROKER_STATE_ALIVE})
	}
	return r, nil
}
