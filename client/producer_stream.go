package client

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// streamQueue is how many requests may wait for a stream's writer. What is in them is bounded by the producer's buffer.
const streamQueue = 64

// request is one batch on its way to a broker.
type request struct {
	owner   *partitionProducer
	batch   *batch
	attempt int
	message *pb.ProduceRequest
	// lent is the batch in the message, if its memory is to be used again: a reference that gRPC gets with the message. A request that is not sent keeps it, and the memory is left to
	// the garbage collector.
	lent mem.Buffer
}

// toSend is what the stream sends.
func (r *request) toSend() any {
	if r.lent != nil {
		return &lentRequest{r.message, r.lent}
	}
	return r.message
}

func (r *request) answer(resp *pb.ProduceResponse, err error) {
	r.owner.post(answer{batch: r.batch, attempt: r.attempt, response: resp, err: err})
}

// streamSet holds one stream for each broker that a producer sends to.
type streamSet struct {
	ctx  context.Context
	pool *pool
	wg   *sync.WaitGroup

	mu      sync.Mutex
	streams map[string]*produceStream
}

func newStreamSet(ctx context.Context, p *pool, wg *sync.WaitGroup) *streamSet {
	return &streamSet{ctx: ctx, pool: p, wg: wg, streams: make(map[string]*produceStream)}
}

// send hands a request to the broker's stream. Every request gets exactly one answer, by owner.post.
func (s *streamSet) send(addr string, r *request) {
	st, err := s.get(addr)
	if err == nil {
		err = st.enqueue(r)
	}
	if err != nil {
		r.answer(nil, err)
	}
}

func (s *streamSet) get(addr string) (*produceStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[addr]; st != nil {
		return st, nil
	}
	cn, err := s.pool.get(addr)
	if err != nil {
		return nil, err
	}
	st := &produceStream{set: s, conn: cn, queue: make(chan *request, streamQueue), pending: make(map[uint64]*request)}
	st.ctx, st.cancel = context.WithCancel(s.ctx)
	s.streams[addr] = st
	s.wg.Go(st.write)
	return st, nil
}

// cut breaks the stream on which a batch is in flight.
func (s *streamSet) cut(b *batch, err error) {
	s.mu.Lock()
	var hit *produceStream
	for _, st := range s.streams {
		if st.has(b) {
			hit = st
		}
	}
	s.mu.Unlock()
	if hit != nil {
		hit.fail(err)
	}
}

func (s *streamSet) drop(st *produceStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.conn.addr] == st {
		delete(s.streams, st.conn.addr)
	}
}

// produceStream is one ProduceStream call: a goroutine that writes and one that reads. When either fails, all requests without an answer are
// answered with the error and the stream is dropped; the next request opens another.
type produceStream struct {
	set    *streamSet
	conn   *conn
	queue  chan *request
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	last    uint64 // correlation ID
	pending map[uint64]*request
	broken  error
}

// enqueue registers a request and passes it to the writer, waiting for room. If it fails, the request has got no answer.
func (st *produceStream) enqueue(r *request) error {
	st.mu.Lock()
	if st.broken != nil {
		st.mu.Unlock()
		return st.broken
	}
	st.last++
	r.message.CorrelationId = st.last
	st.pending[st.last] = r
	st.mu.Unlock()
	select {
	case st.queue <- r:
	case <-st.ctx.Done(): // fail answers it
		st.fail(&Error{Op: "Produce", Code: CodeUnavailable, Message: "the stream has ended", Retriable: true, Partition: -1})
	}
	return nil
}

func (st *produceStream) has(b *batch) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, r := range st.pending {
		if r.batch == b {
			return true
		}
	}
	return false
}

// write opens the stream and is the only one to send on it.
func (st *produceStream) write() {
	stream, err := st.conn.log.ProduceStream(st.ctx, forceProduceCodec())
	if err != nil {
		st.fail(toError(context.Background(), "Produce", err))
		return
	}
	st.set.wg.Go(func() { st.read(stream) })
	for {
		select {
		case <-st.ctx.Done():
			return
		case r := <-st.queue:
			if stream.SendMsg(r.toSend()) != nil {
				return // the reader learns why
			}
		}
	}
}

func (st *produceStream) read(stream grpc.BidiStreamingClient[pb.ProduceRequest, pb.ProduceResponse]) {
	for {
		resp, err := stream.Recv()
		if err != nil {
			st.fail(streamError(context.Background(), "Produce", err))
			return
		}
		st.mu.Lock()
		r := st.pending[resp.CorrelationId]
		delete(st.pending, resp.CorrelationId)
		st.mu.Unlock()
		if r != nil {
			r.answer(resp, nil)
		}
	}
}

// fail ends the stream, once, and answers all that is pending. What befalls a stream is no verdict on a batch, so the batches may be tried
// again; but a message that the broker finds too large will always be.
func (st *produceStream) fail(err error) {
	var e *Error
	if errors.As(err, &e) && e.Code != CodeMessageTooLarge {
		e.Retriable = true
	}
	st.mu.Lock()
	if st.broken != nil {
		st.mu.Unlock()
		return
	}
	st.broken = err
	pending := st.pending
	st.pending = nil
	st.mu.Unlock()
	st.cancel()
	st.set.drop(st)
	if CodeOf(err) == CodeUnavailable {
		st.set.pool.doubt(st.conn.addr)
	}
	for _, r := range pending {
		r.answer(nil, err)
	}
}
