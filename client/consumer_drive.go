package client

import (
	"errors"
	"time"
)

// drive is the consumer's goroutine: it gives partitions that are not being fetched to the stream of their leader, after looking up where
// to begin.
func (k *Consumer) drive() {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for k.ctx.Err() == nil {
		changed := k.client.meta.changedChan()
		k.mu.Lock()
		now := time.Now()
		wake := alarm{now: now}
		hunting := false
		for _, fs := range k.parts {
			hunting = k.start(fs, now, &wake) || hunting
		}
		silent := k.leaveSilent(now, &wake)
		k.closeIdle()
		k.mu.Unlock()
		if !hunting && !silent {
			changed = nil
		}
		timer.Reset(wake.in())
		select {
		case <-k.ctx.Done():
		case <-k.wake:
		case <-timer.C:
		case <-changed:
		}
	}
	k.mu.Lock()
	for _, st := range k.streams {
		st.cancel()
	}
	k.mu.Unlock()
}

const (
	// silentAfter is how long a stream may bring nothing before the client looks whether others lead its partitions by now. Most often there is
	// nothing to bring, so it looks ever less often, down to once in silentMax.
	silentAfter = time.Second
	silentMax   = 10 * time.Second
)

// leaveSilent takes partitions off streams that bring nothing and whose broker does not lead them any more: one that is frozen or cut off does not
// say so. It returns true while some stream is silent. mu is held.
func (k *Consumer) leaveSilent(now time.Time, wake *alarm) (silent bool) {
	for addr, st := range k.streams {
		if len(st.attached) == 0 {
			continue
		}
		if st.heard.IsZero() {
			st.heard, st.patience = now, silentAfter
		}
		if due := st.heard.Add(silentAfter); now.Before(due) {
			wake.set(due)
			continue
		}
		silent = true
		for _, fs := range st.attached {
			if leader, ok := k.client.meta.leader(fs.tp); ok && leader.Address != addr {
				k.detach(fs)
				signal(k.wake) // to attach it elsewhere
			}
		}
		if due := st.asked.Add(st.patience); now.Before(due) {
			wake.set(due)
			continue
		}
		k.client.pool.doubt(addr)
		k.client.meta.requestRefresh()
		st.asked, st.patience = now, min(2*st.patience, silentMax)
		wake.set(now.Add(st.patience))
	}
	return silent
}

// start gets one partition going if it can be, and returns true if it waits for a leader. mu is held.
func (k *Consumer) start(fs *fetchState, now time.Time, wake *alarm) (hunting bool) {
	if fs.paused || fs.stopped || fs.stream != nil || fs.busy {
		return false
	}
	leader, epoch, ok := k.client.meta.leadership(fs.tp)
	if now.Before(fs.retryAt) && !(ok && fs.position != unresolved && fs.hunt.another(leader, epoch)) {
		wake.set(fs.retryAt)
		if fs.hunt.since.IsZero() {
			return false
		}
		fs.hunt.ask(now, k.client.meta, wake)
		return true
	}
	if fs.position == unresolved {
		fs.busy = true
		tp, p, session := fs.tp, fs.start, fs.session
		k.wg.Go(func() { k.lookUp(tp, p, session) })
		return false
	}
	if !ok {
		k.noteUnknown(fs, now)
		fs.hunt.ask(now, k.client.meta, wake)
		return true
	}
	fs.hunt.tries(leader, epoch)
	k.attach(fs, leader.Address)
	return false
}

// noteUnknown tells Poll, now and then, of a topic that is not there.
func (k *Consumer) noteUnknown(fs *fetchState, now time.Time) {
	n, known := k.client.meta.count(fs.tp.Topic)
	if !k.client.meta.unknown(fs.tp.Topic) && !(known && fs.tp.Partition >= n) {
		return
	}
	if fs.reportAt.IsZero() {
		fs.reportAt = now.Add(unknownTopicWait)
	}
	if now.After(fs.reportAt) {
		fs.reportAt = now.Add(unknownReport)
		k.fail(&Error{
			Op: "Fetch", Code: CodeUnknownTopicOrPartition, Message: "there is no such partition", Retriable: true, Topic: fs.tp.Topic, Partition: fs.tp.Partition,
		})
	}
}

// lookUp resolves a partition's start; it runs on a goroutine of its own.
func (k *Consumer) lookUp(tp TopicPartition, p Position, session uint64) {
	if k.lookup.Acquire(k.ctx, 1) != nil {
		return
	}
	offset, err := k.client.position(k.ctx, tp, p)
	k.lookup.Release(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	fs := k.parts[tp]
	if fs == nil || fs.session != session || k.ctx.Err() != nil {
		return
	}
	fs.busy = false
	if err == nil {
		fs.position, fs.fetch, fs.failures = offset, offset, 0
	} else {
		k.failed(fs, err)
	}
	signal(k.wake)
}

// failed decides what an error means for a partition that is not on a stream any more. mu is held.
func (k *Consumer) failed(fs *fetchState, err error) {
	fs.failures++
	fs.retryAt = time.Now().Add(backoffFor(fs.failures-1, k.client.cfg.backoffMin, k.client.cfg.backoffMax))
	switch {
	case errors.Is(err, CodeOffsetOutOfRange) && k.cfg.reset.kind != posUnset:
		k.client.cfg.logger.Warn("offset out of range, starting over", "partition", fs.tp, "offset", fs.fetch, "at", k.cfg.reset)
		k.discard(fs)
		reset, at, failures := k.cfg.reset, fs.retryAt, fs.failures
		k.moveTo(fs, reset)
		if fs.failures = failures; failures > 1 {
			fs.retryAt = at
		}
	case errors.Is(err, CodeNotLeader):
		if k.client.follow(fs.tp, err) && fs.failures == 1 {
			fs.retryAt = time.Time{}
		}
		fs.hunt.lost(time.Now(), k.client.meta)
	case errors.Is(err, CodeUnknownTopicOrPartition):
		k.client.meta.requestRefresh()
		if fs.failures%8 == 0 {
			k.fail(err)
		}
	case IsRetriable(err):
		fs.hunt.lost(time.Now(), k.client.meta)
	default:
		fs.stopped = true
		k.fail(err)
	}
	signal(k.wake)
}
