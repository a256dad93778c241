package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/controller"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// Metadata implements api.Cluster.
func (b *Broker) Metadata(topics []string) api.Metadata {
	s := b.node.State()
	m := api.Metadata{ClusterID: s.ClusterID, Controller: b.node.Leader(), Version: s.Version}
	for _, r := range s.SortedBrokers() {
		if r.AwaySinceMs == 0 && r.GRPCAddr != "" {
			m.Brokers = append(m.Brokers, registered(r))
		}
	}
	if topics == nil {
		for _, t := range s.SortedTopics() {
			if !t.Internal {
				m.Topics = append(m.Topics, topicMetadata(s, t))
			}
		}
		return m
	}
	for _, name := range topics {
		if t := s.Topics[name]; t != nil {
			m.Topics = append(m.Topics, topicMetadata(s, t))
		} else {
			m.Topics = append(m.Topics, api.TopicMetadata{Name: name, Unknown: true})
		}
	}
	return m
}

func topicMetadata(s *metadata.State, t *metadata.Topic) api.TopicMetadata {
	m := api.TopicMetadata{Name: t.Name, ID: t.ID, Internal: t.Internal, Partitions: make([]api.PartitionMetadata, len(t.Partitions))}
	for i, p := range t.Partitions {
		m.Partitions[i] = api.PartitionMetadata{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: allReplicas(p), InSync: inSync(s, p),
		}
	}
	return m
}

// allReplicas lists the brokers that have, or are to have, a replica.
func allReplicas(p *metadata.Partition) []api.BrokerID {
	out := metadata.BrokerIDs(p.Replicas)
	for _, v := range p.Voters {
		if !slices.Contains(out, v.Broker) {
			out = append(out, v.Broker)
		}
	}
	return out
}

// inSync lists the brokers of the voters that did not lose their files.
func inSync(s *metadata.State, p *metadata.Partition) []api.BrokerID {
	out := make([]api.BrokerID, 0, len(p.Voters))
	for _, v := range p.Voters {
		_, incarnation, _, ok := metadata.ParseServerID(v.ServerID)
		if b := s.Brokers[v.Broker]; ok && b != nil && b.Incarnation == incarnation && !p.IsQuarantined(v.ServerID) {
			out = append(out, v.Broker)
		}
	}
	return out
}

// TopicName implements api.Cluster. What was found once is looked up at once from then on, as long as it is still true.
func (b *Broker) TopicName(id [16]byte) (string, bool) {
	s := b.node.State()
	if name, ok := b.topicNames.Load(id); ok {
		if t := s.Topics[name.(string)]; t != nil && t.ID == id {
			return t.Name, true
		}
		b.topicNames.Delete(id)
	}
	for _, t := range s.Topics {
		if t.ID == id {
			b.topicNames.Store(id, t.Name)
			return t.Name, true
		}
	}
	return "", false
}

// MetadataChanged implements api.Cluster.
func (b *Broker) MetadataChanged() <-chan struct{} { return b.node.Changed() }

// Status implements api.Cluster.
func (b *Broker) Status(ctx context.Context) (api.ClusterStatus, error) {
	v := b.view()
	st := api.ClusterStatus{
		ClusterID: v.State.ClusterID, Controller: b.node.Leader(), Self: b.cfg.ID, Version: b.cfg.Version,
		Topics: len(v.State.Topics), Partitions: v.State.PartitionCount(),
	}
	voters := map[api.BrokerID]bool{}
	for _, s := range b.node.Servers() {
		voters[s.Broker] = voters[s.Broker] || s.Voter
	}
	leaders := leaderCounts(v.State)
	for _, r := range v.State.SortedBrokers() {
		e := registered(r)
		st.Brokers = append(st.Brokers, api.BrokerStatus{
			ID: r.ID, GRPCAddr: r.GRPCAddr, PeerAddr: r.PeerAddr, GossipAddr: r.GossipAddr, KafkaAddrs: e.KafkaAddrs(), Rack: r.Rack, Version: r.Version,
			State: controller.BrokerState(v, r.ID), Replicas: controller.ReplicasOn(v.State, r.ID), Leaders: leaders[r.ID],
			Controller: r.ID == st.Controller, MetadataVoter: voters[r.ID],
		})
	}
	st.Problems = append(controller.Problems(v), b.replicaProblems(ctx, v)...)
	if st.Controller == api.NoBroker {
		st.Problems = append([]api.PartitionProblem{{TopicPartition: api.TopicPartition{Partition: -1},
			Problem: "the metadata group has no leader: topics and assignments cannot change"}}, st.Problems...)
	}
	return st, nil
}

