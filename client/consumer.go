package client

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// lookupsMax is how many offsets a consumer looks up at the same time.
	lookupsMax = 16
	// errorsMax is how many errors wait for Poll; further ones are dropped, as they repeat themselves.
	errorsMax = 64
	// unknownReport is how often Poll says that a partition does not exist, beginning after unknownTopicWait.
	unknownReport = 15 * time.Second
)

// Consumer reads the partitions that it is told to, each from a position of its choice, ahead of Poll as far as its buffer allows. It follows leaders by
// itself. It is safe for concurrent use; a record goes to one Poll.
//
// It owns a goroutine (drive) and two for each broker that it reads from; all end in Close. Locks: pollMu before mu.
type Consumer struct {
	client *Client
	cfg    consumerConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	lookup *semaphore.Weighted
	wake   chan struct{} // capacity 1: drive has something to do
	notify chan struct{} // capacity 1: Poll may find something

	pollMu sync.Mutex // held by the Poll that decodes

	mu      sync.Mutex
	parts   map[TopicPartition]*fetchState
	ready   []*fetchState // those with data, in the order of their turn
	streams map[string]*fetchStream
	session uint64
	errs    []error
}

// Assignment is a partition to read, and from where on.
type Assignment struct {
	Topic     string
	Partition int32
	Start     Position // zero: Earliest
}

// fetchState is one assigned partition. Guarded by Consumer.mu.
type fetchState struct {
	tp       TopicPartition
	start    Position // to be looked up, if position is unresolved
	position int64    // offset of the next record for Poll; unresolved until it is looked up
	fetch    int64    // offset to fetch next; position, or after what is buffered
	session  uint64   // of the present assignment to a stream or lookup; data of another one is stale
	stream   *fetchStream
	busy     bool // a lookup is under way
	paused   bool
	stopped  bool // failed for good: Seek or Assign revives it
	queued   bool // is in ready

	chunks  []chunk
	records []*Record // decoded, not yet delivered
	after   int64     // where position goes when records are delivered, if higher

	highWatermark int64
	failures      int
	corrupt       int
	retryAt       time.Time
	hunt          hunt      // for another leader
	reportAt      time.Time // when Poll is told that the partition does not exist
}

const unresolved = -1

// chunk is one message's data of a partition.
type chunk struct {
	data   []byte // batches not yet decoded
	credit int64  // to be given back when they are
	next   int64  // offset after them
}

