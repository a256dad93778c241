package client

import (
	"bytes"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// fetchCodec is gRPC's codec for protobuf, which copies batches once, from gRPC's buffers into memory that the records stay in, and not a second time
// out of the message.
type fetchCodec struct{ encoding.CodecV2 }

func forceFetchCodec() grpc.CallOption {
	return grpc.ForceCodecV2(fetchCodec{encoding.GetCodecV2(protocodec.Name)})
}

// The numbers of the fields that are decoded here.
const (
	fetchPartitionsField protowire.Number = 1 // of FetchResponse
	fetchBatchesField    protowire.Number = 4 // of FetchPartitionData
)

// Unmarshal implements encoding.CodecV2.
func (c fetchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	resp, ok := v.(*pb.FetchResponse)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	parts := make([][]byte, len(data)+1) // never one alone, which bytes.Join need not copy
	for i, d := range data {
		parts[i] = d.ReadOnlyData()
	}
	return unmarshalFetch(bytes.Join(parts, nil), resp)
}

// unmarshalFetch decodes a whole message; resp keeps slices of b.
func unmarshalFetch(b []byte, resp *pb.FetchResponse) error {
	return eachField(b, func(num protowire.Number, whole, content []byte) error {
		if num != fetchPartitionsField || content == nil {
			return nil // of a newer broker
		}
		d := &pb.FetchPartitionData{}
		resp.Partitions = append(resp.Partitions, d)
		return unmarshalPartition(content, d)
	})
}

// unmarshalPartition leaves all but the batches to protobuf's decoder.
func unmarshalPartition(b []byte, d *pb.FetchPartitionData) error {
	var rest, batches []byte
	err := eachField(b, func(num protowire.Number, whole, content []byte) error {
		if num == fetchBatchesField && content != nil {
			batches = content
		} else {
			rest = append(rest, whole...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(rest, d); err != nil {
		return err
	}
	d.Batches = batches
	return nil
}

// eachField calls f with each field, whole and, if it is one of bytes, its content (not nil).
func eachField(b []byte, f func(num protowire.Number, whole, content []byte) error) error {
	for len(b) > 0 {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return fmt.Errorf("a message of the fetch stream: %w", protowire.ParseError(tag))
		}
		n := protowire.ConsumeFieldValue(num, typ, b[tag:])
		if n < 0 {
			return fmt.Errorf("field %d of a message of the fetch stream: %w", num, protowire.ParseError(n))
		}
		var content []byte
		if typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[tag:])
			content = v[:len(v):len(v)]
		}
		if err := f(num, b[:tag+n], content); err != nil {
			return err
		}
		b = b[tag+n:]
	}
	return nil
}
