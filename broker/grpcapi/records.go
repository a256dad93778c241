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

// decoder turns the batches of one response into records, within bounds: a small batch can be a thousand times as large in memory.
type decoder struct {
	limit int // bytes of one batch after decompression
	left  int // bytes that the response may still take; whatever is below, the first batch is decoded
}

// recordCost is what a record takes in memory beside its contents, in bytes.
const recordCost = 64

func newDecoder(o Options) *decoder {
	return &decoder{limit: max(o.MaxFetchBytes, o.MaxMessageBytes), left: max(o.MaxFetchBytes, 1)}
}

// decode returns the records of r at from and after. If they are too much for the response, r ends before the first batch that is left out.
func (d *decoder) decode(r *api.FetchResult, from record.Offset) ([]*pb.Record, error) {
	var out []*pb.Record
	for i, b := range r.Batches {
		if d.left <= 0 {
			r.Batches = r.Batches[:i]
			break
		}
		h, err := record.ParseHeader(b)
		if err == nil && h.Count > maxElements {
			return nil, api.Errorf(api.CodeMessageTooLarge, "a batch of %d records is not decoded here, only up to %d: fetch batches instead", h.Count, maxElements)
		}
		var rs []record.Record
		if err == nil {
			rs, err = record.Decode(b, d.limit)
		}
		if err != nil {
			return nil, api.Errorf(recordCode(err), "decoding a batch: %w", err)
		}
		for _, rec := range rs {
			d.left -= recordCost + len(rec.Key) + len(rec.Value)
			if rec.Offset >= from {
				out = append(out, toRecord(rec))
			}
		}
		if d.left <= 0 {
			r.Next = h.Next()
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

// toPartitionData turns one partition's result into its message. from is the offset that was asked for. Without dec the batches are left to the
// caller; with it, r becomes what it has left of the result.
func toPartitionData(r *api.FetchResult, from record.Offset, dec *decoder) *pb.FetchPartitionData {
	d := &pb.FetchPartitionData{Topic: r.Topic, Partition: r.Partition, HighWatermark: int64(r.HighWatermark), LogStartOffset: int64(r.LogStart)}
	err := r.Err
	if err == nil && dec != nil {
		d.Records, err = dec.decode(r, from)
	}
	d.NextOffset = int64(r.Next)
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
