package client

import (
	"context"
	"errors"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Admin manages topics, groups and the cluster. Its methods try one broker after another until the request timeout, and may be called
// concurrently.
type Admin struct{ client *Client }

// Admin returns the client's administrative side.
func (c *Client) Admin() *Admin { return &Admin{client: c} }

// admin runs one call against any broker, with its arguments spelt once.
func admin[Q, R any](ctx context.Context, a *Admin, op string, q Q, call func(*conn, context.Context, Q) (R, error)) (R, error) {
	var r R
	err := a.client.callAny(ctx, op, func(ctx context.Context, cn *conn) (err error) {
		r, err = call(cn, ctx, q)
		return err
	})
	return r, err
}

// CreateTopic creates a topic. If an earlier try of the same call may have created it, finding it there is a success.
func (a *Admin) CreateTopic(ctx context.Context, spec TopicSpec) (TopicDescription, error) {
	q := &pb.CreateTopicRequest{
		Topic: spec.Name, Partitions: spec.Partitions, ReplicationFactor: spec.ReplicationFactor, Settings: spec.Settings, ValidateOnly: spec.ValidateOnly,
	}
	var unsure retryMemory
	r, err := admin(ctx, a, "CreateTopic", q, func(cn *conn, ctx context.Context, q *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
		r, err := cn.admin.CreateTopic(ctx, q)
		unsure.note(ctx, err)
		return r, err
	})
	if unsure.before && errors.Is(err, CodeTopicAlreadyExists) {
		return a.DescribeTopic(ctx, spec.Name)
	}
	return topicFrom(r.GetTopic()), err
}

// DeleteTopic deletes a topic with all its records.
func (a *Admin) DeleteTopic(ctx context.Context, name string) error {
	var unsure retryMemory
	_, err := admin(ctx, a, "DeleteTopic", &pb.DeleteTopicRequest{Topic: name}, func(cn *conn, ctx context.Context, q *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
		r, err := cn.admin.DeleteTopic(ctx, q)
		unsure.note(ctx, err)
		return r, err
	})
	if unsure.before && errors.Is(err, CodeUnknownTopicOrPartition) {
		return nil
	}
	return err
}

// retryMemory knows whether a try before the last one may have had its effect without us hearing of it.
type retryMemory struct{ before, last bool }

func (m *retryMemory) note(ctx context.Context, err error) {
	m.before = m.before || m.last
	m.last = err != nil && outcomeUnknown(toError(context.WithoutCancel(ctx), "", err))
}

// ListTopics lists the topics, on request with those that Flotilla keeps for itself.
func (a *Admin) ListTopics(ctx context.Context, internal bool) ([]TopicSummary, error) {
	r, err := admin(ctx, a, "ListTopics", &pb.ListTopicsRequest{Internal: internal}, func(cn *conn, ctx context.Context, q *pb.ListTopicsRequest) (*pb.ListTopicsResponse, error) {
		return cn.admin.ListTopics(ctx, q)
	})
	out := make([]TopicSummary, 0, len(r.GetTopics()))
	for _, t := range r.GetTopics() {
		out = append(out, TopicSummary{Topic: t.Topic, Partitions: t.Partitions, ReplicationFactor: t.ReplicationFactor, Internal: t.Internal})
	}
	return out, err
}

// DescribeTopic tells all about a topic.
func (a *Admin) DescribeTopic(ctx context.Context, name string) (TopicDescription, error) {
	r, err := admin(ctx, a, "DescribeTopic", &pb.DescribeTopicRequest{Topic: name}, func(cn *conn, ctx context.Context, q *pb.DescribeTopicRequest) (*pb.DescribeTopicResponse, error) {
		return cn.admin.DescribeTopic(ctx, q)
	})
	return topicFrom(r.GetTopic()), err
}

// AlterTopic sets settings, and puts others back to their defaults.
func (a *Admin) AlterTopic(ctx context.Context, name string, set map[string]string, unset []string) (TopicDescription, error) {
	q := &pb.AlterTopicRequest{Topic: name, Set: set, Unset: unset}
	r, err := admin(ctx, a, "AlterTopic", q, func(cn *conn, ctx context.Context, q *pb.AlterTopicRequest) (*pb.AlterTopicResponse, error) {
		return cn.admin.AlterTopic(ctx, q)
	})
	return topicFrom(r.GetTopic()), err
}

// CreatePartitions grows a topic to so many partitions. Keys go to other partitions afterwards, as in Kafka.
func (a *Admin) CreatePartitions(ctx context.Context, name string, total int32) (TopicDescription, error) {
	q := &pb.CreatePartitionsRequest{Topic: name, Partitions: total}
	r, err := admin(ctx, a, "CreatePartitions", q, func(cn *conn, ctx context.Context, q *pb.CreatePartitionsRequest) (*pb.CreatePartitionsResponse, error) {
		return cn.admin.CreatePartitions(ctx, q)
	})
	if err == nil {
		a.client.meta.requestRefresh()
	}
	return topicFrom(r.GetTopic()), err
}

func topicFrom(t *pb.TopicDescription) TopicDescription {
	if t == nil {
		return TopicDescription{}
	}
	out := TopicDescription{Topic: t.Topic, ID: t.TopicId, Internal: t.Internal, ReplicationFactor: t.ReplicationFactor}
	for _, s := range t.Settings {
		out.Settings = append(out.Settings, TopicSetting{Key: s.Key, Value: s.Value, IsDefault: s.IsDefault, Documentation: s.Documentation})
	}
	for _, p := range t.Partitions {
		out.Partitions = append(out.Partitions, PartitionDescription{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, Voters: p.Voters,
			LogStartOffset: p.LogStartOffset, HighWatermark: p.HighWatermark, SizeBytes: p.SizeBytes,
		})
	}
	return out
}

// DeleteRecords deletes all records of a partition below an offset (-1: all there are) and returns the new log start.
func (a *Admin) DeleteRecords(ctx context.Context, tp TopicPartition, before int64) (int64, error) {
	var start int64
	err := a.client.callLeader(ctx, "DeleteRecords", tp, func(ctx context.Context, cn *conn) error {
		r, err := cn.log.DeleteRecords(ctx, &pb.DeleteRecordsRequest{Topic: tp.Topic, Partition: tp.Partition, BeforeOffset: before})
		start = r.GetLogStartOffset()
		return err
	})
	return start, err
}

// Status tells how the cluster is.
func (a *Admin) Status(ctx context.Context) (ClusterStatus, error) {
	r, err := admin(ctx, a, "Status", &pb.StatusRequest{}, func(cn *conn, ctx context.Context, q *pb.StatusRequest) (*pb.StatusResponse, error) {
		return cn.cluster.Status(ctx, q)
	})
	if err != nil {
		return ClusterStatus{}, err
	}
	out := ClusterStatus{
		ClusterID: r.ClusterId, Controller: r.ControllerId, BrokerID: r.BrokerId, Version: r.Version, Topics: r.Topics, Partitions: r.Partitions,
	}
	for _, b := range r.Brokers {
		out.Brokers = append(out.Brokers, BrokerStatus{
			ID: b.BrokerId, GRPCAddress: b.GrpcAddress, PeerAddress: b.PeerAddress, GossipAddress: b.GossipAddress, Rack: b.Rack, Version: b.Version,
			State: brokerState(b.State), Replicas: b.Replicas, Leaders: b.Leaders, Controller: b.Controller, MetadataVoter: b.MetadataVoter,
			KafkaListeners: kafkaListenersFrom(b.KafkaListeners),
		})
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, PartitionProblem{TopicPartition{p.Topic, p.Partition}, p.Problem})
	}
	return out, nil
}

