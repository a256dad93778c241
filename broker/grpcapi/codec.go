package grpcapi

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// maxElements bounds the messages and strings within one request. Protobuf spends two bytes on an empty one and Go a hundred, so the
// size of a request alone does not bound the memory that decoding it takes.
const maxElements = 250_000

// boundedCodec is gRPC's codec for protobuf, which counts before it decodes.
type boundedCodec struct {
	encoding.CodecV2
	reads *sync.Map // *pb.ReadResponse that a handler has returned -> *holding of its data
}

func newCodec() boundedCodec { return boundedCodec{encoding.GetCodecV2(protocodec.Name), &sync.Map{}} }

// Unmarshal implements encoding.CodecV2. gRPC reports its errors as INTERNAL, without a detail.
func (c boundedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if req, ok := v.(*pb.ProduceRequest); ok {
		return unmarshalProduce(data, req)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return unmarshalBounded(buf.ReadOnlyData(), m)
}

func unmarshalBounded(b []byte, m proto.Message) error {
	if left := countElements(b, m.ProtoReflect().Descriptor(), maxElements); left < 0 {
		return fmt.Errorf("the request has more than %d elements (records, headers, partitions, names): split it into smaller ones, or send records as a batch", maxElements)
	}
	return proto.Unmarshal(b, m)
}

// countElements takes the elements in an encoded message off left, and returns as soon as that is below 0. Bytes that are not protobuf are left
// to the decoder to refuse. Our messages do not contain themselves, so it does not recurse deeper than they nest.
func countElements(b []byte, d protoreflect.MessageDescriptor, left int) int {
	for len(b) > 0 && left >= 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return left
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return left
			}
			b = b[n:]
			continue
		}
		content, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return left
		}
		b = b[n:]
		if f := d.Fields().ByNumber(num); f != nil {
			left = countField(content, f, left)
		}
	}
	return left
}

func countField(content []byte, f protoreflect.FieldDescriptor, left int) int {
	switch {
	case f.Message() != nil:
		return countElements(content, f.Message(), left-1)
	case f.Kind() == protoreflect.StringKind:
		return left - 1
	case f.IsPacked(): // four bytes each in memory, or eight
		return left - len(content)/16
	}
	return left
}
