package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

type saramaClient struct{}

func TestSarama(t *testing.T) { scenario(t, saramaClient{}) }

func (saramaClient) title(t *testing.T) string {
	return "sarama " + version(t, "github.com/IBM/sarama")
}
func (saramaClient) traits() traits {
	return traits{allCodecs, true, slices.DeleteFunc(allOperations(), func(op string) bool { return op == "describe producers" })}
}

func saramaConfig() *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.MaxVersion
	cfg.Producer.Return.Successes = true
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Retry.Max, cfg.Producer.Retry.Backoff = 300, 100*time.Millisecond
	cfg.Producer.Idempotent, cfg.Net.MaxOpenRequests = true, 1
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.Offsets.AutoCommit.Interval = 300 * time.Millisecond
	cfg.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	cfg.Metadata.Retry.Max, cfg.Metadata.Retry.Backoff = 100, 100*time.Millisecond
	return cfg
}

var saramaCodecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

type saramaProducer struct {
	acks
	p     sarama.AsyncProducer
	topic string
	wg    sync.WaitGroup
}

func (saramaClient) produce(t *testing.T, c *cluster, topic, codec string) producer {
	t.Helper()
	cfg := saramaConfig()
	cfg.Producer.Compression, cfg.Producer.Flush.Frequency = saramaCodecs[codec], 5*time.Millisecond
	p, err := sarama.NewAsyncProducer(c.seeds(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	sp := &saramaProducer{p: p, topic: topic}
	sp.wg.Go(func() {
		for range p.Successes() {
			sp.ack(nil)
		}
	})
	sp.wg.Go(func() {
		for e := range p.Errors() {
			sp.ack(e)
		}
	})
	return sp
}

func (p *saramaProducer) send(i int) error {
	p.sent++
	p.p.Input() <- &sarama.ProducerMessage{Topic: p.topic, Key: sarama.StringEncoder(key(i)), Value: sarama.StringEncoder(value(i))}
	return nil
}

func (p *saramaProducer) close() error {
	p.p.AsyncClose()
	p.wg.Wait()
	return p.verdict()
}

// saramaMember shows what it reads.
type saramaMember struct{ show *readings }

func (saramaMember) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaMember) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m saramaMember) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case msg, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			m.show.add(saramaReading(msg))
			s.MarkMessage(msg, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func saramaReading(m *sarama.ConsumerMessage) reading {
	return reading{m.Partition, m.Offset, string(m.Key), string(m.Value)}
}

func (saramaClient) join(t *testing.T, c *cluster, group, topic string, show *readings) member {
	t.Helper()
	g, err := sarama.NewConsumerGroup(c.seeds(), group, saramaConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := g.Consume(ctx, []string{topic}, saramaMember{show}); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) && ctx.Err() == nil {
				show.fail(err)
				return
			}
		}
	}()
	return stopper(sync.OnceValue(func() error { cancel(); <-done; return g.Close() }))
}

func (saramaClient) seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error) {
	client, err := sarama.NewClient(c.seeds(), saramaConfig())
	if err != nil {
		return reading{}, err
	}
	defer func() { _ = client.Close() }()
	if by == "time" {
		if at, err = client.GetOffset(topic, partition, at); err != nil {
			return reading{}, err
		}
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return reading{}, err
	}
	pc, err := consumer.ConsumePartition(topic, partition, at)
	if err != nil {
		return reading{}, err
	}
	defer func() { _ = pc.Close() }()
	select {
	case m := <-pc.Messages():
		return saramaReading(m), nil
	case <-testContext(t).Done():
		return reading{}, errors.New("nothing was read")
	}
}

