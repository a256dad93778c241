package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

func saramaConfig(change func(*sarama.Config)) *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.MaxVersion
	cfg.Producer.Return.Successes = true
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	cfg.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	cfg.Metadata.Retry.Max, cfg.Metadata.Retry.Backoff = 40, 100*time.Millisecond
	cfg.Producer.Retry.Max, cfg.Producer.Retry.Backoff = 200, 100*time.Millisecond
	if change != nil {
		change(cfg)
	}
	return cfg
}

// closing closes what a test has opened.
func closing(t testing.TB, what interface{ Close() error }) { t.Cleanup(func() { _ = what.Close() }) }

func produceSarama(t testing.TB, c *brokertest.Cluster, cfg *sarama.Config, topic string, from, to int) {
	t.Helper()
	p, err := sarama.NewSyncProducer(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	var messages []*sarama.ProducerMessage
	for i := from; i < to; i++ {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key(i)), Value: sarama.StringEncoder(value(i))})
	}
	if err := p.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
}

func TestSarama(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	feature(t, "sarama", "compression", func(t *testing.T) { saramaCompression(t, c) })
	feature(t, "sarama", "group", func(t *testing.T) { saramaGroup(t, c) })
	feature(t, "sarama", "seek", func(t *testing.T) { saramaSeek(t, c) })
	feature(t, "sarama", "admin", func(t *testing.T) { saramaAdmin(t, c) })
	feature(t, "sarama", "leader kill", func(t *testing.T) { saramaLeaderKill(t, c) })
	feature(t, "sarama", "old versions", func(t *testing.T) { saramaOld(t, c) })
}

func saramaCompression(t *testing.T, c *brokertest.Cluster) {
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		topic := "sarama-" + codec.String()
		c.CreateTopic(topic, 3, 3)
		cfg := saramaConfig(func(cfg *sarama.Config) { cfg.Producer.Compression = codec })
		produceSarama(t, c, cfg, topic, 0, 500)
		got := readSarama(t, c, cfg, topic, 3, 500)
		if err := got.exactly(500); err != nil {
			t.Errorf("%s: %v", codec, err)
		}
	}
}

// readSarama reads n records from all partitions.
func readSarama(t testing.TB, c *brokertest.Cluster, cfg *sarama.Config, topic string, partitions int32, n int) seen {
	t.Helper()
	consumer, err := sarama.NewConsumer(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	ctx := testContext(t)
	messages := make(chan *sarama.ConsumerMessage)
	for p := range partitions {
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.AsyncClose()
		go func() {
			for m := range pc.Messages() {
				select {
				case messages <- m:
				case <-ctx.Done():
				}
			}
		}()
	}
	got := seen{}
	for range n {
		select {
		case m := <-messages:
			got[string(m.Value)]++
		case <-ctx.Done():
			t.Fatalf("%d of %d were read", len(got), n)
		}
	}
	return got
}

// saramaMember reads into common readings.
type saramaMember struct{ r *readings }

func (saramaMember) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaMember) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m saramaMember) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case msg, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			m.r.mu.Lock()
			m.r.got[string(msg.Value)]++
			m.r.mu.Unlock()
			s.MarkMessage(msg, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func saramaGroup(t *testing.T, c *brokertest.Cluster) {
	const topic, groupID = "sarama-group", "sarama-group"
	c.CreateTopic(topic, 6, 3)
	r := &readings{got: seen{}}
	cfg := saramaConfig(nil)
	join := func() (stop func()) {
		g, err := sarama.NewConsumerGroup(seeds(c), groupID, cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				if err := g.Consume(ctx, []string{topic}, saramaMember{r}); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
					r.mu.Lock()
					r.errors = append(r.errors, err)
					r.mu.Unlock()
					return
				}
			}
		}()
		return func() { cancel(); <-done; _ = g.Close() }
	}
	stops := []func(){join(), join(), join()}
	admin, err := sarama.NewClusterAdmin(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, admin)
	await := func(n int) {
		eventually(t, fmt.Sprintf("%d members are stable", n), func() error {
			d, err := admin.DescribeConsumerGroups([]string{groupID})
			if err == nil && (d[0].State != "Stable" || len(d[0].Members) != n) {
				err = fmt.Errorf("%s with %d members", d[0].State, len(d[0].Members))
			}
			return err
		})
	}
	await(3)
	produceSarama(t, c, cfg, topic, 0, 1000)
	eventually(t, "all is read", func() error { return r.check(func(s seen) error { return s.missing(1000) }) })
	stops[0]()
	await(2)
	produceSarama(t, c, cfg, topic, 1000, 2000)
	eventually(t, "all is read after a rebalance", func() error { return r.check(func(s seen) error { return s.missing(2000) }) })
	stops[1]()
	stops[2]()
	// A new member goes on where the others stopped.
	produceSarama(t, c, cfg, topic, 2000, 2100)
	stop := join()
	eventually(t, "the rest is read after a restart", func() error { return r.check(func(s seen) error { return s.missing(2100) }) })
	stop()
	if err := r.check(func(s seen) error { return s.exactly(2100) }); err != nil {
		t.Error(err)
	}
}

