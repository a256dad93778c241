package grpcapi

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

type logService struct {
	pb.UnimplementedLogServer
	broker   api.Log
	opts     Options
	stopping context.Context
	aborting context.Context
	fetches  *semaphore.Weighted // bytes of fetched data in memory
	unsent   *unsent
	codec    boundedCodec
}

// idleFetchBytes is what a fetch that waits for data may come back with beside the budget; what more there is comes with the next one.
const idleFetchBytes = 64 << 10

// fetch is the broker's Fetch within the budget for fetched data. release gives it back, once the results were sent. A long poll does not
// hold any of it while it waits: what is there already is taken within the budget, and what wakes it is kept small.
func (s *logService) fetch(ctx context.Context, req api.FetchRequest) (results []api.FetchResult, release func(), err error) {
	if err := s.fetches.Acquire(ctx, int64(req.MaxBytes)); err != nil {
		return nil, func() {}, err
	}
	release = func() { s.fetches.Release(int64(req.MaxBytes)) }
	now := req
	now.MaxWait = 0
	results, err = s.broker.Fetch(ctx, now)
	if err == nil && (req.MaxWait == 0 || enough(results, req.MinBytes)) {
		return results, release, nil
	}
	release()
	if err == nil {
		req.MaxBytes = min(req.MaxBytes, max(idleFetchBytes, req.MinBytes))
		results, err = s.broker.Fetch(ctx, req)
	}
	return results, func() {}, err
}

// holdResults counts what was read until it is sent. Where there is no room, it drops the data, gives the budget back, waits, and returns nil, with bytesOf(results) as it was:
// then everything has to be fetched again.
func (s *logService) holdResults(ctx context.Context, results []api.FetchResult, release func()) (*holding, error) {
	n := bytesOf(results)
	if n == 0 {
		return nil, nil
	}
	remote := ""
	if p, ok := peer.FromContext(ctx); ok {
		remote = p.Addr.String()
	}
	if h := s.unsent.take(n, remote); h != nil {
		return h, nil
	}
	for _, r := range results {
		if r.Release != nil {
			r.Release()
		}
	}
	release()
	return nil, s.unsent.await(ctx, n)
}

func bytesOf(results []api.FetchResult) (n int64) {
	for _, r := range results {
		n += int64(sizeOf(r.Batches))
	}
	return n
}

// enough says that results are worth returning without waiting.
func enough(results []api.FetchResult, minBytes int) bool {
	n := 0
	for _, r := range results {
		if r.Err != nil {
			return true
		}
		n += sizeOf(r.Batches)
	}
	return n >= max(minBytes, 1)
}

// toAppend checks a produce request's shape and makes the batch.
func (s *logService) toAppend(req *pb.ProduceRequest) (api.AppendRequest, error) {
	a := api.AppendRequest{TopicPartition: api.TopicPartition{Topic: req.GetTopic(), Partition: req.GetPartition()}}
	switch p := req.GetPayload().(type) {
	case *pb.ProduceRequest_Batch:
		a.Batch = p.Batch
	case *pb.ProduceRequest_Records:
		batch, err := encodeRecords(p.Records, time.Now(), s.opts.MaxMessageBytes)
		if err != nil {
			return a, err
		}
		a.Batch = batch
	default:
		return a, invalid("the produce request has neither batch nor records")
	}
	if len(a.Batch) > s.opts.MaxMessageBytes {
		return a, api.Errorf(api.CodeMessageTooLarge, "the batch has %d bytes; this broker takes %d at most", len(a.Batch), s.opts.MaxMessageBytes)
	}
	if req.ExpectedOffset != nil {
		o := record.Offset(req.GetExpectedOffset())
		a.Expected = &o
	}
	return a, nil
}

func (s *logService) appendTimeout(ms int32) time.Duration {
	if ms <= 0 {
		return s.opts.AppendTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxAppendWait)
}

