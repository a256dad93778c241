package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

func TestKafkaGo(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	feature(t, "kafka-go", "compression", func(t *testing.T) { kafkaGoCompression(t, c) })
	feature(t, "kafka-go", "group", func(t *testing.T) { kafkaGoGroup(t, c) })
	feature(t, "kafka-go", "seek", func(t *testing.T) { kafkaGoSeek(t, c) })
	feature(t, "kafka-go", "admin", func(t *testing.T) { kafkaGoAdmin(t, c) })
	feature(t, "kafka-go", "leader kill", func(t *testing.T) { kafkaGoLeaderKill(t, c) })
}

func kafkaGoWriter(t testing.TB, c *brokertest.Cluster, topic string) *kafka.Writer {
	w := &kafka.Writer{
		Addr: kafka.TCP(seeds(c)...), Topic: topic, RequiredAcks: kafka.RequireAll, Balancer: kafka.Murmur2Balancer{},
		BatchTimeout: 5 * time.Millisecond, MaxAttempts: 100, Transport: &kafka.Transport{MetadataTTL: 200 * time.Millisecond},
	}
	closing(t, w)
	return w
}

func writeKafkaGo(t testing.TB, w *kafka.Writer, from, to int) {
	t.Helper()
	var messages []kafka.Message
	for i := from; i < to; i++ {
		messages = append(messages, kafka.Message{Key: []byte(key(i)), Value: []byte(value(i))})
	}
	if err := w.WriteMessages(testContext(t), messages...); err != nil {
		t.Fatal(err)
	}
}

