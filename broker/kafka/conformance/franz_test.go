package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

func franz(t testing.TB, c *brokertest.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(seeds(c)...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produceFranz sends the values from to to-1, keyed, and waits for all of them.
func produceFranz(t testing.TB, cl *kgo.Client, topic string, from, to int) {
	t.Helper()
	ctx := testContext(t)
	var mu sync.Mutex
	var failed error
	for i := from; i < to; i++ {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte(key(i)), Value: []byte(value(i))}, func(_ *kgo.Record, err error) {
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		t.Fatal(failed)
	}
}

// pollFranz reads until done.
func pollFranz(t testing.TB, cl *kgo.Client, each func(*kgo.Record), done func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !done() {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatal(err)
		}
		for _, e := range fs.Errors() {
			t.Fatalf("%s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		fs.EachRecord(each)
	}
}

func TestFranz(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	feature(t, "franz-go", "compression", func(t *testing.T) { franzCompression(t, c) })
	feature(t, "franz-go", "group", func(t *testing.T) { franzGroup(t, c) })
	feature(t, "franz-go", "resume", func(t *testing.T) { franzResume(t, c) })
	feature(t, "franz-go", "seek", func(t *testing.T) { franzSeek(t, c) })
	feature(t, "franz-go", "admin", func(t *testing.T) { franzAdmin(t, c) })
	feature(t, "franz-go", "autocreate", func(t *testing.T) { franzAutoCreate(t, c) })
	feature(t, "franz-go", "both front ends", func(t *testing.T) { franzAndNative(t, c) })
	feature(t, "franz-go", "leader kill", func(t *testing.T) { franzLeaderKill(t, c) })
}

func franzCompression(t *testing.T, c *brokertest.Cluster) {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			topic := "franz-" + name
			c.CreateTopic(topic, 3, 3)
			produceFranz(t, franz(t, c, kgo.ProducerBatchCompression(codec)), topic, 0, 1000)
			got, where := seen{}, map[string]int32{}
			consumer := franz(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			pollFranz(t, consumer, func(r *kgo.Record) {
				got[string(r.Value)]++
				if p, ok := where[string(r.Key)]; ok && p != r.Partition {
					t.Errorf("key %s is in partitions %d and %d", r.Key, p, r.Partition)
				}
				where[string(r.Key)] = r.Partition
			}, func() bool { return len(got) == 1000 })
			if err := got.exactly(1000); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// member is a consumer of a group that reads into a common count.
type member struct {
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{}
}

type readings struct {
	mu     sync.Mutex
	got    seen
	errors []error
}

func (r *readings) check(f func(seen) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(append(r.errors, f(r.got))...)
}

func startMember(t testing.TB, c *brokertest.Cluster, r *readings, groupID, topic string, opts ...kgo.Opt) *member {
	m := &member{done: make(chan struct{})}
	m.cl = franz(t, c, append([]kgo.Opt{
		kgo.ConsumerGroup(groupID), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(200 * time.Millisecond), kgo.AutoCommitInterval(200 * time.Millisecond),
	}, opts...)...)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		for {
			fs := m.cl.PollFetches(ctx)
			if ctx.Err() != nil || fs.IsClientClosed() {
				return
			}
			r.mu.Lock()
			for _, e := range fs.Errors() {
				r.errors = append(r.errors, e.Err)
			}
			fs.EachRecord(func(rec *kgo.Record) { r.got[string(rec.Value)]++ })
			r.mu.Unlock()
		}
	}()
	return m
}

func (m *member) close() {
	m.stop()
	<-m.done
	m.cl.Close()
}

func franzGroup(t *testing.T, c *brokertest.Cluster) {
	const topic, groupID = "franz-group", "franz-three"
	c.CreateTopic(topic, 6, 3)
	producer := franz(t, c)
	adm := kadm.NewClient(producer)
	r := &readings{got: seen{}}
	var members []*member
	for range 3 {
		members = append(members, startMember(t, c, r, groupID, topic))
	}
	produceFranz(t, producer, topic, 0, 3000)
	eventually(t, "all is read", func() error { return r.check(func(s seen) error { return s.missing(3000) }) })
	await := func(n int) {
		eventually(t, fmt.Sprintf("%d members share 6 partitions", n), func() error {
			d, err := adm.DescribeGroups(testContext(t), groupID)
			if err != nil {
				return err
			}
			g := d[groupID]
			if g.State != "Stable" || len(g.Members) != n || len(g.AssignedPartitions()[topic]) != 6 {
				return fmt.Errorf("%+v", g)
			}
			return nil
		})
	}
	await(3)
	members[0].close()
	await(2)
	produceFranz(t, producer, topic, 3000, 6000)
	eventually(t, "all is read after a rebalance", func() error { return r.check(func(s seen) error { return s.missing(6000) }) })
	for _, m := range members[1:] {
		m.close()
	}
	if err := r.check(func(s seen) error { return s.exactly(6000) }); err != nil {
		t.Error(err)
	}
}

func franzResume(t *testing.T, c *brokertest.Cluster) {
	const topic, groupID = "franz-resume", "franz-resume"
	c.CreateTopic(topic, 3, 3)
	producer := franz(t, c)
	produceFranz(t, producer, topic, 0, 500)
	ctx := testContext(t)
	open := func() *kgo.Client {
		return franz(t, c, kgo.ConsumerGroup(groupID), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	}
	got := seen{}
	first := open()
	pollFranz(t, first, func(r *kgo.Record) { got[string(r.Value)]++ }, func() bool { return len(got) == 500 })
	if err := first.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	first.Close()
	produceFranz(t, producer, topic, 500, 600)
	second := open()
	pollFranz(t, second, func(r *kgo.Record) { got[string(r.Value)]++ }, func() bool { return len(got) == 600 })
	if err := got.exactly(600); err != nil {
		t.Fatal(err)
	}
}

func franzSeek(t *testing.T, c *brokertest.Cluster) {
	const topic = "franz-seek"
	c.CreateTopic(topic, 1, 3, "retention.ms", "-1") // its records have old times
	cl := franz(t, c, kgo.ProducerLinger(0))
	ctx := testContext(t)
	begin := time.UnixMilli(1_700_000_000_000)
	for i := range 100 {
		r := &kgo.Record{Topic: topic, Value: []byte(value(i)), Timestamp: begin.Add(time.Duration(i) * time.Second)}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if r.Offset != int64(i) {
			t.Fatalf("record %d has offset %d", i, r.Offset)
		}
	}
	for what, at := range map[string]kgo.Offset{
		"offset": kgo.NewOffset().At(40), "time": kgo.NewOffset().AfterMilli(begin.Add(39500 * time.Millisecond).UnixMilli()), "from the end": kgo.NewOffset().AtEnd().Relative(-60),
	} {
		consumer := franz(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: at}}))
		var first *kgo.Record
		pollFranz(t, consumer, func(r *kgo.Record) {
			if first == nil {
				first = r
			}
		}, func() bool { return first != nil })
		if first.Offset != 40 || string(first.Value) != value(40) {
			t.Errorf("%s: began at %d with %s", what, first.Offset, first.Value)
		}
	}
	max, err := kadm.NewClient(cl).ListMaxTimestampOffsets(ctx, topic)
	if err != nil || max.Error() != nil {
		t.Fatal(err, max.Error())
	}
	if o, _ := max.Lookup(topic, 0); o.Offset != 99 {
		t.Errorf("the largest timestamp is at %d", o.Offset)
	}
}

func franzAdmin(t *testing.T, c *brokertest.Cluster) {
	adm := kadm.NewClient(franz(t, c))
	ctx := testContext(t)
	created, err := adm.CreateTopics(ctx, 2, 3, map[string]*string{"retention.ms": kadm.StringPtr("86400000")}, "franz-admin")
	if err != nil || created["franz-admin"].Err != nil {
		t.Fatal(err, created["franz-admin"].Err)
	}
	again, err := adm.CreateTopics(ctx, 2, 3, nil, "franz-admin")
	if err != nil || !errors.Is(again["franz-admin"].Err, kerr.TopicAlreadyExists) {
		t.Errorf("creating it again: %v %v", err, again["franz-admin"].Err)
	}
	if many, err := adm.CreateTopics(ctx, 1, 9, nil, "franz-too-many"); err != nil || !errors.Is(many["franz-too-many"].Err, kerr.InvalidReplicationFactor) {
		t.Errorf("nine replicas: %v %v", err, many["franz-too-many"].Err)
	}
	if grown, err := adm.UpdatePartitions(ctx, 5, "franz-admin"); err != nil || grown.Error() != nil {
		t.Fatal(err, grown.Error())
	}
	eventually(t, "all brokers know the new partitions", func() error {
		topics, err := adm.ListTopics(ctx, "franz-admin")
		if err == nil && len(topics["franz-admin"].Partitions) != 5 {
			err = fmt.Errorf("topics after growing: %+v", topics)
		}
		return err
	})
	if altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("2097152")}, {Op: kadm.DeleteConfig, Name: "retention.ms"}}, "franz-admin"); err != nil || altered[0].Err != nil {
		t.Fatal(err, altered)
	}
	eventually(t, "all brokers know the new settings", func() error {
		configs, err := adm.DescribeTopicConfigs(ctx, "franz-admin")
		if err != nil {
			return err
		}
		values := map[string]string{}
		for _, e := range configs[0].Configs {
			values[e.Key] = e.MaybeValue()
		}
		if values["max.message.bytes"] != "2097152" || values["retention.ms"] != "604800000" {
			err = fmt.Errorf("settings: %v", values)
		}
		return err
	})
	if brokers, err := adm.DescribeBrokerConfigs(ctx, 1, 2, 3); err != nil || len(brokers) != 3 {
		t.Errorf("broker settings: %v %v", err, brokers)
	}
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil || len(meta.Brokers) != 3 || meta.Cluster == "" || meta.Controller < 1 {
		t.Errorf("cluster: %v %+v", err, meta)
	}
	franzDeleteRecords(t, adm, ctx)
	franzGroups(t, adm, ctx)
	if deleted, err := adm.DeleteTopics(ctx, "franz-admin"); err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	eventually(t, "the topic is gone", func() error {
		topics, err := adm.ListTopics(ctx, "franz-admin")
		if err == nil && !errors.Is(topics["franz-admin"].Err, kerr.UnknownTopicOrPartition) {
			err = fmt.Errorf("%+v", topics["franz-admin"])
		}
		return err
	})
}

