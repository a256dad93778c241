package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// servers is how many each system runs, and how many replicas everything has.
const servers = 3

// system is one of those that are compared: three servers as processes on loopback, with their files in a directory of its own.
type system interface {
	// boot starts the servers on empty directories and returns when all take requests.
	boot(ctx context.Context) error
	// create makes a topic or stream with three replicas. shards is how many partitions a topic has, or how many streams there are.
	create(ctx context.Context, topic string, shards int) error
	// producer returns one that has a window of records under way, as much as suits the system.
	producer(ctx context.Context, topic string, shards int) (producer, error)
	// publish stores one record and returns when it is acknowledged. It tries once.
	publish(ctx context.Context, topic string, value []byte) error
	// consume calls each for every record from the beginning until it returns false or ctx ends; from several goroutines, if there are
	// several shards. ready is called when the consumer is there.
	consume(ctx context.Context, topic string, shards int, ready func(), each func(value []byte) bool) error
	// leader is the server that leads a topic of one shard.
	leader(ctx context.Context, topic string) (int, error)
	kill(i int)
	// start starts killed servers again, and does not wait for them to serve.
	start(ctx context.Context) error
	pids() []int
	// idleShards creates so many shards that nothing is stored in.
	idleShards(ctx context.Context, n int) error
	close() error
}

// producer stores records; its methods are for one goroutine.
type producer interface {
	// send hands over a record, which is copied or not touched again, and blocks while the window is full.
	send(ctx context.Context, value []byte) error
	// finish waits until everything is acknowledged, and fails if anything was not.
	finish(ctx context.Context) error
}

// candidate is a system in one of its settings.
type candidate struct {
	name       string
	durability string
	// fast says that there is a producer beside the ordinary one, which only the rows about throughput use.
	fast bool
	own  bool // it is Flotilla
	make func(dir string, log io.Writer) (system, error)
}

// errNotYet is what a step waits for that is tried again.
var errNotYet = errors.New("not yet")

// until tries f every 5 ms, each time for at most a second, until it succeeds or limit has passed.
func until(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		try, done := context.WithTimeout(ctx, time.Second)
		err := f(try)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
