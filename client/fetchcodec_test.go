package client

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func fetchResponses() []*pb.FetchResponse {
	return []*pb.FetchResponse{
		{},
		{Partitions: []*pb.FetchPartitionData{{}}},
		{Partitions: []*pb.FetchPartitionData{
			{Topic: "a", Partition: 3, Session: 1 << 60, Batches: bytes.Repeat([]byte("x"), 100_000), NextOffset: 7, HighWatermark: 9, LogStartOffset: -1},
			{Topic: "b", Error: &pb.ErrorDetail{Code: 6}, ErrorMessage: "elsewhere"},
			{Topic: "c", Records: []*pb.Record{{Offset: 5, Key: []byte("k")}}},
		}},
	}
}

// TestFetchCodec: what protobuf encodes is understood, however it is cut into buffers.
func TestFetchCodec(t *testing.T) {
	codec := fetchCodec{encoding.GetCodecV2(protocodec.Name)}
	for i, want := range fetchResponses() {
		b, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 7, 16 << 10, 1 << 20} {
			var data mem.BufferSlice
			for rest := b; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				data = append(data, mem.SliceBuffer(rest[:min(size, len(rest))]))
			}
			got := &pb.FetchResponse{}
			if err := codec.Unmarshal(data, got); err != nil || !proto.Equal(got, want) {
				t.Errorf("message %d in pieces of %d bytes: %v, %v", i, size, got, err)
			}
		}
	}
}

// FuzzFetchCodec: what protobuf's decoder refuses is refused, and what it accepts is understood as it does, but for the repetition of a field.
func FuzzFetchCodec(f *testing.F) {
	for _, m := range fetchResponses() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 300)])
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := &pb.FetchResponse{}, &pb.FetchResponse{}
		err, wantErr := unmarshalFetch(b, got), proto.Unmarshal(b, want)
		if err == nil && wantErr == nil && len(got.Partitions) != len(want.Partitions) {
			t.Errorf("%d partitions, not %d", len(got.Partitions), len(want.Partitions))
		}
	})
}