func (s *logService) Produce(ctx context.Context, req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
	a, err := s.toAppend(req)
	if err != nil {
		return nil, toStatus(err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.appendTimeout(req.GetTimeoutMs()))
	defer cancel()
	res, err := s.broker.Append(ctx, a)
	if err != nil {
		return nil, toStatus(err)
	}
	return toProduced(req.GetCorrelationId(), res), nil
}

func toProduced(id uint64, r api.AppendResult) *pb.ProduceResponse {
	return &pb.ProduceResponse{
		CorrelationId: id, BaseOffset: int64(r.BaseOffset), LogAppendTimeMs: r.LogAppendTime,
		LogStartOffset: int64(r.LogStart), Duplicate: r.Duplicate,
	}
}

func toProduceError(id uint64, err error) *pb.ProduceResponse {
	e := asError(err)
	return &pb.ProduceResponse{CorrelationId: id, Error: toDetail(e), ErrorMessage: clip(e.Message)}
}

func (s *logService) Read(ctx context.Context, req *pb.ReadRequest) (*pb.ReadResponse, error) {
	maxBytes := s.clampFetch(req.GetMaxBytes())
	fetch := api.FetchRequest{
		Partitions: []api.FetchPartition{{
			TopicPartition: api.TopicPartition{Topic: req.GetTopic(), Partition: req.GetPartition()},
			Offset:         record.Offset(req.GetOffset()), MaxBytes: maxBytes,
		}},
		MinBytes: int(min(max(req.GetMinBytes(), 0), int64(maxBytes))), MaxBytes: maxBytes,
		MaxWait: clampWait(req.GetMaxWaitMs()),
	}
	ctx, cancel := joinStop(ctx, s.stopping)
	defer cancel()
	var results []api.FetchResult
	var held *holding
	for {
		var release func()
		var err error
		if results, release, err = s.fetch(ctx, fetch); err == nil {
			release = sync.OnceFunc(release)
			defer release()
			held, err = s.holdResults(ctx, results, release)
		}
		if err != nil {
			return nil, toStatus(s.orStopping(err))
		}
		if held != nil || bytesOf(results) == 0 {
			break
		}
	}
	if len(results) != 1 {
		held.release()
		return nil, toStatus(api.Errorf(api.CodeInternal, "a read of one partition gave %d results", len(results)))
	}
	if results[0].Err != nil {
		held.release()
		return nil, toStatus(results[0].Err)
	}
	var dec *decoder
	if req.GetDecode() {
		dec = newDecoder(s.opts)
	}
	d := toPartitionData(&results[0], record.Offset(req.GetOffset()), dec)
	if dec == nil {
		d.Batches = joinBatches(results[0].Batches)
	}
	resp := &pb.ReadResponse{Data: d}
	if held != nil {
		if dec != nil {
			held.grow(int64(proto.Size(resp)))
		}
		s.codec.reads.Store(resp, held) // until it is encoded, which gRPC does with all that a handler returns
	}
	return resp, nil
}

const defaultFetchBytes = 1 << 20

func (s *logService) clampFetch(n int64) int {
	if n <= 0 {
		n = defaultFetchBytes
	}
	return int(min(n, int64(s.opts.MaxFetchBytes)))
}

func clampWait(ms int32) time.Duration {
	return min(max(time.Duration(ms)*time.Millisecond, 0), maxFetchWait)
}

// joinStop derives a context that also ends when the server stops.
func joinStop(ctx, stopping context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(stopping, cancel)
	return ctx, func() { unhook(); cancel() }
}

// orStopping replaces an error that the stop of the server caused.
func (s *logService) orStopping(err error) error {
	if s.stopping.Err() != nil {
		return errShuttingDown
	}
	return err
}

func (s *logService) ListOffsets(ctx context.Context, req *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	if n := len(req.GetPartitions()); n > s.opts.MaxFetchPartitions {
		return nil, toStatus(invalid("%d partitions are asked for; at most %d in one request", n, s.opts.MaxFetchPartitions))
	}
	resp := &pb.ListOffsetsResponse{Offsets: make([]*pb.ListedOffset, len(req.GetPartitions()))}
	var g errgroup.Group
	g.SetLimit(listConcurrency)
	for i, p := range req.GetPartitions() {
		g.Go(func() error {
			resp.Offsets[i] = s.listOffset(ctx, p)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	return resp, nil
}

// listConcurrency is how many partitions of one request are looked up at a time: each may have to wait for an election, or for news of its topic.
const listConcurrency = 32

func (s *logService) listOffset(ctx context.Context, p *pb.ListOffsetsPartition) *pb.ListedOffset {
	out := &pb.ListedOffset{Topic: p.GetTopic(), Partition: p.GetPartition(), Offset: -1, TimestampMs: -1, LeaderEpoch: -1}
	pos, err := toPosition(p)
	if err == nil {
		var l api.ListedOffset
		if l, err = s.broker.ListOffset(ctx, api.TopicPartition{Topic: p.GetTopic(), Partition: p.GetPartition()}, pos); err == nil {
			out.Offset, out.TimestampMs, out.LeaderEpoch = int64(l.Offset), l.Timestamp, l.LeaderEpoch
			return out
		}
	}
	e := asError(err)
	out.Error, out.ErrorMessage = toDetail(e), clip(e.Message)
	return out
}

func toPosition(p *pb.ListOffsetsPartition) (api.Position, error) {
	switch x := p.GetPosition().(type) {
	case *pb.ListOffsetsPartition_Earliest:
		return api.Position{Kind: api.PositionEarliest}, nil
	case *pb.ListOffsetsPartition_Latest:
		return api.Position{Kind: api.PositionLatest}, nil
	case *pb.ListOffsetsPartition_MaxTimestamp:
		return api.Position{Kind: api.PositionMaxTimestamp}, nil
	case *pb.ListOffsetsPartition_TimestampMs:
		return api.Position{Kind: api.PositionTimestamp, Timestamp: x.TimestampMs}, nil
	}
	return api.Position{}, invalid("a position is missing: earliest, latest, timestamp_ms or max_timestamp")
}

func (s *logService) InitProducer(ctx context.Context, _ *pb.InitProducerRequest) (*pb.InitProducerResponse, error) {
	id, err := s.broker.InitProducer(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.InitProducerResponse{ProducerId: id.ID, ProducerEpoch: int32(id.Epoch)}, nil
}

func (s *logService) DeleteRecords(ctx context.Context, req *pb.DeleteRecordsRequest) (*pb.DeleteRecordsResponse, error) {
	tp := api.TopicPartition{Topic: req.GetTopic(), Partition: req.GetPartition()}
	start, err := s.broker.DeleteRecords(ctx, tp, record.Offset(req.GetBeforeOffset()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.DeleteRecordsResponse{LogStartOffset: int64(start)}, nil
}
