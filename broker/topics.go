package broker

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/controller"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

const (
	// maxPartitions bounds the partitions of one topic: each is a Raft group on every one of its replicas' brokers.
	maxPartitions = 10000
	// internalPrefix is of topics that Flotilla makes for itself.
	internalPrefix = "__"
)

// CreateTopic implements api.Topics. It returns when all partitions have leaders, or after Timing.CreateWait without.
func (b *Broker) CreateTopic(ctx context.Context, req api.CreateTopicRequest) (api.TopicDescription, error) {
	if err := b.checkNewTopic(&req); err != nil {
		return api.TopicDescription{}, err
	}
	cmd, err := b.planTopic(req, metadata.KindData, false)
	if err != nil {
		return api.TopicDescription{}, b.apiError(err, nil)
	}
	if req.ValidateOnly {
		return b.describePlan(cmd), nil
	}
	if _, err := b.node.Propose(ctx, cmd); err != nil {
		return api.TopicDescription{}, b.apiError(err, nil)
	}
	b.awaitLeaders(ctx, req.Name)
	return b.DescribeTopic(ctx, req.Name)
}

// checkNewTopic refuses what cannot be, and fills in defaults.
func (b *Broker) checkNewTopic(req *api.CreateTopicRequest) error {
	if err := metadata.ValidateTopicName(req.Name); err != nil {
		return err
	}
	if strings.HasPrefix(req.Name, internalPrefix) {
		return api.Errorf(api.CodeInvalidTopic, "topic %q: names that begin with %q are Flotilla's own", req.Name, internalPrefix)
	}
	if err := b.checkSettings(req.Settings); err != nil {
		return err
	}
	if b.node.State().Topics[req.Name] != nil {
		return api.Errorf(api.CodeTopicAlreadyExists, "topic %q exists already", req.Name)
	}
	if req.Assignment != nil {
		return b.checkByHand(req)
	}
	if req.Partitions == 0 {
		req.Partitions = b.defaultPartitions()
	}
	if req.Partitions < 0 || req.Partitions > maxPartitions {
		return api.Errorf(api.CodeInvalidPartitions, "%d partitions: a topic has from 1 to %d", req.Partitions, maxPartitions)
	}
	if req.ReplicationFactor < 0 {
		return api.Errorf(api.CodeInvalidReplicationFactor, "replication factor %d: it must be at least 1", req.ReplicationFactor)
	}
	if req.ReplicationFactor == 0 {
		req.ReplicationFactor = b.defaultReplicationFactor()
	}
	return nil
}

// defaultRF is what was configured, or 3 if the cluster has so many brokers.
func (b *Broker) defaultRF(configured int16) int16 {
	if configured > 0 {
		return configured
	}
	brokers := b.cfg.BootstrapExpect
	present := 0
	for _, r := range b.node.State().Brokers {
		if !r.Draining {
			present++
		}
	}
	return int16(min(3, max(brokers, present, 1)))
}

// checkByHand checks an operator's assignment, and counts it.
func (b *Broker) checkByHand(req *api.CreateTopicRequest) error {
	if req.Partitions != 0 || req.ReplicationFactor != 0 {
		return api.Errorf(api.CodeInvalidRequest, "topic %q: either the brokers of each partition or numbers of partitions and replicas can be given, not both", req.Name)
	}
	if n := len(req.Assignment); n == 0 || n > maxPartitions {
		return api.Errorf(api.CodeInvalidPartitions, "%d partitions: a topic has from 1 to %d", n, maxPartitions)
	}
	req.Partitions, req.ReplicationFactor = int32(len(req.Assignment)), int16(len(req.Assignment[0]))
	return b.checkAssignment(req.Name, 0, req.ReplicationFactor, req.Assignment)
}

