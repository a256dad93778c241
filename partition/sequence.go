package partition

import (
	"fmt"

	"github.com/flotilla-log/flotilla/proto/record"
)

// producerView is what the sequencer knows of a producer when a batch arrives: the batch it wrote last, applied or in flight.
type producerView struct {
	known bool
	epoch int16
	next  int32 // the sequence number that follows
}

// checkSequence decides whether a batch continues its producer's sequence (KIP-98), given that it is none of the remembered batches.
//
// Unlike Kafka, a producer that is not known must begin at 0: with several batches in flight, the second could otherwise be accepted
// where the first was lost, and the first could never follow. A producer that was forgotten (7 days of silence) has to take a new ID.
func checkSequence(v producerView, h record.Header) error {
	switch {
	case !v.known && h.BaseSequence != 0:
		return fmt.Errorf("producer %d is not known here, so its sequence begins at 0: %w: got %d", h.ProducerID, ErrOutOfOrderSequence, h.BaseSequence)
	case !v.known:
		return nil
	case h.ProducerEpoch < v.epoch:
		return fmt.Errorf("producer %d: %w: epoch %d, and %d has written", h.ProducerID, ErrProducerFenced, h.ProducerEpoch, v.epoch)
	case h.ProducerEpoch > v.epoch && h.BaseSequence != 0:
		return fmt.Errorf("producer %d: epoch %d is new, so its sequence begins at 0: %w: got %d", h.ProducerID, h.ProducerEpoch, ErrOutOfOrderSequence, h.BaseSequence)
	case h.ProducerEpoch > v.epoch, h.BaseSequence == v.next:
		return nil
	case isOld(h, v.next):
		return fmt.Errorf("producer %d: %w: %d to %d was stored long ago", h.ProducerID, ErrDuplicateSequence, h.BaseSequence, h.LastSequence())
	}
	return fmt.Errorf("producer %d: %w: expected %d, got %d", h.ProducerID, ErrOutOfOrderSequence, v.next, h.BaseSequence)
}

// isOld says whether all of the batch lies before next. Sequence numbers wrap: what is up to half of the space behind counts as before.
func isOld(h record.Header, next int32) bool {
	behind := sequenceDistance(h.BaseSequence, next)
	return behind > 0 && behind < sequenceHalf && h.Count <= behind
}

// sequenceDistance is how many steps lead from a to b, modulo 2^31.
func sequenceDistance(a, b int32) int32 { return (b - a) & 0x7FFFFFFF }
