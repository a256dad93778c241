package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

func batchOf(t *testing.T, seq int32, values ...string) []byte {
	t.Helper()
	b := record.NewBuilder(record.BuilderOptions{ProducerID: 1, BaseSequence: seq})
	for _, v := range values {
		if err := b.Append(record.Record{Timestamp: 1000, Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func detailOf(t *testing.T, err error) (codes.Code, *pb.ErrorDetail) {
	t.Helper()
	st := status.Convert(err)
	for _, d := range st.Details() {
		if e, ok := d.(*pb.ErrorDetail); ok {
			return st.Code(), e
		}
	}
	t.Fatalf("%v has no ErrorDetail", err)
	return 0, nil
}

// Every code of the proto has one row in the table, as its comment there promises.
func TestEveryErrorCodeHasAStatus(t *testing.T) {
	for n, name := range pb.ErrorCode_name {
		if _, ok := statusCodes[api.Code(n)]; !ok {
			t.Errorf("%s has no gRPC status code", name)
		}
	}
}

func TestErrorsCarryDetails(t *testing.T) {
	where := tp("orders", 2)
	err := toStatus(&api.Error{Code: api.CodeNotLeader, Message: "broker 1 does not lead orders/2", TP: &where, Leader: &api.Endpoint{ID: 4, Host: "b4:7070"}})
	code, d := detailOf(t, err)
	want := &pb.ErrorDetail{Code: pb.ErrorCode_ERROR_CODE_NOT_LEADER, Retriable: true, Topic: "orders", Partition: 2,
		Leader: &pb.BrokerEndpoint{BrokerId: 4, Address: "b4:7070"}}
	if code != codes.FailedPrecondition || !proto.Equal(d, want) {
		t.Errorf("got %v %v, want %v", code, d, want)
	}
	if code, d := detailOf(t, toStatus(context.Canceled)); code != codes.Canceled || d.Code != pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT {
		t.Errorf("a cancelled request gave %v %v", code, d)
	}
	if code, _ := detailOf(t, toStatus(errors.New("boom"))); code != codes.Internal {
		t.Errorf("an unknown error gave %v", code)
	}
}

func TestProduceRecordsAndReadThemDecoded(t *testing.T) {
	_, conn := serve(t, newFake(tp("t", 0)), Options{})
	log, ctx := pb.NewLogClient(conn), testContext(t)
	for _, comp := range []pb.Compression{pb.Compression_COMPRESSION_NONE, pb.Compression_COMPRESSION_ZSTD} {
		if _, err := log.Produce(ctx, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{
			Compression: comp,
			Records: []*pb.Record{
				{TimestampMs: 5, Key: []byte("k"), Value: []byte("v"), Headers: []*pb.RecordHeader{{Key: "h", Value: []byte("x")}}},
				{Key: []byte("tombstone")},
			}}}}); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := log.Read(ctx, &pb.ReadRequest{Topic: "t", Offset: 1, Decode: true})
	if err != nil {
		t.Fatal(err)
	}
	rs := resp.GetData().GetRecords()
	if len(rs) != 3 || rs[0].Offset != 1 || rs[2].Offset != 3 || resp.Data.NextOffset != 4 {
		t.Fatalf("read %v", resp)
	}
	if rs[0].Value != nil || rs[0].TimestampMs == 0 {
		t.Errorf("the tombstone came back as %v", rs[0])
	}
	if r := rs[1]; string(r.Value) != "v" || r.TimestampMs != 5 || len(r.Headers) != 1 || string(r.Headers[0].Value) != "x" {
		t.Errorf("record 2 came back as %v", r)
	}
}

func TestProduceRefusals(t *testing.T) {
	_, conn := serve(t, newFake(tp("t", 0)), Options{MaxMessageBytes: 4096})
	log, ctx := pb.NewLogClient(conn), testContext(t)
	big := batchOf(t, 0, string(make([]byte, 5000)))
	corrupt := batchOf(t, 0, "x")
	corrupt[len(corrupt)-1] ^= 1
	wrong := int64(9)
	for _, c := range []struct {
		name string
		req  *pb.ProduceRequest
		want pb.ErrorCode
	}{
		{"no payload", &pb.ProduceRequest{Topic: "t"}, pb.ErrorCode_ERROR_CODE_INVALID_REQUEST},
		{"no records", &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{}}}, pb.ErrorCode_ERROR_CODE_INVALID_RECORD},
		{"compression", &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Compression: 9, Records: []*pb.Record{{}}}}},
			pb.ErrorCode_ERROR_CODE_UNSUPPORTED_COMPRESSION},
		{"too large", &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: big}}, pb.ErrorCode_ERROR_CODE_MESSAGE_TOO_LARGE},
		{"too large records", &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Records: []*pb.Record{{Value: make([]byte, 5000)}}}}},
			pb.ErrorCode_ERROR_CODE_MESSAGE_TOO_LARGE},
		{"corrupt", &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: corrupt}}, pb.ErrorCode_ERROR_CODE_CORRUPT_BATCH},
		{"wrong broker", &pb.ProduceRequest{Topic: "other", Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, 0, "x")}}, pb.ErrorCode_ERROR_CODE_NOT_LEADER},
		{"expected offset", &pb.ProduceRequest{Topic: "t", ExpectedOffset: &wrong, Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, 0, "x")}},
			pb.ErrorCode_ERROR_CODE_EXPECTED_OFFSET_MISMATCH},
	} {
		_, err := log.Produce(ctx, c.req)
		if _, d := detailOf(t, err); d.Code != c.want {
			t.Errorf("%s: got %v, want %v", c.name, d.Code, c.want)
		}
	}
}

