package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// produce sends as fast as the producers' buffers have room.
func (r *rig) produce(ctx context.Context) error { return r.producers(ctx, r.options.producers) }

func (r *rig) producers(ctx context.Context, n int) error {
	before := r.stored.Load()
	err := inParallel(n, func(int) error { return r.producer(ctx) })
	fmt.Fprintf(r.out, "  %.1f GB stored\n", float64(r.stored.Load()-before)/1e9)
	return err
}

func (r *rig) producer(ctx context.Context) error {
	c, err := client.New(r.cluster.Addrs())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	p, err := c.NewProducer()
	if err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	value := make([]byte, 1<<10)
	for ctx.Err() == nil && failed.Load() == nil {
		p.ProduceAsync(context.WithoutCancel(ctx), &client.Record{Topic: topic, Value: value}, func(_ *client.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			r.stored.Add(int64(len(value)))
		})
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = p.Close(closing)
	if f := failed.Load(); f != nil {
		err = errors.Join(err, *f)
	}
	return err
}

// consume lets all consumers read the whole topic as fast as they can.
func (r *rig) consume(ctx context.Context) error { return r.consumersOf(ctx, 0) }

// both has consumers that take a while over each poll, gigabytes behind, while more is produced.
func (r *rig) both(ctx context.Context) error {
	return inParallel(2, func(i int) error {
		if i == 0 {
			return r.producers(ctx, 1)
		}
		return r.consumersOf(ctx, 200*time.Millisecond)
	})
}

// consumersOf read from the beginning, all partitions each, with a pause after each poll.
func (r *rig) consumersOf(ctx context.Context, pause time.Duration) error {
	var read atomic.Int64
	err := inParallel(r.options.consumers, func(int) error { return r.consumer(ctx, pause, &read) })
	fmt.Fprintf(r.out, "  %.1f GB read, of %.1f GB for each consumer\n", float64(read.Load())/1e9, float64(r.stored.Load())/1e9)
	return err
}

func (r *rig) consumer(ctx context.Context, pause time.Duration, read *atomic.Int64) error {
	c, err := client.New(r.cluster.Addrs())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	// Small buffers, since it is the brokers' memory that is looked at and 50 clients share this process.
	k, err := c.NewConsumer(client.WithPrefetchBytes(4<<20), client.WithPartitionBytes(1<<20))
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()
	if err := k.AssignTopic(ctx, topic, client.Earliest()); err != nil {
		return err
	}
	for {
		records, err := k.Poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, rec := range records {
			read.Add(int64(len(rec.Value)))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
