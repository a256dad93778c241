package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

type kafkaGo struct{}

func TestKafkaGo(t *testing.T) { scenario(t, kafkaGo{}) }

func (kafkaGo) title(t *testing.T) string {
	return "kafka-go " + version(t, "github.com/segmentio/kafka-go")
}

// It has no idempotent producer.
func (kafkaGo) traits() traits {
	return traits{allCodecs, false, slices.DeleteFunc(allOperations(), func(op string) bool {
		return op == "describe producers" || op == "delete records" || op == "describe log dirs"
	})}
}

var kafkaGoCodecs = map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

// kafkaGoProducer writes twenty records at a time.
type kafkaGoProducer struct {
	w    *kafka.Writer
	wait []kafka.Message
}

func (kafkaGo) produce(t *testing.T, c *cluster, topic, codec string) producer {
	w := &kafka.Writer{
		Addr: kafka.TCP(c.seeds()...), Topic: topic, RequiredAcks: kafka.RequireAll, Balancer: kafka.Murmur2Balancer{}, Compression: kafkaGoCodecs[codec],
		BatchTimeout: 5 * time.Millisecond, MaxAttempts: 100, Transport: &kafka.Transport{MetadataTTL: 200 * time.Millisecond},
	}
	t.Cleanup(func() { _ = w.Close() })
	return &kafkaGoProducer{w: w}
}

func (p *kafkaGoProducer) send(i int) error {
	p.wait = append(p.wait, kafka.Message{Key: []byte(key(i)), Value: []byte(value(i))})
	if len(p.wait) < 20 {
		return nil
	}
	return p.flush()
}

// flush writes what waits. The client gives up on errors of connections that break in the middle, so it is asked again, for as long as patience.
func (p *kafkaGoProducer) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := p.w.WriteMessages(ctx, p.wait...)
		if err == nil {
			p.wait = nil
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

func (p *kafkaGoProducer) close() error { return errors.Join(p.flush(), p.w.Close()) }

func kafkaGoReading(m kafka.Message) reading {
	return reading{int32(m.Partition), m.Offset, string(m.Key), string(m.Value)}
}

func (kafkaGo) join(t *testing.T, c *cluster, group, topic string, show *readings) member {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: c.seeds(), GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, HeartbeatInterval: 300 * time.Millisecond,
		MaxWait: 100 * time.Millisecond, JoinGroupBackoff: 200 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := r.FetchMessage(ctx)
			if err != nil {
				return
			}
			show.add(kafkaGoReading(m))
			// It fails while the group rebalances, and a later commit covers this one.
			if err := r.CommitMessages(ctx, m); err != nil && ctx.Err() == nil {
				t.Log("committing:", err)
			}
		}
	}()
	return stopper(func() error { cancel(); <-done; return r.Close() })
}

func (kafkaGo) seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.seeds(), Topic: topic, Partition: int(partition), MaxWait: 100 * time.Millisecond})
	defer func() { _ = r.Close() }()
	ctx := testContext(t)
	set := func() error { return r.SetOffset(at) }
	if by == "time" {
		set = func() error { return r.SetOffsetAt(ctx, time.UnixMilli(at)) }
	}
	if err := set(); err != nil {
		return reading{}, err
	}
	m, err := r.ReadMessage(ctx)
	return kafkaGoReading(m), err
}

func (kafkaGo) admin(t *testing.T, c *cluster, s adminStage) (did []string, err error) {
	a := kafkaGoAdmin{s, t, testContext(t), &kafka.Client{Addr: kafka.TCP(c.seeds()...)}}
	return perform(s, map[string]func() error{
		"create topic": a.create, "describe topic": func() error { return a.describe(2) }, "describe cluster": a.cluster, "grow partitions": a.grow,
		"alter configs": a.alter, "describe configs": a.configs, "offsets by time": a.byTime, "list groups": a.groups,
		"describe group": a.describeGroup, "list group offsets": func() error { return a.offset(7) }, "delete group offsets": a.deleteOffsets,
		"alter group offsets": a.setOffsets, "delete group": a.deleteGroup, "elect leaders": a.elect, "reassign partitions": a.reassign, "delete topic": a.delete,
	})
}