// NewConsumer returns a consumer without partitions. Close it when done.
func (c *Client) NewConsumer(opts ...ConsumerOption) (*Consumer, error) {
	cfg := defaultConsumerConfig()
	for _, o := range opts {
		o.applyConsumer(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return c.newConsumer(cfg), nil
}

func (c *Client) newConsumer(cfg consumerConfig) *Consumer {
	k := &Consumer{
		client: c, cfg: cfg, lookup: semaphore.NewWeighted(lookupsMax), wake: make(chan struct{}, 1), notify: make(chan struct{}, 1),
		parts: make(map[TopicPartition]*fetchState), streams: make(map[string]*fetchStream),
	}
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	k.wg.Go(k.drive)
	return k
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Assign adds partitions, or moves those that are assigned already to their Start. It does not wait: whether a partition can be read shows in Poll. Negative
// offsets are refused with CodeOffsetOutOfRange.
func (k *Consumer) Assign(as ...Assignment) error {
	if k.ctx.Err() != nil {
		return ErrClosed
	}
	for _, a := range as {
		if err := a.Start.check(TopicPartition{a.Topic, a.Partition}); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range as {
		tp := TopicPartition{a.Topic, a.Partition}
		fs := k.parts[tp]
		if fs == nil {
			fs = &fetchState{tp: tp, highWatermark: -1}
			k.parts[tp] = fs
			k.client.meta.use(a.Topic)
		}
		k.moveTo(fs, a.Start)
	}
	signal(k.wake)
	return nil
}

// AssignTopic assigns all partitions that a topic has now.
func (k *Consumer) AssignTopic(ctx context.Context, topic string, start Position) error {
	n, err := k.client.Partitions(ctx, topic)
	if err != nil {
		return err
	}
	as := make([]Assignment, n)
	for i := range as {
		as[i] = Assignment{Topic: topic, Partition: int32(i), Start: start}
	}
	return k.Assign(as...)
}

// Unassign drops partitions, with what has been fetched of them.
func (k *Consumer) Unassign(tps ...TopicPartition) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, tp := range tps {
		if fs := k.parts[tp]; fs != nil {
			k.detach(fs)
			k.discard(fs)
			delete(k.parts, tp)
		}
	}
	signal(k.wake)
}

// Assigned returns the partitions, in order.
func (k *Consumer) Assigned() []TopicPartition {
	k.mu.Lock()
	defer k.mu.Unlock()
	tps := make([]TopicPartition, 0, len(k.parts))
	for tp := range k.parts {
		tps = append(tps, tp)
	}
	sortPartitions(tps)
	return tps
}

func sortPartitions(tps []TopicPartition) {
	slices.SortFunc(tps, func(a, b TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// Pause keeps Poll from returning records of partitions, and stops fetching them, until Resume.
func (k *Consumer) Pause(tps ...TopicPartition) {
	k.each(tps, func(fs *fetchState) {
		if !fs.paused {
			fs.paused = true
			k.detach(fs)
			k.discard(fs)
		}
	})
}

// Resume ends a Pause; it goes on where Poll had got to.
func (k *Consumer) Resume(tps ...TopicPartition) {
	k.each(tps, func(fs *fetchState) { fs.paused = false })
}

func (k *Consumer) each(tps []TopicPartition, f func(*fetchState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, tp := range tps {
		if fs := k.parts[tp]; fs != nil {
			f(fs)
		}
	}
	signal(k.wake)
}

// Seek goes on reading a partition elsewhere; also one that has failed. It fails with ErrNotAssigned.
func (k *Consumer) Seek(tp TopicPartition, p Position) error {
	if err := p.check(tp); err != nil {
		return err
	}
	found := false
	k.each([]TopicPartition{tp}, func(fs *fetchState) {
		found = true
		k.moveTo(fs, p)
	})
	if !found {
		return fmt.Errorf("seek %v: %w", tp, ErrNotAssigned)
	}
	return nil
}

// Position returns the offset of the next record that Poll will return of a partition; false if it is not assigned or its start has not been looked up yet.
func (k *Consumer) Position(tp TopicPartition) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fs := k.parts[tp]
	if fs == nil || fs.position == unresolved {
		return 0, false
	}
	return fs.position, true
}

// HighWatermark returns a partition's high watermark as of the last fetch: how far there is something to read. False if there was no fetch yet.
func (k *Consumer) HighWatermark(tp TopicPartition) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fs := k.parts[tp]
	if fs == nil || fs.highWatermark < 0 {
		return 0, false
	}
	return fs.highWatermark, true
}

// Close ends the consumer.
func (k *Consumer) Close() error {
	k.cancel()
	k.wg.Wait()
	return nil
}

// moveTo begins anew at a position. mu is held.
func (k *Consumer) moveTo(fs *fetchState, p Position) {
	k.detach(fs)
	k.discard(fs)
	k.session++
	fs.session = k.session // a lookup under way is for another position
	fs.busy, fs.stopped, fs.failures, fs.retryAt = false, false, 0, time.Time{}
	fs.start, fs.position = p, unresolved
	if p.kind == posOffset {
		fs.position = p.value
	}
	fs.fetch = fs.position
	fs.after = 0
}

// discard drops what is buffered; it will be fetched again. mu is held.
func (k *Consumer) discard(fs *fetchState) {
	for _, c := range fs.chunks {
		fs.stream.giveBack(c.credit)
	}
	fs.chunks, fs.records = nil, nil
	fs.fetch, fs.after = fs.position, 0
	if fs.queued {
		k.ready = slices.DeleteFunc(k.ready, func(x *fetchState) bool { return x == fs })
		fs.queued = false
	}
}

// fail hands an error to Poll. mu is held.
func (k *Consumer) fail(err error) {
	if len(k.errs) < errorsMax {
		k.errs = append(k.errs, err)
	}
	signal(k.notify)
}
