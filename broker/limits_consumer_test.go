package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/client"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Consumers that ask for everything and read nothing: a hundred of them, each with its connection and more credit than there is data. What the broker keeps for
// them is bounded, and another consumer reads at its own pace, producers write at theirs.
func TestSlowConsumers(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) {
		cfg.Memory.FetchBytes, cfg.Memory.TailCacheBytes = 4<<20, 1<<20
	}})
	c.CreateTopic("t", 4, 1)
	value := strings.Repeat("x", 256<<10)
	const records = 128 // 32 MiB
	for i := range records {
		c.Produce("t", int32(i%4), value)
	}
	before := heapMiB()
	ctx, cancel := context.WithTimeout(context.Background(), 2*brokertest.Patience)
	defer cancel()
	for range 100 {
		stuckConsumer(ctx, t, c)
	}
	k := newConsumer(t, newClient(t, c))
	if err := k.AssignTopic(ctx, "t", client.Earliest()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := 0; n < records; {
		rs, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d records: %v", n, err)
		}
		n += len(rs)
	}
	if d := time.Since(began); d > brokertest.Patience {
		t.Errorf("a consumer beside the slow ones needed %s", d)
	}
	for range 20 {
		c.Produce("t", 0, "on it goes")
	}
	// Each connection has windows of a few MiB at most, on both sides; all of the data for all of them would be 3200 MiB.
	if grown := heapMiB() - before; grown > 400 {
		t.Errorf("the heap grew by %d MiB", grown)
	} else {
		t.Logf("the heap grew by %d MiB", grown)
	}
}

// stuckConsumer fetches all of t and never reads an answer.
func stuckConsumer(ctx context.Context, t *testing.T, c *brokertest.Cluster) {
	t.Helper()
	conn, err := grpc.NewClient(c.Broker(1).GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := pb.NewLogClient(conn).Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := &pb.FetchRequest{CreditBytes: 1 << 40}
	for p := range int32(4) {
		m.Add = append(m.Add, &pb.FetchPartition{Topic: "t", Partition: p, MaxBytes: 1 << 30})
	}
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
}

// A consumer that falls behind retention is told so, and goes on where there is something if it was told to.
func TestConsumerBehindRetention(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	for i := range 20 {
		c.Produce("t", 0, fmt.Sprint(i))
	}
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c)
	tp := client.TopicPartition{Topic: "t"}
	reader := func(opts ...client.ConsumerOption) *client.Consumer {
		k := newConsumer(t, cl, append(opts, client.WithMaxPollRecords(1))...)
		if err := k.Assign(client.Assignment{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		if rs, err := k.Poll(ctx); err != nil || rs[0].Offset != 0 {
			t.Fatal(rs, err)
		}
		k.Pause(tp) // drops what was fetched ahead
		return k
	}
	strict, lenient := reader(), reader(client.WithReset(client.Earliest()))
	if _, err := cl.Admin().DeleteRecords(ctx, tp, 15); err != nil {
		t.Fatal(err)
	}
	strict.Resume(tp)
	lenient.Resume(tp)
	_, err := strict.Poll(ctx)
	if client.CodeOf(err) != client.CodeOffsetOutOfRange || !strings.Contains(err.Error(), "deleted") || !strings.Contains(err.Error(), "15") {
		t.Errorf("the strict one: %v", err)
	}
	if rs, err := lenient.Poll(ctx); err != nil || rs[0].Offset != 15 {
		t.Errorf("the lenient one: %v %v", rs, err)
	}
}