// readKafkaGo reads n records from all partitions.
func readKafkaGo(t testing.TB, c *brokertest.Cluster, topic string, partitions, n int) seen {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	messages := make(chan kafka.Message)
	for p := range partitions {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: seeds(c), Topic: topic, Partition: p, MaxWait: 100 * time.Millisecond})
		closing(t, r)
		go func() {
			for {
				m, err := r.ReadMessage(ctx)
				if err != nil {
					return
				}
				select {
				case messages <- m:
				case <-ctx.Done():
					return
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

func kafkaGoCompression(t *testing.T, c *brokertest.Cluster) {
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		topic := fmt.Sprintf("kafka-go-%d", codec)
		c.CreateTopic(topic, 3, 3)
		w := kafkaGoWriter(t, c, topic)
		w.Compression = codec
		writeKafkaGo(t, w, 0, 300)
		got := readKafkaGo(t, c, topic, 3, 300)
		if err := got.exactly(300); err != nil {
			t.Errorf("%v: %v", codec, err)
		}
	}
}

func kafkaGoGroup(t *testing.T, c *brokertest.Cluster) {
	const topic, groupID = "kafka-go-group", "kafka-go-group"
	c.CreateTopic(topic, 6, 3)
	w := kafkaGoWriter(t, c, topic)
	r := &readings{got: seen{}}
	join := func() (stop func()) {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: seeds(c), GroupID: groupID, Topic: topic, StartOffset: kafka.FirstOffset, HeartbeatInterval: 200 * time.Millisecond,
			MaxWait: 100 * time.Millisecond, RebalanceTimeout: 5 * time.Second, JoinGroupBackoff: 200 * time.Millisecond,
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				m, err := reader.FetchMessage(ctx)
				if err != nil {
					return
				}
				r.mu.Lock()
				r.got[string(m.Value)]++
				r.mu.Unlock()
				// It fails when the coordinator has just moved; the client does not try again, but a later commit covers this one.
				if err := reader.CommitMessages(ctx, m); err != nil && ctx.Err() == nil {
					t.Log("committing:", err)
				}
			}
		}()
		return func() { cancel(); <-done; _ = reader.Close() }
	}
	stops := []func(){join(), join(), join()}
	writeKafkaGo(t, w, 0, 300)
	eventually(t, "all is read", func() error { return r.check(func(s seen) error { return s.missing(300) }) })
	stops[0]()
	writeKafkaGo(t, w, 300, 600)
	eventually(t, "all is read after a rebalance", func() error { return r.check(func(s seen) error { return s.missing(600) }) })
	stops[1]()
	stops[2]()
	r.mu.Lock()
	before := len(r.got)
	r.got = seen{}
	r.mu.Unlock()
	writeKafkaGo(t, w, 600, 650)
	stop := join()
	eventually(t, "the rest is read after a restart", func() error {
		return r.check(func(s seen) error {
			if s[value(649)] == 0 || len(s) < 50 {
				return fmt.Errorf("%d were read", len(s))
			}
			return nil
		})
	})
	stop()
	if err := r.check(func(s seen) error {
		if len(s) > 60 { // what was committed last may not have been
			return fmt.Errorf("%d were read again after the restart, %d before", len(s), before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func kafkaGoSeek(t *testing.T, c *brokertest.Cluster) {
	const topic = "kafka-go-seek"
	c.CreateTopic(topic, 1, 3, "retention.ms", "-1") // its records have old times
	w := kafkaGoWriter(t, c, topic)
	begin := time.UnixMilli(1_700_000_000_000)
	var messages []kafka.Message
	for i := range 50 {
		messages = append(messages, kafka.Message{Value: []byte(value(i)), Time: begin.Add(time.Duration(i) * time.Second)})
	}
	if err := w.WriteMessages(testContext(t), messages...); err != nil {
		t.Fatal(err)
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: seeds(c), Topic: topic, MaxWait: 100 * time.Millisecond})
	closing(t, r)
	ctx := testContext(t)
	if err := r.SetOffset(33); err != nil {
		t.Fatal(err)
	}
	if m, err := r.ReadMessage(ctx); err != nil || m.Offset != 33 || string(m.Value) != value(33) {
		t.Errorf("by offset: %d %s %v", m.Offset, m.Value, err)
	}
	if err := r.SetOffsetAt(ctx, begin.Add(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	// The offset of a time is that of its batch or of its record, as the client likes.
	if m, err := r.ReadMessage(ctx); err != nil || m.Offset != 20 {
		t.Errorf("by time: %d %v", m.Offset, err)
	}
}

func kafkaGoAdmin(t *testing.T, c *brokertest.Cluster) {
	cl := &kafka.Client{Addr: kafka.TCP(seeds(c)...)}
	ctx := testContext(t)
	created, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "kafka-go-admin", NumPartitions: 2, ReplicationFactor: 3}}})
	if err != nil || created.Errors["kafka-go-admin"] != nil {
		t.Fatal(err, created)
	}
	described, err := cl.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: "kafka-go-admin"}}})
	if err != nil || len(described.Resources) != 1 || len(described.Resources[0].ConfigEntries) == 0 {
		t.Errorf("settings: %+v %v", described, err)
	}
	groups, err := cl.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil || groups.Error != nil {
		t.Errorf("groups: %v %+v", err, groups)
	}
	deleted, err := cl.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{"kafka-go-admin"}})
	if err != nil || deleted.Errors["kafka-go-admin"] != nil {
		t.Errorf("deleting: %v %+v", err, deleted)
	}
}

// kafka-go has no idempotent producer: nothing may be lost, but records may be doubled.
func kafkaGoLeaderKill(t *testing.T, c *brokertest.Cluster) {
	const topic, n = "kafka-go-kill", 600
	c.CreateTopic(topic, 1, 3)
	w := kafkaGoWriter(t, c, topic)
	leader := c.Leader(topic, 0)
	for i := 0; i < n; i += 20 {
		if i == n/3 {
			c.Crash(leader)
		}
		from := i
		eventually(t, "twenty records are written", func() error {
			var messages []kafka.Message
			for j := from; j < from+20; j++ {
				messages = append(messages, kafka.Message{Value: []byte(value(j))})
			}
			return w.WriteMessages(testContext(t), messages...)
		})
	}
	got := readKafkaGo(t, c, topic, 1, n)
	if err := got.missing(n); err != nil {
		t.Error(err)
	}
	c.Restart(leader)
}
