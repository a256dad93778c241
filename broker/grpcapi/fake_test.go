package grpcapi

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// fakeBroker is an api.Broker in memory. Methods that a test needs otherwise are set as functions; the ones not set and not
// written here panic, as the embedded interface is nil.
type fakeBroker struct {
	api.Broker

	mu      sync.Mutex
	logs    map[api.TopicPartition]*fakeLog
	changed chan struct{} // closed and replaced at each append
	appends int
	hold    chan struct{} // if set, AppendAsync completes once it is closed
	order   []int32       // base sequences, in the order of AppendAsync

	joinAndSync func(api.NativeJoinRequest) (api.NativeJoinResult, error)
	heartbeat   func(api.MemberRef) error
	commit      func(api.MemberRef, []api.OffsetCommit) error
	reset       func(api.ResetOffsetsRequest) ([]api.OffsetReset, error)
	create      func(api.CreateTopicRequest) (api.TopicDescription, error)
	metadata    api.Metadata
	metaChanged chan struct{}
	lags        atomic.Bool // metadata cannot be brought up to date
}

type fakeLog struct {
	batches [][]byte
	start   record.Offset
	next    record.Offset
}

func newFake(tps ...api.TopicPartition) *fakeBroker {
	f := &fakeBroker{logs: map[api.TopicPartition]*fakeLog{}, changed: make(chan struct{}), metaChanged: make(chan struct{})}
	for _, tp := range tps {
		f.logs[tp] = &fakeLog{}
	}
	return f
}

func tp(topic string, p int32) api.TopicPartition {
	return api.TopicPartition{Topic: topic, Partition: p}
}

func (f *fakeBroker) Append(_ context.Context, req api.AppendRequest) (api.AppendResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appends++
	l := f.logs[req.TopicPartition]
	if l == nil {
		return api.AppendResult{}, &api.Error{Code: api.CodeNotLeader, Message: "not here", TP: &req.TopicPartition,
			Leader: &api.Endpoint{ID: 7, Host: "elsewhere:1"}}
	}
	h, err := record.Validate(req.Batch)
	if err != nil {
		return api.AppendResult{}, api.Errorf(api.CodeCorruptBatch, "%w", err)
	}
	if req.Expected != nil && *req.Expected != l.next {
		return api.AppendResult{}, &api.Error{Code: api.CodeExpectedOffsetMismatch, Message: "mismatch", HighWatermark: l.next}
	}
	base := l.next
	record.Stamp(req.Batch, base, 3)
	l.batches = append(l.batches, req.Batch)
	l.next += record.Offset(h.Count)
	close(f.changed)
	f.changed = make(chan struct{})
	return api.AppendResult{BaseOffset: base, LogAppendTime: -1, LogStart: l.start, LeaderEpoch: 3}, nil
}

func (f *fakeBroker) AppendAsync(ctx context.Context, req api.AppendRequest, done func(api.AppendResult, error)) {
	f.mu.Lock()
	hold := f.hold
	if h, err := record.ParseHeader(req.Batch); err == nil {
		f.order = append(f.order, h.BaseSequence)
	}
	f.mu.Unlock()
	go func() {
		if hold != nil {
			select {
			case <-hold:
			case <-ctx.Done():
				done(api.AppendResult{}, ctx.Err())
				return
			}
		}
		done(f.Append(ctx, req))
	}()
}

func (f *fakeBroker) Fetch(ctx context.Context, req api.FetchRequest) ([]api.FetchResult, error) {
	timer := time.NewTimer(req.MaxWait)
	defer timer.Stop()
	for {
		results, bytes, failed, changed := f.fetchNow(req)
		if bytes >= max(req.MinBytes, 1) || failed {
			return results, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return results, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fakeBroker) fetchNow(req api.FetchRequest) (results []api.FetchResult, bytes int, failed bool, changed chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range req.Partitions {
		r := api.FetchResult{TopicPartition: p.TopicPartition, Next: p.Offset}
		l := f.logs[p.TopicPartition]
		switch {
		case l == nil:
			r.Err = &api.Error{Code: api.CodeUnknownTopicOrPartition, Message: "unknown"}
		case p.Offset < l.start || p.Offset > l.next:
			r.Err = &api.Error{Code: api.CodeOffsetOutOfRange, Message: "out of range", LogStart: l.start, HighWatermark: l.next}
		default:
			r.HighWatermark, r.LogStart = l.next, l.start
			got := 0
			for _, b := range l.batches {
				h, _ := record.ParseHeader(b)
				if h.LastOffset() < p.Offset || got > 0 && got+len(b) > p.MaxBytes || bytes > 0 && bytes+len(b) > req.MaxBytes {
					continue
				}
				r.Batches, r.Next = append(r.Batches, b), h.Next()
				got, bytes = got+len(b), bytes+len(b)
			}
		}
		failed = failed || r.Err != nil
		results = append(results, r)
	}
	return results, bytes, failed, f.changed
}

func (f *fakeBroker) ListOffset(_ context.Context, tp api.TopicPartition, pos api.Position) (api.ListedOffset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.logs[tp]
	if l == nil {
		return api.ListedOffset{}, api.Errorf(api.CodeUnknownTopicOrPartition, "no %s/%d", tp.Topic, tp.Partition)
	}
	if pos.Kind == api.PositionLatest {
		return api.ListedOffset{Offset: l.next, Timestamp: -1}, nil
	}
	return api.ListedOffset{Offset: l.start, Timestamp: pos.Timestamp}, nil
}

func (f *fakeBroker) InitProducer(context.Context) (api.ProducerID, error) {
	return api.ProducerID{ID: 42}, nil
}
func (f *fakeBroker) JoinAndSync(_ context.Context, r api.NativeJoinRequest) (api.NativeJoinResult, error) {
	return f.joinAndSync(r)
}
func (f *fakeBroker) Heartbeat(_ context.Context, m api.MemberRef) error { return f.heartbeat(m) }
func (f *fakeBroker) CommitOffsets(_ context.Context, m api.MemberRef, o []api.OffsetCommit) error {
	return f.commit(m, o)
}
func (f *fakeBroker) ResetOffsets(_ context.Context, r api.ResetOffsetsRequest) ([]api.OffsetReset, error) {
	return f.reset(r)
}
func (f *fakeBroker) CreateTopic(_ context.Context, r api.CreateTopicRequest) (api.TopicDescription, error) {
	return f.create(r)
}

func (f *fakeBroker) Metadata(topics []string) api.Metadata {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.metadata
	if topics != nil {
		m.Topics = []api.TopicMetadata{{Name: topics[0], Unknown: true}}
	}
	return m
}

func (f *fakeBroker) SyncMetadata(context.Context) bool { return !f.lags.Load() }

func (f *fakeBroker) MetadataChanged() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.metaChanged
}

func (f *fakeBroker) setMetadata(m api.Metadata) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.metadata = m
	close(f.metaChanged)
	f.metaChanged = make(chan struct{})
}

// serve runs a server for f in memory and returns it with a connection to it.
func serve(t *testing.T, f api.Broker, opts Options) (*Server, *grpc.ClientConn) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := New(f, opts)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///broker", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Stop(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, conn
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
