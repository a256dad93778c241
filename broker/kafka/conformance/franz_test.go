package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	flotilla "github.com/flotilla-log/flotilla/client"
)

type franz struct{}

func TestFranz(t *testing.T) { scenario(t, franz{}) }

func (franz) title(t *testing.T) string {
	return "franz-go " + version(t, "github.com/twmb/franz-go")
}
func (franz) traits() traits { return traits{allCodecs, true, allOperations()} }

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

type franzProducer struct {
	acks
	t     *testing.T
	cl    *kgo.Client
	topic string
}

func (franz) produce(t *testing.T, c *cluster, topic, codec string) producer {
	t.Helper()
	return &franzProducer{t: t, cl: c.client(t, kgo.ProducerBatchCompression(franzCodecs[codec])), topic: topic}
}

func (p *franzProducer) send(i int) error {
	p.sent++
	p.cl.Produce(context.Background(), &kgo.Record{Topic: p.topic, Key: []byte(key(i)), Value: []byte(value(i))}, func(_ *kgo.Record, err error) { p.ack(err) })
	return nil
}

func (p *franzProducer) close() error {
	defer p.cl.Close()
	return errors.Join(p.cl.Flush(testContext(p.t)), p.verdict())
}

func (franz) join(t *testing.T, c *cluster, group, topic string, show *readings) member {
	t.Helper()
	cl := c.client(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(300*time.Millisecond), kgo.AutoCommitInterval(300*time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fs := cl.PollFetches(ctx)
			if ctx.Err() != nil || fs.IsClientClosed() {
				return
			}
			if err := fs.Err(); err != nil {
				show.fail(err)
			}
			show.add(readingsOf(fs.Records())...)
		}
	}()
	return stopper(func() error { cancel(); <-done; cl.Close(); return nil })
}

func (franz) seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error) {
	offset := kgo.NewOffset().At(at)
	if by == "time" {
		offset = kgo.NewOffset().AfterMilli(at)
	}
	cl := c.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}}))
	defer cl.Close()
	fs := cl.PollFetches(testContext(t))
	if rs := fs.Records(); len(rs) > 0 {
		return readingOf(rs[0]), nil
	}
	return reading{}, cmpErr(fs.Err())
}

// cmpErr is err, or that nothing came.
func cmpErr(err error) error {
	if err == nil {
		return errors.New("nothing was read")
	}
	return err
}

func (franz) admin(t *testing.T, c *cluster, s adminStage) (did []string, err error) {
	a := franzAdmin{adminStage: s, t: t, ctx: testContext(t), adm: kadm.NewClient(c.client(t))}
	return perform(s, map[string]func() error{
		"create topic": a.create, "describe topic": a.describe, "describe cluster": a.cluster, "grow partitions": a.grow, "alter configs": a.alter,
		"describe configs": a.configs, "offsets by time": a.byTime, "delete records": a.deleteRecords, "list groups": a.groups, "describe group": a.describeGroup,
		"list group offsets": a.offsets, "alter group offsets": a.setOffsets, "delete group offsets": a.deleteOffsets, "delete group": a.deleteGroup,
		"describe log dirs": a.logDirs, "describe producers": a.producers, "elect leaders": a.elect, "reassign partitions": a.reassign, "delete topic": a.delete,
	})
}

// franzAdmin is franz-go's admin client and what it is to do.
type franzAdmin struct {
	adminStage
	t   *testing.T
	ctx context.Context
	adm *kadm.Client
}

func (a franzAdmin) create() error {
	settings := map[string]*string{"retention.ms": kadm.StringPtr("86400000")}
	made, err := a.adm.CreateTopics(a.ctx, 2, 3, settings, a.topic)
	if err := errors.Join(err, made.Error()); err != nil {
		return err
	}
	if again, err := a.adm.CreateTopics(a.ctx, 2, 3, settings, a.topic); err != nil || !errors.Is(again.Error(), kerr.TopicAlreadyExists) {
		return fmt.Errorf("creating it again: %v %v", err, again.Error())
	}
	if many, err := a.adm.CreateTopics(a.ctx, 1, 9, nil, "admin-nine"); err != nil || !errors.Is(many.Error(), kerr.InvalidReplicationFactor) {
		return fmt.Errorf("nine replicas: %v %v", err, many.Error())
	}
	return nil
}

