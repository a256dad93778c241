package kafka

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Fetch, versions 4 to 18. v5: log start offset; v7: sessions (KIP-227); v9: leader epoch (KIP-320); v11: rack; v12: flexible; v13: topic
// IDs (KIP-516); v16: addresses of leaders elsewhere (KIP-951); v15, v17, v18: for
// replicas only.
//
// There are no sessions: every response has session ID 0, which tells the client to name all partitions each time. There are no
// transactions, so the last stable offset is the high watermark and both isolation levels read the same.

// fetchReply is a fetch response that is written from the stored batches without copying them.
type fetchReply struct {
	version   int16
	errorCode int16
	topics    []fetchedTopic
	hints     hints
}

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

func (s *Server) fetch(ctx context.Context, _ *request, req *kmsg.FetchRequest) reply {
	out := &fetchReply{version: req.Version}
	switch {
	case req.SessionID != 0:
		out.errorCode = errFetchSessionIDNotFound
		return out
	case req.SessionEpoch > 0:
		out.errorCode = errInvalidFetchSessionEpoch
		return out
	}
	asked, places := s.toFetch(req, out)
	results, err := s.broker.Fetch(ctx, asked)
	if err != nil || len(results) != len(places) {
		return nil // the connection or the server is ending
	}
	for i, r := range results {
		at := places[i]
		p := &out.topics[at.topic].partitions[at.partition]
		p.fill(r, req.Topics[at.topic].Partitions[at.partition].CurrentLeaderEpoch)
		if r.Err != nil {
			p.leader = out.hints.of(r.Err)
		}
	}
	return out
}

// place says where in the response a result belongs.
type place struct{ topic, partition int }

// toFetch makes the request to the broker, and the response with room for its results.
func (s *Server) toFetch(req *kmsg.FetchRequest, out *fetchReply) (api.FetchRequest, []place) {
	asked := api.FetchRequest{
		MinBytes: int(min(max(req.MinBytes, 0), int32(s.opts.MaxFetchBytes))), MaxBytes: s.clampFetch(req.MaxBytes),
		MaxWait: min(max(time.Duration(req.MaxWaitMillis)*time.Millisecond, 0), maxWait),
	}
	asked.MinBytes = min(asked.MinBytes, asked.MaxBytes)
	var places []place
	out.topics = make([]fetchedTopic, len(req.Topics))
	for i := range req.Topics {
		in, t := &req.Topics[i], &out.topics[i]
		t.name, t.id, t.partitions = in.Topic, in.TopicID, make([]fetchedPartition, len(in.Partitions))
		name, unknown := s.topicNamed(in.Topic, in.TopicID, req.Version >= 13)
		for j, p := range in.Partitions {
			t.partitions[j] = fetchedPartition{partition: p.Partition, errorCode: unknown, highWatermark: -1, logStart: -1, leader: noHint}
			if unknown != errNone {
				asked.MaxWait = 0 // an error is told at once
				continue
			}
			places = append(places, place{i, j})
			asked.Partitions = append(asked.Partitions, api.FetchPartition{
				TopicPartition: api.TopicPartition{Topic: name, Partition: p.Partition}, Offset: offset(p.FetchOffset), MaxBytes: s.clampFetch(p.PartitionMaxBytes),
			})
		}
	}
	return asked, places
}

// clampFetch keeps a size within the limits. Clients ask for 0 bytes only to learn where a partition stands; they get a batch all the same.
func (s *Server) clampFetch(n int32) int { return min(max(int(n), 1), s.opts.MaxFetchBytes) }

func (p *fetchedPartition) fill(r api.FetchResult, epoch int32) {
	if r.Err != nil {
		p.errorCode = codeOf(r.Err, data)
		return
	}
	if p.errorCode = checkEpoch(epoch, r.LeaderEpoch); p.errorCode != errNone {
		return
	}
	p.highWatermark, p.logStart, p.batches = int64(r.HighWatermark), int64(r.LogStart), r.Batches
}

// checkEpoch compares the leader epoch that a client knows (-1: none) with the leader's (KIP-320).
func checkEpoch(client, leader int32) int16 {
	switch {
	case client < 0 || client == leader:
		return errNone
	case client < leader:
		return errFencedLeaderEpoch
	}
	return errUnknownLeaderEpoch
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
		e.int32(0) // no session
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