type kafkaGoAdmin struct {
	adminStage
	t   *testing.T
	ctx context.Context
	cl  *kafka.Client
}

func (a kafkaGoAdmin) create() error {
	r, err := a.cl.CreateTopics(a.ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: a.topic, NumPartitions: 2, ReplicationFactor: 3,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "86400000"}}}}})
	if err != nil {
		return err
	}
	return r.Errors[a.topic]
}

func (a kafkaGoAdmin) described() (kafka.Topic, error) {
	r, err := a.cl.Metadata(a.ctx, &kafka.MetadataRequest{Topics: []string{a.topic}})
	if err != nil || len(r.Topics) != 1 {
		return kafka.Topic{}, fmt.Errorf("metadata of %s: %w", a.topic, cmpErr(err))
	}
	slices.SortFunc(r.Topics[0].Partitions, func(a, b kafka.Partition) int { return a.ID - b.ID })
	return r.Topics[0], r.Topics[0].Error
}

func (a kafkaGoAdmin) describe(partitions int) error {
	eventually(a.t, "the topic is described", func() error {
		d, err := a.described()
		if err != nil {
			return err
		}
		return errors.Join(expect("partitions", len(d.Partitions), partitions), expect("replicas", len(d.Partitions[0].Replicas), 3))
	})
	return nil
}

func (a kafkaGoAdmin) cluster() error {
	r, err := a.cl.Metadata(a.ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	return errors.Join(expect("brokers", len(r.Brokers), 3), expect("controller", r.Controller.ID > 0, true))
}

func (a kafkaGoAdmin) grow() error {
	r, err := a.cl.CreatePartitions(a.ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: a.topic, Count: 4}}})
	if err != nil {
		return err
	}
	return errors.Join(r.Errors[a.topic], a.describe(4))
}

func (a kafkaGoAdmin) alter() error {
	r, err := a.cl.IncrementalAlterConfigs(a.ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: a.topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "max.message.bytes", Value: "2097152", ConfigOperation: kafka.ConfigOperationSet}}}}})
	if err != nil {
		return err
	}
	return r.Resources[0].Error
}

func (a kafkaGoAdmin) configs() error {
	eventually(a.t, "the settings are seen", func() error {
		r, err := a.cl.DescribeConfigs(a.ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: a.topic}}})
		if err != nil {
			return err
		}
		values := map[string]string{}
		for _, e := range r.Resources[0].ConfigEntries {
			values[e.ConfigName] = e.ConfigValue
		}
		return errors.Join(expect("max.message.bytes", values["max.message.bytes"], "2097152"), expect("retention.ms", values["retention.ms"], "86400000"))
	})
	return nil
}

func (a kafkaGoAdmin) byTime() error {
	r, err := a.cl.ListOffsets(a.ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{a.data: {kafka.TimeOffsetOf(0, time.UnixMilli(stagedAt(20)))}}})
	if err != nil || len(r.Topics[a.data]) != 1 {
		return fmt.Errorf("offsets of %s: %w", a.data, cmpErr(err))
	}
	_, there := r.Topics[a.data][0].Offsets[20]
	return errors.Join(r.Topics[a.data][0].Error, expect("offset 20 is that of the time", there, true))
}

func (a kafkaGoAdmin) groups() error {
	r, err := a.cl.ListGroups(a.ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return err
	}
	there := slices.ContainsFunc(r.Groups, func(g kafka.ListGroupsResponseGroup) bool { return g.GroupID == a.group })
	return errors.Join(r.Error, expect("the group is listed", there, true))
}

