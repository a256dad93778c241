package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// run is the partition's goroutine. What it keeps true:
//
//   - sent is in order of sequence numbers, and everything in flight is in sent;
//   - after any failure nothing is sent until nothing is in flight; then all of sent goes out again, in order;
//   - a batch that may be in the log never gets another sequence number.
func (pp *partitionProducer) run() {
	defer pp.failRest()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for pp.p.ctx.Err() == nil {
		for _, a := range pp.collect() {
			pp.handle(a)
		}
		next, changed := pp.step(time.Now())
		timer.Reset(next)
		select {
		case <-pp.p.ctx.Done():
		case <-pp.wake:
		case <-timer.C:
		case <-changed:
		}
	}
}

// idle is how long the goroutine sleeps if nothing is due.
const idle = time.Hour

// alarm keeps the earliest of the times it is told.
type alarm struct{ now, at time.Time }

func (a *alarm) set(t time.Time) {
	if !t.IsZero() && (a.at.IsZero() || t.Before(a.at)) {
		a.at = t
	}
}

func (a *alarm) in() time.Duration {
	if a.at.IsZero() {
		return idle
	}
	return max(a.at.Sub(a.now), 0)
}

// step does all that can be done now. It returns when to be called again at the latest, and a channel to watch for a leader, or nil.
func (pp *partitionProducer) step(now time.Time) (time.Duration, <-chan struct{}) {
	wake := alarm{now: now}
	pp.expire(now, &wake)
	moved := pp.suspect(now, &wake)
	if pp.draining && pp.inFlight == 0 {
		pp.resolve()
		pp.draining = false
	}
	if pp.draining {
		return wake.in(), moved
	}
	if !pp.pending(now, &wake) {
		return wake.in(), moved
	}
	changed := pp.p.client.meta.changedChan()
	leader, epoch, ok := pp.p.client.meta.leadership(pp.tp)
	if !ok {
		pp.noLeader(now, &wake)
		return wake.in(), changed
	}
	if now.Before(pp.retryAt) && !pp.hunt.another(leader, epoch) {
		pp.hunt.ask(now, pp.p.client.meta, &wake)
		wake.set(pp.retryAt)
		return wake.in(), changed
	}
	pp.hunt.tries(leader, epoch)
	pp.send(now, leader, &wake)
	return wake.in(), moved
}

// suspectAfter is how long a broker may take over a batch before the client looks whether another leads by now, and suspectAgain how often it looks then: that
// adds to the time in which the brokers find out and elect another, which is about a second.
const (
	suspectAfter = 500 * time.Millisecond
	suspectAgain = 150 * time.Millisecond
)

// suspect deals with a leader that has fallen silent while its connection stands: frozen, or cut off. It asks other brokers who leads; if that is
// another one, what is in flight counts as failed with an unknown outcome, and goes to the new leader. It returns a channel to watch for a new
// leader, or nil. Answers that the old leader still gives are to earlier attempts, and of no interest.
func (pp *partitionProducer) suspect(now time.Time, wake *alarm) <-chan struct{} {
	i := slices.IndexFunc(pp.sent, func(b *batch) bool { return b.inFlight })
	if i < 0 {
		return nil
	}
	if due := pp.sent[i].sentAt.Add(suspectAfter); now.Before(due) {
		wake.set(due)
		return nil
	}
	meta := pp.p.client.meta
	changed := meta.changedChan()
	if leader, ok := meta.leader(pp.tp); ok && leader.ID != pp.sent[i].sentTo {
		err := &Error{
			Op: "Produce", Code: CodeRequestTimedOut, Message: "no answer, and another broker leads by now", Retriable: true,
			Topic: pp.tp.Topic, Partition: pp.tp.Partition,
		}
		for _, b := range slices.Clone(pp.sent) {
			if b.inFlight && b.sentTo != leader.ID {
				pp.failed(b, err)
			}
		}
		return nil
	}
	if due := pp.askedAt.Add(suspectAgain); now.Before(due) {
		wake.set(due)
		return changed
	}
	pp.askedAt = now
	if addr, ok := meta.address(pp.sent[i].sentTo); ok {
		pp.p.client.pool.doubt(addr)
	}
	meta.requestRefresh()
	wake.set(now.Add(suspectAgain))
	return changed
}

