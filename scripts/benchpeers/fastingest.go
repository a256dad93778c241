package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

const (
	// fastFlow is how many messages an acknowledgement is asked for; the server's own limit.
	fastFlow = 500
	// fastWindow is how many messages may be without an acknowledgement.
	fastWindow = 16 * fastFlow
)

// fastProducer publishes by JetStream's fast-ingest batches (ADR-50, allow_batched): messages of one endless batch per stream, of which the
// server acknowledges every so many at once. It is the fastest way there is to store messages in a stream.
type fastProducer struct {
	nc      *nats.Conn
	batches []*fastBatch
	next    int
}

// fastBatch is a batch of one stream. The reply subject of a message says what it is:
// PREFIX.BATCH.FLOW.GAP-MODE.SEQUENCE.OPERATION.$FI
type fastBatch struct {
	nc      *nats.Conn
	sub     *nats.Subscription
	subject string
	prefix  string
	seq     uint64

	mu       sync.Mutex
	moved    sync.Cond
	acked    uint64
	finished bool
	err      error
}

const (
	opStart  = 0
	opAppend = 1
	opCommit = 2
)

func (n *jetStream) newFastProducer(topic string, shards int) (*fastProducer, error) {
	p := &fastProducer{nc: n.nc}
	for i := range shards {
		b := &fastBatch{nc: n.nc, subject: shardName(topic, i)}
		b.moved.L = &b.mu
		inbox := nats.NewInbox()
		b.prefix = fmt.Sprintf("%s.%s.%d.fail.", inbox, nats.NewInbox()[len(nats.InboxPrefix):], fastFlow)
		var err error
		if b.sub, err = n.nc.Subscribe(inbox+".>", b.answer); err != nil {
			return nil, err
		}
		p.batches = append(p.batches, b)
	}
	return p, nil
}

func (b *fastBatch) reply(op int) string {
	return b.prefix + strconv.FormatUint(b.seq, 10) + "." + strconv.Itoa(op) + ".$FI"
}

// answer takes flow acknowledgements, errors, and the acknowledgement of the whole batch.
func (b *fastBatch) answer(m *nats.Msg) {
	var a struct {
		Type  string          `json:"type"`
		Seq   uint64          `json:"seq"`
		Error json.RawMessage `json:"error"`
		Count uint64          `json:"count"`
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.moved.Broadcast()
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		b.err = fmt.Errorf("answer %q: %w", m.Data, err)
	case a.Error != nil || a.Type == "gap" || a.Type == "err":
		b.err = fmt.Errorf("fast ingest: %s", m.Data)
	case a.Type == "ack":
		b.acked = max(b.acked, a.Seq)
	default:
		b.acked, b.finished = a.Count, true
	}
}

func (b *fastBatch) wait(until func() bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && !until() {
		b.moved.Wait()
	}
	return b.err
}

func (p *fastProducer) send(_ context.Context, value []byte) error {
	p.next = (p.next + 1) % len(p.batches)
	return p.batches[p.next].send(value)
}

func (b *fastBatch) send(value []byte) error {
	if b.seq%fastFlow == 0 {
		if err := b.wait(func() bool { return b.seq-b.acked <= fastWindow }); err != nil {
			return err
		}
	}
	b.seq++
	op := opAppend
	if b.seq == 1 {
		op = opStart
	}
	return b.nc.PublishRequest(b.subject, b.reply(op), value)
}

func (p *fastProducer) finish(ctx context.Context) error {
	var errs []error
	for _, b := range p.batches {
		errs = append(errs, b.finish(ctx))
	}
	return errors.Join(errs...)
}

// finish commits the batch with a last, empty message.
func (b *fastBatch) finish(ctx context.Context) error {
	defer func() { _ = b.sub.Unsubscribe() }()
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = errors.Join(b.err, ctx.Err())
		b.moved.Broadcast()
	})
	defer stop()
	b.seq++
	op := opCommit
	if err := b.nc.PublishRequest(b.subject, b.reply(op), nil); err != nil {
		return err
	}
	if err := b.wait(func() bool { return b.finished }); err != nil {
		return err
	}
	if b.acked != b.seq {
		return fmt.Errorf("fast ingest: %d of %d messages were stored", b.acked, b.seq)
	}
	return nil
}
