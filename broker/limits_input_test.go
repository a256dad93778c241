package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/client"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

// newClient connects to all brokers of a cluster. It is closed with the test.
func newClient(t *testing.T, c *brokertest.Cluster, opts ...client.Option) *client.Client {
	t.Helper()
	var addrs []string
	for _, id := range c.Running() {
		addrs = append(addrs, c.Broker(id).GRPCAddr())
	}
	cl, err := client.New(addrs, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func newProducer(t *testing.T, cl *client.Client, opts ...client.ProducerOption) *client.Producer {
	t.Helper()
	p, err := cl.NewProducer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), brokertest.Patience)
		defer cancel()
		_ = p.Close(ctx)
	})
	return p
}

func newConsumer(t *testing.T, cl *client.Client, opts ...client.ConsumerOption) *client.Consumer {
	t.Helper()
	k, err := cl.NewConsumer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// batchOf builds one batch that is not idempotent.
func batchOf(t *testing.T, comp record.Compression, values ...string) []byte {
	t.Helper()
	b := record.NewBuilder(record.BuilderOptions{Compression: comp, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	for _, v := range values {
		if err := b.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// Where a batch's fields are: see the record package.
const (
	atMagic, atCRC, atAttributes, atLastDelta, atBaseTime, atMaxTime, atProducer, atCount, atRecords = 16, 17, 21, 23, 27, 35, 43, 57, 61
)

// seal gives a batch that was tampered with a CRC that fits.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func putU64(b []byte, at int, v uint64) []byte {
	binary.BigEndian.PutUint64(b[at:], v)
	return b
}

// lie makes a batch say that it has n records.
func lie(b []byte, n int32) []byte {
	binary.BigEndian.PutUint32(b[atLastDelta:], uint32(n-1))
	binary.BigEndian.PutUint32(b[atCount:], uint32(n))
	return seal(b)
}

// isRefusal says what is wrong with an error that should have that code and these words in it.
func isRefusal(err error, code pb.ErrorCode, retriable bool, words ...string) error {
	d := brokertest.Detail(err)
	if err == nil || d == nil || d.Code != code || d.Retriable != retriable {
		return fmt.Errorf("got %v, detail %v; want %v", err, d, code)
	}
	for _, w := range words {
		if !strings.Contains(status.Convert(err).Message(), w) {
			return fmt.Errorf("%q does not say %q", status.Convert(err).Message(), w)
		}
	}
	return nil
}

// What a producer may send that is not a good batch for that partition. Each is refused with a reason, and nothing of it is stored: the records
// before and after are all there is.
func TestBadBatchesAreRefused(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) { cfg.Memory.MaxMessageBytes = 1 << 20 }})
	c.CreateTopic("t", 1, 1, "max.message.bytes", "2000")
	c.Produce("t", 0, "before")
	ctx, cancel := c.Context()
	defer cancel()
	log := pb.NewLogClient(c.Any())
	flipped := batchOf(t, record.None, "x")
	flipped[len(flipped)-2] ^= 1
	magic := batchOf(t, record.None, "x")
	magic[atMagic] = 1
	reordered := batchOf(t, record.None, "x", "y")
	reordered[atRecords+3], reordered[atRecords+11] = 2, 0 // offset deltas 1 and 0
	garbage := batchOf(t, record.Zstd, strings.Repeat("x", 500))
	for i := atRecords; i < len(garbage); i++ {
		garbage[i] = 0xAA
	}
	const (
		corrupt = pb.ErrorCode_ERROR_CODE_CORRUPT_BATCH
		invalid = pb.ErrorCode_ERROR_CODE_INVALID_RECORD
		large   = pb.ErrorCode_ERROR_CODE_MESSAGE_TOO_LARGE
	)
	for _, x := range []struct {
		name  string
		batch []byte
		code  pb.ErrorCode
		words []string
	}{
		{"a message above max.message.bytes", batchOf(t, record.None, strings.Repeat("x", 3000)), large, []string{"t/0", "3070 bytes", "max.message.bytes", "2000"}},
		{"many small messages above it", batchOf(t, record.None, strings.Split(strings.Repeat("x,", 400), ",")...), large, []string{"2000"}},
		{"more than a broker takes", make([]byte, 1<<20+1), large, []string{"1048576"}},
		{"no batch at all", nil, corrupt, []string{"0 bytes"}},
		{"half a header", flipped[:20], corrupt, []string{"20 bytes"}},
		{"a cut batch", flipped[:len(flipped)-1], corrupt, []string{"header says"}},
		{"a flipped bit", flipped, corrupt, []string{"CRC"}},
		{"two batches", append(batchOf(t, record.None, "x"), batchOf(t, record.None, "y")...), corrupt, []string{"header says"}},
		{"another format", magic, invalid, []string{"magic 1"}},
		{"no records", lie(batchOf(t, record.None, "x"), 0), corrupt, []string{"last offset delta -1"}},
		{"two billion records", lie(batchOf(t, record.None, "x"), 1<<31-1), invalid, []string{"records"}},
		{"two billion compressed records", lie(batchOf(t, record.Zstd, strings.Repeat("x", 300)), 1<<31-1), invalid, []string{"records"}},
		{"one record too many", lie(batchOf(t, record.None, "xxxxxxxxxxxxxxxxxxxxx"), 2), invalid, []string{"cannot be read"}},
		{"one record too few", lie(batchOf(t, record.None, "x", "y"), 1), invalid, []string{"cannot be read"}},
		{"offsets out of order", seal(reordered), invalid, []string{"offset delta"}},
		{"garbage that claims to be zstd", seal(garbage), invalid, []string{"cannot be read"}},
		{"a control batch", seal(setAttributes(batchOf(t, record.None, "x"), 0x20)), invalid, []string{"control"}},
		{"a transactional batch", seal(setAttributes(batchOf(t, record.None, "x"), 0x10)), invalid, []string{"transactions"}},
		{"compression that does not exist", seal(setAttributes(batchOf(t, record.None, "x"), 7)), pb.ErrorCode_ERROR_CODE_UNSUPPORTED_COMPRESSION, nil},
		{"attributes that do not exist", seal(setAttributes(batchOf(t, record.None, "x"), 0x4000)), invalid, []string{"attributes"}},
		{"a producer without an epoch", seal(putU64(batchOf(t, record.None, "x"), atProducer, 7)), invalid, []string{"producer 7"}},
		{"a time before 1970", seal(putU64(putU64(batchOf(t, record.None, "x"), atBaseTime, 1<<63), atMaxTime, 1<<63)), invalid, []string{"1970"}},
	} {
		_, err := log.Produce(ctx, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: x.batch}})
		if err := isRefusal(err, x.code, x.code == corrupt, x.words...); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	_, err := log.Produce(ctx, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: make([]byte, 3<<20)}})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a request of 3 MiB: %v", err)
	}
	c.Produce("t", 0, "after")
	if got := c.ReadAll("t", 0); len(got) != 2 || string(got[1].Value) != "after" || got[1].Offset != 1 {
		t.Errorf("what is stored: %v", got)
	}
}

