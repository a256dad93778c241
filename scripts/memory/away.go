package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

const (
	wideTopic = "wide"
	wide      = 100                  // its partitions
	wideValue = 1_000_000            // bytes of each record
	wideStep  = 32                   // records under way at a time
	wideOwed  = int64(3_000_000_000) // bytes, at most, that the broker misses
)

// away kills a broker, writes large records to many partitions for a third of the time, and lets the broker come back: the others have to send it
// all of that, from many partitions at the same time.
func (r *rig) away(ctx context.Context) error {
	c, err := client.New(r.cluster.Addrs())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: wideTopic, Partitions: wide, ReplicationFactor: brokers}); err != nil {
		return err
	}
	const victim = brokers - 1
	r.gone.Store(victim + 1)
	r.cluster.Kill(victim)
	writing, cancel := context.WithTimeout(ctx, r.options.phase/3)
	defer cancel()
	owed, err := writeWide(writing, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "  %.1f GB on %d partitions to catch up on\n", float64(owed)/1e9, wide)
	if err := r.cluster.Start(ctx, victim); err != nil {
		return err
	}
	r.gone.Store(0)
	<-ctx.Done()
	return nil
}

// writeWide writes to all partitions in turn, until ctx ends or enough is written.
func writeWide(ctx context.Context, c *client.Client) (bytes int64, err error) {
	p, err := c.NewProducer(client.WithPartitioner(client.Manual()))
	if err != nil {
		return 0, err
	}
	value := make([]byte, wideValue)
	for i := range value {
		value[i] = byte(i * i >> 7) // not compressible to nothing
	}
	for n := 0; ctx.Err() == nil && bytes < wideOwed; n += wideStep {
		err := inParallel(wideStep, func(i int) error {
			call, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			return p.Produce(call, &client.Record{Topic: wideTopic, Partition: int32((n + i) % wide), Value: value})
		})
		if err != nil {
			return bytes, err
		}
		bytes += wideStep * wideValue
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return bytes, errors.Join(err, p.Close(closing))
}