func leaderCounts(s *metadata.State) map[api.BrokerID]int {
	out := map[api.BrokerID]int{}
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			out[p.Leader]++
		}
	}
	return out
}

// replicaProblems asks all brokers that are there for what only they know. One that does not answer is left out: gossip will tell.
func (b *Broker) replicaProblems(ctx context.Context, v controller.View) []api.PartitionProblem {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	var mu sync.Mutex
	var out []api.PartitionProblem
	var g errgroup.Group
	g.SetLimit(16)
	for id := range v.State.Brokers {
		if !v.Alive[id] {
			continue
		}
		g.Go(func() error {
			list, err := call[struct{}, []api.PartitionProblem](ctx, b, metadata.ServerAddress(id), methodProblems, struct{}{})
			if err == nil {
				mu.Lock()
				out = append(out, list...)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	slices.SortFunc(out, func(x, y api.PartitionProblem) int {
		return strings.Compare(fmt.Sprintf("%s/%09d %s", x.Topic, x.Partition, x.Problem), fmt.Sprintf("%s/%09d %s", y.Topic, y.Partition, y.Problem))
	})
	return out
}

// Decommission implements api.Cluster. It is refused where the remaining brokers could not hold the replicas.
func (b *Broker) Decommission(ctx context.Context, id api.BrokerID) (int, error) {
	s := b.node.State()
	if s.Brokers[id] == nil {
		return 0, api.Errorf(api.CodeUnknownBroker, "there is no broker %d", id)
	}
	remaining := 0
	for _, r := range s.Brokers {
		if r.ID != id && !r.Draining {
			remaining++
		}
	}
	for _, t := range s.SortedTopics() {
		if n := replicasBeside(t, id); n > remaining {
			return 0, api.Errorf(api.CodePolicyViolation,
				"topic %q has replication factor %d, and without broker %d only %d brokers remain: add a broker first", t.Name, n, id, remaining)
		}
	}
	if _, err := b.node.Propose(ctx, &metadata.SetDraining{ID: id, Draining: true}); err != nil {
		return 0, b.apiError(err, nil)
	}
	return controller.ReplicasOn(b.node.State(), id), nil
}

// replicasBeside is the most replicas of a topic's partitions that the broker has one of; 0 if it has none. Partitions that were reassigned may differ.
func replicasBeside(t *metadata.Topic, id api.BrokerID) int {
	most := 0
	for _, p := range t.Partitions {
		if slices.Contains(metadata.BrokerIDs(p.Replicas), id) {
			most = max(most, len(p.Replicas))
		}
	}
	return most
}

// Recommission implements api.Cluster.
func (b *Broker) Recommission(ctx context.Context, id api.BrokerID) error {
	_, err := b.node.Propose(ctx, &metadata.SetDraining{ID: id, Draining: false, Rebalance: true})
	return b.apiError(err, nil)
}

// Rebalance implements api.Cluster.
func (b *Broker) Rebalance(ctx context.Context, dryRun bool) (api.RebalancePlan, error) {
	plan := controller.PlanRebalance(b.view())
	if dryRun || len(plan.Moves) == 0 && plan.LeaderTransfers == 0 {
		return plan, nil
	}
	_, err := b.node.Propose(ctx, &metadata.SetRebalance{On: true, Everything: true})
	return plan, b.apiError(err, nil)
}