func setAttributes(b []byte, bits uint16) []byte {
	binary.BigEndian.PutUint16(b[atAttributes:], bits)
	return b
}

// A message that is too large fails alone; those around it are delivered.
func TestClientOversized(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1, "max.message.bytes", "2000")
	ctx, cancel := c.Context()
	defer cancel()
	p := newProducer(t, newClient(t, c))
	for _, x := range []struct {
		size  int
		words []string // of the error
	}{
		{10, nil},
		{3000, []string{"t/0", "max.message.bytes", "2000", "MESSAGE_TOO_LARGE"}}, // refused by the topic
		{2 << 20, []string{"2097239 bytes", "1048576", "MESSAGE_TOO_LARGE"}},      // by the producer itself
		{20, nil},
	} {
		err := p.Produce(ctx, &client.Record{Topic: "t", Value: make([]byte, x.size)})
		if (err == nil) != (x.words == nil) {
			t.Fatalf("%d bytes: %v", x.size, err)
		}
		for _, w := range x.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%d bytes: %q does not say %q", x.size, err, w)
			}
		}
		if x.words != nil && (!errors.Is(err, client.CodeMessageTooLarge) || client.IsRetriable(err)) {
			t.Errorf("%d bytes: %v", x.size, err)
		}
	}
	if got := c.ReadAll("t", 0); len(got) != 2 || len(got[0].Value) != 10 || len(got[1].Value) != 20 {
		t.Errorf("stored: %v", got)
	}
}