func (saramaClient) admin(t *testing.T, c *cluster, s adminStage) (did []string, err error) {
	adm, err := sarama.NewClusterAdmin(c.seeds(), saramaConfig())
	if err != nil {
		return nil, err
	}
	defer func() { _ = adm.Close() }()
	a := saramaAdmin{s, t, adm}
	return perform(s, map[string]func() error{
		"create topic": a.create, "describe topic": func() error { return a.describe(2) }, "describe cluster": a.cluster, "grow partitions": a.grow,
		"alter configs": a.alter, "describe configs": a.configs, "offsets by time": a.byTime, "delete records": a.deleteRecords, "list groups": a.groups,
		"describe group": a.describeGroup, "list group offsets": func() error { return a.offset(7) }, "delete group offsets": a.deleteOffsets,
		"alter group offsets": a.setOffsets, "delete group": a.deleteGroup, "describe log dirs": a.logDirs, "elect leaders": a.elect,
		"reassign partitions": a.reassign, "delete topic": func() error { return adm.DeleteTopic(s.topic) },
	})
}

type saramaAdmin struct {
	adminStage
	t   *testing.T
	adm sarama.ClusterAdmin
}

func (a saramaAdmin) create() error {
	retention := "86400000"
	return a.adm.CreateTopic(a.topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 3, ConfigEntries: map[string]*string{"retention.ms": &retention}}, false)
}

func (a saramaAdmin) described() (*sarama.TopicMetadata, error) {
	d, err := a.adm.DescribeTopics([]string{a.topic})
	if err != nil {
		return nil, err
	}
	if d[0].Err != sarama.ErrNoError {
		return nil, d[0].Err
	}
	slices.SortFunc(d[0].Partitions, func(a, b *sarama.PartitionMetadata) int { return int(a.ID - b.ID) })
	return d[0], nil
}

func (a saramaAdmin) describe(partitions int) error {
	eventually(a.t, "the topic is described", func() error {
		d, err := a.described()
		if err != nil {
			return err
		}
		return errors.Join(expect("partitions", len(d.Partitions), partitions), expect("replicas", len(d.Partitions[0].Replicas), 3))
	})
	return nil
}

func (a saramaAdmin) cluster() error {
	brokers, controller, err := a.adm.DescribeCluster()
	return errors.Join(err, expect("brokers", len(brokers), 3), expect("controller", controller > 0, true))
}

func (a saramaAdmin) grow() error {
	if err := a.adm.CreatePartitions(a.topic, 4, nil, false); err != nil {
		return err
	}
	return a.describe(4)
}

func (a saramaAdmin) alter() error {
	most := "2097152"
	return a.adm.IncrementalAlterConfig(sarama.TopicResource, a.topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &most}}, false)
}

func (a saramaAdmin) configs() error {
	eventually(a.t, "the settings are seen", func() error {
		rs, err := a.adm.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: a.topic}}, sarama.DescribeConfigsOptions{})
		if err != nil || len(rs) != 1 {
			return fmt.Errorf("%v: %w", rs, err)
		}
		values := map[string]string{}
		for _, e := range rs[0].Configs {
			values[e.Name] = e.Value
		}
		return errors.Join(err, expect("max.message.bytes", values["max.message.bytes"], "2097152"), expect("retention.ms", values["retention.ms"], "86400000"))
	})
	return nil
}

func (a saramaAdmin) byTime() error {
	listed, err := a.adm.ListOffsets(map[string]map[int32]int64{a.data: {0: stagedAt(20)}}, nil)
	if err != nil || listed[a.data][0] == nil {
		return fmt.Errorf("%v: %w", listed, err)
	}
	return errors.Join(expect("result", listed[a.data][0].Err, error(sarama.ErrNoError)), expect("offset of the time", listed[a.data][0].Offset, 20))
}

func (a saramaAdmin) deleteRecords() error {
	return a.adm.DeleteRecords(a.data, map[int32]int64{0: 10})
}

func (a saramaAdmin) groups() error {
	groups, err := a.adm.ListConsumerGroups()
	_, there := groups[a.group]
	return errors.Join(err, expect("the group is listed", there, true))
}

func (a saramaAdmin) describeGroup() error {
	groups, err := a.adm.DescribeConsumerGroups([]string{a.group})
	if err != nil {
		return err
	}
	return expect("state", groups[0].State, "Empty")
}

