package fakebroker

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// fetcher is one Fetch stream.
type fetcher struct {
	mu     sync.Mutex
	parts  map[tp]*pb.FetchPartition
	credit int64
	wake   chan struct{}
}

func (s *logServer) Fetch(stream grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	f := &fetcher{parts: make(map[tp]*pb.FetchPartition), wake: make(chan struct{}, 1)}
	s.b.c.mu.Lock()
	cut := s.b.c.cutFetch // of this stream's beginning: a cut is not missed
	s.b.c.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- f.listen(s.b.c, stream) }()
	for {
		s.b.c.mu.Lock()
		changed := s.b.c.changed
		s.b.c.mu.Unlock()
		for {
			m := f.read(s.b)
			if m == nil {
				break
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		select {
		case err := <-ended:
			return err
		case <-cut:
			return status.Error(codes.Unavailable, "cut")
		case <-changed:
		case <-f.wake:
		}
	}
}

func (f *fetcher) listen(c *Cluster, stream grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		for _, r := range m.Remove {
			delete(f.parts, tp{r.Topic, r.Partition})
		}
		for _, a := range m.Add {
			c.fetches.Add(1)
			f.parts[tp{a.Topic, a.Partition}] = a
		}
		f.credit += m.CreditBytes
		f.mu.Unlock()
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// read makes the next message, nil if there is nothing to send.
func (f *fetcher) read(b *Broker) *pb.FetchResponse {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &pb.FetchResponse{}
	if b.c.mute[b.id] {
		return nil
	}
	for at, p := range f.parts {
		if f.credit <= 0 {
			break
		}
		d := b.readPartition(p)
		if d == nil {
			continue
		}
		m.Partitions = append(m.Partitions, d)
		f.credit -= int64(len(d.Batches))
		p.Offset = d.NextOffset
		if d.Error != nil {
			delete(f.parts, at)
		}
		b.c.sent += int64(len(d.Batches))
	}
	if len(m.Partitions) == 0 {
		return nil
	}
	return m
}

func (b *Broker) readPartition(q *pb.FetchPartition) *pb.FetchPartitionData {
	d := &pb.FetchPartitionData{Topic: q.Topic, Partition: q.Partition, Session: q.Session, NextOffset: q.Offset}
	p := b.c.get(q.Topic, q.Partition)
	switch {
	case p == nil:
		d.Error = detail(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION, q.Topic, q.Partition)
		return d
	case p.leader != b.id:
		d.Error = detail(pb.ErrorCode_ERROR_CODE_NOT_LEADER, q.Topic, q.Partition)
		d.Error.Leader = b.c.endpoint(p.leader)
		return d
	case q.Offset < int64(p.start) || q.Offset > int64(p.next):
		d.Error = detail(pb.ErrorCode_ERROR_CODE_OFFSET_OUT_OF_RANGE, q.Topic, q.Partition)
		d.Error.LogStartOffset, d.Error.HighWatermark = int64(p.start), int64(p.next)
		return d
	}
	for _, batch := range p.batches {
		h, err := record.ParseHeader(batch)
		if err != nil {
			panic(err)
		}
		if int64(h.LastOffset()) < q.Offset {
			continue
		}
		if len(d.Batches) > 0 && int64(len(d.Batches)+len(batch)) > q.MaxBytes {
			break
		}
		if b.c.corrupt > 0 {
			b.c.corrupt--
			batch = append([]byte(nil), batch...)
			batch[len(batch)-1] ^= 1
		}
		d.Batches = append(d.Batches, batch...)
		d.NextOffset = int64(h.Next())
	}
	if len(d.Batches) == 0 {
		return nil
	}
	d.HighWatermark, d.LogStartOffset = int64(p.next), int64(p.start)
	return d
}

// MuteFetches lets a broker's Fetch streams bring nothing any more, as if it were frozen.
func (c *Cluster) MuteFetches(broker int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute[broker] = true
}

// CutFetches breaks all Fetch streams.
func (c *Cluster) CutFetches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cutFetch)
	c.cutFetch = make(chan struct{})
}

// CorruptNext damages the next n batches that are fetched, on their way.
func (c *Cluster) CorruptNext(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corrupt = n
}

// Fetches is how often a partition was added to a Fetch stream.
func (c *Cluster) Fetches() int { return int(c.fetches.Load()) }

// SentBytes is how many bytes of batches all Fetch streams have sent.
func (c *Cluster) SentBytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

func (s *logServer) ListOffsets(_ context.Context, req *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	r := &pb.ListOffsetsResponse{}
	for _, q := range req.Partitions {
		r.Offsets = append(r.Offsets, s.b.listOffset(q))
	}
	return r, nil
}

func (b *Broker) listOffset(q *pb.ListOffsetsPartition) *pb.ListedOffset {
	o := &pb.ListedOffset{Topic: q.Topic, Partition: q.Partition, Offset: -1, TimestampMs: -1}
	p := b.c.get(q.Topic, q.Partition)
	if p == nil {
		o.Error = detail(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION, q.Topic, q.Partition)
		return o
	}
	if p.leader != b.id {
		o.Error = detail(pb.ErrorCode_ERROR_CODE_NOT_LEADER, q.Topic, q.Partition)
		o.Error.Leader = b.c.endpoint(p.leader)
		return o
	}
	switch x := q.Position.(type) {
	case *pb.ListOffsetsPartition_Earliest:
		o.Offset = int64(p.start)
	case *pb.ListOffsetsPartition_Latest:
		o.Offset = int64(p.next)
	case *pb.ListOffsetsPartition_TimestampMs:
		o.Offset, o.TimestampMs = p.find(x.TimestampMs)
	}
	return o
}

func (p *partition) find(ms int64) (offset, timestamp int64) {
	for _, batch := range p.batches {
		rs, err := record.Decode(batch, 64<<20)
		if err != nil {
			panic(err)
		}
		for _, r := range rs {
			if r.Timestamp >= ms {
				return int64(r.Offset), r.Timestamp
			}
		}
	}
	return -1, -1
}

func (s *logServer) DeleteRecords(_ context.Context, req *pb.DeleteRecordsRequest) (*pb.DeleteRecordsResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	p := s.b.c.get(req.Topic, req.Partition)
	if p == nil || p.leader != s.b.id {
		d := detail(pb.ErrorCode_ERROR_CODE_NOT_LEADER, req.Topic, req.Partition)
		if p != nil {
			d.Leader = s.b.c.endpoint(p.leader)
		}
		return nil, fail(codes.FailedPrecondition, d)
	}
	p.start = record.Offset(req.BeforeOffset)
	if req.BeforeOffset < 0 {
		p.start = p.next
	}
	return &pb.DeleteRecordsResponse{LogStartOffset: int64(p.start)}, nil
}
