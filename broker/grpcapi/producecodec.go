package grpcapi

import (
	"bytes"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// The numbers of ProduceRequest's fields.
const (
	produceCorrelationID protowire.Number = 1
	produceTopic         protowire.Number = 2
	producePartition     protowire.Number = 3
	produceBatch         protowire.Number = 4
	produceExpected      protowire.Number = 6
	produceTimeoutMs     protowire.Number = 7
)

// unmarshalProduce decodes a produce request with one copy: the message goes into memory of its own, and the batch stays where it is in it. What is not a plain request with a batch (records,
// a field twice, unknown ones, broken bytes) is left to protobuf's decoder.
func unmarshalProduce(data mem.BufferSlice, req *pb.ProduceRequest) error {
	b := joinBuffers(data)
	if decodeProduce(b, req) {
		return nil
	}
	req.Reset()
	return unmarshalBounded(b, req)
}

// joinBuffers copies into memory that nobody else has. bytes.Join does not clear it before.
func joinBuffers(data mem.BufferSlice) []byte {
	parts := make([][]byte, len(data)+1) // never one alone, which need not be copied at all
	for i, d := range data {
		parts[i] = d.ReadOnlyData()
	}
	return bytes.Join(parts, nil)
}

// decodeProduce says whether it could decode the whole message; req keeps slices of b.
func decodeProduce(b []byte, req *pb.ProduceRequest) bool {
	seen := 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > produceTimeoutMs || seen&(1<<num) != 0 {
			return false
		}
		seen |= 1 << num
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || !setProduceNumber(req, num, v) {
				return false
			}
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || !setProduceBytes(req, num, v) {
				return false
			}
			b = b[n:]
		default:
			return false
		}
	}
	return true
}

func setProduceNumber(req *pb.ProduceRequest, num protowire.Number, v uint64) bool {
	switch num {
	case produceCorrelationID:
		req.CorrelationId = v
	case producePartition:
		req.Partition = int32(v)
	case produceExpected:
		expected := int64(v)
		req.ExpectedOffset = &expected
	case produceTimeoutMs:
		req.TimeoutMs = int32(v)
	default:
		return false
	}
	return true
}

func setProduceBytes(req *pb.ProduceRequest, num protowire.Number, v []byte) bool {
	switch num {
	case produceTopic:
		req.Topic = string(v)
		return utf8.Valid(v)
	case produceBatch:
		req.Payload = &pb.ProduceRequest_Batch{Batch: v[:len(v):len(v)]}
		return true
	}
	return false
}