func TestProduceStreamKeepsOrderAndAnswersEach(t *testing.T) {
	f := newFake(tp("t", 0))
	_, conn := serve(t, f, Options{StreamInflight: 8})
	stream, err := pb.NewLogClient(conn).ProduceStream(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	go func() {
		for i := range n {
			topic := "t"
			if i%10 == 9 {
				topic = "unknown" // its failure concerns it alone
			}
			_ = stream.Send(&pb.ProduceRequest{CorrelationId: uint64(i), Topic: topic, Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, int32(i), "v")}})
		}
		_ = stream.CloseSend()
	}()
	seen, failed := map[uint64]bool{}, 0
	for range n {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if seen[r.CorrelationId] {
			t.Fatalf("%d was answered twice", r.CorrelationId)
		}
		seen[r.CorrelationId] = true
		if r.Error != nil {
			failed++
		}
	}
	if _, err := stream.Recv(); err == nil || len(seen) != n || failed != n/10 {
		t.Errorf("%d answers, %d failures, end: %v", len(seen), failed, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.IsSorted(f.order) {
		t.Errorf("the sequencer saw the batches in the order %v", f.order)
	}
}

func TestProduceStreamIsBounded(t *testing.T) {
	f := newFake(tp("t", 0))
	f.hold = make(chan struct{})
	_, conn := serve(t, f, Options{StreamInflight: 4})
	stream, err := pb.NewLogClient(conn).ProduceStream(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	for i := range n {
		if err := stream.Send(&pb.ProduceRequest{CorrelationId: uint64(i), Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, int32(i), "v")}}); err != nil {
			t.Fatal(err)
		}
	}
	inflight := func() int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.order) }
	eventually(t, "4 appends in flight", func() bool { return inflight() == 4 })
	close(f.hold)
	for range n {
		if r, err := stream.Recv(); err != nil || r.Error != nil {
			t.Fatal(r, err)
		}
		if f := inflight(); f > n {
			t.Fatal(f)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func produce(t *testing.T, f *fakeBroker, where api.TopicPartition, values ...string) int {
	t.Helper()
	b := batchOf(t, 0, values...)
	if _, err := f.Append(context.Background(), api.AppendRequest{TopicPartition: where, Batch: b}); err != nil {
		t.Fatal(err)
	}
	return len(b)
}

func TestFetchStreamHonoursCredit(t *testing.T) {
	f := newFake(tp("t", 0))
	size := 0
	for range 10 {
		size = produce(t, f, tp("t", 0), "0123456789")
	}
	_, conn := serve(t, f, Options{})
	stream, err := pb.NewLogClient(conn).Fetch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *pb.FetchRequest) {
		t.Helper()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	recv := func() *pb.FetchPartitionData {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m.Partitions[0]
	}
	send(&pb.FetchRequest{CreditBytes: int64(2 * size), MaxWaitMs: 60000, Add: []*pb.FetchPartition{{Topic: "t", Session: 7}}})
	if d := recv(); len(d.Batches) != 2*size || d.NextOffset != 2 || d.Session != 7 || d.HighWatermark != 10 {
		t.Fatalf("with credit for two batches: %v", d)
	}
	// One byte of credit lets one batch through, and leaves a debt.
	send(&pb.FetchRequest{CreditBytes: 1})
	if d := recv(); len(d.Batches) != size || d.NextOffset != 3 {
		t.Fatalf("with one byte of credit: %v", d)
	}
	send(&pb.FetchRequest{CreditBytes: int64(size) - 1}) // pays the debt, no more
	send(&pb.FetchRequest{CreditBytes: int64(7 * size)})
	if d := recv(); len(d.Batches) != 7*size || d.NextOffset != 10 {
		t.Fatalf("with credit for the rest: %d bytes, next %d", len(d.Batches), d.NextOffset)
	}
	// Re-positioned: the session tells old data from new.
	send(&pb.FetchRequest{CreditBytes: 1 << 20, Add: []*pb.FetchPartition{{Topic: "t", Offset: 9, Session: 8}}})
	if d := recv(); d.Session != 8 || d.NextOffset != 10 {
		t.Fatalf("after re-positioning: %v", d)
	}
	// A long poll is woken by an append, not by its timeout.
	produce(t, f, tp("t", 0), "late")
	if d := recv(); d.NextOffset != 11 {
		t.Fatalf("woken: %v", d)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestFetchStreamPartitionErrorsAndDecode(t *testing.T) {
	f := newFake(tp("t", 0), tp("t", 1))
	produce(t, f, tp("t", 1), "a", "b", "c")
	_, conn := serve(t, f, Options{})
	stream, err := pb.NewLogClient(conn).Fetch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.FetchRequest{CreditBytes: 1000, Decode: true, Add: []*pb.FetchPartition{
		{Topic: "t", Partition: 0, Offset: 5}, {Topic: "t", Partition: 1, Offset: 1}, {Topic: "nope"},
	}}); err != nil {
		t.Fatal(err)
	}
	got := map[string]*pb.FetchPartitionData{}
	for len(got) < 3 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Partitions {
			got[d.Topic+string(rune('0'+d.Partition))] = d
		}
	}
	if d := got["t0"]; d.Error.GetCode() != pb.ErrorCode_ERROR_CODE_OFFSET_OUT_OF_RANGE {
		t.Errorf("past the end: %v", d)
	}
	if d := got["nope0"]; d.Error.GetCode() != pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION {
		t.Errorf("unknown topic: %v", d)
	}
	if d := got["t1"]; len(d.Records) != 2 || d.Records[0].Offset != 1 || d.Batches != nil {
		t.Errorf("decoded: %v", d)
	}
	// The healthy partition goes on.
	produce(t, f, tp("t", 1), "d")
	m, err := stream.Recv()
	if err != nil || len(m.Partitions) != 1 || m.Partitions[0].NextOffset != 4 {
		t.Errorf("afterwards: %v %v", m, err)
	}
}

// TestDecodedResponsesAreBounded: batches that are small on the wire and large in memory come in several messages, each record once.
func TestDecodedResponsesAreBounded(t *testing.T) {
	f := newFake(tp("t", 0), tp("t", 1))
	opts := Options{MaxFetchBytes: 1 << 20, MaxMessageBytes: 1 << 20}
	_, conn := serve(t, f, opts)
	const batches, each = 8, 512 << 10
	for i := range 2 * batches {
		b := record.NewBuilder(record.BuilderOptions{Compression: record.Zstd, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
		if err := b.Append(record.Record{Value: make([]byte, each)}); err != nil {
			t.Fatal(err)
		}
		batch, err := b.Build()
		if err != nil || len(batch) > 1000 {
			t.Fatalf("a batch of %d bytes: %v", len(batch), err)
		}
		if _, err := f.Append(t.Context(), api.AppendRequest{TopicPartition: tp("t", int32(i%2)), Batch: batch}); err != nil {
			t.Fatal(err)
		}
	}
	client := pb.NewLogClient(conn)
	stream, err := client.Fetch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.FetchRequest{CreditBytes: 1 << 30, Decode: true, Add: []*pb.FetchPartition{{Topic: "t", Partition: 0}, {Topic: "t", Partition: 1}}}); err != nil {
		t.Fatal(err)
	}
	next := map[int32]int64{}
	for next[0] < batches || next[1] < batches {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(m); n > 2<<20 {
			t.Errorf("a message of %d bytes", n)
		}
		for _, d := range m.Partitions {
			for _, r := range d.Records {
				if r.Offset != next[d.Partition] || len(r.Value) != each {
					t.Fatalf("t/%d: offset %d with %d bytes, want offset %d", d.Partition, r.Offset, len(r.Value), next[d.Partition])
				}
				next[d.Partition]++
			}
			if d.NextOffset != next[d.Partition] {
				t.Errorf("t/%d: next offset %d after %d records", d.Partition, d.NextOffset, next[d.Partition])
			}
		}
	}
	r, err := client.Read(testContext(t), &pb.ReadRequest{Topic: "t", Decode: true, MaxBytes: 1 << 20})
	if d := r.GetData(); err != nil || len(d.GetRecords()) != 2 || d.GetNextOffset() != 2 {
		t.Errorf("a read gave %d records up to %d: %v", len(d.GetRecords()), d.GetNextOffset(), err)
	}
}

func TestFetchStreamWithoutPartitionsEndsWithTheClient(t *testing.T) {
	_, conn := serve(t, newFake(), Options{})
	stream, err := pb.NewLogClient(conn).Fetch(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.FetchRequest{CreditBytes: -1}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	if _, d := detailOf(t, err); d.Code != pb.ErrorCode_ERROR_CODE_INVALID_REQUEST {
		t.Errorf("negative credit: %v", err)
	}
	if stream, err = pb.NewLogClient(conn).Fetch(testContext(t)); err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); err == nil || status.Code(err) != codes.Unknown || err.Error() != "EOF" {
		t.Errorf("an empty stream ended with %v", err)
	}
}

func TestStopEndsStreams(t *testing.T) {
	f := newFake(tp("t", 0))
	s, conn := serve(t, f, Options{})
	s.SetServing(true)
	ctx := testContext(t)
	fetch, err := pb.NewLogClient(conn).Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = fetch.Send(&pb.FetchRequest{CreditBytes: 1000, MaxWaitMs: 60000, Add: []*pb.FetchPartition{{Topic: "t"}}})
	if _, err := fetch.Recv(); err != nil {
		t.Fatal(err)
	}
	watch, err := pb.NewClusterClient(conn).WatchMetadata(ctx, &pb.GetMetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	stopCtx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	go s.Stop(stopCtx)
	for name, recv := range map[string]func() error{
		"fetch": func() error { _, err := fetch.Recv(); return err },
		"watch": func() error { _, err := watch.Recv(); return err },
	} {
		if _, d := detailOf(t, recv()); d.Code != pb.ErrorCode_ERROR_CODE_SHUTTING_DOWN || !d.Retriable {
			t.Errorf("%s ended with %v", name, d)
		}
	}
}

func TestHealthAndReflection(t *testing.T) {
	s, conn := serve(t, newFake(), Options{})
	ctx := testContext(t)
	check := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if st := check(""); st != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("before the broker serves: %v", st)
	}
	s.SetServing(true)
	for _, name := range []string{"", "flotilla.v1.Log", "flotilla.v1.Admin"} {
		if st := check(name); st != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v", name, st)
		}
	}
	info, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = info.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	r, err := info.Recv()
	if err != nil || len(r.GetListServicesResponse().GetService()) < 5 {
		t.Errorf("reflection: %v %v", r, err)
	}
}

func TestWatchMetadataSendsChangesOnce(t *testing.T) {
	f := newFake()
	f.metadata = api.Metadata{ClusterID: "c", Version: 1}
	_, conn := serve(t, f, Options{})
	watch, err := pb.NewClusterClient(conn).WatchMetadata(testContext(t), &pb.GetMetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.Version != 1 {
		t.Fatal(m, err)
	}
	f.setMetadata(api.Metadata{ClusterID: "c", Version: 2}) // nothing that a client sees
	f.setMetadata(api.Metadata{ClusterID: "c", Version: 3, Brokers: []api.Endpoint{{ID: 1, Host: "h:1"}}})
	if m, err := watch.Recv(); err != nil || m.Version != 3 || m.Brokers[0].Address != "h:1" {
		t.Fatal(m, err)
	}
}

// A topic that the broker does not know is called unknown only if its metadata is up to date.
func TestUnknownTopics(t *testing.T) {
	f := newFake()
	_, conn := serve(t, f, Options{})
	for _, lags := range []bool{false, true} {
		f.lags.Store(lags)
		m, err := pb.NewClusterClient(conn).GetMetadata(testContext(t), &pb.GetMetadataRequest{Topics: []string{"new"}})
		if err != nil {
			t.Fatal(err)
		}
		if left := len(m.Topics) == 0; left != lags || !lags && !m.Topics[0].Unknown {
			t.Errorf("lags %v: %v", lags, m)
		}
	}
}

func TestGroups(t *testing.T) {
	f := newFake()
	f.joinAndSync = func(r api.NativeJoinRequest) (api.NativeJoinResult, error) {
		if r.ClientHost == "" || !slices.Equal(r.Strategies, []string{"sticky"}) || r.SessionTimeout != 6*time.Second {
			return api.NativeJoinResult{}, invalid("got %+v", r)
		}
		return api.NativeJoinResult{MemberID: "m", Generation: 2, Strategy: "sticky", Assignment: []api.TopicPartition{tp("t", 1)}}, nil
	}
	f.heartbeat = func(api.MemberRef) error { return api.Errorf(api.CodeRebalanceInProgress, "again") }
	var committed []api.OffsetCommit
	f.commit = func(_ api.MemberRef, o []api.OffsetCommit) error { committed = o; return nil }
	_, conn := serve(t, f, Options{})
	groups, ctx := pb.NewGroupsClient(conn), testContext(t)
	j, err := groups.Join(ctx, &pb.JoinRequest{Group: "g", SessionTimeoutMs: 6000, Strategies: []pb.AssignmentStrategy{pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_STICKY}})
	if err != nil || j.Strategy != pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_STICKY || j.Assignment[0].Partition != 1 {
		t.Errorf("join: %v %v", j, err)
	}
	if _, err := groups.Join(ctx, &pb.JoinRequest{Strategies: []pb.AssignmentStrategy{99}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown strategy: %v", err)
	}
	if h, err := groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "g"}); err != nil || !h.Rebalance {
		t.Errorf("heartbeat: %v %v", h, err)
	}
	if _, err := groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Offsets: []*pb.OffsetCommit{{Topic: "t", Offset: 5, Metadata: "x"}}}); err != nil || committed[0].Offset != 5 {
		t.Errorf("commit: %v %v", committed, err)
	}
	if _, err := groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Offsets: []*pb.OffsetCommit{{Topic: "t", Offset: -5}}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("negative offset: %v", err)
	}
}