func franzDeleteRecords(t *testing.T, adm *kadm.Client, ctx context.Context) {
	var to kadm.Offsets
	to.Add(kadm.Offset{Topic: "franz-seek", Partition: 0, At: 10})
	if _, err := adm.DeleteRecords(ctx, to); err != nil {
		t.Fatal(err)
	}
	starts, err := adm.ListStartOffsets(ctx, "franz-seek")
	if o, _ := starts.Lookup("franz-seek", 0); err != nil || o.Offset != 10 {
		t.Errorf("the log starts at %d: %v", o.Offset, err)
	}
}

func franzGroups(t *testing.T, adm *kadm.Client, ctx context.Context) {
	groups, err := adm.ListGroups(ctx)
	if err != nil || groups["franz-three"].State != "Empty" {
		t.Errorf("groups: %v %+v", err, groups)
	}
	lags, err := adm.Lag(ctx, "franz-resume")
	if lag := lags["franz-resume"]; err != nil || lag.Error() != nil {
		t.Fatal(err, lag.Error())
	}
	var set kadm.Offsets
	set.Add(kadm.Offset{Topic: "franz-seek", Partition: 0, At: 50, LeaderEpoch: -1, Metadata: "here"})
	if err := adm.CommitAllOffsets(ctx, "franz-set", set); err != nil {
		t.Fatal(err)
	}
	back, err := adm.FetchOffsets(ctx, "franz-set")
	if o, _ := back.Lookup("franz-seek", 0); err != nil || o.At != 50 || o.Metadata != "here" {
		t.Errorf("offsets: %v %+v", err, back)
	}
	var gone kadm.TopicsSet
	gone.Add("franz-seek", 0)
	if r, err := adm.DeleteOffsets(ctx, "franz-set", gone); err != nil || r.Error() != nil {
		t.Errorf("deleting offsets: %v %v", err, r.Error())
	}
	if back, err = adm.FetchOffsets(ctx, "franz-set"); err != nil || len(back) != 0 {
		t.Errorf("offsets after deletion: %v %+v", err, back)
	}
	if r, err := adm.DeleteGroups(ctx, "franz-set", "franz-none"); err != nil || r["franz-set"].Err != nil || !errors.Is(r["franz-none"].Err, kerr.GroupIDNotFound) {
		t.Errorf("deleting groups: %v %+v", err, r)
	}
}

