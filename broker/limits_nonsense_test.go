package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Requests that no sane client sends, well-formed as protobuf. Each is answered within seconds, with an error that is not INTERNAL where
// there is something wrong with it, and the broker goes on as if nothing had been.
func TestNonsenseRequests(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	c.Produce("t", 0, "kept")
	log, groups := pb.NewLogClient(c.Any()), pb.NewGroupsClient(c.Any())
	admin, cluster := pb.NewAdminClient(c.Any()), pb.NewClusterClient(c.Any())
	_, coordinatorOfG := coordinator(c, "g") // makes the internal topic
	good := batchOf(t, 0, "x")
	long := strings.Repeat("x", 1<<20)
	const minInt32, minInt64 = math.MinInt32, math.MinInt64
	many := func(n int) (ps []*pb.ListOffsetsPartition, tps []*pb.TopicPartition, commits []*pb.OffsetCommit, names []string) {
		for i := range n {
			name := fmt.Sprint("u", i)
			ps = append(ps, &pb.ListOffsetsPartition{Topic: name, Position: &pb.ListOffsetsPartition_Latest{Latest: true}})
			tps = append(tps, &pb.TopicPartition{Topic: name})
			commits = append(commits, &pb.OffsetCommit{Topic: name, Offset: 1})
			names = append(names, name)
		}
		return ps, tps, commits, names
	}
	listed, tps, commits, names := many(10_000)
	listedTooMany, _, _, _ := many(10_001)
	settings := map[string]string{}
	for _, n := range names {
		settings[n] = n
	}
	produce := func(r *pb.ProduceRequest) func(context.Context) error {
		if r.Payload == nil {
			r.Payload = &pb.ProduceRequest_Batch{Batch: good}
		}
		return func(ctx context.Context) error { return second(log.Produce(ctx, r)) }
	}
	read := func(r *pb.ReadRequest) func(context.Context) error {
		return func(ctx context.Context) error { return second(log.Read(ctx, r)) }
	}
	join := func(r *pb.JoinRequest) func(context.Context) error {
		return func(ctx context.Context) error { return second(coordinatorOfG.Join(ctx, r)) }
	}
	create := func(r *pb.CreateTopicRequest) func(context.Context) error {
		return func(ctx context.Context) error { return second(admin.CreateTopic(ctx, r)) }
	}
	harmless := codes.OK
	for _, x := range []struct {
		name string
		call func(context.Context) error
		want codes.Code
	}{
		{"produce to partition -1", produce(&pb.ProduceRequest{Topic: "t", Partition: -1}), codes.NotFound},
		{"produce to the least partition", produce(&pb.ProduceRequest{Topic: "t", Partition: minInt32}), codes.NotFound},
		{"produce to the greatest partition", produce(&pb.ProduceRequest{Topic: "t", Partition: math.MaxInt32}), codes.NotFound},
		{"produce to no topic", produce(&pb.ProduceRequest{}), codes.NotFound},
		{"produce to a long topic", produce(&pb.ProduceRequest{Topic: long}), codes.NotFound},
		{"produce to the groups' topic", produce(&pb.ProduceRequest{Topic: "__consumer_offsets"}), codes.InvalidArgument},
		{"produce no records", produce(&pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{}}), codes.InvalidArgument},
		{"produce with negative patience", produce(&pb.ProduceRequest{Topic: "t", TimeoutMs: minInt32}), harmless},
		{"produce compressed by 99", produce(&pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{
			Records: &pb.Records{Compression: 99, Records: []*pb.Record{{}}}}}), codes.InvalidArgument},
		{"produce records before 1970", produce(&pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{
			Records: &pb.Records{Records: []*pb.Record{{TimestampMs: minInt64}, {TimestampMs: math.MaxInt64}}}}}), codes.InvalidArgument},
		{"produce a null record", produce(&pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Records: []*pb.Record{{}}}}}), harmless},
		{"read at once as much as there is", read(&pb.ReadRequest{Topic: "t", MaxBytes: math.MaxInt64}), harmless},
		{"read with all minima", read(&pb.ReadRequest{Topic: "t", MaxBytes: minInt64, MinBytes: minInt64, MaxWaitMs: minInt32}), harmless},
		{"read with too large a minimum", read(&pb.ReadRequest{Topic: "t", MinBytes: math.MaxInt64, MaxWaitMs: 10}), harmless},
		{"read partition -1", read(&pb.ReadRequest{Topic: "t", Partition: -1}), codes.NotFound},
		{"read the groups' topic", read(&pb.ReadRequest{Topic: "__consumer_offsets"}), codes.InvalidArgument},
		{"list offsets of nothing", func(ctx context.Context) error { return second(log.ListOffsets(ctx, &pb.ListOffsetsRequest{})) }, harmless},
		{"list offsets of 10,000 unknown topics", func(ctx context.Context) error {
			return second(log.ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: listed}))
		}, harmless},
		{"list offsets of 10,001", func(ctx context.Context) error {
			return second(log.ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: listedTooMany}))
		}, codes.InvalidArgument},
		{"delete records before -2^63", func(ctx context.Context) error {
			return second(log.DeleteRecords(ctx, &pb.DeleteRecordsRequest{Topic: "t", BeforeOffset: minInt64}))
		}, codes.OutOfRange},
		{"join no group", join(&pb.JoinRequest{Topics: []string{"t"}, SessionTimeoutMs: 30000}), codes.InvalidArgument},
		{"join with a negative session", join(&pb.JoinRequest{Group: "g", Topics: []string{"t"}, SessionTimeoutMs: -1}), codes.InvalidArgument},
		{"join with an endless session", join(&pb.JoinRequest{Group: "g", Topics: []string{"t"}, SessionTimeoutMs: math.MaxInt32}), codes.InvalidArgument},
		{"join with unknown strategies", join(&pb.JoinRequest{Group: "g", Topics: []string{"t"}, SessionTimeoutMs: 30000, Strategies: []pb.AssignmentStrategy{77}}), codes.InvalidArgument},
		{"join with a long group name", join(&pb.JoinRequest{Group: long, Topics: []string{"t"}, SessionTimeoutMs: 30000}), codes.InvalidArgument},
		{"join with a long topic name", join(&pb.JoinRequest{Group: "g", Topics: []string{long}, SessionTimeoutMs: 30000}), codes.InvalidArgument},
		{"heartbeat of a stranger", func(ctx context.Context) error {
			return second(coordinatorOfG.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "g", MemberId: "nobody", Generation: minInt32}))
		}, codes.NotFound},
		{"leave of a stranger", func(ctx context.Context) error {
			return second(coordinatorOfG.Leave(ctx, &pb.LeaveRequest{Group: "g", MemberId: "nobody"}))
		}, codes.NotFound},
		{"commit negative offsets", func(ctx context.Context) error {
			return second(coordinatorOfG.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", Generation: -1, Offsets: []*pb.OffsetCommit{{Topic: "t", Offset: minInt64}}}))
		}, codes.InvalidArgument},
		{"commit to partition -1", func(ctx context.Context) error {
			return second(coordinatorOfG.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", Generation: -1, Offsets: []*pb.OffsetCommit{{Topic: "t", Partition: -1}}}))
		}, codes.NotFound},
		{"commit with long metadata", func(ctx context.Context) error {
			return second(coordinatorOfG.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", Generation: -1, Offsets: []*pb.OffsetCommit{{Topic: "t", Metadata: long}}}))
		}, codes.InvalidArgument},
		{"commit 10,000 offsets of no topics", func(ctx context.Context) error {
			return second(coordinatorOfG.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", Generation: -1, Offsets: commits}))
		}, codes.NotFound},
		{"fetch 10,000 offsets", func(ctx context.Context) error {
			return second(coordinatorOfG.FetchOffsets(ctx, &pb.FetchOffsetsRequest{Group: "nope", Partitions: tps}))
		}, harmless},
		{"the coordinator of no group", func(ctx context.Context) error {
			return second(groups.FindCoordinator(ctx, &pb.FindCoordinatorRequest{}))
		}, codes.InvalidArgument},
		{"create -1 partitions", create(&pb.CreateTopicRequest{Topic: "n", Partitions: -1}), codes.InvalidArgument},
		{"create two billion partitions", create(&pb.CreateTopicRequest{Topic: "n", Partitions: math.MaxInt32}), codes.InvalidArgument},
		{"create with replication factor -1", create(&pb.CreateTopicRequest{Topic: "n", ReplicationFactor: -1}), codes.FailedPrecondition},
		{"create with replication factor 65537", create(&pb.CreateTopicRequest{Topic: "n", ReplicationFactor: 65537}), codes.FailedPrecondition},
		{"create ..", create(&pb.CreateTopicRequest{Topic: ".."}), codes.InvalidArgument},
		{"create ../../x", create(&pb.CreateTopicRequest{Topic: "../../x"}), codes.InvalidArgument},
		{"create a NUL", create(&pb.CreateTopicRequest{Topic: "a\x00b"}), codes.InvalidArgument},
		{"create a long name", create(&pb.CreateTopicRequest{Topic: long}), codes.InvalidArgument},
		{"create with 10,000 settings", create(&pb.CreateTopicRequest{Topic: "n", Settings: settings}), codes.InvalidArgument},
		{"grow to two billion", func(ctx context.Context) error {
			return second(admin.CreatePartitions(ctx, &pb.CreatePartitionsRequest{Topic: "t", Partitions: math.MaxInt32}))
		}, codes.InvalidArgument},
		{"alter the groups' topic", func(ctx context.Context) error {
			return second(admin.AlterTopic(ctx, &pb.AlterTopicRequest{Topic: "__consumer_offsets", Set: map[string]string{"retention.ms": "1"}}))
		}, codes.InvalidArgument},
		{"unset what is not there", func(ctx context.Context) error {
			return second(admin.AlterTopic(ctx, &pb.AlterTopicRequest{Topic: "t", Unset: []string{"nonsense"}}))
		}, codes.InvalidArgument},
		{"reset offsets to nothing", func(ctx context.Context) error {
			return second(admin.ResetOffsets(ctx, &pb.ResetOffsetsRequest{Group: "g"}))
		}, codes.InvalidArgument},
		{"shift offsets by -2^63", func(ctx context.Context) error {
			return second(admin.ResetOffsets(ctx, &pb.ResetOffsetsRequest{Group: "g", Topics: []string{"t"}, DryRun: true, To: &pb.ResetOffsetsRequest_Shift{Shift: minInt64}}))
		}, codes.InvalidArgument},
		{"delete no group", func(ctx context.Context) error { return second(admin.DeleteGroup(ctx, &pb.DeleteGroupRequest{})) }, codes.InvalidArgument},
		{"metadata of 10,000 unknown topics", func(ctx context.Context) error {
			return second(cluster.GetMetadata(ctx, &pb.GetMetadataRequest{Topics: names}))
		}, harmless},
		{"decommission broker -1", func(ctx context.Context) error {
			return second(cluster.Decommission(ctx, &pb.DecommissionRequest{BrokerId: -1}))
		}, codes.NotFound},
		{"recommission broker -2^31", func(ctx context.Context) error {
			return second(cluster.Recommission(ctx, &pb.RecommissionRequest{BrokerId: minInt32}))
		}, codes.NotFound},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), brokertest.Patience)
		began := time.Now()
		err := x.call(ctx)
		cancel()
		if status.Code(err) != x.want {
			t.Errorf("%s: %.300v; want %v", x.name, err, x.want)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("%s: the error has %d bytes", x.name, len(err.Error()))
		}
		if d := time.Since(began); d > brokertest.Patience/2 {
			t.Errorf("%s took %s", x.name, d)
		}
	}
	if got := c.ReadAll("t", 0); string(got[0].Value) != "kept" {
		t.Errorf("record 0 is now %v", got[0])
	}
}