func TestAdmin(t *testing.T) {
	f := newFake()
	f.create = func(r api.CreateTopicRequest) (api.TopicDescription, error) {
		return api.TopicDescription{Name: r.Name, ReplicationFactor: r.ReplicationFactor, ID: [16]byte{1},
			Partitions: []api.PartitionDescription{{Leader: 1, Replicas: []api.BrokerID{1, 2}, HighWatermark: -1}}}, nil
	}
	var reset api.ResetOffsetsRequest
	f.reset = func(r api.ResetOffsetsRequest) ([]api.OffsetReset, error) {
		reset = r
		return []api.OffsetReset{{TopicPartition: tp("t", 0), From: -1, To: 3}}, nil
	}
	_, conn := serve(t, f, Options{})
	admin, ctx := pb.NewAdminClient(conn), testContext(t)
	c, err := admin.CreateTopic(ctx, &pb.CreateTopicRequest{Topic: "t", ReplicationFactor: 3})
	if err != nil || c.Topic.ReplicationFactor != 3 || !bytes.Equal(c.Topic.TopicId[:1], []byte{1}) || !slices.Equal(c.Topic.Partitions[0].Replicas, []int32{1, 2}) {
		t.Errorf("create: %v %v", c, err)
	}
	if _, err := admin.CreateTopic(ctx, &pb.CreateTopicRequest{Topic: "t", ReplicationFactor: 1 << 20}); err == nil {
		t.Error("a replication factor of a million was accepted")
	}
	r, err := admin.ResetOffsets(ctx, &pb.ResetOffsetsRequest{Group: "g", DryRun: true, To: &pb.ResetOffsetsRequest_Shift{Shift: -4}})
	if err != nil || reset.Kind != api.ResetShift || reset.Value != -4 || !reset.DryRun || r.Resets[0].ToOffset != 3 {
		t.Errorf("reset: %v %v %v", reset, r, err)
	}
	if _, err := admin.ResetOffsets(ctx, &pb.ResetOffsetsRequest{Group: "g"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("reset to nowhere: %v", err)
	}
}

func TestListOffsets(t *testing.T) {
	f := newFake(tp("t", 0))
	produce(t, f, tp("t", 0), "a", "b")
	_, conn := serve(t, f, Options{})
	r, err := pb.NewLogClient(conn).ListOffsets(testContext(t), &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsPartition{
		{Topic: "t", Position: &pb.ListOffsetsPartition_Latest{Latest: true}},
		{Topic: "x", Position: &pb.ListOffsetsPartition_Earliest{Earliest: true}},
		{Topic: "t"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if o := r.Offsets[0]; o.Offset != 2 || o.Error != nil {
		t.Errorf("latest: %v", o)
	}
	if o := r.Offsets[1]; o.Offset != -1 || o.Error.GetCode() != pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION {
		t.Errorf("unknown: %v", o)
	}
	if o := r.Offsets[2]; o.Error.GetCode() != pb.ErrorCode_ERROR_CODE_INVALID_REQUEST {
		t.Errorf("no position: %v", o)
	}
}

// Readers that wait for data hold none of the budget for fetched data, and readers that have some give it back.
func TestWaitingFetchesLeaveTheBudgetToOthers(t *testing.T) {
	f := newFake(tp("empty", 0), tp("full", 0))
	for range 20 {
		produce(t, f, tp("full", 0), "0123456789")
	}
	_, conn := serve(t, f, Options{MaxFetchBytes: 1000, FetchInflightBytes: 1000})
	log, ctx := pb.NewLogClient(conn), testContext(t)
	for range 5 {
		stream, err := log.Fetch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.FetchRequest{CreditBytes: 1 << 20, MaxWaitMs: 60000, Add: []*pb.FetchPartition{{Topic: "empty"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	for next := int64(0); next < 20; {
		r, err := log.Read(ctx, &pb.ReadRequest{Topic: "full", Offset: next, MaxBytes: 1000, MaxWaitMs: 60000})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Data.Batches) > 1000 || r.Data.NextOffset <= next {
			t.Fatalf("%d bytes, next %d after %d", len(r.Data.Batches), r.Data.NextOffset, next)
		}
		next = r.Data.NextOffset
	}
}
