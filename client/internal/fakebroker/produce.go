package fakebroker

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

type logServer struct {
	pb.UnimplementedLogServer
	b *Broker
}

// handle deals with one request. It returns nil for no answer; cut asks to break the stream.
func (s *logServer) handle(req *pb.ProduceRequest) (resp *pb.ProduceResponse, cut bool) {
	v := s.b.c.judge(s.b.id, req)
	time.Sleep(v.Delay)
	failed := &pb.ProduceResponse{CorrelationId: req.CorrelationId, Error: detail(v.Code, req.Topic, req.Partition), ErrorMessage: "injected"}
	switch v.Action {
	case Refuse:
		return failed, false
	case Cut:
		return nil, true
	case Ignore:
		return nil, false
	}
	resp = s.append(req)
	switch v.Action {
	case StoreThenFail:
		return failed, false
	case StoreThenCut:
		return nil, true
	case StoreThenIgnore:
		return nil, false
	}
	return resp, false
}

func (s *logServer) append(req *pb.ProduceRequest) *pb.ProduceResponse {
	c := s.b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &pb.ProduceResponse{CorrelationId: req.CorrelationId, LogAppendTimeMs: -1}
	refuse := func(code pb.ErrorCode) *pb.ProduceResponse {
		resp.Error, resp.ErrorMessage = detail(code, req.Topic, req.Partition), code.String()
		return resp
	}
	p := c.get(req.Topic, req.Partition)
	if p == nil {
		return refuse(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION)
	}
	if p.leader != s.b.id {
		refuse(pb.ErrorCode_ERROR_CODE_NOT_LEADER)
		resp.Error.Leader = c.endpoint(p.leader)
		return resp
	}
	h, err := record.Validate(req.GetBatch())
	if err != nil {
		return refuse(pb.ErrorCode_ERROR_CODE_CORRUPT_BATCH)
	}
	if h.Idempotent() {
		if base, code := p.check(h); code != pb.ErrorCode_ERROR_CODE_UNSPECIFIED {
			return refuse(code)
		} else if base >= 0 {
			resp.BaseOffset, resp.Duplicate = int64(base), true
			return resp
		}
	}
	if req.ExpectedOffset != nil && *req.ExpectedOffset != int64(p.next) {
		refuse(pb.ErrorCode_ERROR_CODE_EXPECTED_OFFSET_MISMATCH)
		resp.Error.HighWatermark, resp.Error.LogStartOffset = int64(p.next), int64(p.start)
		return resp
	}
	resp.BaseOffset = int64(p.append(c, append([]byte(nil), req.GetBatch()...)))
	if h.Idempotent() {
		p.remember(h, record.Offset(resp.BaseOffset))
	}
	return resp
}

// check applies the rules for idempotent producers; base is -1 if the batch is new.
func (p *partition) check(h record.Header) (base record.Offset, code pb.ErrorCode) {
	pr := p.producers[h.ProducerID]
	if pr == nil || h.ProducerEpoch > pr.epoch {
		if h.BaseSequence != 0 {
			return -1, pb.ErrorCode_ERROR_CODE_OUT_OF_ORDER_SEQUENCE
		}
		return -1, 0
	}
	if h.ProducerEpoch < pr.epoch {
		return -1, pb.ErrorCode_ERROR_CODE_PRODUCER_FENCED
	}
	for _, a := range pr.last {
		if a.first == h.BaseSequence && a.final == h.LastSequence() {
			return a.base, 0
		}
	}
	last := pr.last[len(pr.last)-1].final
	if h.BaseSequence == record.AddSequence(last, 1) {
		return -1, 0
	}
	if h.BaseSequence <= last {
		return -1, pb.ErrorCode_ERROR_CODE_DUPLICATE_SEQUENCE
	}
	return -1, pb.ErrorCode_ERROR_CODE_OUT_OF_ORDER_SEQUENCE
}

func (p *partition) remember(h record.Header, base record.Offset) {
	pr := p.producers[h.ProducerID]
	if pr == nil || pr.epoch != h.ProducerEpoch {
		pr = &producer{epoch: h.ProducerEpoch}
		p.producers[h.ProducerID] = pr
	}
	pr.last = append(pr.last, appended{h.BaseSequence, h.LastSequence(), base})
	if len(pr.last) > 5 {
		pr.last = pr.last[1:]
	}
}

func (s *logServer) ProduceStream(stream grpc.BidiStreamingServer[pb.ProduceRequest, pb.ProduceResponse]) error {
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		resp, cut := s.handle(req)
		if cut {
			return status.Error(codes.Unavailable, "cut")
		}
		if resp != nil {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
	}
}

func (s *logServer) Produce(ctx context.Context, req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
	resp, cut := s.handle(req)
	if cut {
		return nil, status.Error(codes.Unavailable, "cut")
	}
	if resp == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if resp.Error != nil {
		return nil, fail(codes.FailedPrecondition, resp.Error)
	}
	return resp, nil
}

func (s *logServer) InitProducer(context.Context, *pb.InitProducerRequest) (*pb.InitProducerResponse, error) {
	s.b.c.mu.Lock()
	defer s.b.c.mu.Unlock()
	s.b.c.nextID++
	return &pb.InitProducerResponse{ProducerId: s.b.c.nextID}, nil
}