// pending tells whether there is anything to send, and sets the alarm for when there will be.
func (pp *partitionProducer) pending(now time.Time, wake *alarm) bool {
	if len(pp.sent) > pp.inFlight {
		return true
	}
	if len(pp.sent) >= pp.p.cfg.maxInFlight || pp.lost && len(pp.sent) > 0 {
		return false // an answer will wake us
	}
	pp.acc.mu.Lock()
	defer pp.acc.mu.Unlock()
	o := pp.acc.open
	switch {
	case len(pp.acc.ready) > 0:
		return true
	case o == nil:
		return false
	case o.urgent || pp.p.waiting.Load() > 0:
		return true
	}
	due := o.created.Add(pp.p.cfg.linger)
	if !now.Before(due) {
		return true // and no alarm: it would ring again and again while a backoff, or the lack of a leader, keeps the batch here
	}
	wake.set(due)
	return pp.p.eager.may(pp, now)
}

func (pp *partitionProducer) noLeader(now time.Time, wake *alarm) {
	pp.hunt.ask(now, pp.p.client.meta, wake)
	if pp.lastErr == nil {
		pp.lastErr = &Error{
			Op: "Produce", Code: CodeLeaderNotAvailable, Message: "no leader is known", Retriable: true, Topic: pp.tp.Topic, Partition: pp.tp.Partition,
		}
	}
}

func (pp *partitionProducer) backoff() time.Duration {
	return backoffFor(pp.failures-1, pp.p.client.cfg.backoffMin, pp.p.client.cfg.backoffMax)
}

// expire gives up requests that take too long, and batches whose delivery timeout is over.
func (pp *partitionProducer) expire(now time.Time, wake *alarm) {
	for _, b := range pp.sent {
		if b.inFlight && !now.Before(b.deadline) {
			pp.noAnswer(b, now)
		} else if b.inFlight {
			wake.set(b.deadline)
		}
	}
	for len(pp.sent) > 0 && !pp.sent[0].inFlight && !now.Before(pp.expiry(pp.sent[0])) {
		b := pp.sent[0]
		pp.sent = slices.Delete(pp.sent, 0, 1)
		pp.lost, pp.draining = pp.lost || b.sequenced, true
		pp.complete(b, -1, -1, unsure(b.maybe, pp.timedOut()))
	}
	if len(pp.sent) > 0 && !pp.sent[0].inFlight {
		wake.set(pp.expiry(pp.sent[0]))
	}
	for {
		b, end := pp.takeExpired(now)
		wake.set(end)
		if b == nil {
			return
		}
		pp.complete(b, -1, -1, pp.timedOut())
	}
}

// noAnswer treats a request without an answer as one of unknown outcome. If the broker had all the time it was given, the connection is
// suspect too.
func (pp *partitionProducer) noAnswer(b *batch, now time.Time) {
	err := &Error{Op: "Produce", Code: CodeRequestTimedOut, Message: "no answer", Retriable: true, Topic: pp.tp.Topic, Partition: pp.tp.Partition}
	if now.Before(pp.expiry(b)) {
		pp.p.streams.cut(b, err)
	}
	pp.failed(b, err)
}

func (pp *partitionProducer) timedOut() error {
	if pp.lastErr != nil {
		return fmt.Errorf("%v: %w after %v: %w", pp.tp, ErrDeliveryTimeout, pp.p.cfg.deliveryTimeout, pp.lastErr)
	}
	return fmt.Errorf("%v: %w after %v", pp.tp, ErrDeliveryTimeout, pp.p.cfg.deliveryTimeout)
}

func unsure(maybe bool, err error) error {
	if maybe {
		return fmt.Errorf("%w: %w", err, ErrOutcomeUnknown)
	}
	return err
}

// send sends again what failed, and then new batches as far as the limit allows.
func (pp *partitionProducer) send(now time.Time, leader Broker, wake *alarm) {
	for _, b := range pp.sent {
		if b.inFlight {
			continue
		}
		if !pp.dispatch(b, now, leader, wake) {
			return
		}
	}
	for len(pp.sent) < pp.p.cfg.maxInFlight && !(pp.lost && len(pp.sent) > 0) {
		if pp.lost {
			pp.newEpoch()
		}
		b, due := pp.take(now)
		wake.set(due)
		if b == nil {
			return
		}
		pp.sent = append(pp.sent, b)
		if !pp.dispatch(b, now, leader, wake) {
			return
		}
	}
}

