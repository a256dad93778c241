package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// recordOverheadBytes is what a waiting record costs beside its encoded bytes, for WithBufferBytes.
const recordOverheadBytes = 64

// Producer appends records to topics, in batches, with several batches of each partition under way at once. It is safe for concurrent use.
//
// Records of one partition are stored in the order in which they were accepted, and, with idempotence, once: a batch whose fate
// is unknown is sent again under the same sequence number. If a batch must be given up, the error says whether it may have been
// stored (ErrOutcomeUnknown).
//
// It owns a goroutine for each partition that it has produced to, and two for each broker; all end in Close.
//
// Locks: Producer.mu, topicProducer.mu, accumulator.mu, in this order. None is held while a callback runs. An accepted record takes the accumulator's alone.
type Producer struct {
	client  *Client
	cfg     producerConfig
	memory  memory
	waiting atomic.Int32 // callers that wait for memory: batches are then sent as they are
	streams *streamSet
	ids     producerIDs
	appends producerIDs // identity of Append
	eager   eagerness
	pool    sync.Pool // of *record.Builder
	batches batchMemory
	entries sync.Pool // of *[]entry, empty

	ctx    context.Context // ends when Close has flushed
	cancel context.CancelFunc
	wg     sync.WaitGroup

	closed atomic.Bool                   // set once, by Close, which then closes the accumulators
	recent atomic.Pointer[topicProducer] // the topic last produced to

	mu        sync.Mutex
	topics    map[string]*topicProducer
	appenders map[TopicPartition]*appender
}