func TestClientUnknownTopics(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 2, 1)
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c, client.WithRequestTimeout(2*time.Second))
	p := newProducer(t, cl, client.WithMaxBlock(500*time.Millisecond), client.WithDeliveryTimeout(time.Second))
	k := newConsumer(t, cl)
	_, appendErr := p.Append(ctx, "nope", 0, []*client.Record{{}})
	_, beyondErr := p.Append(ctx, "t", 2, []*client.Record{{}})
	_, negativeErr := p.Append(ctx, "t", -1, []*client.Record{{}})
	_, describeErr := cl.Admin().DescribeTopic(ctx, "nope")
	_, deleteErr := cl.Admin().DeleteRecords(ctx, client.TopicPartition{Topic: "nope"}, 1)
	_, alterErr := cl.Admin().AlterTopic(ctx, "nope", map[string]string{"retention.ms": "1"}, nil)
	_, growErr := cl.Admin().CreatePartitions(ctx, "nope", 3)
	if err := k.Assign(client.Assignment{Topic: "t", Partition: 7}); err != nil {
		t.Error(err)
	}
	_, pollErr := k.Poll(ctx)
	listed := cl.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{{Topic: "t", Partition: 9}: client.Latest()})
	for what, err := range map[string]error{
		"produce":                      p.Produce(ctx, &client.Record{Topic: "nope", Value: []byte("x")}),
		"append":                       appendErr,
		"append beyond the partitions": beyondErr,
		"append to partition -1":       negativeErr,
		"assign":                       k.AssignTopic(ctx, "nope", client.Earliest()),
		"poll":                         pollErr,
		"list offsets":                 listed[client.TopicPartition{Topic: "t", Partition: 9}].Err,
		"describe":                     describeErr,
		"delete":                       cl.Admin().DeleteTopic(ctx, "nope"),
		"delete records":               deleteErr,
		"alter":                        alterErr,
		"grow":                         growErr,
	} {
		if !errors.Is(err, client.CodeUnknownTopicOrPartition) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, "nope") && !strings.Contains(msg, "t/") {
			t.Errorf("%s: %q does not say which topic", what, msg)
		}
	}
	if n := len(c.Describe("t").Partitions); n != 2 {
		t.Errorf("the topic has %d partitions", n)
	}
}

// Offsets that are not there: refused with the bounds, and a consumer told where to go on goes on there.
func TestOffsetsOutOfRange(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	for i := range 5 {
		c.Produce("t", 0, fmt.Sprint(i))
	}
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c)
	tp := client.TopicPartition{Topic: "t"}
	if start, err := cl.Admin().DeleteRecords(ctx, tp, 2); err != nil || start != 2 {
		t.Fatal(start, err)
	}
	log := pb.NewLogClient(c.Any())
	for _, offset := range []int64{-1 << 63, -5, -1, 0, 1, 6, 1<<63 - 1} {
		_, err := log.Read(ctx, &pb.ReadRequest{Topic: "t", Offset: offset, MaxWaitMs: 10_000})
		if err := isRefusal(err, pb.ErrorCode_ERROR_CODE_OFFSET_OUT_OF_RANGE, false, "t/0", fmt.Sprint(offset), "2", "5"); err != nil {
			t.Errorf("offset %d: %v", offset, err)
		}
		if d := brokertest.Detail(err); d.GetLogStartOffset() != 2 || d.GetHighWatermark() != 5 {
			t.Errorf("offset %d: the detail is %v", offset, d)
		}
		if offset == -1 {
			continue // deletes all
		}
		if _, err := log.DeleteRecords(ctx, &pb.DeleteRecordsRequest{Topic: "t", BeforeOffset: offset}); offset > 5 || offset < 0 {
			if err := isRefusal(err, pb.ErrorCode_ERROR_CODE_OFFSET_OUT_OF_RANGE, false, "t/0", fmt.Sprint(offset)); err != nil {
				t.Errorf("deleting before %d: %v", offset, err)
			}
		} else if err != nil { // below the log start: nothing to do
			t.Errorf("deleting before %d: %v", offset, err)
		}
	}
	k := newConsumer(t, cl)
	for _, offset := range []int64{0, 6} {
		if err := k.Assign(client.Assignment{Topic: "t", Start: client.AtOffset(offset)}); err != nil {
			t.Fatal(err)
		}
		_, err := k.Poll(ctx)
		var e *client.Error
		if !errors.As(err, &e) || e.Code != client.CodeOffsetOutOfRange || e.LogStartOffset != 2 || e.HighWatermark != 5 || e.Topic != "t" {
			t.Errorf("reading from %d: %v", offset, err)
		}
	}
	// The partition waits for a Seek, which revives it.
	if err := k.Seek(tp, client.Earliest()); err != nil {
		t.Fatal(err)
	}
	if rs, err := k.Poll(ctx); err != nil || len(rs) == 0 || rs[0].Offset != 2 {
		t.Errorf("after the seek: %v %v", rs, err)
	}
	for reset, want := range map[client.Position]int64{client.Earliest(): 2, client.FromEnd(1): 4} {
		k := newConsumer(t, cl, client.WithReset(reset))
		if err := k.Assign(client.Assignment{Topic: "t", Start: client.AtOffset(99)}); err != nil {
			t.Fatal(err)
		}
		if rs, err := k.Poll(ctx); err != nil || len(rs) == 0 || rs[0].Offset != want {
			t.Errorf("with reset to %v: %v %v", reset, rs, err)
		}
	}
}