func (a franzAdmin) described() (kadm.TopicDetail, error) {
	topics, err := a.adm.ListTopics(a.ctx, a.topic)
	return topics[a.topic], errors.Join(err, topics.Error())
}

func (a franzAdmin) describe() error {
	eventually(a.t, "the topic is described", func() error {
		d, err := a.described()
		return errors.Join(err, expect("partitions", len(d.Partitions), 2), expect("replicas", d.Partitions.NumReplicas(), 3))
	})
	return nil
}

func (a franzAdmin) cluster() error {
	meta, err := a.adm.BrokerMetadata(a.ctx)
	return errors.Join(err, expect("brokers", len(meta.Brokers), 3), expect("cluster ID", meta.Cluster != "", true), expect("controller", meta.Controller > 0, true))
}

func (a franzAdmin) grow() error {
	grown, err := a.adm.UpdatePartitions(a.ctx, 4, a.topic)
	if err := errors.Join(err, grown.Error()); err != nil {
		return err
	}
	eventually(a.t, "the topic has grown", func() error {
		d, err := a.described()
		return errors.Join(err, expect("partitions", len(d.Partitions), 4))
	})
	return nil
}

func (a franzAdmin) alter() error {
	altered, err := a.adm.AlterTopicConfigs(a.ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("2097152")}, {Op: kadm.DeleteConfig, Name: "retention.ms"}}, a.topic)
	for _, r := range altered {
		err = errors.Join(err, r.Err)
	}
	return err
}

func (a franzAdmin) configs() error {
	eventually(a.t, "the settings are seen", func() error {
		configs, err := a.adm.DescribeTopicConfigs(a.ctx, a.topic)
		if err != nil || len(configs) != 1 {
			return fmt.Errorf("%v: %w", configs, err)
		}
		values := map[string]string{}
		for _, e := range configs[0].Configs {
			values[e.Key] = e.MaybeValue()
		}
		return errors.Join(configs[0].Err, expect("max.message.bytes", values["max.message.bytes"], "2097152"), expect("retention.ms", values["retention.ms"], "604800000"))
	})
	brokers, err := a.adm.DescribeBrokerConfigs(a.ctx, 1, 2, 3)
	return errors.Join(err, expect("brokers with settings", len(brokers), 3))
}

func (a franzAdmin) byTime() error {
	listed, err := a.adm.ListOffsetsAfterMilli(a.ctx, stagedAt(20), a.data)
	at, _ := listed.Lookup(a.data, 0)
	last, lastErr := a.adm.ListMaxTimestampOffsets(a.ctx, a.data)
	newest, _ := last.Lookup(a.data, 0)
	return errors.Join(err, lastErr, expect("offset of the time", at.Offset, 20), expect("offset of the newest", newest.Offset, stagedRecords-1))
}

func (a franzAdmin) deleteRecords() error {
	var to kadm.Offsets
	to.Add(kadm.Offset{Topic: a.data, At: 10})
	deleted, err := a.adm.DeleteRecords(a.ctx, to)
	return errors.Join(err, deleted.Error())
}

func (a franzAdmin) groups() error {
	groups, err := a.adm.ListGroups(a.ctx)
	return errors.Join(err, expect("state", groups[a.group].State, "Empty"))
}

func (a franzAdmin) describeGroup() error {
	groups, err := a.adm.DescribeGroups(a.ctx, a.group)
	return errors.Join(err, groups.Error(), expect("state", groups[a.group].State, "Empty"))
}

// committed is the group's offset of the data, or -1.
func (a franzAdmin) committed() (int64, error) {
	offsets, err := a.adm.FetchOffsets(a.ctx, a.group)
	if o, ok := offsets.Lookup(a.data, 0); ok {
		return o.At, err
	}
	return -1, err
}

func (a franzAdmin) offsets() error {
	at, err := a.committed()
	return errors.Join(err, expect("offset", at, 7))
}

func (a franzAdmin) setOffsets() error {
	var to kadm.Offsets
	to.Add(kadm.Offset{Topic: a.data, At: 30, LeaderEpoch: -1, Metadata: "here"})
	if err := a.adm.CommitAllOffsets(a.ctx, a.group, to); err != nil {
		return err
	}
	at, err := a.committed()
	return errors.Join(err, expect("offset", at, 30))
}

