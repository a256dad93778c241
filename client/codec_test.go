package client

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func TestProduceCodecWritesWhatProtobufReads(t *testing.T) {
	expected := int64(5)
	codec := produceCodec{encoding.GetCodecV2(protocodec.Name)}
	for _, want := range []*pb.ProduceRequest{
		{CorrelationId: 9, Topic: "orders", Partition: 3, TimeoutMs: 100, Payload: &pb.ProduceRequest_Batch{Batch: bytes.Repeat([]byte("x"), 5000)}},
		{Topic: "t", ExpectedOffset: &expected, Payload: &pb.ProduceRequest_Batch{}},
		{Topic: "t", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Records: []*pb.Record{{Value: []byte("v")}}}}},
		{},
	} {
		data, err := codec.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := &pb.ProduceRequest{}
		if err := proto.Unmarshal(data.Materialize(), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
	}
}

func BenchmarkEncodeProduce(b *testing.B) {
	codec := produceCodec{encoding.GetCodecV2(protocodec.Name)}
	req := &pb.ProduceRequest{CorrelationId: 9, Topic: "orders", Partition: 3, TimeoutMs: 100, Payload: &pb.ProduceRequest_Batch{Batch: make([]byte, 64<<10)}}
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		data, err := codec.Marshal(req)
		if err != nil {
			b.Fatal(err)
		}
		data.Free()
	}
}