// dispatch sends one batch; after a failure to do so nothing else may be sent.
func (pp *partitionProducer) dispatch(b *batch, now time.Time, leader Broker, wake *alarm) bool {
	if err := pp.prepare(b); err != nil {
		pp.unprepared(b, err, now, wake)
		return false
	}
	b.attempt++
	b.inFlight, b.gap, b.sentAt, b.sentTo = true, false, now, leader.ID
	b.deadline = now.Add(pp.p.cfg.produceTimeout * 4 / 3)
	if end := pp.expiry(b); end.Before(b.deadline) {
		b.deadline = end
	}
	pp.inFlight++
	pp.p.eager.sent()
	wake.set(b.deadline)
	wake.set(now.Add(suspectAfter)) // nothing else may wake us: this can be all there is to send
	timeout := min(pp.p.cfg.produceTimeout, max(pp.expiry(b).Sub(now), time.Millisecond))
	r := &request{owner: pp, batch: b, attempt: b.attempt, message: &pb.ProduceRequest{
		Topic: pp.tp.Topic, Partition: pp.tp.Partition, TimeoutMs: int32(timeout.Milliseconds()), Payload: &pb.ProduceRequest_Batch{Batch: b.data},
	}}
	if b.lent != nil {
		b.lent.Ref()
		r.lent = b.lent
	}
	pp.p.streams.send(leader.Address, r)
	return true
}

// unprepared: encoding failed, which another try will not change, or there is no producer ID yet.
func (pp *partitionProducer) unprepared(b *batch, err error, now time.Time, wake *alarm) {
	pp.lastErr = err
	if errors.Is(err, record.ErrUnsupportedCompression) || errors.Is(err, record.ErrInvalid) {
		pp.sent = slices.DeleteFunc(pp.sent, func(x *batch) bool { return x == b })
		pp.complete(b, -1, -1, err)
		wake.set(now)
		return
	}
	pp.failures++
	pp.retryAt = now.Add(pp.backoff())
	wake.set(pp.retryAt)
}

// prepare encodes a batch when it is first sent, and gives it a sequence number unless it has one that it must keep.
func (pp *partitionProducer) prepare(b *batch) error {
	if pp.p.cfg.idempotent && !b.sequenced {
		if err := pp.ensureID(b); err != nil {
			return err
		}
	}
	if b.data == nil {
		if err := pp.build(b); err != nil {
			return err
		}
	} else if pp.p.cfg.idempotent && !b.sequenced {
		b.data = slices.Clone(b.data) // a cut stream may still be reading the old one
		b.giveBack()
	}
	if pp.p.cfg.idempotent && !b.sequenced {
		b.sequenced, b.id, b.epoch, b.sequence = true, pp.id, pp.epoch, pp.next
		record.SetProducer(b.data, b.id, b.epoch, b.sequence)
		pp.next = record.AddSequence(pp.next, b.count())
	}
	return nil
}

// build encodes a batch. A full one keeps the builder's memory, which comes back when nobody reads it any more; a small one would hold much of it for little.
func (pp *partitionProducer) build(b *batch) (err error) {
	size, have, full := b.builder.Size(), b.builder.Cap(), pp.p.cfg.batchBytes
	if pp.p.cfg.compression == record.None && size >= full/2 && have >= full && have <= 2*full {
		if b.data, err = b.builder.Take(); err != nil {
			return err
		}
		b.lent = pp.p.batches.lend(b.data)
	} else {
		if b.data, err = b.builder.Build(); err != nil {
			return err
		}
		b.builder.Reset()
	}
	pp.p.pool.Put(b.builder)
	b.builder = nil
	return nil
}

// ensureID gets a producer ID for the partition; it may ask a broker for it, until the batch expires at the latest.
func (pp *partitionProducer) ensureID(b *batch) error {
	if pp.id != 0 {
		return nil
	}
	ctx, cancel := context.WithDeadline(pp.p.ctx, pp.expiry(b))
	defer cancel()
	id, err := pp.p.ids.get(ctx, pp.p.client, pp.badID)
	if err != nil {
		return err
	}
	pp.id, pp.epoch, pp.next = id, 0, 0
	return nil
}

// newEpoch begins a new life with sequence 0 (KIP-360): the next epoch of the ID, which also fences batches of this one that are still on
// their way somewhere; after the last epoch, a new ID.
func (pp *partitionProducer) newEpoch() {
	pp.lost, pp.next = false, 0
	if pp.epoch < math.MaxInt16 && pp.id != pp.badID {
		pp.epoch++
		return
	}
	pp.badID, pp.id = pp.id, 0
}

// initProducer asks any broker for a producer ID.
func (c *Client) initProducer(ctx context.Context) (int64, error) {
	var id int64
	err := c.callAny(ctx, "InitProducer", func(ctx context.Context, cn *conn) error {
		r, err := cn.log.InitProducer(ctx, &pb.InitProducerRequest{})
		id = r.GetProducerId()
		if err == nil && id <= 0 {
			return &Error{Op: "InitProducer", Code: CodeInternal, Message: errBadProducerID.Error(), Partition: -1}
		}
		return err
	})
	return id, err
}