// A Fetch stream that is told nonsense ends with an error, or goes on; it never sends more than it was granted, nor the same twice.
func TestNonsenseFetchStreams(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 2, 1)
	c.Produce("t", 0, "a")
	c.Produce("t", 1, "b")
	log := pb.NewLogClient(c.Any())
	var many, tooMany, same []*pb.FetchPartition
	for i := range 10_001 {
		p := &pb.FetchPartition{Topic: fmt.Sprint("u", i), Partition: int32(i) - 5, Offset: int64(i) - 7}
		if tooMany = append(tooMany, p); i < 10_000 {
			many = append(many, p)
			same = append(same, &pb.FetchPartition{Topic: "t", Session: uint64(i)})
		}
	}
	one := []*pb.FetchPartition{{Topic: "t", MaxBytes: math.MaxInt64}}
	for _, x := range []struct {
		name     string
		messages []*pb.FetchRequest
		code     codes.Code // of the stream's end; OK: it gives the record of t/0 once
		failures int        // partitions with errors that come before
	}{
		{"negative credit", []*pb.FetchRequest{{Add: one, CreditBytes: -1}}, codes.InvalidArgument, 0},
		{"credit beyond all numbers", []*pb.FetchRequest{{Add: one, CreditBytes: math.MaxInt64}, {CreditBytes: math.MaxInt64}, {CreditBytes: math.MaxInt64}}, codes.OK, 0},
		{"minima and maxima", []*pb.FetchRequest{{Add: one, CreditBytes: 1, MinBytes: math.MaxInt64, MaxWaitMs: math.MaxInt32}}, codes.OK, 0},
		{"negative minima", []*pb.FetchRequest{{Add: one, CreditBytes: 1, MinBytes: math.MinInt64, MaxWaitMs: math.MinInt32}}, codes.OK, 0},
		{"partitions removed that were never there", []*pb.FetchRequest{{Remove: []*pb.TopicPartition{{Topic: "x", Partition: -1}}}, {Add: one, CreditBytes: 1000}}, codes.OK, 0},
		{"10,000 unknown partitions", []*pb.FetchRequest{{Add: many, CreditBytes: 1000}, {Add: one}}, codes.OK, 10_000},
		{"10,001 partitions", []*pb.FetchRequest{{Add: tooMany, CreditBytes: 1000}}, codes.InvalidArgument, 0},
		{"the same partition 10,000 times", []*pb.FetchRequest{{Add: same, CreditBytes: 1000}}, codes.OK, 0},
		{"offset -1", []*pb.FetchRequest{{Add: []*pb.FetchPartition{{Topic: "t", Offset: -1}}, CreditBytes: 1000}, {Add: one}}, codes.OK, 1},
		{"the last offset of all", []*pb.FetchRequest{{Add: []*pb.FetchPartition{{Topic: "t", Partition: 1, Offset: math.MaxInt64}}, CreditBytes: 1000}, {Add: one}}, codes.OK, 1},
	} {
		if err := nonsenseFetch(c, log, x.messages, x.failures, x.code); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

func nonsenseFetch(c *brokertest.Cluster, log pb.LogClient, messages []*pb.FetchRequest, failures int, code codes.Code) error {
	ctx, cancel := context.WithTimeout(context.Background(), brokertest.Patience)
	defer cancel()
	stream, err := log.Fetch(ctx)
	if err != nil {
		return err
	}
	// The messages after the first wait for the failures, as they may take away what was to fail.
	send := func(ms []*pb.FetchRequest) {
		for _, m := range ms {
			_ = stream.Send(m) // what is wrong shows in Recv
		}
	}
	send(messages[:1])
	rest := messages[1:]
	failed, records := 0, 0
	for {
		if failed >= failures && rest != nil {
			send(rest)
			rest = nil
		}
		m, err := stream.Recv()
		if err != nil {
			if status.Code(err) != code || failed != failures {
				return fmt.Errorf("ended with %v after %d failures and %d records", err, failed, records)
			}
			return nil
		}
		for _, p := range m.Partitions {
			if p.Error != nil {
				if failed++; p.Error.Code == pb.ErrorCode_ERROR_CODE_UNSPECIFIED {
					return fmt.Errorf("%s/%d: %v %s", p.Topic, p.Partition, p.Error, p.ErrorMessage)
				}
			}
			if len(p.Batches) > 0 {
				records++
			}
		}
		if code == codes.OK && records == 1 {
			if failed != failures {
				return fmt.Errorf("%d failures, want %d", failed, failures)
			}
			return nil
		}
	}
}

// rawCodec sends bytes as they are, in the name of protobuf.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// raw calls a method with bytes as its one message, and reads one answer.
func raw(ctx context.Context, conn *grpc.ClientConn, service grpc.ServiceDesc, method string, stream bool, msg []byte) error {
	full := "/" + service.ServiceName + "/" + method
	var out []byte
	if !stream {
		return conn.Invoke(ctx, full, msg, &out, grpc.ForceCodecV2(rawCodec{}))
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, full, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	if err := s.SendMsg(msg); err != nil {
		return err
	}
	_ = s.CloseSend()
	return s.RecvMsg(&out)
}

var services = []grpc.ServiceDesc{pb.Log_ServiceDesc, pb.Groups_ServiceDesc, pb.Admin_ServiceDesc, pb.Cluster_ServiceDesc}

// Bytes that are not protobuf, or protobuf that means nothing, in every method.
func TestGarbageInRequests(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	c.CreateTopic("x", 1, 1) // the garbage may well delete it
	c.Produce("t", 0, "kept")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	conn := c.Any()
	for _, service := range services {
		var methods []string
		for _, m := range service.Methods {
			methods = append(methods, m.MethodName)
		}
		for i := range len(methods) + len(service.Streams) {
			name, stream := "", i >= len(methods)
			if stream {
				name = service.Streams[i-len(methods)].StreamName
			} else {
				name = methods[i]
			}
			for range 40 {
				ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
				_ = raw(ctx, conn, service, name, stream, garbageMessage(rng))
				cancel()
			}
		}
	}
	err := raw(t.Context(), conn, pb.Log_ServiceDesc, "Produce", false, []byte("\x12\x02\xff\xfe"))
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a topic that is not UTF-8: %v", err)
	}
	c.Produce("t", 0, "still there")
	if got := c.ReadAll("t", 0); string(got[0].Value) != "kept" {
		t.Errorf("record 0 is now %v", got[0])
	}
}

// garbageMessage is random bytes, or fields with random content, in which the topic x appears often.
func garbageMessage(rng *rand.Rand) []byte {
	var b []byte
	if rng.IntN(3) == 0 {
		for range rng.IntN(200) {
			b = append(b, byte(rng.Uint32()))
		}
		return b
	}
	for range 1 + rng.IntN(6) {
		field := byte(1 + rng.IntN(10))
		if rng.IntN(2) == 0 {
			b = append(b, field<<3)
			b = appendVarint(b, rng.Uint64()>>rng.IntN(64))
			continue
		}
		content := []byte("x")
		if rng.IntN(2) == 0 {
			content = append([]byte("\x0a\x01x"), byte(1+rng.IntN(5))<<3, byte(rng.Uint32()))
		}
		b = append(b, field<<3|2, byte(len(content)))
		b = append(b, content...)
	}
	return b
}

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b, v = append(b, byte(v)|0x80), v>>7
	}
	return append(b, byte(v))
}

