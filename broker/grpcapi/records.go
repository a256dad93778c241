package grpcapi

import (
	"bytes"
	"errors"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

// encodeRecords builds one batch of at most maxBytes.
func encodeRecords(rs *pb.Records, now time.Time, maxBytes int) ([]byte, error) {
	if len(rs.GetRecords()) == 0 {
		return nil, api.Errorf(api.CodeInvalidRecord, "the request has no records")
	}
	comp := rs.GetCompression()
	if _, ok := pb.Compression_name[int32(comp)]; !ok {
		return nil, api.Errorf(api.CodeUnsupportedCompression, "compression type %d is unknown", comp)
	}
	b := record.NewBuilder(record.BuilderOptions{
		Compression: record.Compression(comp),
		// Not idempotent: the request carries no producer.
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	})
	for i, r := range rs.GetRecords() {
		if err := b.Append(fromRecord(r, now)); err != nil {
			return nil, api.Errorf(recordCode(err), "record %d: %w", i, err)
		}
		if b.Size() > maxBytes {
			return nil, api.Errorf(api.CodeMessageTooLarge, "the records need more than the %d bytes that a batch may have", maxBytes)
		}
	}
	batch, err := b.Build()
	if err != nil {
		return nil, api.Errorf(recordCode(err), "encoding the batch: %w", err)
	}
	return batch, nil
}

func fromRecord(r *pb.Record, now time.Time) record.Record {
	rec := record.Record{Timestamp: r.GetTimestampMs(), Key: r.Key, Value: r.Value}
	if rec.Timestamp == 0 {
		rec.Timestamp = now.UnixMilli()
	}
	for _, h := range r.GetHeaders() {
		rec.Headers = append(rec.Headers, record.HeaderField{Key: h.GetKey(), Value: h.Value})
	}
	return rec
}

func toRecord(r record.Record) *pb.Record {
	p := &pb.Record{Offset: int64(r.Offset), TimestampMs: r.Timestamp, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		p.Headers = append(p.Headers, &pb.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return p
}

// decodeBatches returns the records at from and after. limit bounds the bytes of one batch after decompression.
func decodeBatches(batches [][]byte, from record.Offset, limit int) ([]*pb.Record, error) {
	var out []*pb.Record
	for _, b := range batches {
		rs, err := record.Decode(b, limit)
		if err != nil {
			return nil, api.Errorf(recordCode(err), "decoding a batch: %w", err)
		}
		for _, r := range rs {
			if r.Offset >= from {
				out = append(out, toRecord(r))
			}
		}
	}
	return out, nil
}

func recordCode(err error) api.Code {
	switch {
	case errors.Is(err, record.ErrTooLarge):
		return api.CodeMessageTooLarge
	case errors.Is(err, record.ErrUnsupportedCompression):
		return api.CodeUnsupportedCompression
	case errors.Is(err, record.ErrCorrupt):
		return api.CodeCorruptBatch
	}
	return api.CodeInvalidRecord
}

// toPartitionData turns one partition's result into its message. from is the offset that was asked for.
func toPartitionData(r api.FetchResult, from record.Offset, decode bool, limit int) *pb.FetchPartitionData {
	d := &pb.FetchPartitionData{
		Topic: r.Topic, Partition: r.Partition, NextOffset: int64(r.Next),
		HighWatermark: int64(r.HighWatermark), LogStartOffset: int64(r.LogStart),
	}
	err := r.Err
	switch {
	case err != nil:
	case decode:
		d.Records, err = decodeBatches(r.Batches, from, limit)
	default:
		d.Batches = joinBatches(r.Batches)
	}
	if err != nil {
		e := asError(err)
		d.Error, d.ErrorMessage = toDetail(e), clip(e.Message)
	}
	return d
}

// joinBatches copies unless there is but one: message encoding copies anyway and changes nothing.
func joinBatches(batches [][]byte) []byte {
	if len(batches) == 1 {
		return batches[0]
	}
	return bytes.Join(batches, nil)
}

func sizeOf(batches [][]byte) int {
	n := 0
	for _, b := range batches {
		n += len(b)
	}
	return n
}
