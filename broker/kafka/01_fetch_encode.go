package kafka

import (
	"encoding/binary"

	"golang.org/x/sync/semaphore"
)

// fetchReply is a fetch response that is written from the stored batches without copying them.
type fetchReply struct {
	version   int16
	errorCode int16
	sessionID int32
	topics    []fetchedTopic
	hints     hints
	// held is what the records take.
	held holding
}

// holding is memory for responses.
type holding struct {
	from  *semaphore.Weighted
	bytes int64
}

// release implements holder.
func (f *fetchReply) release() {
	if f.held.bytes > 0 {
		f.held.from.Release(f.held.bytes)
		f.held.bytes = 0
	}
}

// fetchedTopic is a run of partitions of one topic. A topic may have several: what matters in a session is the order of the partitions.
type fetchedTopic struct {
	name       string
	id         [16]byte
	partitions []fetchedPartition
}

type fetchedPartition struct {
	partition               int32
	errorCode               int16
	highWatermark, logStart int64
	leader                  leaderHint
	batches                 [][]byte
}

// add puts a partition after those that are there.
func (f *fetchReply) add(t *fetchTarget, p fetchedPartition) {
	if n := len(f.topics); n == 0 || f.topics[n-1].name != t.topic || f.topics[n-1].id != t.id {
		f.topics = append(f.topics, fetchedTopic{name: t.topic, id: t.id})
	}
	last := &f.topics[len(f.topics)-1]
	last.partitions = append(last.partitions, p)
}

// IsFlexible implements reply.
func (f *fetchReply) IsFlexible() bool { return f.version >= 12 }

// AppendTo implements reply.
func (f *fetchReply) AppendTo(b []byte) []byte {
	for _, p := range f.buffers(nil) {
		b = append(b, p...)
	}
	return b
}

// buffers implements scattered. What stands between the batches is short and written into pieces of its own.
func (f *fetchReply) buffers(begin []byte) [][]byte {
	e := fetchEncoder{b: begin, version: f.version, flexible: f.IsFlexible()}
	e.int32(0) // throttle time
	if f.version >= 7 {
		e.int16(f.errorCode)
		e.int32(f.sessionID)
	}
	e.length(len(f.topics))
	for i := range f.topics {
		e.topic(&f.topics[i])
	}
	e.endpoints(f.hints.brokers)
	e.cut()
	return e.pieces
}

type fetchEncoder struct {
	version  int16
	flexible bool
	b        []byte // what is being written
	pieces   [][]byte
}

func (e *fetchEncoder) int16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *fetchEncoder) int32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *fetchEncoder) int64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

// length writes that of an array or of bytes.
func (e *fetchEncoder) length(n int) {
	if e.flexible {
		e.b = binary.AppendUvarint(e.b, uint64(n)+1)
	} else {
		e.int32(int32(n))
	}
}

func (e *fetchEncoder) tags() {
	if e.flexible {
		e.b = append(e.b, 0)
	}
}

// endpoints ends the response with the addresses of leaders elsewhere (v16, tag 0).
func (e *fetchEncoder) endpoints(brokers []kafkaBroker) {
	if e.version < 16 || len(brokers) == 0 {
		e.tags()
		return
	}
	inner := fetchEncoder{version: e.version, flexible: true}
	inner.length(len(brokers))
	for _, b := range brokers {
		inner.int32(b.id)
		inner.string(b.host)
		inner.int32(b.port)
		if b.rack == nil {
			inner.b = append(inner.b, 0)
		} else {
			inner.string(*b.rack)
		}
		inner.tags()
	}
	e.tag(0, inner.b)
}

// leader ends a partition, with its leader elsewhere if there is one to tell (v12, tag 1).
func (e *fetchEncoder) leader(h leaderHint) {
	if !e.flexible || h.id < 0 {
		e.tags()
		return
	}
	inner := fetchEncoder{flexible: true}
	inner.int32(h.id)
	inner.int32(h.epoch)
	inner.tags()
	e.tag(1, inner.b)
}

// tag writes tagged fields of which there is one.
func (e *fetchEncoder) tag(tag byte, value []byte) {
	e.b = append(e.b, 1, tag)
	e.b = binary.AppendUvarint(e.b, uint64(len(value)))
	e.b = append(e.b, value...)
}

func (e *fetchEncoder) string(s string) {
	e.length(len(s))
	e.b = append(e.b, s...)
}

// cut ends the piece that is being written.
func (e *fetchEncoder) cut() {
	if len(e.b) > 0 {
		e.pieces = append(e.pieces, e.b)
	}
	e.b = nil
}

func (e *fetchEncoder) topic(t *fetchedTopic) {
	switch {
	case e.version >= 13:
		e.b = append(e.b, t.id[:]...)
	case e.flexible:
		e.string(t.name)
	default:
		e.int16(int16(len(t.name)))
		e.b = append(e.b, t.name...)
	}
	e.length(len(t.partitions))
	for i := range t.partitions {
		e.partition(&t.partitions[i])
	}
	e.tags()
}

func (e *fetchEncoder) partition(p *fetchedPartition) {
	e.int32(p.partition)
	e.int16(p.errorCode)
	e.int64(p.highWatermark)
	e.int64(p.highWatermark) // the last stable offset
	if e.version >= 5 {
		e.int64(p.logStart)
	}
	e.length(0) // no aborted transactions
	if e.version >= 11 {
		e.int32(-1) // no other replica to read from
	}
	size := 0
	for _, b := range p.batches {
		size += len(b)
	}
	e.length(size)
	if size > 0 {
		e.cut()
		e.pieces = append(e.pieces, p.batches...)
	}
	e.leader(p.leader)
}
