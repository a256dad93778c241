package brokertest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Load produces to all partitions of a topic at once, one idempotent batch of one record after the other in each, whose value counts up
// from 0, until it is stopped. It follows leaders and tries again by itself.
type Load struct {
	c      *Cluster
	topic  string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	acked []int // per partition
	slow  time.Duration
	errs  []error
}

// Load starts producing.
func (c *Cluster) Load(topic string, partitions int) *Load {
	c.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{c: c, topic: topic, cancel: cancel, acked: make([]int, partitions)}
	id := c.initProducer()
	for p := range partitions {
		l.wg.Go(func() { l.produce(ctx, id, p) })
	}
	c.T.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

func (c *Cluster) initProducer() int64 {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	var id int64
	err := c.retry(ctx, func(conn *grpc.ClientConn) error {
		resp, err := pb.NewLogClient(conn).InitProducer(ctx, &pb.InitProducerRequest{})
		id = resp.GetProducerId()
		return err
	})
	if err != nil {
		c.T.Fatalf("a producer ID: %v", err)
	}
	return id
}

func (l *Load) produce(ctx context.Context, producer int64, partition int) {
	for n := 0; ctx.Err() == nil; n++ {
		b := record.NewBuilder(record.BuilderOptions{ProducerID: producer, BaseSequence: int32(n)})
		err := b.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(strconv.Itoa(n))})
		var batch []byte
		if err == nil {
			batch, err = b.Build()
		}
		began := time.Now()
		if err == nil {
			err = l.send(partition, batch)
		}
		l.mu.Lock()
		l.slow = max(l.slow, time.Since(began))
		if err != nil {
			l.errs = append(l.errs, fmt.Errorf("partition %d, record %d: %w", partition, n, err))
			l.mu.Unlock()
			return
		}
		l.acked[partition] = n + 1
		l.mu.Unlock()
	}
}

// send goes on after Stop, so that the last record's outcome is known.
func (l *Load) send(partition int, batch []byte) error {
	ctx, cancel := l.c.Context()
	defer cancel()
	req := &pb.ProduceRequest{Topic: l.topic, Partition: int32(partition), TimeoutMs: 3000, Payload: &pb.ProduceRequest_Batch{Batch: batch}}
	return l.c.retry(ctx, func(conn *grpc.ClientConn) error {
		_, err := pb.NewLogClient(conn).Produce(ctx, req)
		return err
	})
}

// Acked is how many records were acknowledged in all partitions together.
func (l *Load) Acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, n := range l.acked {
		sum += n
	}
	return sum
}

// Longest is the longest time that a record took until it was acknowledged, retries included, since the last call.
func (l *Load) Longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	slow := l.slow
	l.slow = 0
	return slow
}

// AwaitProgress waits until n more records were acknowledged in each partition.
func (l *Load) AwaitProgress(n int) {
	l.c.T.Helper()
	l.mu.Lock()
	before := append([]int(nil), l.acked...)
	l.mu.Unlock()
	l.c.Eventually(fmt.Sprintf("%d more records in each partition of %s", n, l.topic), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.errs) > 0 {
			l.c.T.Fatal(l.errs)
		}
		for p, acked := range l.acked {
			if acked < before[p]+n {
				return fmt.Errorf("partition %d is at %d, was at %d", p, acked, before[p])
			}
		}
		return nil
	})
}

// StopAndVerify ends the load and reads everything back: each acknowledged record must be there once, in order, and nothing else.
func (l *Load) StopAndVerify() {
	l.c.T.Helper()
	l.cancel()
	l.wg.Wait()
	for _, err := range l.errs {
		l.c.T.Errorf("a record was refused for good: %v", err)
	}
	for p, acked := range l.acked {
		got := l.c.ReadAll(l.topic, int32(p))
		for i, r := range got {
			if string(r.GetValue()) != strconv.Itoa(i) {
				l.c.T.Fatalf("%s/%d: record %d is %q", l.topic, p, i, r.GetValue())
			}
		}
		if len(got) != acked {
			l.c.T.Errorf("%s/%d: %d records were acknowledged and %d are there", l.topic, p, acked, len(got))
		}
	}
}
