package client

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/flotilla-log/flotilla/proto/record"
)

// batch is a batch of records on its way. Until it is taken from the accumulator it belongs to that (and its lock), then to the partition's
// goroutine.
type batch struct {
	entries []entry
	pooled  *[]entry        // where entries came from
	builder *record.Builder // until it is built
	data    []byte
	lent    mem.Buffer // data, if its memory is to be used again; then this is a reference
	cost    int64
	created time.Time
	urgent  bool          // do not linger
	done    chan struct{} // closed when all callbacks have been called

	// Of the idempotent producer. Once a batch that may be in the log has these, it keeps them.
	sequenced bool
	id        int64
	epoch     int16
	sequence  int32

	attempt  int // number of times it was sent
	inFlight bool
	sentAt   time.Time // the request in flight
	sentTo   int32     // the broker, by ID
	deadline time.Time // of it
	maybe    bool      // some try had an unknown outcome: it may be stored
	gap      bool      // the last answer was OUT_OF_ORDER_SEQUENCE
}

// giveBack ends the batch's own use of memory that is to be used again. What gRPC still reads of it has references of its own.
func (b *batch) giveBack() {
	if b.lent != nil {
		b.lent.Free()
		b.lent = nil
	}
}

func (b *batch) count() int32 { return int32(len(b.entries)) }

// accumulator gathers records into batches.
type accumulator struct {
	mu     sync.Mutex
	open   *batch   // takes records
	ready  []*batch // full
	live   []*batch // all that are not done, in order of creation
	inbox  []answer // from the streams
	closed bool     // takes no more
}

// partitionProducer is one partition of a producer. Its goroutine (run) alone touches what is below wake.
type partitionProducer struct {
	p      *Producer
	tp     TopicPartition
	queued atomic.Int64 // bytes of the batches that are not done and take no more records
	acc    accumulator
	wake   chan struct{} // capacity 1

	lingers bool // in eagerness.lingering, and guarded by its lock

	sent     []*batch // sequenced and not yet acknowledged, in order; in flight or to be sent again
	inFlight int
	draining bool // something failed: send nothing until nothing is in flight
	lost     bool // a batch of the present epoch was given up: those after it cannot follow, or may
	id       int64
	epoch    int16
	next     int32     // sequence of the next batch
	badID    int64     // an ID that must be replaced
	hunt     hunt      // for another leader
	askedAt  time.Time // when suspect last asked who leads
	failures int       // drains since the last success
	retryAt  time.Time
	lastErr  error
}

func newPartitionProducer(p *Producer, tp TopicPartition) *partitionProducer {
	return &partitionProducer{p: p, tp: tp, wake: make(chan struct{}, 1)}
}

func (pp *partitionProducer) signal() {
	select {
	case pp.wake <- struct{}{}:
	default:
	}
}

// add appends a record to the open batch, or to a new one if that is full. It fails once the producer is closed; then there may be no pp.
func (pp *partitionProducer) add(in *incoming) error {
	if pp == nil {
		return ErrClosed
	}
	pp.acc.mu.Lock()
	if pp.acc.closed {
		pp.acc.mu.Unlock()
		return ErrClosed
	}
	if o := pp.acc.open; o != nil && o.builder.Size()+in.size > pp.p.cfg.batchBytes {
		pp.acc.ready = append(pp.acc.ready, pp.shut())
	}
	fresh := pp.acc.open == nil
	if fresh {
		pp.acc.open = pp.newBatch()
		pp.acc.live = append(pp.acc.live, pp.acc.open)
	}
	notify := pp.put(pp.acc.open, in) || fresh
	pp.acc.mu.Unlock()
	if notify {
		pp.signal()
	}
	return nil
}

// addToOpen appends a record if that needs no new batch.
func (pp *partitionProducer) addToOpen(in *incoming) bool {
	pp.acc.mu.Lock()
	o := pp.acc.open
	if pp.acc.closed || o == nil || o.builder.Size()+in.size > pp.p.cfg.batchBytes {
		pp.acc.mu.Unlock()
		return false
	}
	notify := pp.put(o, in)
	pp.acc.mu.Unlock()
	if notify {
		pp.signal()
	}
	return true
}

// shut takes the open batch, to which nothing is added any more. acc.mu is held.
func (pp *partitionProducer) shut() *batch {
	o := pp.acc.open
	pp.acc.open = nil
	pp.queued.Add(o.cost)
	return o
}

// close lets no more records in.
func (pp *partitionProducer) close() {
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	pp.acc.closed = true
}

