package kafka

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
)

// The fake's side of what administrators ask.

func (f *fakeBroker) LogDir(context.Context) (api.LogDir, error) {
	return api.LogDir{Path: "/data", TotalBytes: 100, UsableBytes: 40, Replicas: []api.LocalReplica{
		{TopicPartition: api.TopicPartition{Topic: "orders", Partition: 0}, SizeBytes: 7, Lag: 0},
		{TopicPartition: api.TopicPartition{Topic: "orders", Partition: 1}, SizeBytes: 8, Lag: 3},
		{TopicPartition: api.TopicPartition{Topic: "other", Partition: 0}, SizeBytes: 9, Lag: -1},
	}}, nil
}

func (f *fakeBroker) Producers(_ context.Context, tp api.TopicPartition) ([]api.ProducerState, error) {
	return []api.ProducerState{{ProducerID: api.ProducerID{ID: 7, Epoch: 2}, LastSequence: 11, LastTimestamp: 1000}}, known(tp)
}

// ElectLeaders has partition 0 led by another than the preferred leader, and partition 1 by none.
func (f *fakeBroker) ElectLeaders(_ context.Context, req api.ElectRequest) []api.ElectResult {
	if req.Partitions == nil {
		return []api.ElectResult{{TopicPartition: api.TopicPartition{Topic: "orders", Partition: 0}}}
	}
	var out []api.ElectResult
	for _, tp := range req.Partitions {
		r := api.ElectResult{TopicPartition: tp, Err: known(tp)}
		if r.Err == nil && (req.Unclean || tp.Partition == 1) {
			r.Err = api.Errorf(api.CodeEligibleLeadersNotAvailable, "none")
		}
		out = append(out, r)
	}
	return out
}

func (f *fakeBroker) Reassign(_ context.Context, req api.ReassignRequest) []error {
	errs := make([]error, len(req.Partitions))
	for i, p := range req.Partitions {
		switch errs[i] = known(p.TopicPartition); {
		case errs[i] != nil:
		case p.Cancel:
			errs[i] = api.Errorf(api.CodeNoReassignmentInProgress, "none")
		case len(p.Replicas) == 0:
			errs[i] = api.Errorf(api.CodeInvalidReplicaAssignment, "empty")
		case req.KeepFactor && len(p.Replicas) != 1:
			errs[i] = api.Errorf(api.CodeInvalidReplicationFactor, "another number")
		}
	}
	return errs
}

func (f *fakeBroker) Reassignments(context.Context, []api.TopicPartition) ([]api.Reassignment, error) {
	return []api.Reassignment{{TopicPartition: api.TopicPartition{Topic: "orders"}, Replicas: []api.BrokerID{2, 1}, Adding: []api.BrokerID{2}, Removing: []api.BrokerID{1}}}, nil
}

func (f *fakeBroker) BrokerSettings(_ context.Context, id api.BrokerID) ([]api.BrokerSetting, error) {
	if id == api.NoBroker {
		return nil, nil
	}
	if id != 1 {
		return nil, api.Errorf(api.CodeInvalidRequest, "ask broker %d", id)
	}
	value := api.ConfigValue{Key: "num.partitions", Value: "1", Source: api.SourceDefault}
	return []api.BrokerSetting{{ConfigValue: value, Type: api.ConfigInt, Documentation: "doc", Synonyms: []api.ConfigValue{value}}}, nil
}
func (f *fakeBroker) AlterBroker(_ context.Context, req api.AlterBrokerRequest) error {
	if _, ok := req.Set["num.partitions"]; !ok && len(req.Set) > 0 {
		return api.Errorf(api.CodeInvalidConfig, "unknown")
	}
	return nil
}
func (f *fakeBroker) AutoCreateTopics() bool { return true }

// DeleteOffsets finds partition 1 subscribed to.
func (f *fakeBroker) DeleteOffsets(_ context.Context, group string, tps []api.TopicPartition) ([]error, error) {
	if group != "g" {
		return nil, api.Errorf(api.CodeUnknownGroup, "no group %q", group)
	}
	errs := make([]error, len(tps))
	for i, tp := range tps {
		if tp.Partition == 1 {
			errs[i] = api.Errorf(api.CodeGroupSubscribedToTopic, "in use")
		}
	}
	return errs, nil
}