func TestNegativeOffsetsInTheClient(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	c.Produce("t", 0, "x")
	k := newConsumer(t, newClient(t, c))
	bad := client.Assignment{Topic: "t", Start: client.AtOffset(-5)}
	err := k.Assign(client.Assignment{Topic: "t"}, bad)
	if !errors.Is(err, client.CodeOffsetOutOfRange) || !strings.Contains(err.Error(), "t/0") || !strings.Contains(err.Error(), "-5") {
		t.Errorf("assign at -5: %v", err)
	}
	if got := k.Assigned(); len(got) != 0 {
		t.Errorf("assigned in spite of the error: %v", got)
	}
	if err := k.Assign(client.Assignment{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := k.Seek(client.TopicPartition{Topic: "t"}, bad.Start); !errors.Is(err, client.CodeOffsetOutOfRange) {
		t.Errorf("seek to -5: %v", err)
	}
	ctx, cancel := c.Context()
	defer cancel()
	if rs, err := k.Poll(ctx); err != nil || len(rs) != 1 {
		t.Errorf("the partition stays where it was: %v %v", rs, err)
	}
}

// A conditional append that comes too late, or too early, stores nothing and says where the partition is.
func TestExpectedOffsetMismatch(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 1, 3)
	c.Produce("t", 0, "a", "b")
	ctx, cancel := c.Context()
	defer cancel()
	p := newProducer(t, newClient(t, c))
	for _, expected := range []int64{0, 1, 3, -1, -1 << 63, 1<<63 - 1} {
		_, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("no")}}, client.ExpectOffset(expected))
		var e *client.Error
		if !errors.As(err, &e) || e.Code != client.CodeExpectedOffsetMismatch || e.Retriable || e.HighWatermark != 2 ||
			!strings.Contains(err.Error(), fmt.Sprint(expected)) || !strings.Contains(err.Error(), "2") {
			t.Errorf("expected offset %d: %v", expected, err)
		}
	}
	if r, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("c")}}, client.ExpectOffset(2)); err != nil || r.BaseOffset != 2 {
		t.Errorf("the right one: %v %v", r, err)
	}
	// Of two that expect the same, one wins.
	results := make(chan error, 2)
	for range 2 {
		p := newProducer(t, newClient(t, c))
		go func() {
			_, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("d")}}, client.ExpectOffset(3))
			results <- err
		}()
	}
	a, b := <-results, <-results
	if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), client.CodeExpectedOffsetMismatch) {
		t.Errorf("two at once: %v and %v", a, b)
	}
	if got := c.ReadAll("t", 0); len(got) != 4 {
		t.Errorf("%d records", len(got))
	}
}

// The client goes to the leader by itself, also one whose knowledge is old.
func TestClientFollowsTheLeader(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 1, 3)
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c)
	p := newProducer(t, cl)
	if err := p.Produce(ctx, &client.Record{Topic: "t", Value: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	old := c.Leader("t", 0)
	c.Stop(old)
	if err := p.Produce(ctx, &client.Record{Topic: "t", Value: []byte("second")}); err != nil {
		t.Fatalf("after the leader has moved: %v", err)
	}
	if now := c.Leader("t", 0); now == old || now == api.NoBroker {
		t.Fatalf("the leader is %d, was %d", now, old)
	}
	if got := c.ReadAll("t", 0); len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
}
