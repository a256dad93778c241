package kafka

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Produce, versions 3 to 13. v5: log start offset; v8: error messages (KIP-467); v9: flexible; v10: leader in
// errors (KIP-951); v13: topic IDs (KIP-516). Of versions 0 to 2 every partition is refused.
//
// acks=1 waits for a quorum as acks=all does: there is no weaker write. acks=0 sends no response, and closes the connection if
// the append fails, so that the client looks for the leader again.

// produced is a produce request on its way: its response, and how many partitions are still to come.
type produced struct {
	resp    *kmsg.ProduceResponse
	left    atomic.Int64
	finish  func(reply, bool)
	acks    int16
	failed  atomic.Bool
	cancel  context.CancelFunc
	version int16
	hints   hints
}

// produce hands the batches to their partitions before it returns, and calls answer once all are stored or refused.
func (s *Server) produce(r *request, req *kmsg.ProduceRequest, answer func(reply, bool)) {
	ctx, cancel := context.WithTimeout(s.aborting, s.appendTimeout(req.TimeoutMillis))
	p := &produced{resp: req.ResponseKind().(*kmsg.ProduceResponse), finish: answer, acks: req.Acks, cancel: cancel, version: req.Version}
	p.hints.listener = r.conn.listener
	p.resp.Topics = make([]kmsg.ProduceResponseTopic, len(req.Topics))
	p.left.Store(1) // until all are on their way
	for i := range req.Topics {
		s.produceTopic(ctx, r, req, i, p)
	}
	p.done()
}

func (s *Server) appendTimeout(ms int32) time.Duration {
	if ms <= 0 {
		return s.opts.AppendTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxAppendWait)
}

func (s *Server) produceTopic(ctx context.Context, r *request, req *kmsg.ProduceRequest, i int, p *produced) {
	in := &req.Topics[i]
	out := &p.resp.Topics[i]
	*out = kmsg.NewProduceResponseTopic()
	out.Topic, out.TopicID = in.Topic, in.TopicID
	out.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(in.Partitions))
	name, unknown := s.topicNamed(in.Topic, in.TopicID, req.Version >= 13)
	for j := range in.Partitions {
		part := &out.Partitions[j]
		*part = kmsg.NewProduceResponseTopicPartition()
		part.Partition, part.BaseOffset, part.LogStartOffset = in.Partitions[j].Partition, -1, -1
		if unknown != errNone {
			p.refuse(part, unknown, nil)
			continue
		}
		batch, code, err := s.checkBatch(req, in.Partitions[j].Records)
		if code != errNone {
			p.refuse(part, code, err)
			continue
		}
		if 2*len(batch) < r.size { // or the log's cache would hold the whole request for one small batch
			batch = append([]byte(nil), batch...)
		}
		p.left.Add(1)
		tp := api.TopicPartition{Topic: name, Partition: part.Partition}
		s.broker.AppendAsync(ctx, api.AppendRequest{TopicPartition: tp, Batch: batch}, func(res api.AppendResult, err error) { p.appended(part, res, err) })
	}
}

// checkBatch says what is wrong with the records for one partition, as far as that is the protocol's business. The partition checks the batch (CRC,
// counts, offsets, every record), once, for all front ends.
func (s *Server) checkBatch(req *kmsg.ProduceRequest, records []byte) ([]byte, int16, error) {
	refuse := func(code int16, format string, args ...any) ([]byte, int16, error) {
		return nil, code, api.Errorf(api.CodeInvalidRecord, format, args...)
	}
	switch {
	case req.Version < 3:
		return refuse(errUnsupportedVersion, "the message formats of Produce version %d are not served: version 3 is the first", req.Version)
	case req.TransactionID != nil:
		return refuse(errInvalidRequest, "transactions are not supported")
	case req.Acks < -1 || req.Acks > 1:
		return refuse(errInvalidRequiredAcks, "acks=%d: it must be 0, 1 or all (-1)", req.Acks)
	case len(records) == 0:
		return refuse(errInvalidRecord, "there are no records")
	case len(records) > s.opts.MaxMessageBytes:
		return refuse(errMessageTooLarge, "a batch of %d bytes; at most %d are taken", len(records), s.opts.MaxMessageBytes)
	case len(records) > magicAt && records[magicAt] < 2:
		return refuse(errInvalidRecord, "message format %d is not supported: 2 is the only one", records[magicAt])
	}
	batch, rest, err := record.Next(records)
	if err == nil && len(rest) > 0 {
		return refuse(errInvalidRecord, "a partition's records must be exactly one batch")
	}
	if err != nil {
		return nil, recordCode(err), err
	}
	return batch, errNone, nil
}

// magicAt is where both the old formats and a record batch have their version.
const magicAt = 16

func (p *produced) refuse(part *kmsg.ProduceResponseTopicPartition, code int16, err error) {
	part.ErrorCode, part.ErrorMessage = code, messageOf(err)
	p.failed.Store(true)
}

// appended is called once per partition, each on its own goroutine.
func (p *produced) appended(part *kmsg.ProduceResponseTopicPartition, res api.AppendResult, err error) {
	if err != nil {
		hint := p.hints.of(err)
		part.CurrentLeader.LeaderID, part.CurrentLeader.LeaderEpoch = hint.id, hint.epoch
		p.refuse(part, codeOf(err, data), err)
	} else {
		part.BaseOffset, part.LogAppendTime, part.LogStartOffset = int64(res.BaseOffset), res.LogAppendTime, int64(res.LogStart)
	}
	p.done()
}

func (p *produced) done() {
	if p.left.Add(-1) > 0 {
		return
	}
	p.cancel()
	if p.acks == 0 {
		p.finish(nil, p.failed.Load())
		return
	}
	for _, b := range p.hints.brokers {
		e := kmsg.NewProduceResponseBroker()
		e.NodeID, e.Host, e.Port, e.Rack = b.id, b.host, b.port, b.rack
		p.resp.Brokers = append(p.resp.Brokers, e)
	}
	p.finish(p.resp, false)
}