// A small request must not become a large one in memory: two bytes of protobuf are an empty record, header or partition, which takes a hundred
// bytes when it is decoded.
func TestDecodingIsBounded(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	conn := c.Any()
	const n = 4 << 20 // elements
	records := bytes.Repeat([]byte{0x0a, 0x00}, n)
	nested := appendVarint([]byte{0x2a}, uint64(len(records)))
	for _, x := range []struct {
		name    string
		service grpc.ServiceDesc
		method  string
		stream  bool
		msg     []byte
	}{
		{"records", pb.Log_ServiceDesc, "Produce", false, append(nested, records...)},
		{"records in a stream", pb.Log_ServiceDesc, "ProduceStream", true, append(nested, records...)},
		{"partitions to fetch", pb.Log_ServiceDesc, "Fetch", true, records},
		{"partitions to list", pb.Log_ServiceDesc, "ListOffsets", false, records},
		{"names of topics", pb.Cluster_ServiceDesc, "GetMetadata", false, records},
		{"offsets to commit", pb.Groups_ServiceDesc, "CommitOffsets", false, bytes.Repeat([]byte{0x2a, 0x00}, n)},
		{"topics of a member", pb.Groups_ServiceDesc, "Join", false, bytes.Repeat([]byte{0x2a, 0x00}, n)},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), brokertest.Patience)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := raw(ctx, conn, x.service, x.method, x.stream, x.msg)
		runtime.ReadMemStats(&after)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "elements") {
			t.Errorf("%s: %v", x.name, err)
		}
		// Sender and receiver hold a few copies of the 8 MiB; decoded they would be 400 MiB and more.
		if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 100 {
			t.Errorf("%s: a request of 8 MiB made %d MiB", x.name, grown)
		}
	}
}

