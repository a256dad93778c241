package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

// What the scenarios named bound-... must stay below: default settings, three brokers, replication factor 3.
var (
	boundKill    = bound{median: time.Second, max: 2 * time.Second}
	boundRolling = bound{max: 300 * time.Millisecond, noFailed: true}
	boundIsolate = bound{max: 2 * time.Second, others: 300 * time.Millisecond}
	boundAll     = bound{serving: 3 * time.Second}
)

const (
	balancedWithin = 30 * time.Second
	bulkTopic      = "bulk"
	bulkPartitions = 6
	bulkBytes      = 1 << 30
	bulkRecord     = 64 << 10
	bulkWithin     = 3 * time.Minute
)

// balanced waits for a while until every broker leads as many partitions as the others, so that each round strikes the same number of leaders.
func (e *env) balanced(ctx context.Context) error {
	for until := time.Now().Add(balancedWithin); time.Now().Before(until); {
		count := map[int]int{}
		for _, l := range e.leaders(ctx) {
			count[l]++
		}
		if min(count[1], count[2], count[3]) == eventsPartitions/startingBrokers {
			return nil
		}
		if err := measure.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("leaderships were not balanced again within %s", balancedWithin)
}

// settled begins a round when the cluster is healthy and balanced, and some time after that.
func settled(one func(ctx context.Context, e *env) error) func(ctx context.Context, e *env) error {
	return func(ctx context.Context, e *env) error {
		if err := errors.Join(e.healthy(ctx), e.balanced(ctx), measure.Pause(ctx, time.Second)); err != nil {
			return err
		}
		return one(ctx, e)
	}
}

// restartAll kills all brokers at once and measures how long it takes from their start until every partition acknowledges again.
func restartAll(ctx context.Context, e *env) error {
	return e.fault(ctx, "kill all", nobody, func() error {
		for i := range startingBrokers {
			e.cluster.Kill(i)
		}
		began, since := time.Now(), int64(e.rec.Now())
		if err := e.startAll(ctx); err != nil {
			return err
		}
		ready := time.Since(began)
		if err := e.work.servedSince(ctx, since); err != nil {
			return err
		}
		e.serving = append(e.serving, time.Since(began))
		e.notes = append(e.notes, fmt.Sprintf("ready after %d ms, every partition acknowledged after %d ms, in which the brokers used %d ms of CPU time",
			ready.Milliseconds(), time.Since(began).Milliseconds(), e.cpu().Milliseconds()))
		return nil
	})
}

// cpu is what the brokers have used since their start, where the system tells. On a machine with other work it says more than the time that passed.
func (e *env) cpu() time.Duration {
	var used time.Duration
	for _, i := range e.running() {
		if u, err := e.cluster.Usage(i); err == nil {
			used += u.CPU
		}
	}
	return used
}

// storeBulk stores 1 GiB, in a topic of its own that is read back at the end.
func storeBulk(ctx context.Context, e *env) error {
	ctx, cancel := context.WithTimeout(ctx, bulkWithin)
	defer cancel()
	spec := client.TopicSpec{Name: bulkTopic, Partitions: bulkPartitions, ReplicationFactor: 3}
	if _, err := e.client.Admin().CreateTopic(ctx, spec); err != nil {
		return err
	}
	p, err := e.client.NewProducer(client.WithPartitioner(client.Manual()), client.WithMaxBlock(bulkWithin))
	if err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	start := time.Now()
	for n := range bulkBytes / bulkRecord {
		value := bulkValue(n)
		op := history.Produce{
			Producer: bulkTopic, Seq: int64(n + 1), Partition: history.Partition{Topic: bulkTopic, ID: int32(n % bulkPartitions)}, Value: digest(value), Expected: history.Unassigned,
		}
		from := e.rec.Now()
		p.ProduceAsync(ctx, &client.Record{Topic: bulkTopic, Partition: op.Partition.ID, Value: value}, func(r *client.Record, err error) {
			if err != nil {
				failed.Store(&err)
				return
			}
			op.Span, op.Offset = e.rec.Since(from), r.Offset
			e.rec.Produce(op)
		})
	}
	if err := p.Close(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("storing 1 GiB: %w", *err)
	}
	for i := range int32(bulkPartitions) {
		e.more = append(e.more, client.TopicPartition{Topic: bulkTopic, Partition: i})
	}
	e.notes = append(e.notes, fmt.Sprintf("%d MiB stored in %d ms", bulkBytes>>20, time.Since(start).Milliseconds()))
	return nil
}

// bulkValue is the same for the same number, and nothing that compresses.
func bulkValue(n int) []byte {
	value := make([]byte, bulkRecord)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(value) // cannot fail
	copy(value, fmt.Sprintf("%s-%d ", bulkTopic, n))
	return value
}

// digest stands in the history for a value that is too long for it.
func digest(value []byte) string {
	const whole = 64
	if len(value) <= whole {
		return string(value)
	}
	return fmt.Sprintf("%.24q %08x", value[:24], crc32.ChecksumIEEE(value))
}
