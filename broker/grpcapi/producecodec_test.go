package grpcapi

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func produceMessage(t testing.TB, req *pb.ProduceRequest) []byte {
	t.Helper()
	b, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plainProduce(batch []byte) *pb.ProduceRequest {
	expected := int64(-7)
	return &pb.ProduceRequest{
		CorrelationId: 1 << 60, Topic: "orders", Partition: -1, ExpectedOffset: &expected, TimeoutMs: 30000, Payload: &pb.ProduceRequest_Batch{Batch: batch},
	}
}

// pieces cuts a message as gRPC does, which hands over what came in each HTTP/2 frame.
func pieces(b []byte, n int) mem.BufferSlice {
	var s mem.BufferSlice
	for len(b) > n {
		s, b = append(s, mem.SliceBuffer(b[:n])), b[n:]
	}
	return append(s, mem.SliceBuffer(b))
}

func TestProduceRequestIsDecodedWithoutSharingGRPCsMemory(t *testing.T) {
	want := plainProduce(bytes.Repeat([]byte("x"), 100))
	b := produceMessage(t, want)
	for _, n := range []int{1, 3, 7, 1000} {
		given := bytes.Clone(b)
		got := &pb.ProduceRequest{}
		if err := unmarshalProduce(pieces(given, n), got); err != nil {
			t.Fatal(err)
		}
		clear(given) // gRPC reuses it
		if !proto.Equal(got, want) {
			t.Errorf("in pieces of %d: got %v, want %v", n, got, want)
		}
	}
	if got := (&pb.ProduceRequest{}); !decodeProduce(b, got) {
		t.Error("a plain request was left to protobuf")
	}
}

func FuzzDecodeProduce(f *testing.F) {
	f.Add(produceMessage(f, plainProduce([]byte("batch"))))
	f.Add(produceMessage(f, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Records: []*pb.Record{{Value: []byte("v")}}}}}))
	f.Add(append(produceMessage(f, plainProduce([]byte("first"))), produceMessage(f, plainProduce([]byte("second")))...))
	f.Add([]byte{0x12, 2, 0xff, 0xfe})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := &pb.ProduceRequest{}, &pb.ProduceRequest{}
		gotErr, wantErr := unmarshalProduce(pieces(b, 5), got), unmarshalBounded(b, want)
		if (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("got %v, protobuf %v", gotErr, wantErr)
		}
		if gotErr == nil && !proto.Equal(got, want) {
			t.Fatalf("got %v, protobuf %v", got, want)
		}
	})
}

func BenchmarkDecodeProduce(b *testing.B) {
	msg := pieces(produceMessage(b, plainProduce(make([]byte, 64<<10))), 16<<10)
	codec := newCodec()
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.Unmarshal(msg, &pb.ProduceRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
