package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

// flotilla is ours: default settings throughout, and the Go client with its defaults too.
type flotilla struct {
	cluster *procs.Cluster
	client  *client.Client
	one     *client.Producer // for single records
}

func newFlotilla(binary string, flags ...string) (*flotilla, error) {
	c, err := procs.New(binary, servers, flags...)
	if err != nil {
		return nil, err
	}
	return &flotilla{cluster: c}, nil
}

func (f *flotilla) boot(ctx context.Context) (err error) {
	if err := f.cluster.StartAll(ctx); err != nil {
		return err
	}
	if f.client, err = client.New(f.cluster.Addrs()); err != nil {
		return err
	}
	f.one, err = f.client.NewProducer()
	return err
}

func (f *flotilla) create(ctx context.Context, topic string, shards int) error {
	_, err := f.client.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: int32(shards), ReplicationFactor: servers})
	return err
}

func (f *flotilla) idleShards(ctx context.Context, n int) error {
	c, err := client.New(f.cluster.Addrs(), client.WithRequestTimeout(2*time.Minute))
	if err != nil {
		return err
	}
	_, err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "idle", Partitions: int32(n), ReplicationFactor: servers})
	return errors.Join(err, c.Close())
}

// asyncProducer keeps the first error of all records.
type asyncProducer struct {
	p      *client.Producer
	topic  string
	failed atomic.Pointer[error]
}

func (f *flotilla) producer(_ context.Context, topic string, _ int) (producer, error) {
	p, err := f.client.NewProducer()
	return &asyncProducer{p: p, topic: topic}, err
}

func (a *asyncProducer) send(ctx context.Context, value []byte) error {
	if err := a.failed.Load(); err != nil {
		return *err
	}
	a.p.ProduceAsync(ctx, &client.Record{Topic: a.topic, Value: value}, a.done)
	return nil
}

func (a *asyncProducer) done(_ *client.Record, err error) {
	if err != nil {
		a.failed.CompareAndSwap(nil, &err)
	}
}

func (a *asyncProducer) finish(ctx context.Context) error {
	err := errors.Join(a.p.Flush(ctx), a.p.Close(ctx))
	if failed := a.failed.Load(); failed != nil {
		err = errors.Join(err, *failed)
	}
	return err
}

func (f *flotilla) publish(ctx context.Context, topic string, value []byte) error {
	return f.one.Produce(ctx, &client.Record{Topic: topic, Value: value})
}

func (f *flotilla) consume(ctx context.Context, topic string, _ int, ready func(), each func([]byte) bool) error {
	c, err := f.client.NewConsumer()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.AssignTopic(ctx, topic, client.Earliest()); err != nil {
		return err
	}
	ready()
	for {
		records, err := c.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			if !each(r.Value) {
				return nil
			}
		}
	}
}

func (f *flotilla) leader(ctx context.Context, topic string) (int, error) {
	t, err := f.client.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return 0, err
	}
	if len(t.Partitions) != 1 || t.Partitions[0].Leader < 1 {
		return 0, fmt.Errorf("%w: topic %s has no leader", errNotYet, topic)
	}
	return int(t.Partitions[0].Leader) - 1, nil
}

func (f *flotilla) kill(i int) { f.cluster.Kill(i) }

func (f *flotilla) start(ctx context.Context) error {
	errs := make([]error, servers)
	var wg sync.WaitGroup
	for i := range servers {
		if !f.cluster.Running(i) {
			wg.Go(func() { errs[i] = f.cluster.Start(ctx, i) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *flotilla) pids() []int {
	var pids []int
	for i := range servers {
		if f.cluster.Running(i) {
			pids = append(pids, f.cluster.Pid(i))
		}
	}
	return pids
}

func (f *flotilla) close() error {
	var err error
	if f.one != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = f.one.Close(ctx) // what a killed cluster did not answer
		cancel()
	}
	if f.client != nil {
		err = f.client.Close()
	}
	return errors.Join(err, f.cluster.Close())
}
