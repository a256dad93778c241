package grpcapi

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// TestFetchMessage: the pieces together are what protobuf would have encoded, and large batches are among them as they are.
func TestFetchMessage(t *testing.T) {
	large, small := bytes.Repeat([]byte("L"), 50_000), []byte("small")
	m := &fetchMessage{
		resp: &pb.FetchResponse{Partitions: []*pb.FetchPartitionData{
			{Topic: "a", Partition: 1, Session: 2, NextOffset: 3, HighWatermark: 4, LogStartOffset: 5},
			{Topic: "b", Error: &pb.ErrorDetail{Code: 6}, ErrorMessage: "elsewhere"},
			{Topic: "c", Records: []*pb.Record{{Offset: 5, Value: []byte("v")}}},
			{Topic: "d", NextOffset: 8},
		}},
		batches:  [][][]byte{{small, large, small, small, large}, nil, nil, {large}},
		releases: make([]func(), 4),
	}
	data, err := newCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := &pb.FetchResponse{}
	if err := proto.Unmarshal(data.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	for i, d := range m.resp.Partitions {
		d.Batches = joinBatches(m.batches[i])
	}
	if !proto.Equal(got, m.resp) {
		t.Errorf("got %v", got)
	}
	if n := uncopied(data, large); n != 3 {
		t.Errorf("%d of 3 large batches are sent as they are", n)
	}
}

func uncopied(data mem.BufferSlice, b []byte) (n int) {
	for _, d := range data {
		if piece := d.ReadOnlyData(); &piece[0] == &b[0] {
			n++
		}
	}
	return n
}

// TestFetchMessageGivesBack: a partition's memory is given back when gRPC has let go of all that is in it, once, and not before; at once if everything was copied.
func TestFetchMessageGivesBack(t *testing.T) {
	large, small := bytes.Repeat([]byte("L"), 50_000), []byte("small")
	released := make([]int, 3)
	m := &fetchMessage{
		resp:     &pb.FetchResponse{Partitions: []*pb.FetchPartitionData{{Topic: "a"}, {Topic: "b"}, {Topic: "c"}}},
		batches:  [][][]byte{{large, small, large}, {small, small}, {large}},
		releases: []func(){func() { released[0]++ }, func() { released[1]++ }, nil},
	}
	data, err := newCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(released, []int{0, 1, 0}) {
		t.Fatalf("encoded: %v were given back, want only what was copied", released)
	}
	data.Ref() // as gRPC does
	data.Free()
	if released[0] != 0 {
		t.Fatal("given back while gRPC reads it")
	}
	for i, piece := range data {
		if released[0] != 0 && bytes.Equal(piece.ReadOnlyData(), large) && i < 3 {
			t.Fatal("given back before the last piece was free")
		}
		piece.Free()
	}
	if !slices.Equal(released, []int{1, 1, 0}) {
		t.Errorf("at the end %v were given back", released)
	}
}

// BenchmarkFetchMessage makes the message of four batches that a consumer is sent.
func BenchmarkFetchMessage(b *testing.B) {
	batch := bytes.Repeat([]byte("b"), 256<<10)
	b.SetBytes(4 * int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		m := &fetchMessage{
			resp:     &pb.FetchResponse{Partitions: []*pb.FetchPartitionData{{Topic: "t", Partition: 1, Session: 2, NextOffset: 3, HighWatermark: 4}}},
			batches:  [][][]byte{{batch, batch, batch, batch}},
			releases: []func(){func() {}},
		}
		data, err := newCodec().Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		data.Free()
	}
}