func (pp *partitionProducer) newBatch() *batch {
	entries, builder := pp.p.entries.Get().(*[]entry), pp.p.pool.Get().(*record.Builder)
	if builder.Cap() == 0 {
		builder.Use(pp.p.batches.take())
	}
	return &batch{builder: builder, entries: *entries, pooled: entries, created: time.Now(), done: make(chan struct{})}
}

// put adds a record to a batch that has room for it, and tells whether the batch has become urgent by that.
func (pp *partitionProducer) put(b *batch, in *incoming) bool {
	// A builder without MaxBytes of its own takes whatever maxRecordBytes lets through.
	_ = b.builder.Append(in.encodable)
	in.record.Partition, in.record.Offset = pp.tp.Partition, -1
	b.entries = append(b.entries, in.entry)
	b.cost += entryCost(in.size)
	became := in.urgent && !b.urgent
	b.urgent = b.urgent || in.urgent
	return became
}

// flush makes all batches urgent and returns them.
func (pp *partitionProducer) flush() []*batch {
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	if pp.acc.open != nil {
		pp.acc.open.urgent = true
	}
	pp.signal()
	return slices.Clone(pp.acc.live)
}

// take removes the next batch if it is time to send it; else it says when that will be, zero if there is none.
func (pp *partitionProducer) take(now time.Time) (*batch, time.Time) {
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	if len(pp.acc.ready) > 0 {
		b := pp.acc.ready[0]
		pp.acc.ready = slices.Delete(pp.acc.ready, 0, 1)
		return b, time.Time{}
	}
	o := pp.acc.open
	if o == nil {
		return nil, time.Time{}
	}
	due := o.created.Add(pp.p.cfg.linger)
	eager := false
	if !o.urgent && now.Before(due) && pp.p.waiting.Load() == 0 {
		if eager = pp.p.eager.may(pp, now); !eager {
			return nil, due
		}
		pp.p.eager.spend(now)
	}
	return pp.shut(), time.Time{}
}

// takeExpired removes the next waiting batch if its delivery timeout is over; else it says when that will be.
func (pp *partitionProducer) takeExpired(now time.Time) (*batch, time.Time) {
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	b := pp.acc.open
	if len(pp.acc.ready) > 0 {
		b = pp.acc.ready[0]
	}
	if b == nil {
		return nil, time.Time{}
	}
	if end := pp.expiry(b); now.Before(end) {
		return nil, end
	}
	if b == pp.acc.open {
		pp.shut()
	} else {
		pp.acc.ready = slices.Delete(pp.acc.ready, 0, 1)
	}
	return b, time.Time{}
}

func (pp *partitionProducer) expiry(b *batch) time.Time {
	return b.created.Add(pp.p.cfg.deliveryTimeout)
}

// post is how streams hand in answers.
func (pp *partitionProducer) post(a answer) {
	pp.acc.mu.Lock()
	pp.acc.inbox = append(pp.acc.inbox, a)
	pp.acc.mu.Unlock()
	pp.signal()
}

func (pp *partitionProducer) collect() []answer {
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	in := pp.acc.inbox
	pp.acc.inbox = nil
	return in
}

// complete tells the callbacks. Its memory is free before, so that a callback may produce.
func (pp *partitionProducer) complete(b *batch, base, appendTimeMs int64, err error) {
	pp.acc.mu.Lock()
	pp.acc.live = slices.DeleteFunc(pp.acc.live, func(x *batch) bool { return x == b })
	pp.acc.mu.Unlock()
	pp.queued.Add(-b.cost)
	pp.p.memory.release(b.cost)
	for i := range b.entries {
		r := b.entries[i].record
		if err == nil && base >= 0 {
			r.Offset = base + int64(i)
		}
		if err == nil && appendTimeMs >= 0 {
			r.Timestamp = time.UnixMilli(appendTimeMs)
		}
		b.entries[i].done(r, err)
	}
	b.giveBack()
	b.data = nil
	clear(b.entries)
	*b.pooled = b.entries[:0]
	pp.p.entries.Put(b.pooled)
	b.entries, b.pooled = nil, nil
	close(b.done)
}

// failRest fails all that is left when the goroutine ends; the producer accepts nothing any more then.
func (pp *partitionProducer) failRest() {
	pp.acc.mu.Lock()
	pp.acc.closed = true
	if pp.acc.open != nil {
		pp.shut()
	}
	left := slices.Clone(pp.acc.live)
	pp.acc.mu.Unlock()
	for _, b := range left {
		pp.complete(b, -1, -1, unsure(b.maybe || b.inFlight, ErrClosed))
	}
}
