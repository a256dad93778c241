package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
)

func Example() {
	ctx := context.Background()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	p, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	r := &client.Record{Topic: "orders", Key: []byte("customer-42"), Value: []byte(`{"item":"anchor"}`)}
	if err := p.Produce(ctx, r); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("stored in partition %d at offset %d\n", r.Partition, r.Offset)
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleProducer_ProduceAsync() {
	ctx := context.Background()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer(client.WithCompression(record.Zstd), client.WithLinger(20*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	for i := range 1000 {
		p.ProduceAsync(ctx, &client.Record{Topic: "orders", Value: fmt.Append(nil, i)}, func(r *client.Record, err error) {
			if err != nil {
				log.Printf("record %s: %v", r.Value, err)
			}
		})
	}
	// Close flushes: every callback has run when it returns.
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

// ExampleProducer_Append stores a decision only if nobody else has stored one since it was made.
func ExampleProducer_Append() {
	ctx := context.Background()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)

	const seen = 17 // the offset up to which this program has read
	_, err = p.Append(ctx, "ledger", 0, []*client.Record{{Value: []byte("transfer 5")}}, client.ExpectOffset(seen))
	var e *client.Error
	switch {
	case errors.Is(err, client.CodeExpectedOffsetMismatch) && errors.As(err, &e):
		fmt.Printf("somebody was faster: read on to offset %d and decide again\n", e.HighWatermark)
	case err != nil:
		log.Fatal(err)
	}
}

func ExampleConsumer() {
	ctx := context.Background()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	k, err := c.NewConsumer()
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	// One partition from an hour ago on, another from its last ten records on.
	err = k.Assign(
		client.Assignment{Topic: "orders", Partition: 0, Start: client.AtTime(time.Now().Add(-time.Hour))},
		client.Assignment{Topic: "orders", Partition: 1, Start: client.FromEnd(10)},
	)
	if err != nil {
		log.Fatal(err)
	}
	for {
		records, err := k.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range records {
			fmt.Printf("%s/%d@%d %s=%s\n", r.Topic, r.Partition, r.Offset, r.Key, r.Value)
		}
	}
}

func ExampleGroupConsumer() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	g, err := c.NewGroupConsumer("billing", []string{"orders"},
		client.WithAutoCommit(0), // commits are made below, after the work
		client.WithOnAssigned(func(_ context.Context, tps []client.TopicPartition) { log.Println("got", tps) }),
		client.WithOnRevoked(func(_ context.Context, tps []client.TopicPartition) { log.Println("gave up", tps) }),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close(context.WithoutCancel(ctx))
	for {
		records, err := g.Poll(ctx)
		if errors.Is(err, context.Canceled) {
			return
		}
		if err != nil {
			log.Print(err) // about one partition; the others go on
			continue
		}
		for _, r := range records {
			fmt.Printf("%s\n", r.Value)
		}
		if err := g.Commit(ctx); err != nil {
			log.Print(err) // will be committed with the next ones
		}
	}
}

func ExampleAdmin_CreateTopic() {
	ctx := context.Background()
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Admin().CreateTopic(ctx, client.TopicSpec{
		Name: "orders", Partitions: 12, ReplicationFactor: 3, Settings: map[string]string{"retention.ms": "604800000"},
	})
	if err != nil && !errors.Is(err, client.CodeTopicAlreadyExists) {
		log.Fatal(err)
	}
}

func ExampleClient_WatchMetadata() {
	c, err := client.New([]string{"localhost:7070"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for m, err := range c.WatchMetadata(context.Background(), "orders") {
		if err != nil {
			log.Fatal(err)
		}
		for _, p := range m.Topics[0].Partitions {
			fmt.Printf("partition %d is led by broker %d\n", p.Partition, p.Leader)
		}
	}
}
