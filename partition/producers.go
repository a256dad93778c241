package partition

import "github.com/flotilla-log/flotilla/proto/record"

// Bounds of the producer table. They are part of the state machine: all replicas of a group must agree on them, so a release that
// changes them has to do it by a command.
const (
	rememberedBatches = 5                             // per producer, as Kafka: at most that many requests of a producer are in flight
	maxProducers      = 20_000                        // the one unheard of for longest goes first
	producerExpiryNs  = int64(7 * 24 * 3600 * 1e9)    // on the writing clock
	writingStepNs     = int64(24 * 3600 * 1e9)        // the most by which one batch moves the writing clock
	sequenceHalf      = int32(1 << 30)                // half of the sequence space, to tell old from missing
	maxProducerBytes  = rememberedBatches*(4*10) + 40 // encoded, at most
)

// remembered is one accepted batch of an idempotent producer.
type remembered struct {
	base      record.Offset
	sequence  int32
	count     int32
	timestamp int64 // MaxTimestamp, Unix ms
}

func (b remembered) lastSequence() int32 { return record.AddSequence(b.sequence, b.count-1) }

// producer is what is known of one producer ID.
type producer struct {
	id      int64
	epoch   int16
	n       int8
	batches [rememberedBatches]remembered // the newest n, oldest first
	seen    int64                         // writing clock (ns) at the newest batch
	newer   *producer                     // list by time of the newest batch
	older   *producer
}

func (p *producer) last() remembered { return p.batches[p.n-1] }

// find returns the remembered batch with exactly these sequence numbers.
func (p *producer) find(sequence, count int32) (remembered, bool) {
	for _, b := range p.batches[:p.n] {
		if b.sequence == sequence && b.count == count {
			return b, true
		}
	}
	return remembered{}, false
}

func (p *producer) remember(b remembered) {
	if int(p.n) == len(p.batches) {
		copy(p.batches[:], p.batches[1:])
		p.n--
	}
	p.batches[p.n] = b
	p.n++
}

// producerTable knows all producers, and in which order they were last heard of: a list and not a sweep, so that forgetting costs the
// same whatever the size, and is deterministic.
type producerTable struct {
	byID           map[int64]*producer
	newest, oldest *producer
}

func (t *producerTable) get(id int64) *producer { return t.byID[id] }

func (t *producerTable) len() int { return len(t.byID) }

// record notes an accepted batch at the writing clock and forgets who has been silent for too long.
func (t *producerTable) record(h record.Header, clock int64) {
	p := t.touch(h.ProducerID)
	if p.epoch != h.ProducerEpoch {
		p.epoch, p.n = h.ProducerEpoch, 0
	}
	p.seen = clock
	p.remember(remembered{base: h.BaseOffset, sequence: h.BaseSequence, count: h.Count, timestamp: h.MaxTimestamp})
	t.forget(clock)
}

// touch returns the producer, made if need be, as the newest of the list.
func (t *producerTable) touch(id int64) *producer {
	p := t.byID[id]
	if p == nil {
		if t.byID == nil {
			t.byID = make(map[int64]*producer)
		}
		p = &producer{id: id}
		t.byID[id] = p
	} else {
		t.unlink(p)
	}
	t.pushNewest(p)
	return p
}

func (t *producerTable) forget(clock int64) {
	for p := t.oldest; p != nil && (len(t.byID) > maxProducers || clock-p.seen > producerExpiryNs); p = t.oldest {
		t.unlink(p)
		delete(t.byID, p.id)
	}
}

func (t *producerTable) pushNewest(p *producer) {
	p.newer, p.older = nil, t.newest
	if t.newest != nil {
		t.newest.newer = p
	} else {
		t.oldest = p
	}
	t.newest = p
}

func (t *producerTable) unlink(p *producer) {
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		t.newest = p.older
	}
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		t.oldest = p.newer
	}
	p.newer, p.older = nil, nil
}
