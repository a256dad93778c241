package main

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/client"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

const plainName = "plain"

// startPlain writes to each partition with a producer that is not idempotent. A record may be stored as often as it left the client, and
// no more; none that was acknowledged may be lost.
func (w *workload) startPlain(ctx context.Context) error {
	sends := &sendCounter{sends: map[string]int{}}
	c, err := client.New(w.addrs, client.WithDialOptions(grpc.WithChainStreamInterceptor(sends.intercept)))
	if err != nil {
		return err
	}
	w.closers = append(w.closers, func() { _ = c.Close() })
	p, err := c.NewProducer(client.WithDeliveryTimeout(deliveryTimeout), client.WithPartitioner(client.Manual()), client.WithLinger(0),
		client.WithIdempotence(false), client.WithProduceTimeout(impatience))
	if err != nil {
		return err
	}
	w.produced = append(w.produced, p)
	for i := range int32(eventsPartitions) {
		w.wg.Go(func() {
			for seq := int64(1); ctx.Err() == nil; seq++ {
				w.plain(p, sends, i, seq)
				_ = measure.Pause(ctx, plainPause)
			}
		})
	}
	return nil
}

func (w *workload) plain(p *client.Producer, sends *sendCounter, partition int32, seq int64) {
	op := history.Produce{
		Producer: plainName, Seq: seq, Partition: history.Partition{Topic: eventsTopic, ID: partition},
		Value: fmt.Sprintf("plain-%d-%d", partition, seq), Expected: history.Unassigned,
	}
	r := &client.Record{Topic: eventsTopic, Partition: partition, Value: []byte(op.Value)}
	start := w.rec.Now()
	done := make(chan error, 1)
	p.ProduceAsync(context.Background(), r, func(_ *client.Record, err error) { done <- err })
	err := <-done
	op.Sends = sends.of(op.Value)
	w.produceDone(op, start, r.Offset, err)
}

// sendCounter counts how often a client sends each record, by its value: below the client, where retries are seen.
type sendCounter struct {
	mu    sync.Mutex
	sends map[string]int
}

// of tells how often a record was sent, and forgets it.
func (c *sendCounter) of(value string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.sends[value]
	delete(c.sends, value)
	return n
}

func (c *sendCounter) count(r *pb.ProduceRequest) {
	records, err := record.Decode(r.GetBatch(), decodeLimit)
	if err != nil {
		return // not one of ours; then the check of duplicates is stricter, not laxer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range records {
		c.sends[string(r.Value)]++
	}
}

func (c *sendCounter) intercept(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := next(ctx, d, conn, method, opts...)
	if err != nil {
		return nil, err
	}
	return &countedStream{ClientStream: s, counter: c}, nil
}

type countedStream struct {
	grpc.ClientStream
	counter *sendCounter
}

// SendMsg counts before it sends: a message whose sending fails may have arrived.
func (s *countedStream) SendMsg(m any) error {
	if r, ok := m.(*pb.ProduceRequest); ok {
		s.counter.count(r)
	}
	return s.ClientStream.SendMsg(m)
}
