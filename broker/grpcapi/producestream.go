package grpcapi

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type produceServer = grpc.BidiStreamingServer[pb.ProduceRequest, pb.ProduceResponse]

// produceStream is one ProduceStream call. The handler's goroutine reads requests and hands them to the sequencer in order; one
// other goroutine sends the responses as they come. A request holds a slot and its bytes from before it is appended until its
// response was sent, so responses (cap StreamInflight) never blocks whoever completes an append.
type produceStream struct {
	svc       *logService
	stream    produceServer
	slots     *semaphore.Weighted // requests in flight
	bytes     *semaphore.Weighted
	responses chan sentResponse
}

type sentResponse struct {
	msg   *pb.ProduceResponse
	bytes int64
}

func (s *logService) ProduceStream(stream produceServer) error {
	p := &produceStream{
		svc: s, stream: stream,
		slots:     semaphore.NewWeighted(int64(s.opts.StreamInflight)),
		bytes:     semaphore.NewWeighted(int64(s.opts.StreamInflightBytes)),
		responses: make(chan sentResponse, s.opts.StreamInflight),
	}
	return p.run()
}

func (p *produceStream) run() error {
	ctx, cancel := joinStop(p.stream.Context(), p.svc.stopping)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		err := p.sendAll()
		cancel() // a client that cannot be answered is not worth reading
		sent <- err
	}()
	recvErr := p.readAll(ctx)
	// Every request holds a slot until it is answered: having them all means that nothing is in flight. A server that ends does not wait for that: an append may
	// be without an outcome for as long as its partition is without a quorum.
	if p.slots.Acquire(p.svc.aborting, int64(p.svc.opts.StreamInflight)) == nil {
		close(p.responses)
	}
	sendErr := <-sent
	if recvErr != nil {
		return toStatus(p.svc.orStopping(recvErr))
	}
	return sendErr
}

// sendAll answers until responses is closed, or the server ends. After an error it goes on taking responses, to free their slots.
func (p *produceStream) sendAll() error {
	var failed error
	for {
		select {
		case r, ok := <-p.responses:
			if !ok {
				return failed
			}
			if failed == nil {
				failed = p.stream.Send(r.msg)
			}
			p.bytes.Release(r.bytes)
			p.slots.Release(1)
		case <-p.svc.aborting.Done():
			return p.svc.aborting.Err()
		}
	}
}

// readAll takes requests until the client has sent its last one (nil) or the stream or server ends.
// Recv itself only ends with the stream's context, so a goroutine reads ahead by one message.
func (p *produceStream) readAll(ctx context.Context) error {
	requests := recvLoop(ctx, p.stream.Recv)
	for {
		select {
		case r := <-requests:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			if err := p.accept(ctx, r.msg); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// accept takes one request in. An error is the stream's end, not the request's failure.
func (p *produceStream) accept(ctx context.Context, req *pb.ProduceRequest) error {
	id, size := req.GetCorrelationId(), min(int64(requestBytes(req)), int64(p.svc.opts.StreamInflightBytes))
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := p.bytes.Acquire(ctx, size); err != nil {
		p.slots.Release(1)
		return err
	}
	respond := func(m *pb.ProduceResponse) { p.responses <- sentResponse{m, size} }
	a, err := p.svc.toAppend(req)
	if err != nil {
		respond(toProduceError(id, err))
		return nil
	}
	// The append's time is its own: it goes on when the client hangs up, as its batch may be in the log already.
	actx, cancel := context.WithTimeout(p.svc.aborting, p.svc.appendTimeout(req.GetTimeoutMs()))
	p.svc.broker.AppendAsync(actx, a, func(res api.AppendResult, err error) {
		cancel()
		if err != nil {
			respond(toProduceError(id, err))
			return
		}
		respond(toProduced(id, res))
	})
	return nil
}

func requestBytes(req *pb.ProduceRequest) int {
	n := len(req.GetBatch())
	for _, r := range req.GetRecords().GetRecords() {
		n += len(r.Key) + len(r.Value) + 64
	}
	return n
}

type received[T any] struct {
	msg *T
	err error
}

// recvLoop reads a stream until its first error, which is delivered too, or until ctx is done. gRPC ends Recv when the handler
// returns, so the goroutine ends soon after it.
func recvLoop[T any](ctx context.Context, recv func() (*T, error)) <-chan received[T] {
	ch := make(chan received[T])
	go func() {
		for {
			m, err := recv()
			select {
			case ch <- received[T]{m, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return ch
}