func saramaSeek(t *testing.T, c *brokertest.Cluster) {
	const topic = "sarama-seek"
	c.CreateTopic(topic, 1, 3, "retention.ms", "-1") // its records have old times
	cfg := saramaConfig(nil)
	p, err := sarama.NewSyncProducer(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, p)
	begin := time.UnixMilli(1_700_000_000_000)
	for i := range 50 {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value(i)), Timestamp: begin.Add(time.Duration(i) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	client, err := sarama.NewClient(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, client)
	if at, err := client.GetOffset(topic, 0, begin.Add(20*time.Second).UnixMilli()); err != nil || at != 20 {
		t.Errorf("by time: %d, %v", at, err)
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, consumer)
	pc, err := consumer.ConsumePartition(topic, 0, 33)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.AsyncClose()
	select {
	case m := <-pc.Messages():
		if m.Offset != 33 || string(m.Value) != value(33) {
			t.Errorf("by offset: %d %s", m.Offset, m.Value)
		}
	case <-testContext(t).Done():
		t.Error("nothing was read from offset 33")
	}
}

func saramaAdmin(t *testing.T, c *brokertest.Cluster) {
	admin, err := sarama.NewClusterAdmin(seeds(c), saramaConfig(nil))
	if err != nil {
		t.Fatal(err)
	}
	closing(t, admin)
	retention := "86400000"
	if err := admin.CreateTopic("sarama-admin", &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 3, ConfigEntries: map[string]*string{"retention.ms": &retention}}, false); err != nil {
		t.Fatal(err)
	}
	if err := admin.CreatePartitions("sarama-admin", 4, nil, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all brokers know the partitions", func() error {
		d, err := admin.DescribeTopics([]string{"sarama-admin"})
		if err == nil && len(d[0].Partitions) != 4 {
			err = fmt.Errorf("%+v", d[0])
		}
		return err
	})
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: "sarama-admin", ConfigNames: []string{"retention.ms"}})
	if err != nil || len(entries) != 1 || entries[0].Value != retention {
		t.Errorf("settings: %+v %v", entries, err)
	}
	if err := admin.DeleteRecords("sarama-seek", map[int32]int64{0: 5}); err != nil {
		t.Error(err)
	}
	if groups, err := admin.ListConsumerGroups(); err != nil || groups["sarama-group"] != "consumer" {
		t.Errorf("groups: %v %v", groups, err)
	}
	if offsets, err := admin.ListConsumerGroupOffsets("sarama-group", nil); err != nil || len(offsets.Blocks["sarama-group"]) != 6 {
		t.Errorf("offsets: %+v %v", offsets, err)
	}
	if err := admin.DeleteConsumerGroup("sarama-group"); err != nil {
		t.Error(err)
	}
	if err := admin.DeleteTopic("sarama-admin"); err != nil {
		t.Error(err)
	}
}

func saramaLeaderKill(t *testing.T, c *brokertest.Cluster) {
	const topic, n = "sarama-kill", 5000
	c.CreateTopic(topic, 1, 3)
	cfg := saramaConfig(func(cfg *sarama.Config) {
		cfg.Producer.Idempotent, cfg.Net.MaxOpenRequests, cfg.Producer.Flush.MaxMessages = true, 1, 50
	})
	p, err := sarama.NewAsyncProducer(seeds(c), cfg)
	if err != nil {
		t.Fatal(err)
	}
	leader := c.Leader(topic, 0)
	go func() {
		for i := range n {
			p.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value(i))}
		}
	}()
	for acked := 0; acked < n; {
		select {
		case <-p.Successes():
			if acked++; acked == n/3 {
				c.Crash(leader)
			}
		case e := <-p.Errors():
			t.Fatal(e)
		case <-time.After(patience):
			t.Fatalf("%d of %d were acknowledged", acked, n)
		}
	}
	p.AsyncClose()
	got := readSarama(t, c, saramaConfig(nil), topic, 1, n)
	if err := got.exactly(n); err != nil {
		t.Error(err)
	}
	c.Restart(leader)
}

// saramaOld speaks as clients of Kafka 0.11 do.
func saramaOld(t *testing.T, c *brokertest.Cluster) {
	c.CreateTopic("sarama-old", 1, 3)
	for _, v := range []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.V1_0_0_0, sarama.V2_0_0_0, sarama.V2_8_0_0} {
		cfg := saramaConfig(func(cfg *sarama.Config) { cfg.Version, cfg.ApiVersionsRequest = v, false })
		produceSarama(t, c, cfg, "sarama-old", 0, 10)
		if got := readSarama(t, c, cfg, "sarama-old", 1, 10); len(got) != 10 {
			t.Errorf("version %s: %d values were read", v, len(got))
		}
	}
}