// checkAssignment refuses an operator's assignment of partitions from first on that cannot be: CodeInvalidReplicaAssignment.
func (b *Broker) checkAssignment(topic string, first int, rf int16, assignment [][]api.BrokerID) error {
	for i, brokers := range assignment {
		name := topic + "/" + strconv.Itoa(first+i)
		if len(brokers) == 0 || len(brokers) != int(rf) {
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: %d brokers are named; all partitions must have equally many replicas, here %d", name, len(brokers), rf)
		}
		if err := b.checkBrokers(name, brokers); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) checkSettings(set map[string]string) error {
	if err := metadata.ValidateSettings(set); err != nil {
		return err
	}
	return b.checkMessageBytes("max.message.bytes", set)
}

// planTopic places the partitions.
func (b *Broker) planTopic(req api.CreateTopicRequest, kind metadata.Kind, internal bool) (*metadata.CreateTopic, error) {
	if len(b.node.State().Brokers) == 0 {
		return nil, api.Errorf(api.CodeControllerNotAvailable, "this broker does not belong to a cluster yet: try again shortly")
	}
	assignment := req.Assignment
	if assignment == nil {
		var err error
		if assignment, err = controller.Place(b.view(), nil, req.Partitions, req.ReplicationFactor); err != nil {
			return nil, err
		}
	}
	cmd := &metadata.CreateTopic{
		Name: req.Name, Internal: internal, Kind: kind, ReplicationFactor: req.ReplicationFactor, Settings: req.Settings, Assignment: assignment,
		ByHand: req.Assignment != nil,
	}
	_, _ = rand.Read(cmd.ID[:]) // never fails
	return cmd, nil
}

func (b *Broker) describePlan(cmd *metadata.CreateTopic) api.TopicDescription {
	d := api.TopicDescription{Name: cmd.Name, ReplicationFactor: cmd.ReplicationFactor, Settings: b.describeSettings(cmd.Settings)}
	for i, brokers := range cmd.Assignment {
		d.Partitions = append(d.Partitions, api.PartitionDescription{
			Partition: int32(i), Leader: api.NoBroker, LeaderEpoch: -1, Replicas: brokers, LogStart: -1, HighWatermark: -1, SizeBytes: -1,
		})
	}
	return d
}

func (b *Broker) describeSettings(set map[string]string) []api.TopicSetting {
	return b.node.State().DescribeTopicSettings(set, b.cfg.ID)
}

// awaitLeaders waits until all partitions of a topic have leaders, the topic has gone, or Timing.CreateWait has passed.
func (b *Broker) awaitLeaders(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.CreateWait)
	defer cancel()
	leaderless := func(p *metadata.Partition) bool { return p.Leader == api.NoBroker }
	for {
		changed := b.node.Changed()
		t := b.node.State().Topics[name]
		if t == nil || !slices.ContainsFunc(t.Partitions, leaderless) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// findTopic is the topic by the metadata of this broker, brought up to date first if it is not there.
func (b *Broker) findTopic(ctx context.Context, name string) (*metadata.Topic, error) {
	if t := b.node.State().Topics[name]; t != nil {
		return t, nil
	}
	synced := b.syncMetadata(ctx)
	if t := b.node.State().Topics[name]; t != nil {
		return t, nil
	}
	if !synced {
		return nil, api.Errorf(api.CodeLeaderNotAvailable, "broker %d cannot tell at the moment whether there is a topic %q: try again shortly", b.cfg.ID, name)
	}
	return nil, api.Errorf(api.CodeUnknownTopicOrPartition, "there is no topic %q", name)
}

// changeable is findTopic for changes.
func (b *Broker) changeable(ctx context.Context, name string) (*metadata.Topic, error) {
	t, err := b.findTopic(ctx, name)
	if err == nil && t.Internal {
		return nil, api.Errorf(api.CodeInvalidTopic, "topic %q is Flotilla's own and cannot be changed", name)
	}
	return t, err
}

// DeleteTopic implements api.Topics. It returns when the deletion is decided; the files go within moments on the brokers that are up, and on the
// others when they come back.
func (b *Broker) DeleteTopic(ctx context.Context, name string) error {
	t, err := b.changeable(ctx, name)
	if err != nil {
		return err
	}
	_, err = b.node.Propose(ctx, &metadata.DeleteTopic{Name: name, ID: t.ID})
	return b.apiError(err, nil)
}

// AlterTopic implements api.Topics.
func (b *Broker) AlterTopic(ctx context.Context, name string, set map[string]string, unset []string) (api.TopicDescription, error) {
	if _, err := b.changeable(ctx, name); err != nil {
		return api.TopicDescription{}, err
	}
	if err := b.checkSettings(set); err != nil {
		return api.TopicDescription{}, err
	}
	if _, err := b.node.Propose(ctx, &metadata.AlterTopic{Name: name, Set: set, Unset: unset}); err != nil {
		return api.TopicDescription{}, b.apiError(err, nil)
	}
	return b.DescribeTopic(ctx, name)
}

// CreatePartitions implements api.Topics.
func (b *Broker) CreatePartitions(ctx context.Context, req api.CreatePartitionsRequest) (api.TopicDescription, error) {
	t, err := b.changeable(ctx, req.Name)
	if err != nil {
		return api.TopicDescription{}, err
	}
	cmd, err := b.planGrowth(t, req)
	if err != nil {
		return api.TopicDescription{}, b.apiError(err, nil)
	}
	if !req.ValidateOnly {
		if _, err := b.node.Propose(ctx, cmd); err != nil {
			return api.TopicDescription{}, b.apiError(err, nil)
		}
		b.awaitLeaders(ctx, req.Name)
	}
	return b.DescribeTopic(ctx, req.Name)
}

// planGrowth places the new partitions, unless an operator has.
func (b *Broker) planGrowth(t *metadata.Topic, req api.CreatePartitionsRequest) (*metadata.GrowTopic, error) {
	have := int32(len(t.Partitions))
	if req.Total <= have || req.Total > maxPartitions {
		return nil, api.Errorf(api.CodeInvalidPartitions,
			"topic %q has %d partitions: the new total must be more than that and at most %d", t.Name, have, maxPartitions)
	}
	cmd := &metadata.GrowTopic{Name: t.Name, From: have, Assignment: req.Assignment, ByHand: req.Assignment != nil}
	if cmd.ByHand {
		if more := int(req.Total - have); len(req.Assignment) != more {
			return nil, api.Errorf(api.CodeInvalidReplicaAssignment, "topic %q gets %d more partitions, and brokers are named for %d", t.Name, more, len(req.Assignment))
		}
		return cmd, b.checkAssignment(t.Name, int(have), t.ReplicationFactor, req.Assignment)
	}
	var err error
	cmd.Assignment, err = controller.Place(b.view(), t, req.Total-have, t.ReplicationFactor)
	return cmd, err
}

// ListTopics implements api.Topics.
func (b *Broker) ListTopics(_ context.Context, internal bool) ([]api.TopicSummary, error) {
	var out []api.TopicSummary
	for _, t := range b.node.State().SortedTopics() {
		if !t.Internal || internal {
			out = append(out, api.TopicSummary{
				Name: t.Name, Partitions: int32(len(t.Partitions)), ReplicationFactor: t.ReplicationFactor, Internal: t.Internal,
			})
		}
	}
	return out, nil
}

// DescribeTopic implements api.Topics.
func (b *Broker) DescribeTopic(ctx context.Context, name string) (api.TopicDescription, error) {
	t, err := b.findTopic(ctx, name)
	if err != nil {
		return api.TopicDescription{}, err
	}
	d := api.TopicDescription{
		Name: t.Name, ID: t.ID, Internal: t.Internal, ReplicationFactor: t.ReplicationFactor, Settings: b.describeSettings(t.Settings),
	}
	statuses := b.leaderStatuses(ctx, t.Partitions)
	for i, p := range t.Partitions {
		pd := api.PartitionDescription{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
			Replicas: metadata.BrokerIDs(p.Replicas), Voters: metadata.BrokerIDs(p.Voters), LogStart: -1, HighWatermark: -1, SizeBytes: -1,
		}
		if s := statuses[i]; s.Leads {
			pd.LogStart, pd.HighWatermark, pd.SizeBytes = s.LogStart, s.HighWatermark, s.Bytes
		}
		d.Partitions = append(d.Partitions, pd)
	}
	return d, nil
}

// leaderStatuses asks the leaders of partitions, and once more after a moment where leadership has just moved. What
// cannot be learnt within Timing.LeaderWait has Leads false.
func (b *Broker) leaderStatuses(ctx context.Context, partitions []*metadata.Partition) []replicaStatus {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.LeaderWait)
	defer cancel()
	out := make([]replicaStatus, len(partitions))
	for {
		changed, routes := b.node.Changed(), b.route.wait()
		if b.askLeaders(ctx, partitions, out) {
			return out
		}
		again := time.NewTimer(100 * time.Millisecond)
		select {
		case <-changed:
		case <-routes:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return out
		}
		again.Stop()
	}
}

// askLeaders fills in what is missing in out, asking each broker once. It says whether nothing is missing any more that another try could find.
func (b *Broker) askLeaders(ctx context.Context, partitions []*metadata.Partition, out []replicaStatus) (complete bool) {
	byLeader := map[api.BrokerID][]int{}
	for i, p := range partitions {
		if !out[i].Leads {
			leader := b.leaderFor(p)
			byLeader[leader] = append(byLeader[leader], i)
		}
	}
	var g errgroup.Group
	for leader, indexes := range byLeader {
		if leader == api.NoBroker {
			continue
		}
		g.Go(func() error {
			var req statusRequest
			for _, i := range indexes {
				req.Replicas = append(req.Replicas, replicaName{Group: partitions[i].Group})
			}
			list, err := call[statusRequest, []replicaStatus](ctx, b, metadata.ServerAddress(leader), methodReplicaStatus, req)
			if err != nil || len(list) != len(indexes) {
				return err
			}
			for j, i := range indexes {
				out[i] = list[j]
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.log.Debug("asking leaders for offsets", "error", err)
	}
	return !slices.ContainsFunc(out, func(s replicaStatus) bool { return !s.Leads })
}

// leaderFor is the broker to ask about a partition: this one if it leads.
func (b *Broker) leaderFor(p *metadata.Partition) api.BrokerID {
	h := b.replicas.get(p)
	if h != nil && h.leads() {
		return b.cfg.ID
	}
	return b.leaderOf(p, h)
}

// partitionsOf is what group coordinators assign by.
func (b *Broker) partitionsOf(topic string) (int32, bool) {
	t := b.node.State().Topics[topic]
	if t == nil {
		return 0, false
	}
	return int32(len(t.Partitions)), true
}
