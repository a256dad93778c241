package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/client"
)

func TestBoot(t *testing.T) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		log := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(os.Getenv("SIMLOG")), Output: os.Stderr})
		c := NewCluster(rand.New(rand.NewPCG(1, 1)), 3, 3, log)
		for _, n := range c.Nodes {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.Nodes {
			if err := n.Await(30 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
		t.Log("ready after", time.Since(start))
		cl, err := c.Client("10.0.1.1")
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		_, err = cl.Admin().CreateTopic(ctx, client.TopicSpec{Name: "events", Partitions: 3, ReplicationFactor: 3})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("topic after", time.Since(start))
		p, err := cl.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := p.Produce(ctx, &client.Record{Topic: "events", Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		t.Log("produced after", time.Since(start))
		for _, n := range c.Nodes {
			n.Kill(true)
		}
		for _, n := range c.Nodes {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.Nodes {
			if err := n.Await(30 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
		t.Log("ready again", time.Since(start))
		_ = p.Close(ctx)
		k, err := cl.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		for i := range int32(3) {
			if err := k.Assign(client.Assignment{Topic: "events", Partition: i, Start: client.Earliest()}); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < 100; {
			got, err := k.Poll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			n += len(got)
		}
		t.Log("read", time.Since(start))
		_ = k.Close()
		_ = cl.Close()
		for _, n := range c.Nodes {
			if err := n.Stop(10 * time.Second); err != nil {
				t.Error(err)
			}
		}
		c.endings.Wait()
		t.Log("stopped", time.Since(start))
	})
	t.Log("real", time.Since(began))
}