func franzAutoCreate(t *testing.T, c *brokertest.Cluster) {
	produceFranz(t, franz(t, c, kgo.AllowAutoTopicCreation()), "franz-auto", 0, 10)
	got := seen{}
	consumer := franz(t, c, kgo.ConsumeTopics("franz-auto"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	pollFranz(t, consumer, func(r *kgo.Record) { got[string(r.Value)]++ }, func() bool { return len(got) == 10 })
}

// What is written through one front end is read through the other.
func franzAndNative(t *testing.T, c *brokertest.Cluster) {
	const topic = "franz-native"
	c.CreateTopic(topic, 1, 3)
	produceFranz(t, franz(t, c), topic, 0, 5)
	c.Produce(topic, 0, value(5), value(6))
	var values []string
	for _, r := range c.ReadAll(topic, 0) {
		values = append(values, string(r.GetValue()))
	}
	var kafka []string
	consumer := franz(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	pollFranz(t, consumer, func(r *kgo.Record) { kafka = append(kafka, string(r.Value)) }, func() bool { return len(kafka) == 7 })
	if fmt.Sprint(values) != fmt.Sprint(kafka) || len(values) != 7 {
		t.Errorf("gRPC reads %v, Kafka %v", values, kafka)
	}
}

// franzLeaderKill kills the leader in the middle of idempotent production: no acknowledged record may be lost or doubled, nor the order change.
func franzLeaderKill(t *testing.T, c *brokertest.Cluster) {
	const topic, n = "franz-kill", 20000
	c.CreateTopic(topic, 1, 3)
	producer := franz(t, c, kgo.MaxBufferedRecords(500), kgo.ProducerBatchMaxBytes(16<<10))
	ctx := testContext(t)
	var mu sync.Mutex
	var failed error
	leader := c.Leader(topic, 0)
	for i := range n {
		producer.Produce(ctx, &kgo.Record{Topic: topic, Value: []byte(value(i))}, func(_ *kgo.Record, err error) {
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
		})
		if i == n/3 {
			c.Crash(leader)
		}
	}
	if err := producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	next := 0
	consumer := franz(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	pollFranz(t, consumer, func(r *kgo.Record) {
		if string(r.Value) != value(next) || r.Offset != int64(next) {
			t.Fatalf("offset %d holds %s instead of %s", r.Offset, r.Value, value(next))
		}
		next++
	}, func() bool { return next == n })
	c.Restart(leader)
	if c.Leader(topic, 0) == api.NoBroker {
		t.Error("no leader")
	}
}