// NewProducer returns a producer. Close it when done.
func (c *Client) NewProducer(opts ...ProducerOption) (*Producer, error) {
	cfg := defaultProducerConfig()
	for _, o := range opts {
		o(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Producer{
		client: c, cfg: cfg, topics: make(map[string]*topicProducer),
		appenders: make(map[TopicPartition]*appender), ids: newProducerIDs(), appends: newProducerIDs(),
	}
	p.memory.free.Store(cfg.bufferBytes)
	p.eager.on = cfg.linger == DefaultLinger
	p.pool.New = func() any { return record.NewBuilder(record.BuilderOptions{Compression: cfg.compression}) }
	p.entries.New = func() any { return new([]entry) }
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	p.streams = newStreamSet(p.ctx, c.pool, &p.wg)
	return p, nil
}

// Produce stores records and returns when all are acknowledged or have failed, with the error of the first that failed. It does
// not linger. If ctx ends before, the records may still be stored, and must not be touched until Flush or Close has returned.
func (p *Producer) Produce(ctx context.Context, records ...*Record) error {
	errs := make([]error, len(records))
	var wg sync.WaitGroup
	wg.Add(len(records))
	for i, r := range records {
		p.produce(ctx, r, true, func(_ *Record, err error) {
			errs[i] = err
			wg.Done()
		})
	}
	all := make(chan struct{})
	go func() { // ends with the last callback, which the delivery timeout bounds
		wg.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
		return fmt.Errorf("waiting for %d records: %w: %w", len(records), ctx.Err(), ErrOutcomeUnknown)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ProduceAsync hands a record to the producer and calls done, if it is not nil, exactly once, when the record is acknowledged or has
// failed. Key, value and headers are copied; the Record itself belongs to the producer until then.
//
// It blocks while the buffer is full or the topic is not yet known, until ctx ends or as long as WithMaxBlock says; ctx has no effect on
// an accepted record. done runs on the producer's goroutine for the partition: it must not block, nor wait for other records.
func (p *Producer) ProduceAsync(ctx context.Context, r *Record, done func(*Record, error)) {
	if done == nil {
		done = func(*Record, error) {}
	}
	p.produce(ctx, r, false, done)
}

func (p *Producer) produce(ctx context.Context, r *Record, urgent bool, done func(*Record, error)) {
	if err := p.accept(ctx, r, urgent, done); err != nil {
		done(r, err)
	}
}

// accept puts a record into a batch; if it fails, done has not been and will not be called.
func (p *Producer) accept(ctx context.Context, r *Record, urgent bool, done func(*Record, error)) error {
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	t, n, err := p.topic(ctx, r.Topic)
	if err != nil {
		return err
	}
	part := p.cfg.partitioner.Partition(r, n)
	if part != PartitionSticky && (part < 0 || part >= n) {
		return noSuchPartition("Produce", TopicPartition{r.Topic, part}, n)
	}
	if r.Timestamp.IsZero() {
		r.Timestamp = time.Now()
	}
	in := incoming{entry: entry{record: r, done: done}, encodable: encodable(r), urgent: urgent}
	in.size = record.RecordSizeMax(in.encodable)
	if in.size+record.HeaderSize > p.cfg.maxRecordBytes {
		return &Error{
			Op: "Produce", Code: CodeMessageTooLarge, Topic: r.Topic, Partition: part,
			Message: fmt.Sprintf("the record needs %d bytes, the limit is %d", in.size+record.HeaderSize, p.cfg.maxRecordBytes),
		}
	}
	if err := p.reserve(ctx, entryCost(in.size)); err != nil {
		return err
	}
	if err := t.add(part, n, &in); err != nil {
		p.memory.release(entryCost(in.size))
		return err
	}
	return nil
}

// incoming is a record on its way into a batch.
type incoming struct {
	entry
	encodable record.Record
	size      int // encoded, at most
	urgent    bool
}

// entry is an accepted record. It is small: a batch has thousands of them.
type entry struct {
	record *Record
	done   func(*Record, error)
}

// entryCost is what a record of at most size bytes, encoded, counts for WithBufferBytes.
func entryCost(size int) int64 { return int64(size + recordOverheadBytes) }

func encodable(r *Record) record.Record {
	return record.Record{Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value, Headers: r.Headers}
}

// topic returns the topic's producer and its number of partitions.
func (p *Producer) topic(ctx context.Context, name string) (*topicProducer, int32, error) {
	if t := p.recent.Load(); t != nil && t.name == name {
		if n, ok := t.knownCount(); ok {
			return t, n, nil
		}
	}
	generation := p.client.meta.generation.Load() // before the count, which may be newer, but not older
	n, ok := p.client.meta.count(name)
	if !ok {
		wait, cancel := context.WithTimeout(ctx, p.cfg.maxBlock)
		defer cancel()
		var err error
		if n, err = p.client.partitions(wait, name); err != nil {
			return nil, 0, err
		}
	}
	t := p.topicProducer(name)
	t.known.Store(&partitionCount{generation: generation, n: n})
	p.recent.Store(t)
	return t, n, nil
}

func (p *Producer) topicProducer(name string) *topicProducer {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.topics[name]
	if t == nil {
		t = &topicProducer{p: p, name: name, partitions: make(map[int32]*partitionProducer)}
		p.topics[name] = t
		p.client.meta.use(name)
	}
	return t
}

// reserve takes memory for a record, waiting for acknowledgements to free some.
func (p *Producer) reserve(ctx context.Context, n int64) error {
	if p.memory.tryAcquire(n) {
		return nil
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	p.wakeAll()
	wait, cancel := context.WithTimeoutCause(ctx, p.cfg.maxBlock, ErrBufferFull)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	if err := p.memory.acquire(wait, n); err != nil {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case p.ctx.Err() != nil:
			return ErrClosed
		}
		return fmt.Errorf("no room for %d bytes within %v: %w", n, p.cfg.maxBlock, ErrBufferFull)
	}
	return nil
}

// partitionProducers returns all there are.
func (p *Producer) partitionProducers() []*partitionProducer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*partitionProducer
	for _, t := range p.topics {
		all = t.appendTo(all)
	}
	return all
}

func (p *Producer) wakeAll() {
	for _, pp := range p.partitionProducers() {
		pp.signal()
	}
}

// Flush sends what is waiting and returns when all records accepted before are acknowledged or have failed; their own errors went to their
// callbacks. Records may be produced meanwhile.
func (p *Producer) Flush(ctx context.Context) error {
	var batches []*batch
	for _, pp := range p.partitionProducers() {
		batches = append(batches, pp.flush()...)
	}
	for _, b := range batches {
		select {
		case <-b.done:
		case <-ctx.Done():
			return fmt.Errorf("flushing: %w", ctx.Err())
		}
	}
	return nil
}

// Close flushes and ends the producer. When ctx ends first, the records that are still waiting fail with ErrClosed. It is an error to produce
// afterwards.
func (p *Producer) Close(ctx context.Context) error {
	if p.closed.Swap(true) {
		p.wg.Wait()
		return nil
	}
	for _, pp := range p.partitionProducers() { // there will be no others (see topicProducer.partition)
		pp.close()
	}
	err := p.Flush(ctx)
	p.cancel()
	p.wg.Wait()
	return err
}

// topicProducer is one topic of a producer.
type topicProducer struct {
	p     *Producer
	name  string
	known atomic.Pointer[partitionCount]
	stuck atomic.Pointer[partitionProducer] // takes records without a partition of their own; nil: choose one

	mu         sync.Mutex
	partitions map[int32]*partitionProducer
}

// partitionCount is a topic's number of partitions as of a generation of the metadata.
type partitionCount struct {
	generation uint64
	n          int32
}

// knownCount is the topic's number of partitions, unless metadata has come since it was looked up.
func (t *topicProducer) knownCount() (int32, bool) {
	k := t.known.Load()
	return k.n, k.generation == t.p.client.meta.generation.Load()
}

// add puts a record into a batch of the partition, or of the one whose turn it is.
func (t *topicProducer) add(part, n int32, in *incoming) error {
	if part == PartitionSticky {
		if pp := t.stuck.Load(); pp != nil && pp.tp.Partition < n && pp.addToOpen(in) {
			return nil
		}
		return t.choose(n).add(in)
	}
	return t.partition(part).add(in)
}

// choose moves on to another partition: of two random ones with a leader, that with less waiting, so that a slow broker gets less. It is nil once the producer is closed.
func (t *topicProducer) choose(n int32) *partitionProducer {
	pa, pb := t.partition(t.random(n)), t.partition(t.random(n))
	if pa == nil || pb == nil {
		return nil
	}
	if pb.queued.Load() < pa.queued.Load() {
		pa = pb
	}
	t.stuck.Store(pa)
	return pa
}

func (t *topicProducer) random(n int32) int32 {
	for range 8 {
		i := rand.Int32N(n)
		if _, ok := t.p.client.meta.leader(TopicPartition{t.name, i}); ok {
			return i
		}
	}
	return rand.Int32N(n)
}

// partition returns the producer of one partition. There are no new ones once the producer is closed: Close, which looks for those there are after it has set closed,
// has either seen this one or made it nil.
func (t *topicProducer) partition(i int32) *partitionProducer {
	t.mu.Lock()
	defer t.mu.Unlock()
	pp := t.partitions[i]
	if pp == nil && !t.p.closed.Load() {
		pp = newPartitionProducer(t.p, TopicPartition{t.name, i})
		t.partitions[i] = pp
		t.p.wg.Go(pp.run)
	}
	return pp
}

func (t *topicProducer) appendTo(all []*partitionProducer) []*partitionProducer {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pp := range t.partitions {
		all = append(all, pp)
	}
	return all
}

// producerIDs allocates a producer ID when it is first needed. turn holds one who asks a broker; the others wait for it, each for as long as its context lets it.
type producerIDs struct {
	turn chan struct{}
	id   int64
}

func newProducerIDs() producerIDs { return producerIDs{turn: make(chan struct{}, 1)} }

// get returns the current ID; renew, if it is the current one, is replaced first.
func (s *producerIDs) get(ctx context.Context, c *Client, renew int64) (int64, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, giveUp("InitProducer", ctx)
	}
	if s.id != 0 && s.id != renew {
		return s.id, nil
	}
	id, err := c.initProducer(ctx)
	if err == nil {
		s.id = id
	}
	return id, err
}

var errBadProducerID = errors.New("the broker handed out a producer ID that is not above 0")
