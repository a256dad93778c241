package kafka

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topicID = [16]byte{1, 2, 3}

// fakeBroker is an api.Broker with one topic, "orders", of two partitions in memory.
type fakeBroker struct {
	mu      sync.Mutex
	logs    [2][][]byte
	next    [2]record.Offset
	epochs  [2]int32
	changed chan struct{}
	hold    map[int32]chan struct{} // partitions whose appends wait

	join   func(context.Context, api.JoinRequest) (api.JoinResult, error)
	commit func([]api.OffsetCommit) error

	id    [16]byte // of the topic; zero: there is none
	syncs int      // calls of SyncMetadata
	lags  bool     // what SyncMetadata cannot change
}

func newFake() *fakeBroker {
	return &fakeBroker{id: topicID, epochs: [2]int32{3, 3}, changed: make(chan struct{}), hold: map[int32]chan struct{}{}}
}

func known(tp api.TopicPartition) error {
	if tp.Topic != "orders" || tp.Partition < 0 || tp.Partition > 1 {
		return &api.Error{Code: api.CodeUnknownTopicOrPartition, Message: "unknown", TP: &tp}
	}
	return nil
}

func (f *fakeBroker) Append(_ context.Context, req api.AppendRequest) (api.AppendResult, error) {
	if err := known(req.TopicPartition); err != nil {
		return api.AppendResult{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := record.Validate(req.Batch)
	if err != nil {
		return api.AppendResult{}, api.Errorf(api.CodeCorruptBatch, "%w", err)
	}
	if err := record.ValidateRecords(req.Batch, 64<<20); err != nil {
		return api.AppendResult{}, api.Errorf(api.CodeInvalidRecord, "%w", err)
	}
	p := req.Partition
	base := f.next[p]
	record.Stamp(req.Batch, base, f.epochs[p])
	f.logs[p] = append(f.logs[p], req.Batch)
	f.next[p] += record.Offset(h.Count)
	close(f.changed)
	f.changed = make(chan struct{})
	return api.AppendResult{BaseOffset: base, LogAppendTime: -1, LeaderEpoch: f.epochs[p]}, nil
}

func (f *fakeBroker) AppendAsync(ctx context.Context, req api.AppendRequest, done func(api.AppendResult, error)) {
	f.mu.Lock()
	hold := f.hold[req.Partition]
	f.mu.Unlock()
	if hold == nil {
		go done(f.Append(ctx, req))
		return
	}
	go func() {
		select {
		case <-hold:
			done(f.Append(ctx, req))
		case <-ctx.Done():
			done(api.AppendResult{}, ctx.Err())
		}
	}()
}

func (f *fakeBroker) Fetch(ctx context.Context, req api.FetchRequest) ([]api.FetchResult, error) {
	timer := time.NewTimer(req.MaxWait)
	defer timer.Stop()
	for {
		out, n, changed := f.fetchNow(req)
		if n >= max(req.MinBytes, 1) {
			return out, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return out, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fakeBroker) fetchNow(req api.FetchRequest) (out []api.FetchResult, n int, changed chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range req.Partitions {
		r := api.FetchResult{TopicPartition: p.TopicPartition, Err: known(p.TopicPartition)}
		if r.Err != nil {
			n++
		} else {
			r.HighWatermark, r.LeaderEpoch = f.next[p.Partition], f.epochs[p.Partition]
			for _, b := range f.logs[p.Partition] {
				if h, _ := record.ParseHeader(b); h.LastOffset() >= p.Offset && (n == 0 || n+len(b) <= req.MaxBytes) {
					r.Batches, n = append(r.Batches, b), n+len(b)
				}
			}
		}
		out = append(out, r)
	}
	return out, n, f.changed
}

func (f *fakeBroker) ListOffset(_ context.Context, tp api.TopicPartition, pos api.Position) (api.ListedOffset, error) {
	if err := known(tp); err != nil {
		return api.ListedOffset{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := api.ListedOffset{Timestamp: -1, LeaderEpoch: f.epochs[tp.Partition]}
	if pos.Kind == api.PositionLatest {
		out.Offset = f.next[tp.Partition]
	}
	return out, nil
}

func (f *fakeBroker) DeleteRecords(_ context.Context, tp api.TopicPartition, before record.Offset) (record.Offset, error) {
	return before, known(tp)
}
func (f *fakeBroker) InitProducer(context.Context) (api.ProducerID, error) {
	return api.ProducerID{ID: 7}, nil
}

func (f *fakeBroker) FindCoordinator(context.Context, string) (api.Endpoint, error) {
	return f.self(), nil
}
func (f *fakeBroker) JoinGroup(ctx context.Context, req api.JoinRequest) (api.JoinResult, error) {
	f.mu.Lock()
	join := f.join
	f.mu.Unlock()
	if join != nil {
		return join(ctx, req)
	}
	return api.JoinResult{}, &api.Error{Code: api.CodeMemberIDRequired, MemberID: "m-1"}
}
func (f *fakeBroker) SyncGroup(context.Context, api.SyncRequest) (api.SyncResult, error) {
	return api.SyncResult{ProtocolType: "consumer", Protocol: "range", Assignment: []byte{1}}, nil
}
func (f *fakeBroker) JoinAndSync(context.Context, api.NativeJoinRequest) (api.NativeJoinResult, error) {
	return api.NativeJoinResult{}, api.Errorf(api.CodeInternal, "not here")
}
func (f *fakeBroker) Heartbeat(context.Context, api.MemberRef) error  { return nil }
func (f *fakeBroker) LeaveGroup(context.Context, api.MemberRef) error { return nil }
func (f *fakeBroker) CommitOffsets(_ context.Context, _ api.MemberRef, offsets []api.OffsetCommit) error {
	if f.commit != nil {
		return f.commit(offsets)
	}
	return nil
}
func (f *fakeBroker) FetchOffsets(_ context.Context, _ string, tps []api.TopicPartition) ([]api.OffsetCommit, error) {
	if tps == nil {
		return []api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "orders"}, Offset: 4}}, nil
	}
	var out []api.OffsetCommit
	for _, tp := range tps {
		out = append(out, api.OffsetCommit{TopicPartition: tp, Offset: 4})
	}
	return out, nil
}

func (f *fakeBroker) description() api.TopicDescription {
	return api.TopicDescription{Name: "orders", ID: topicID, ReplicationFactor: 1, Partitions: make([]api.PartitionDescription, 2),
		Settings: []api.TopicSetting{{Key: "cleanup.policy", Value: "delete", IsDefault: true, Type: api.ConfigList}, {Key: "retention.ms", Value: "5"}}}
}

func (f *fakeBroker) CreateTopic(_ context.Context, req api.CreateTopicRequest) (api.TopicDescription, error) {
	if req.Name == "orders" {
		return api.TopicDescription{}, api.Errorf(api.CodeTopicAlreadyExists, "it exists")
	}
	return f.description(), nil
}
func (f *fakeBroker) DeleteTopic(context.Context, string) error { return nil }
func (f *fakeBroker) AlterTopic(context.Context, string, map[string]string, []string) (api.TopicDescription, error) {
	return f.description(), nil
}
func (f *fakeBroker) CreatePartitions(context.Context, api.CreatePartitionsRequest) (api.TopicDescription, error) {
	return f.description(), nil
}
func (f *fakeBroker) DescribeTopic(_ context.Context, name string) (api.TopicDescription, error) {
	return f.description(), known(api.TopicPartition{Topic: name})
}
func (f *fakeBroker) ListTopics(context.Context, bool) ([]api.TopicSummary, error) { return nil, nil }

func (f *fakeBroker) ListGroups(context.Context) ([]api.GroupSummary, error) {
	return []api.GroupSummary{{Group: "g", State: "Stable", ProtocolType: "consumer", Coordinator: 1}, {Group: "elsewhere", Coordinator: 2}}, nil
}
func (f *fakeBroker) DescribeGroup(_ context.Context, name string) (api.GroupDescription, error) {
	if name != "g" {
		return api.GroupDescription{}, api.Errorf(api.CodeUnknownGroup, "no group %q", name)
	}
	return api.GroupDescription{Group: name, State: "Stable", Members: []api.GroupMember{{MemberID: "m"}}}, nil
}
func (f *fakeBroker) DeleteGroup(context.Context, string) error { return nil }
func (f *fakeBroker) ResetOffsets(context.Context, api.ResetOffsetsRequest) ([]api.OffsetReset, error) {
	return nil, nil
}

func (f *fakeBroker) self() api.Endpoint {
	return api.Endpoint{ID: 1, Host: "b1:7070", Kafka: "b1:9092", Rack: "r"}
}

func (f *fakeBroker) Metadata(topics []string) api.Metadata {
	m := api.Metadata{ClusterID: "cluster", Controller: 1, Brokers: []api.Endpoint{f.self(), {ID: 2, Host: "b2:7070"}}}
	if topics == nil {
		topics = []string{"orders"}
	}
	for _, name := range topics {
		id := f.topicID()
		t := api.TopicMetadata{Name: name, Unknown: name != "orders" || id == [16]byte{}}
		if !t.Unknown {
			t.ID = id
			t.Partitions = []api.PartitionMetadata{
				{Partition: 0, Leader: 1, LeaderEpoch: 3, Replicas: []api.BrokerID{1, 9}, InSync: []api.BrokerID{1, 9}}, {Partition: 1, Leader: api.NoBroker, Replicas: []api.BrokerID{1}},
			}
		}
		m.Topics = append(m.Topics, t)
	}
	return m
}
func (f *fakeBroker) MetadataChanged() <-chan struct{} { return nil }
func (f *fakeBroker) SyncMetadata(context.Context) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	return !f.lags
}
func (f *fakeBroker) TopicName(id [16]byte) (string, bool) {
	return "orders", id == f.topicID() && id != [16]byte{}
}
func (f *fakeBroker) topicID() [16]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}
func (f *fakeBroker) Status(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{}, nil
}
func (f *fakeBroker) ListClients(context.Context) (api.ClientList, error) {
	return api.ClientList{}, nil
}
func (f *fakeBroker) Decommission(context.Context, api.BrokerID) (int, error) { return 0, nil }
func (f *fakeBroker) Recommission(context.Context, api.BrokerID) error        { return nil }
func (f *fakeBroker) Rebalance(context.Context, bool) (api.RebalancePlan, error) {
	return api.RebalancePlan{}, nil
}

// serve runs a server for f on loopback.
func serve(t testing.TB, f api.Broker, opts Options) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts.Self = 1
	s := New(f, opts)
	served := make(chan error, 1)
	go func() { served <- s.Serve(api.DefaultKafkaListener, l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Stop(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// wire is a client that speaks bytes.
type wire struct {
	t    testing.TB
	conn net.Conn
}

func dial(t testing.TB, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { _ = c.Close() })
	return &wire{t, c}
}

// encode makes a whole request, with its size in front.
func encode(req kmsg.Request, correlation int32) []byte {
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, correlation)
	return b
}

func (w *wire) send(req kmsg.Request, correlation int32) {
	w.t.Helper()
	w.write(encode(req, correlation))
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.conn.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// frame reads a response without its size.
func (w *wire) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(w.conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(w.conn, b)
	return b, err
}

// receive reads the response to req.
func (w *wire) receive(req kmsg.Request, correlation int32) kmsg.Response {
	w.t.Helper()
	b, err := w.frame()
	if err != nil {
		w.t.Fatalf("%s version %d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if got := int32(binary.BigEndian.Uint32(b)); got != correlation {
		w.t.Fatalf("%s: correlation ID %d instead of %d", kmsg.NameForKey(req.Key()), got, correlation)
	}
	resp := req.ResponseKind()
	b = b[4:]
	if resp.IsFlexible() && req.Key() != keyAPIs {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		w.t.Fatalf("%s version %d: the response is malformed: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); len(again) != len(b) {
		w.t.Fatalf("%s version %d: %d bytes of a response of %d were read", kmsg.NameForKey(req.Key()), req.GetVersion(), len(again), len(b))
	}
	return resp
}

// ask sends a request and returns its response.
func ask[Resp kmsg.Response](w *wire, req kmsg.Request) Resp {
	w.t.Helper()
	w.send(req, 77)
	return w.receive(req, 77).(Resp)
}

// closed says whether the server closes the connection.
func (w *wire) closed() {
	w.t.Helper()
	if b, err := w.frame(); err == nil {
		w.t.Fatalf("the connection is open: it said %x", b)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		w.t.Fatal("the connection is open and silent")
	}
}

func batch(t testing.TB, values ...string) []byte {
	t.Helper()
	b := record.NewBuilder(record.BuilderOptions{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	for _, v := range values {
		if err := b.Append(record.Record{Value: []byte(v), Timestamp: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func produceRequest(version int16, acks int16, partition int32, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 5000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID, t.Partitions = "orders", topicID, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

func fetchRequest(version int16, partition int32, from int64, wait int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MinBytes, req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = version, 1, 1<<20, wait, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, from, 1<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = "orders", topicID, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}