func (a franzAdmin) deleteOffsets() error {
	var gone kadm.TopicsSet
	gone.Add(a.data, 0)
	deleted, err := a.adm.DeleteOffsets(a.ctx, a.group, gone)
	if err := errors.Join(err, deleted.Error()); err != nil {
		return err
	}
	at, err := a.committed()
	return errors.Join(err, expect("offset", at, -1))
}

func (a franzAdmin) deleteGroup() error {
	deleted, err := a.adm.DeleteGroups(a.ctx, a.group)
	return errors.Join(err, deleted.Error())
}

func (a franzAdmin) logDirs() error {
	var of kadm.TopicsSet
	of.Add(a.data, 0)
	dirs, err := a.adm.DescribeAllLogDirs(a.ctx, of)
	replicas, bytes := 0, int64(0)
	dirs.Each(func(d kadm.DescribedLogDir) {
		err = errors.Join(err, d.Err)
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) { replicas, bytes = replicas+1, bytes+p.Size })
	})
	return errors.Join(err, expect("replicas", replicas, 3), expect("they have bytes", bytes > 0, true))
}

func (a franzAdmin) producers() error {
	var of kadm.TopicsSet
	of.Add(a.data, 0)
	described, err := a.adm.DescribeProducers(a.ctx, of)
	p := described[a.data].Partitions[0]
	return errors.Join(err, p.Err, expect("producers", len(p.ActiveProducers), 1))
}

func (a franzAdmin) elect() error {
	var of kadm.TopicsSet
	of.Add(a.topic, 0, 1)
	results, err := a.adm.ElectLeaders(a.ctx, kadm.ElectPreferredReplica, of)
	for _, r := range results[a.topic] {
		if !errors.Is(r.Err, kerr.ElectionNotNeeded) {
			err = errors.Join(err, r.Err)
		}
	}
	return errors.Join(err, expect("results", len(results[a.topic]), 2))
}

func (a franzAdmin) reassign() error {
	before, err := a.described()
	if err != nil {
		return err
	}
	want := slices.Clone(before.Partitions[0].Replicas)
	slices.Reverse(want)
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign(a.topic, 0, want)
	altered, err := a.adm.AlterPartitionAssignments(a.ctx, req)
	if err := errors.Join(err, altered.Error()); err != nil {
		return err
	}
	eventually(a.t, "the replicas are as assigned", func() error {
		var of kadm.TopicsSet
		of.Add(a.topic, 0)
		under, err := a.adm.ListPartitionReassignments(a.ctx, of)
		d, describeErr := a.described()
		return errors.Join(err, describeErr, expect("reassignments under way", len(under), 0),
			expect("replicas", fmt.Sprint(d.Partitions[0].Replicas), fmt.Sprint(want)))
	})
	return nil
}

func (a franzAdmin) delete() error {
	deleted, err := a.adm.DeleteTopics(a.ctx, a.topic)
	return errors.Join(err, deleted.Error())
}

// A topic may come into being by being asked for.
func TestAutoCreation(t *testing.T) {
	c := startCluster(t)
	cl := c.client(t, kgo.AllowAutoTopicCreation())
	if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: "auto", Key: []byte(key(0)), Value: []byte(value(0))}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := exactly(readingsOf(c.read(t, "auto")), 0, 1); err != nil {
		t.Error(err)
	}
}

// What is written through one front end is read through the other.
func TestBothFrontEnds(t *testing.T) {
	c := startCluster(t)
	c.createTopic(t, "both", 3)
	send(t, c, franz{}, "both", "zstd", 0, 100)
	native, err := flotilla.New(c.procs.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = native.Close() }()
	p, err := native.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	for i := 100; i < 200; i++ {
		if err := p.Produce(testContext(t), &flotilla.Record{Topic: "both", Key: []byte(key(i)), Value: []byte(value(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	viaKafka := readingsOf(c.read(t, "both"))
	if err := errors.Join(exactly(viaKafka, 0, 200), ordered(viaKafka)); err != nil {
		t.Error(err)
	}
	consumer, err := native.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	if err := consumer.AssignTopic(testContext(t), "both", flotilla.Earliest()); err != nil {
		t.Fatal(err)
	}
	var viaGRPC []reading
	for len(viaGRPC) < 200 {
		rs, err := consumer.Poll(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			viaGRPC = append(viaGRPC, reading{r.Partition, r.Offset, string(r.Key), string(r.Value)})
		}
	}
	if err := errors.Join(exactly(viaGRPC, 0, 200), ordered(viaGRPC)); err != nil {
		t.Error(err)
	}
}
