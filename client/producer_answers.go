package client

import (
	"errors"
	"slices"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// answer is what became of a request: a response, or an error of the stream.
type answer struct {
	batch    *batch
	attempt  int
	response *pb.ProduceResponse
	err      error
}

// handle deals with one answer. One to an earlier try than the last is of no interest.
func (pp *partitionProducer) handle(a answer) {
	b := a.batch
	if !b.inFlight || a.attempt != b.attempt {
		return
	}
	err := a.err
	if err == nil && a.response.Error != nil {
		err = fromDetail("Produce", a.response.Error, a.response.ErrorMessage, nil)
	}
	switch {
	case err == nil:
		pp.stored(b, a.response.BaseOffset, a.response.LogAppendTimeMs)
	case errors.Is(err, CodeDuplicateSequence):
		pp.stored(b, -1, -1)
	default:
		pp.failed(b, err)
	}
}

func (pp *partitionProducer) stored(b *batch, base, appendTimeMs int64) {
	pp.remove(b)
	if appendTimeMs <= 0 {
		appendTimeMs = -1
	}
	if !pp.draining {
		pp.failures, pp.lastErr, pp.retryAt = 0, nil, time.Time{}
		pp.hunt.over()
	}
	pp.complete(b, base, appendTimeMs, nil)
}

// remove takes a batch out of sent, whether it is in flight or not.
func (pp *partitionProducer) remove(b *batch) {
	if b.inFlight {
		b.inFlight = false
		pp.inFlight--
		pp.p.eager.answered()
	}
	pp.sent = slices.DeleteFunc(pp.sent, func(x *batch) bool { return x == b })
}

// failed deals with a batch in flight that was not, or may not have been, stored.
func (pp *partitionProducer) failed(b *batch, err error) {
	b.inFlight = false
	pp.inFlight--
	pp.p.eager.answered()
	pp.draining = true
	b.gap = errors.Is(err, CodeOutOfOrderSequence)
	b.maybe = b.maybe || outcomeUnknown(err)
	if b.gap && pp.p.cfg.idempotent {
		if pp.lastErr == nil {
			pp.lastErr = err
		}
		return // resolve decides
	}
	pp.lastErr = err
	pp.p.client.cfg.logger.Debug("produce failed", "partition", pp.tp, "attempt", b.attempt, "error", err)
	if produceRetriable(err) {
		pp.p.client.follow(pp.tp, err)
		pp.hunt.lost(time.Now(), pp.p.client.meta)
		return
	}
	pp.remove(b)
	pp.lost = pp.p.cfg.idempotent
	if errors.Is(err, CodeProducerFenced) {
		pp.badID = b.id
	}
	pp.complete(b, -1, -1, unsure(b.maybe, err))
}

// outcomeUnknown tells errors after which a batch may be in the log from refusals.
func outcomeUnknown(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code {
	case CodeUnavailable, CodeInternal, CodeRequestTimedOut, CodeShuttingDown, CodeStorageError:
		return true
	}
	return false
}

// produceRetriable: what a stream failed with is always worth another try, within the delivery timeout.
func produceRetriable(err error) bool {
	var e *Error
	return !errors.As(err, &e) || e.Retriable || e.Code == CodeUnavailable
}

// resolve runs when nothing is in flight after a failure, and decides with what to go on.
//
// A broker takes a batch only if its sequence number follows the last one stored, so none of sent can be in the log unless all before it are.
func (pp *partitionProducer) resolve() {
	if pp.p.cfg.idempotent && len(pp.sent) > 0 {
		pp.resolveSequences(pp.sent[0])
	}
	if len(pp.sent) == 0 {
		return // lost, if set, is dealt with before the next batch
	}
	pp.failures++
	pp.retryAt = time.Time{}
	var e *Error
	hinted := errors.As(pp.lastErr, &e) && e.Leader != nil && e.Code == CodeNotLeader
	if pp.failures > 1 || !hinted {
		pp.retryAt = time.Now().Add(pp.backoff())
	}
}

// resolveSequences looks at the oldest batch that is not acknowledged.
func (pp *partitionProducer) resolveSequences(head *batch) {
	switch {
	case pp.lost && (head.gap || !head.maybe):
		// Its predecessor is not in the log and never will be, or the batch itself was refused for certain: so were all after it.
		pp.resequence()
	case pp.lost:
		// Whether it is in the log depends on its predecessor, which was given up. Asking again under the old number tells.
	case head.gap && !head.maybe:
		// The broker does not know our last batch, though it acknowledged it: our state expired there.
		pp.resequence()
	case head.gap:
		// The same, but the batch itself may have been stored before the state expired. Only giving it up avoids a duplicate.
		pp.giveUpUnsure()
		pp.resequence()
	}
}

// resequence begins a new epoch and takes the sequence numbers of all batches back. Only for batches that are not in the log.
func (pp *partitionProducer) resequence() {
	pp.newEpoch()
	for _, b := range pp.sent {
		b.sequenced, b.gap, b.maybe = false, false, false
	}
}

func (pp *partitionProducer) giveUpUnsure() {
	err := &Error{
		Op: "Produce", Code: CodeOutOfOrderSequence, Message: "the broker no longer knows this producer", Topic: pp.tp.Topic, Partition: pp.tp.Partition,
	}
	for _, b := range slices.Clone(pp.sent) {
		if b.maybe {
			pp.remove(b)
			pp.complete(b, -1, -1, unsure(true, err))
		}
	}
}
