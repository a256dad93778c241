package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// AppendOption changes one Append.
type AppendOption func(*appendConfig)

type appendConfig struct{ expected *int64 }

// ExpectOffset makes an Append conditional: it fails with CodeExpectedOffsetMismatch, whose Error carries the partition's bounds, unless
// offset is the partition's next one.
func ExpectOffset(offset int64) AppendOption { return func(c *appendConfig) { c.expected = &offset } }

// AppendResult says where an Append went.
type AppendResult struct {
	// BaseOffset is the offset of the first record; -1: stored, but the broker no longer knew where.
	BaseOffset int64
	// Duplicate says that an earlier try of the same call had stored the records.
	Duplicate bool
}

// Append stores records as one batch in one partition, at once and past the producer's queues, and waits for the acknowledgement. Appends to one
// partition go one after another. Like all records of an idempotent producer, they are stored once even if the call has to be repeated inside; the delivery
// timeout bounds it.
func (p *Producer) Append(ctx context.Context, topic string, partition int32, records []*Record, opts ...AppendOption) (AppendResult, error) {
	var cfg appendConfig
	for _, o := range opts {
		o(&cfg)
	}
	batch, err := p.encode(records)
	if err != nil {
		return AppendResult{}, err
	}
	a, err := p.appender(TopicPartition{topic, partition})
	if err != nil {
		return AppendResult{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.deliveryTimeout, ErrDeliveryTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	r, err := a.append(ctx, batch, int32(len(records)), cfg.expected)
	if err != nil {
		return AppendResult{}, err
	}
	for i, rec := range records {
		rec.Topic, rec.Partition, rec.Offset = topic, partition, -1
		if r.BaseOffset >= 0 {
			rec.Offset = r.BaseOffset + int64(i)
		}
	}
	return r, nil
}

func (p *Producer) encode(records []*Record) ([]byte, error) {
	b := record.NewBuilder(record.BuilderOptions{Compression: p.cfg.compression, MaxBytes: maxMessageBytes - 1<<20})
	for _, r := range records {
		if r.Timestamp.IsZero() {
			r.Timestamp = time.Now()
		}
		if err := b.Append(encodable(r)); err != nil {
			return nil, &Error{Op: "Append", Code: CodeMessageTooLarge, Message: err.Error(), Partition: -1, cause: err}
		}
	}
	batch, err := b.Build()
	if err != nil {
		return nil, &Error{Op: "Append", Code: CodeInvalidRecord, Message: err.Error(), Partition: -1, cause: err}
	}
	return batch, nil
}

func (p *Producer) appender(tp TopicPartition) (*appender, error) {
	if p.ctx.Err() != nil {
		return nil, ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.appenders[tp]
	if a == nil {
		a = &appender{p: p, tp: tp, turn: make(chan struct{}, 1)}
		p.appenders[tp] = a
	}
	return a, nil
}

// appender makes the appends to one partition, which have a producer ID of their own.
type appender struct {
	p    *Producer
	tp   TopicPartition
	turn chan struct{} // capacity 1: held by the append under way, which owns the rest

	id    int64
	epoch int16
	next  int32
}

func (a *appender) append(ctx context.Context, batch []byte, count int32, expected *int64) (AppendResult, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return AppendResult{}, fmt.Errorf("append to %v: %w", a.tp, context.Cause(ctx))
	}
	if a.p.cfg.idempotent {
		if err := a.sequence(ctx, batch); err != nil {
			return AppendResult{}, err
		}
	}
	r, maybe, err := a.send(ctx, batch, expected)
	if err == nil {
		a.next = record.AddSequence(a.next, count)
		return r, nil
	}
	if maybe || errors.Is(err, CodeOutOfOrderSequence) || errors.Is(err, CodeProducerFenced) {
		a.restart()
	}
	return AppendResult{}, unsure(maybe, err)
}

func (a *appender) sequence(ctx context.Context, batch []byte) error {
	if a.id == 0 {
		id, err := a.p.appends.get(ctx, a.p.client, 0)
		if err != nil {
			return err
		}
		a.id, a.epoch, a.next = id, 0, 0
	}
	record.SetProducer(batch, a.id, a.epoch, a.next)
	return nil
}

// restart begins a new epoch after a batch of unknown outcome, so that a stale copy of it is fenced.
func (a *appender) restart() {
	a.next = 0
	if a.epoch++; a.epoch == math.MaxInt16 {
		a.id = 0
	}
}

// send tries until it succeeds, fails for good, or ctx ends; maybe tells that the batch may be stored in spite of the error.
func (a *appender) send(ctx context.Context, batch []byte, expected *int64) (r AppendResult, maybe bool, err error) {
	req := &pb.ProduceRequest{
		Topic: a.tp.Topic, Partition: a.tp.Partition, ExpectedOffset: expected, TimeoutMs: int32(a.p.cfg.produceTimeout.Milliseconds()),
		Payload: &pb.ProduceRequest_Batch{Batch: batch},
	}
	c := a.p.client
	var h hunt
	for attempt := 0; ; attempt++ {
		var sent bool
		r, sent, err = a.try(ctx, req, &h)
		if err == nil {
			return r, false, nil
		}
		if errors.Is(err, CodeDuplicateSequence) {
			return AppendResult{BaseOffset: -1, Duplicate: true}, false, nil
		}
		if errors.Is(err, CodeUnknownTopicOrPartition) && (attempt > 3 || !sent) {
			return r, maybe, err
		}
		maybe = maybe || sent && outcomeUnknown(err)
		// Without idempotence, a second try could store the records twice.
		if !produceRetriable(err) || maybe && !a.p.cfg.idempotent || ctx.Err() != nil {
			return r, maybe, err
		}
		if c.follow(a.tp, err) && attempt == 0 {
			continue
		}
		if perr := c.pauseFor(ctx, a.tp, attempt, &h); perr != nil {
			return r, maybe, giveUp("Append", ctx, err, perr)
		}
	}
}

// try sends the batch once; sent is false if it did not come to that.
func (a *appender) try(ctx context.Context, req *pb.ProduceRequest, h *hunt) (r AppendResult, sent bool, err error) {
	c := a.p.client
	n, err := c.partitions(ctx, a.tp.Topic)
	if err != nil {
		return r, false, err
	}
	if a.tp.Partition < 0 || a.tp.Partition >= n {
		return r, false, noSuchPartition("Append", a.tp, n)
	}
	leader, epoch, ok := c.meta.leadership(a.tp)
	if !ok {
		return r, false, &Error{
			Op: "Append", Code: CodeLeaderNotAvailable, Message: "no leader is known", Retriable: true, Topic: a.tp.Topic, Partition: a.tp.Partition,
		}
	}
	h.tries(leader, epoch)
	cn, err := c.pool.get(leader.Address)
	if err != nil {
		return r, false, err
	}
	limited, cancel := context.WithTimeout(ctx, a.p.cfg.produceTimeout*4/3)
	defer cancel()
	resp, err := cn.log.Produce(limited, req)
	if err != nil {
		return r, true, toError(ctx, "Append", err)
	}
	return AppendResult{BaseOffset: resp.BaseOffset, Duplicate: resp.Duplicate}, true, nil
}
