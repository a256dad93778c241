package grpcapi

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type clusterService struct {
	pb.UnimplementedClusterServer
	broker   api.Cluster
	stopping context.Context
}

func (s *clusterService) metadata(ctx context.Context, topics []string) *pb.Metadata {
	if len(topics) == 0 {
		topics = nil
	}
	m := s.current(ctx, topics)
	out := &pb.Metadata{ClusterId: m.ClusterID, ControllerId: int32(m.Controller), Version: m.Version}
	for _, b := range m.Brokers {
		out.Brokers = append(out.Brokers, toEndpoint(b))
	}
	for _, t := range m.Topics {
		topic := &pb.TopicMetadata{Topic: t.Name, TopicId: t.ID[:], Internal: t.Internal, Unknown: t.Unknown}
		for _, p := range t.Partitions {
			topic.Partitions = append(topic.Partitions, &pb.PartitionMetadata{
				Partition: p.Partition, Leader: int32(p.Leader), LeaderEpoch: p.LeaderEpoch, Replicas: toIDs(p.Replicas),
			})
		}
		out.Topics = append(out.Topics, topic)
	}
	return out
}

// current is the broker's metadata. What is not there is asked for elsewhere before it is called unknown, and left out if nobody answers.
func (s *clusterService) current(ctx context.Context, topics []string) api.Metadata {
	m := s.broker.Metadata(topics)
	unknown := func(t api.TopicMetadata) bool { return t.Unknown }
	if !slices.ContainsFunc(m.Topics, unknown) {
		return m
	}
	synced := s.broker.SyncMetadata(ctx)
	m = s.broker.Metadata(topics)
	if !synced {
		m.Topics = slices.DeleteFunc(m.Topics, unknown)
	}
	return m
}

func (s *clusterService) GetMetadata(ctx context.Context, req *pb.GetMetadataRequest) (*pb.Metadata, error) {
	return s.metadata(ctx, req.GetTopics()), nil
}

// WatchMetadata asks for the next change before it reads, so that no change falls between the two. Changes that
// come faster than the client reads are merged.
func (s *clusterService) WatchMetadata(req *pb.GetMetadataRequest, stream grpc.ServerStreamingServer[pb.Metadata]) error {
	var last *pb.Metadata
	for {
		changed := s.broker.MetadataChanged()
		m := s.metadata(stream.Context(), req.GetTopics())
		if last == nil || !sameMetadata(last, m) {
			if err := stream.Send(m); err != nil {
				return err
			}
			last = m
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return toStatus(stream.Context().Err())
		case <-s.stopping.Done():
			return toStatus(errShuttingDown)
		}
	}
}

// sameMetadata compares all but the version, which also counts changes that clients do not see.
func sameMetadata(a, b *pb.Metadata) bool {
	version := b.Version
	b.Version = a.Version
	same := proto.Equal(a, b)
	b.Version = version
	return same
}

func (s *clusterService) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	st, err := s.broker.Status(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.StatusResponse{
		ClusterId: st.ClusterID, ControllerId: int32(st.Controller), BrokerId: int32(st.Self), Version: st.Version,
		Topics: int32(st.Topics), Partitions: int32(st.Partitions),
	}
	for _, b := range st.Brokers {
		resp.Brokers = append(resp.Brokers, &pb.BrokerStatus{
			BrokerId: int32(b.ID), GrpcAddress: b.GRPCAddr, PeerAddress: b.PeerAddr, GossipAddress: b.GossipAddr,
			Rack: b.Rack, Version: b.Version, State: pb.BrokerState(b.State), Replicas: int32(b.Replicas), Leaders: int32(b.Leaders),
			Controller: b.Controller, MetadataVoter: b.MetadataVoter, KafkaListeners: toKafkaListeners(b.KafkaAddrs),
		})
	}
	for _, p := range st.Problems {
		resp.Problems = append(resp.Problems, &pb.PartitionProblem{Topic: p.Topic, Partition: p.Partition, Problem: p.Problem})
	}
	return resp, nil
}

func (s *clusterService) Decommission(ctx context.Context, req *pb.DecommissionRequest) (*pb.DecommissionResponse, error) {
	n, err := s.broker.Decommission(ctx, api.BrokerID(req.GetBrokerId()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.DecommissionResponse{ReplicasToMove: int32(n)}, nil
}

func (s *clusterService) Recommission(ctx context.Context, req *pb.RecommissionRequest) (*pb.RecommissionResponse, error) {
	if err := s.broker.Recommission(ctx, api.BrokerID(req.GetBrokerId())); err != nil {
		return nil, toStatus(err)
	}
	return &pb.RecommissionResponse{}, nil
}

func (s *clusterService) Rebalance(ctx context.Context, req *pb.RebalanceRequest) (*pb.RebalanceResponse, error) {
	plan, err := s.broker.Rebalance(ctx, req.GetDryRun())
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.RebalanceResponse{LeaderTransfers: int32(plan.LeaderTransfers)}
	for _, m := range plan.Moves {
		resp.Moves = append(resp.Moves, &pb.ReplicaMove{
			Topic: m.Topic, Partition: m.Partition, FromBroker: int32(m.From), ToBroker: int32(m.To),
		})
	}
	return resp, nil
}

func toKafkaListeners(addrs []api.KafkaAddr) []*pb.KafkaListener {
	var out []*pb.KafkaListener
	for _, a := range addrs {
		out = append(out, &pb.KafkaListener{Name: a.Listener, Address: a.Addr})
	}
	return out
}

func (s *clusterService) ListClients(ctx context.Context, _ *pb.ListClientsRequest) (*pb.ListClientsResponse, error) {
	l, err := s.broker.ListClients(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.ListClientsResponse{OmittedConnections: int32(l.Omitted)}
	for _, id := range l.Missing {
		resp.MissingBrokers = append(resp.MissingBrokers, int32(id))
	}
	for _, c := range l.Clients {
		resp.Clients = append(resp.Clients, &pb.ClientGroup{
			BrokerId: int32(c.Broker), Listener: c.Listener, Host: c.Host, ClientId: c.ClientID, SoftwareName: c.Software, SoftwareVersion: c.SoftwareVersion,
			Connections: int32(c.Connections), SinceMs: c.SinceMs,
		})
	}
	return resp, nil
}