func (a saramaAdmin) offset(want int64) error {
	offsets, err := a.adm.ListConsumerGroupOffsets(a.group, map[string][]int32{a.data: {0}})
	if err != nil {
		return err
	}
	return expect("offset", offsets.GetBlock(a.data, 0).Offset, want)
}

func (a saramaAdmin) deleteOffsets() error {
	return errors.Join(a.adm.DeleteConsumerGroupOffset(a.group, a.data, 0), a.offset(-1))
}

func (a saramaAdmin) setOffsets() error {
	r, err := a.adm.AlterConsumerGroupOffsets(a.group, map[string]map[int32]sarama.OffsetAndMetadata{a.data: {0: {Offset: 30, LeaderEpoch: -1}}}, nil)
	if err != nil {
		return err
	}
	return errors.Join(expect("result", r.Errors[a.data][0], sarama.ErrNoError), a.offset(30))
}

func (a saramaAdmin) deleteGroup() error { return a.adm.DeleteConsumerGroup(a.group) }

func (a saramaAdmin) logDirs() error {
	dirs, err := a.adm.DescribeLogDirs([]int32{1, 2, 3})
	replicas := 0
	for _, of := range dirs {
		for _, d := range of {
			for _, topic := range d.Topics {
				if topic.Topic == a.data {
					replicas += len(topic.Partitions)
				}
			}
		}
	}
	return errors.Join(err, expect("replicas", replicas, 3))
}

func (a saramaAdmin) elect() error {
	results, err := a.adm.ElectLeaders(sarama.PreferredElection, map[string][]int32{a.topic: {0, 1}})
	for p, r := range results[a.topic] {
		if r.ErrorCode != sarama.ErrNoError && r.ErrorCode != sarama.ErrElectionNotNeeded {
			err = errors.Join(err, fmt.Errorf("partition %d: %w", p, r.ErrorCode))
		}
	}
	return err
}

func (a saramaAdmin) reassign() error {
	before, err := a.described()
	if err != nil {
		return err
	}
	var want [][]int32
	for _, p := range before.Partitions {
		replicas := slices.Clone(p.Replicas)
		slices.Reverse(replicas)
		want = append(want, replicas)
	}
	if err := a.adm.AlterPartitionReassignments(a.topic, want); err != nil {
		return err
	}
	eventually(a.t, "the replicas are as assigned", func() error {
		under, err := a.adm.ListPartitionReassignments(a.topic, []int32{0})
		d, describeErr := a.described()
		if err := errors.Join(err, describeErr); err != nil {
			return err
		}
		return errors.Join(expect("reassignments under way", len(under[a.topic]), 0), expect("replicas", fmt.Sprint(d.Partitions[0].Replicas), fmt.Sprint(want[0])))
	})
	return nil
}

// Clients that speak as those of older Kafkas do.
func TestOldVersions(t *testing.T) {
	c := startCluster(t)
	for _, v := range []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.V1_0_0_0, sarama.V2_0_0_0, sarama.V2_8_0_0} {
		t.Run(v.String(), func(t *testing.T) { oldVersion(t, c, v) })
	}
}

func oldVersion(t *testing.T, c *cluster, v sarama.KafkaVersion) {
	const n = 50
	topic := "old-" + v.String()
	c.createTopic(t, topic, 1)
	cfg := saramaConfig()
	cfg.Version, cfg.ApiVersionsRequest = v, false
	p, err := sarama.NewSyncProducer(c.seeds(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for i := range n {
		m := &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key(i)), Value: sarama.StringEncoder(value(i))}
		if _, at, err := p.SendMessage(m); err != nil || at != int64(i) {
			t.Fatalf("record %d is at %d: %v", i, at, err)
		}
	}
	consumer, err := sarama.NewConsumer(c.seeds(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	pc, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	var got []reading
	for ctx := testContext(t); len(got) < n; {
		select {
		case m := <-pc.Messages():
			got = append(got, saramaReading(m))
		case <-ctx.Done():
			t.Fatalf("%d of %d were read", len(got), n)
		}
	}
	if err := errors.Join(exactly(got, 0, n), ordered(got)); err != nil {
		t.Error(err)
	}
}
