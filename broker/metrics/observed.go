package metrics

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Observe wraps a broker for one front end: what that asks for is counted, by operation and by the code of errors. An operation's name is the
// method's.
func (s *Set) Observe(b api.Broker, listener string) api.Broker {
	return &observed{Broker: b, set: s, listener: listener}
}

// observed counts. Methods that cannot fail pass through.
type observed struct {
	api.Broker
	set      *Set
	listener string
}

// saw counts one operation and returns its error.
func (o *observed) saw(operation string, err error) error {
	o.set.operations.WithLabelValues(o.listener, operation).Inc()
	o.failed(operation, err)
	return err
}

func (o *observed) failed(operation string, err error) {
	if err != nil {
		o.set.errors.WithLabelValues(o.listener, operation, api.CodeOf(err).String()).Inc()
	}
}

func (o *observed) Append(ctx context.Context, req api.AppendRequest) (api.AppendResult, error) {
	res, err := o.Broker.Append(ctx, req)
	return res, o.saw("Append", err)
}

func (o *observed) AppendAsync(ctx context.Context, req api.AppendRequest, done func(api.AppendResult, error)) {
	o.Broker.AppendAsync(ctx, req, func(res api.AppendResult, err error) {
		done(res, o.saw("Append", err))
	})
}

// Fetch counts one operation, and the errors of all partitions.
func (o *observed) Fetch(ctx context.Context, req api.FetchRequest) ([]api.FetchResult, error) {
	results, err := o.Broker.Fetch(ctx, req)
	for _, r := range results {
		o.failed("Fetch", r.Err)
	}
	return results, o.saw("Fetch", err)
}

func (o *observed) ListOffset(ctx context.Context, tp api.TopicPartition, pos api.Position) (api.ListedOffset, error) {
	res, err := o.Broker.ListOffset(ctx, tp, pos)
	return res, o.saw("ListOffset", err)
}

func (o *observed) DeleteRecords(ctx context.Context, tp api.TopicPartition, before record.Offset) (record.Offset, error) {
	res, err := o.Broker.DeleteRecords(ctx, tp, before)
	return res, o.saw("DeleteRecords", err)
}

func (o *observed) InitProducer(ctx context.Context) (api.ProducerID, error) {
	res, err := o.Broker.InitProducer(ctx)
	return res, o.saw("InitProducer", err)
}

func (o *observed) FindCoordinator(ctx context.Context, group string) (api.Endpoint, error) {
	res, err := o.Broker.FindCoordinator(ctx, group)
	return res, o.saw("FindCoordinator", err)
}

func (o *observed) JoinGroup(ctx context.Context, req api.JoinRequest) (api.JoinResult, error) {
	res, err := o.Broker.JoinGroup(ctx, req)
	return res, o.saw("JoinGroup", err)
}

func (o *observed) SyncGroup(ctx context.Context, req api.SyncRequest) (api.SyncResult, error) {
	res, err := o.Broker.SyncGroup(ctx, req)
	return res, o.saw("SyncGroup", err)
}

func (o *observed) JoinAndSync(ctx context.Context, req api.NativeJoinRequest) (api.NativeJoinResult, error) {
	res, err := o.Broker.JoinAndSync(ctx, req)
	return res, o.saw("JoinAndSync", err)
}

func (o *observed) Heartbeat(ctx context.Context, m api.MemberRef) error {
	return o.saw("Heartbeat", o.Broker.Heartbeat(ctx, m))
}

func (o *observed) LeaveGroup(ctx context.Context, m api.MemberRef) error {
	return o.saw("LeaveGroup", o.Broker.LeaveGroup(ctx, m))
}

func (o *observed) CommitOffsets(ctx context.Context, m api.MemberRef, offsets []api.OffsetCommit) error {
	return o.saw("CommitOffsets", o.Broker.CommitOffsets(ctx, m, offsets))
}

func (o *observed) FetchOffsets(ctx context.Context, group string, tps []api.TopicPartition) ([]api.OffsetCommit, error) {
	res, err := o.Broker.FetchOffsets(ctx, group, tps)
	return res, o.saw("FetchOffsets", err)
}

func (o *observed) CreateTopic(ctx context.Context, req api.CreateTopicRequest) (api.TopicDescription, error) {
	res, err := o.Broker.CreateTopic(ctx, req)
	return res, o.saw("CreateTopic", err)
}

func (o *observed) DeleteTopic(ctx context.Context, name string) error {
	return o.saw("DeleteTopic", o.Broker.DeleteTopic(ctx, name))
}

func (o *observed) AlterTopic(ctx context.Context, name string, set map[string]string, unset []string) (api.TopicDescription, error) {
	res, err := o.Broker.AlterTopic(ctx, name, set, unset)
	return res, o.saw("AlterTopic", err)
}

func (o *observed) CreatePartitions(ctx context.Context, req api.CreatePartitionsRequest) (api.TopicDescription, error) {
	res, err := o.Broker.CreatePartitions(ctx, req)
	return res, o.saw("CreatePartitions", err)
}

func (o *observed) DescribeTopic(ctx context.Context, name string) (api.TopicDescription, error) {
	res, err := o.Broker.DescribeTopic(ctx, name)
	return res, o.saw("DescribeTopic", err)
}

func (o *observed) ListTopics(ctx context.Context, internal bool) ([]api.TopicSummary, error) {
	res, err := o.Broker.ListTopics(ctx, internal)
	return res, o.saw("ListTopics", err)
}

func (o *observed) ListGroups(ctx context.Context) ([]api.GroupSummary, error) {
	res, err := o.Broker.ListGroups(ctx)
	return res, o.saw("ListGroups", err)
}

func (o *observed) DescribeGroup(ctx context.Context, group string) (api.GroupDescription, error) {
	res, err := o.Broker.DescribeGroup(ctx, group)
	return res, o.saw("DescribeGroup", err)
}

func (o *observed) DeleteGroup(ctx context.Context, group string) error {
	return o.saw("DeleteGroup", o.Broker.DeleteGroup(ctx, group))
}

func (o *observed) ResetOffsets(ctx context.Context, req api.ResetOffsetsRequest) ([]api.OffsetReset, error) {
	res, err := o.Broker.ResetOffsets(ctx, req)
	return res, o.saw("ResetOffsets", err)
}

func (o *observed) DeleteOffsets(ctx context.Context, group string, tps []api.TopicPartition) ([]error, error) {
	errs, err := o.Broker.DeleteOffsets(ctx, group, tps)
	return errs, o.saw("DeleteOffsets", err)
}

func (o *observed) Status(ctx context.Context) (api.ClusterStatus, error) {
	res, err := o.Broker.Status(ctx)
	return res, o.saw("Status", err)
}

func (o *observed) Decommission(ctx context.Context, id api.BrokerID) (int, error) {
	res, err := o.Broker.Decommission(ctx, id)
	return res, o.saw("Decommission", err)
}

func (o *observed) Recommission(ctx context.Context, id api.BrokerID) error {
	return o.saw("Recommission", o.Broker.Recommission(ctx, id))
}

func (o *observed) Rebalance(ctx context.Context, dryRun bool) (api.RebalancePlan, error) {
	res, err := o.Broker.Rebalance(ctx, dryRun)
	return res, o.saw("Rebalance", err)
}