func (a kafkaGoAdmin) describeGroup() error {
	r, err := a.cl.DescribeGroups(a.ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{a.group}})
	if err != nil {
		return err
	}
	return errors.Join(r.Groups[0].Error, expect("state", r.Groups[0].GroupState, "Empty"))
}

func (a kafkaGoAdmin) offset(want int64) error {
	r, err := a.cl.OffsetFetch(a.ctx, &kafka.OffsetFetchRequest{GroupID: a.group, Topics: map[string][]int{a.data: {0}}})
	if err != nil {
		return err
	}
	return errors.Join(r.Error, expect("offset", r.Topics[a.data][0].CommittedOffset, want))
}

func (a kafkaGoAdmin) deleteOffsets() error {
	r, err := a.cl.OffsetDelete(a.ctx, &kafka.OffsetDeleteRequest{GroupID: a.group, Topics: map[string][]int{a.data: {0}}})
	if err != nil {
		return err
	}
	return errors.Join(r.Error, r.Topics[a.data][0].Error, a.offset(-1))
}

func (a kafkaGoAdmin) setOffsets() error {
	r, err := a.cl.OffsetCommit(a.ctx, &kafka.OffsetCommitRequest{GroupID: a.group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{a.data: {{Offset: 30}}}})
	if err != nil {
		return err
	}
	return errors.Join(r.Topics[a.data][0].Error, a.offset(30))
}

func (a kafkaGoAdmin) deleteGroup() error {
	r, err := a.cl.DeleteGroups(a.ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{a.group}})
	if err != nil {
		return err
	}
	return r.Errors[a.group]
}

func (a kafkaGoAdmin) elect() error {
	r, err := a.cl.ElectLeaders(a.ctx, &kafka.ElectLeadersRequest{Topic: a.topic, Partitions: []int{0, 1}, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	for _, p := range r.PartitionResults {
		if !errors.Is(p.Error, kafka.Error(84)) { // ELECTION_NOT_NEEDED, for which it has no name
			err = errors.Join(err, p.Error)
		}
	}
	return errors.Join(err, r.Error, expect("results", len(r.PartitionResults), 2))
}

func (a kafkaGoAdmin) reassign() error {
	before, err := a.described()
	if err != nil {
		return err
	}
	want := brokerIDs(before.Partitions[0].Replicas)
	slices.Reverse(want)
	r, err := a.cl.AlterPartitionReassignments(a.ctx, &kafka.AlterPartitionReassignmentsRequest{
		Topic: a.topic, Assignments: []kafka.AlterPartitionReassignmentsRequestAssignment{{PartitionID: 0, BrokerIDs: want}}, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	for _, p := range r.PartitionResults {
		err = errors.Join(err, p.Error)
	}
	if err := errors.Join(err, r.Error); err != nil {
		return err
	}
	eventually(a.t, "the replicas are as assigned", func() error {
		under, err := a.cl.ListPartitionReassignments(a.ctx, &kafka.ListPartitionReassignmentsRequest{
			Topics: map[string]kafka.ListPartitionReassignmentsRequestTopic{a.topic: {PartitionIndexes: []int{0}}}, Timeout: 10 * time.Second})
		if err != nil {
			return err
		}
		d, err := a.described()
		if err != nil {
			return err
		}
		return errors.Join(under.Error, expect("reassignments under way", len(under.Topics), 0),
			expect("replicas", fmt.Sprint(brokerIDs(d.Partitions[0].Replicas)), fmt.Sprint(want)))
	})
	return nil
}

func brokerIDs(brokers []kafka.Broker) (ids []int) {
	for _, b := range brokers {
		ids = append(ids, b.ID)
	}
	return ids
}

func (a kafkaGoAdmin) delete() error {
	r, err := a.cl.DeleteTopics(a.ctx, &kafka.DeleteTopicsRequest{Topics: []string{a.topic}})
	if err != nil {
		return err
	}
	return r.Errors[a.topic]
}
