package client

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// produceCodec is gRPC's codec for protobuf, which sends a batch from where it is: the message is a small head and the batch itself, not a copy of both in a
// buffer that gRPC clears before. gRPC reads the batch until it is written to the connection, perhaps after a stream was cut, so nobody may change it any more (see prepare).
type produceCodec struct{ encoding.CodecV2 }

func forceProduceCodec() grpc.CallOption {
	return grpc.ForceCodecV2(produceCodec{encoding.GetCodecV2(protocodec.Name)})
}

// Marshal implements encoding.CodecV2.
func (c produceCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*lentRequest); ok {
		return m.marshal()
	}
	req, ok := v.(*pb.ProduceRequest)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	p, ok := req.Payload.(*pb.ProduceRequest_Batch)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return marshalProduce(req, mem.SliceBuffer(p.Batch))
}

// lentRequest is a request whose batch comes back when gRPC has read it: batch is a reference for gRPC, which only marshal passes on.
type lentRequest struct {
	*pb.ProduceRequest
	batch mem.Buffer
}

func (m *lentRequest) marshal() (mem.BufferSlice, error) {
	return marshalProduce(m.ProduceRequest, m.batch)
}

// marshalProduce leaves out req's own payload for batch.
func marshalProduce(req *pb.ProduceRequest, batch mem.Buffer) (mem.BufferSlice, error) {
	rest := pb.ProduceRequest{
		CorrelationId: req.CorrelationId, Topic: req.Topic, Partition: req.Partition, ExpectedOffset: req.ExpectedOffset, TimeoutMs: req.TimeoutMs,
	}
	head, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, 48+len(req.Topic)), &rest)
	if err != nil {
		return nil, err
	}
	head = protowire.AppendTag(head, produceBatchField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(batch.Len()))
	return mem.BufferSlice{mem.SliceBuffer(head), batch}, nil
}

// produceBatchField is the number of ProduceRequest.batch.
const produceBatchField = 4
