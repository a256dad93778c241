package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// fetchStream is one Fetch call: a goroutine that writes what has gathered in the fields below mu, and one that reads. credit is what the
// broker may send in addition to what it was told; so much may be buffered here.
type fetchStream struct {
	k      *Consumer
	conn   *conn
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: there is something to send

	// Guarded by Consumer.mu.
	attached map[TopicPartition]*fetchState
	add      map[TopicPartition]*pb.FetchPartition
	remove   map[TopicPartition]bool
	credit   int64         // not yet sent; negative after taking over a partition with much buffered
	buffered int64         // bytes received and not given back
	greeted  bool          // the first message has been sent
	heard    time.Time     // when the broker last sent something; zero: not looked at yet
	asked    time.Time     // when the metadata was last looked up because it is silent
	patience time.Duration // until it is looked up again
}

// attach gives a partition to a broker's stream. mu is held.
func (k *Consumer) attach(fs *fetchState, addr string) {
	st := k.streams[addr]
	if st == nil {
		cn, err := k.client.pool.get(addr)
		if err != nil {
			k.failed(fs, err)
			return
		}
		st = &fetchStream{
			k: k, conn: cn, wake: make(chan struct{}, 1), attached: make(map[TopicPartition]*fetchState), add: make(map[TopicPartition]*pb.FetchPartition),
			remove: make(map[TopicPartition]bool), credit: k.cfg.prefetchBytes,
		}
		st.ctx, st.cancel = context.WithCancel(k.ctx)
		k.streams[addr] = st
		k.wg.Go(st.write)
	}
	k.session++
	fs.session, fs.stream = k.session, st
	for _, c := range fs.chunks { // what is still buffered of an earlier stream counts against this one
		st.credit -= c.credit
		st.buffered += c.credit
	}
	st.attached[fs.tp] = fs
	st.add[fs.tp] = &pb.FetchPartition{Topic: fs.tp.Topic, Partition: fs.tp.Partition, Offset: fs.fetch, MaxBytes: k.cfg.partitionBytes, Session: fs.session}
	delete(st.remove, fs.tp)
	signal(st.wake)
}

// detach takes a partition from its stream, after which data for it is stale. What it has buffered must be discarded, or is charged to the next
// stream. mu is held.
func (k *Consumer) detach(fs *fetchState) {
	st := fs.stream
	if st == nil {
		return
	}
	for _, c := range fs.chunks {
		st.giveBack(c.credit)
	}
	fs.stream = nil
	delete(st.attached, fs.tp)
	delete(st.add, fs.tp)
	st.remove[fs.tp] = true
	signal(st.wake)
}

// giveBack lets the broker send more. Small amounts are gathered. mu is held; the stream may be nil.
func (st *fetchStream) giveBack(n int64) {
	if st == nil {
		return
	}
	st.credit += n
	st.buffered -= n
	if st.credit >= st.k.cfg.prefetchBytes/8 || st.buffered <= 0 {
		signal(st.wake)
	}
}

// closeIdle ends streams without partitions. mu is held.
func (k *Consumer) closeIdle() {
	for addr, st := range k.streams {
		if len(st.attached) == 0 {
			st.cancel()
			delete(k.streams, addr)
		}
	}
}

// write opens the stream and is the only one to send on it.
func (st *fetchStream) write() {
	defer st.cancel()
	stream, err := st.conn.log.Fetch(st.ctx, forceFetchCodec())
	if err != nil {
		st.broken(toError(context.Background(), "Fetch", err))
		return
	}
	st.k.wg.Go(func() { st.read(stream) })
	for {
		select {
		case <-st.ctx.Done():
			return
		case <-st.wake:
		}
		if m := st.message(); m != nil && stream.Send(m) != nil {
			return // the reader learns why
		}
	}
}

// message gathers what there is to say; nil if nothing.
func (st *fetchStream) message() *pb.FetchRequest {
	st.k.mu.Lock()
	defer st.k.mu.Unlock()
	if len(st.add) == 0 && len(st.remove) == 0 && st.credit <= 0 {
		return nil
	}
	m := &pb.FetchRequest{}
	for _, p := range st.add {
		m.Add = append(m.Add, p)
	}
	for tp := range st.remove {
		m.Remove = append(m.Remove, &pb.TopicPartition{Topic: tp.Topic, Partition: tp.Partition})
	}
	clear(st.add)
	clear(st.remove)
	if st.credit > 0 {
		m.CreditBytes, st.credit = st.credit, 0
	}
	if !st.greeted {
		st.greeted = true
		m.Remove = nil
		m.MinBytes, m.MaxWaitMs = st.k.cfg.minBytes, int32(st.k.cfg.maxWait.Milliseconds())
	}
	return m
}

func (st *fetchStream) read(stream grpc.BidiStreamingClient[pb.FetchRequest, pb.FetchResponse]) {
	defer st.cancel()
	for {
		m, err := stream.Recv()
		if err != nil {
			st.broken(streamError(context.Background(), "Fetch", err))
			return
		}
		st.k.mu.Lock()
		st.heard, st.patience = time.Now(), silentAfter
		for _, d := range m.Partitions {
			st.receive(d)
		}
		st.k.mu.Unlock()
		signal(st.k.notify)
	}
}

// receive files one partition's data. mu is held.
func (st *fetchStream) receive(d *pb.FetchPartitionData) {
	n := int64(len(d.Batches))
	st.buffered += n
	fs := st.attached[TopicPartition{d.Topic, d.Partition}]
	if fs == nil || fs.session != d.Session {
		st.giveBack(n)
		return
	}
	if d.Error != nil {
		st.giveBack(n)
		err := fromDetail("Fetch", d.Error, d.ErrorMessage, nil)
		err.Topic, err.Partition = d.Topic, d.Partition
		st.k.detach(fs)
		delete(st.remove, fs.tp) // the broker has removed it by itself
		st.k.failed(fs, err)
		return
	}
	fs.highWatermark, fs.failures, fs.reportAt, fs.retryAt = d.HighWatermark, 0, time.Time{}, time.Time{}
	fs.hunt.over()
	fs.fetch = max(fs.fetch, d.NextOffset)
	if n == 0 {
		return
	}
	fs.chunks = append(fs.chunks, chunk{data: d.Batches, credit: n, next: d.NextOffset})
	if !fs.queued {
		fs.queued = true
		st.k.ready = append(st.k.ready, fs)
	}
}

// broken takes all partitions off the stream and lets drive try again.
func (st *fetchStream) broken(err error) {
	k := st.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams[st.conn.addr] == st {
		delete(k.streams, st.conn.addr)
	}
	if st.ctx.Err() != nil && len(st.attached) == 0 {
		return // closed by ourselves
	}
	var e *Error
	if errors.As(err, &e) && e.Code != CodeInvalidRequest {
		e.Retriable = true
	}
	for _, fs := range st.attached {
		k.detach(fs)
		k.failed(fs, err)
	}
	signal(k.wake)
}
