package client

import (
	"context"
	"time"
)

const (
	// eagerRetries is how often another leader of the same epoch, which a broker may name by mistake, is tried without waiting for the end of the backoff.
	eagerRetries = 3
	// askAgainMax is the longest time between two looks for a leader.
	askAgainMax = time.Second
)

// hunt is the search for a partition's leader after a failure, for a producer, a consumer or a call. An election takes some milliseconds where the leader's broker has died, and
// some seconds where none can be held, while the pauses between tries double: so the metadata are looked up again meanwhile, at first as often as that may be,
// then after a quarter of the time that has passed already, and a leader that was not tried yet is tried at once. The zero value is not hunting.
type hunt struct {
	leader int32 // tried last, and its epoch
	epoch  int32
	moves  int       // how often another leader was tried without a pause since the last success
	since  time.Time // the first failure since then; zero: none
	asked  time.Time // when the metadata were last asked for
}

// tries notes which leader is tried.
func (h *hunt) tries(leader Broker, epoch int32) { h.leader, h.epoch = leader.ID, epoch }

// lost notes a failure, after which the metadata are asked for.
func (h *hunt) lost(now time.Time, m *metaCache) {
	if h.since.IsZero() {
		h.since = now
	}
	h.asked = now
	m.requestRefresh()
}

// over ends the hunt.
func (h *hunt) over() { h.moves, h.since = 0, time.Time{} }

// another tells whether a leader should be tried although the pause after the last failure is not over: it was elected since, or it is another broker than that one. The latter is
// limited, for two brokers may each take the other for the leader.
func (h *hunt) another(leader Broker, epoch int32) bool {
	if epoch > h.epoch {
		return true
	}
	if leader.ID == h.leader || h.moves >= eagerRetries {
		return false
	}
	h.moves++
	return true
}

// ask has the metadata looked up if that is due, and sets the alarm for the next time.
func (h *hunt) ask(now time.Time, m *metaCache, wake *alarm) {
	if h.since.IsZero() {
		h.since = now
	}
	pause := min(max(now.Sub(h.since)/4, refreshPause), askAgainMax)
	if due := h.asked.Add(pause); now.Before(due) {
		wake.set(due)
		return
	}
	h.asked = now
	m.requestRefresh()
	wake.set(now.Add(pause))
}

// pauseFor waits before a retry at a partition's leader, until there is another one at the longest; it fails when ctx ends or the client is closed.
func (c *Client) pauseFor(ctx context.Context, tp TopicPartition, attempt int, h *hunt) error {
	h.lost(time.Now(), c.meta)
	over := time.NewTimer(backoffFor(attempt, c.cfg.backoffMin, c.cfg.backoffMax))
	defer over.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		changed := c.meta.changedChan()
		if leader, epoch, ok := c.meta.leadership(tp); ok && h.another(leader, epoch) {
			return nil
		}
		wake := alarm{now: time.Now()}
		h.ask(wake.now, c.meta, &wake)
		again.Reset(wake.in())
		select {
		case <-over.C:
			return nil
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}