// Garbage on all three ports. The connection ends, in its own time or ours, and the broker serves on.
func TestGarbageOnThePorts(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 1, 3)
	load := c.Load("t", 1)
	load.AwaitProgress(5)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for id := range api.BrokerID(3) {
		b := c.Broker(id + 1)
		for _, addr := range []string{b.GRPCAddr(), b.PeerAddr(), b.GossipAddr()} {
			for i := range 30 {
				if err := sendGarbage(rng, "tcp", addr, i); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range 200 {
			if err := sendGarbage(rng, "udp", b.GossipAddr(), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	load.AwaitProgress(20)
	load.StopAndVerify()
	c.WaitReplicated("t", 0, 1, 2, 3)
}

// sendGarbage sends random bytes that begin as the port's protocol would, some of the time.
func sendGarbage(rng *rand.Rand, network, addr string, i int) error {
	conn, err := (&net.Dialer{Timeout: brokertest.Patience}).Dial(network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := make([]byte, 1+rng.IntN(1200))
	for j := range b {
		b[j] = byte(rng.Uint32())
	}
	prefixes := []string{"", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "FLOT", "\x00\x00\x00\x00", "\xff\xff\xff\xff", string(byte(i % 16))}
	_, _ = conn.Write(append([]byte(prefixes[i%len(prefixes)]), b...)) // the other side may have had enough
	return nil
}

// Connections that say nothing take little from the others.
func TestSilentConnections(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	b := c.Broker(1)
	for _, addr := range []string{b.GRPCAddr(), b.PeerAddr(), b.GossipAddr()} {
		for range 50 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	fresh, err := grpc.NewClient(b.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	ctx, cancel := c.Context()
	defer cancel()
	if _, err := pb.NewLogClient(fresh).Produce(ctx, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, 0, "x")}}); err != nil {
		t.Error(err)
	}
}