func kafkaListenersFrom(list []*pb.KafkaListener) []KafkaListener {
	var out []KafkaListener
	for _, l := range list {
		out = append(out, KafkaListener{Name: l.Name, Address: l.Address})
	}
	return out
}

// ListClients tells who is connected to the brokers' Kafka listeners.
func (a *Admin) ListClients(ctx context.Context) (ClientList, error) {
	r, err := admin(ctx, a, "ListClients", &pb.ListClientsRequest{}, func(cn *conn, ctx context.Context, q *pb.ListClientsRequest) (*pb.ListClientsResponse, error) {
		return cn.cluster.ListClients(ctx, q)
	})
	if err != nil {
		return ClientList{}, err
	}
	out := ClientList{MissingBrokers: r.MissingBrokers, OmittedConnections: r.OmittedConnections}
	for _, c := range r.Clients {
		out.Clients = append(out.Clients, ClientGroup{
			Broker: c.BrokerId, Listener: c.Listener, Host: c.Host, ClientID: c.ClientId, Software: c.SoftwareName, SoftwareVersion: c.SoftwareVersion,
			Connections: c.Connections, Since: time.UnixMilli(c.SinceMs),
		})
	}
	return out, nil
}

// Decommission begins to move everything away from a broker and returns how many replicas are to be moved. Status tells when the broker is
// drained.
func (a *Admin) Decommission(ctx context.Context, broker int32) (replicasToMove int, err error) {
	r, err := admin(ctx, a, "Decommission", &pb.DecommissionRequest{BrokerId: broker}, func(cn *conn, ctx context.Context, q *pb.DecommissionRequest) (*pb.DecommissionResponse, error) {
		return cn.cluster.Decommission(ctx, q)
	})
	return int(r.GetReplicasToMove()), err
}

// Recommission takes a decommission back.
func (a *Admin) Recommission(ctx context.Context, broker int32) error {
	_, err := admin(ctx, a, "Recommission", &pb.RecommissionRequest{BrokerId: broker}, func(cn *conn, ctx context.Context, q *pb.RecommissionRequest) (*pb.RecommissionResponse, error) {
		return cn.cluster.Recommission(ctx, q)
	})
	return err
}

// Rebalance spreads replicas and leaders evenly, or says what it would do.
func (a *Admin) Rebalance(ctx context.Context, dryRun bool) (RebalancePlan, error) {
	r, err := admin(ctx, a, "Rebalance", &pb.RebalanceRequest{DryRun: dryRun}, func(cn *conn, ctx context.Context, q *pb.RebalanceRequest) (*pb.RebalanceResponse, error) {
		return cn.cluster.Rebalance(ctx, q)
	})
	out := RebalancePlan{LeaderTransfers: r.GetLeaderTransfers()}
	for _, m := range r.GetMoves() {
		out.Moves = append(out.Moves, ReplicaMove{TopicPartition{m.Topic, m.Partition}, m.FromBroker, m.ToBroker})
	}
	return out, err
}

func timeFrom(ms int64) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
