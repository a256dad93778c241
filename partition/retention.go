package partition

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// proposeTimeout bounds the proposals that the replica makes on its own account.
const proposeTimeout = 10 * time.Second

// scheduleUpkeep arms the timer of the next upkeep. A timer costs an idle replica nothing but a little memory; the jitter spreads the replicas of a broker.
func (r *Replica) scheduleUpkeep() {
	r.timerMu.Lock()
	defer r.timerMu.Unlock()
	if r.closing.Load() {
		return
	}
	d := r.cfg.Timing.Retention
	d += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(d))
	r.timer = time.AfterFunc(d, func() {
		r.upkeep.kick()
		r.scheduleUpkeep()
	})
}

func (r *Replica) stopUpkeep() {
	r.timerMu.Lock()
	defer r.timerMu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// runUpkeep applies the retention settings, if this replica leads, and retries what the keeper could not do.
func (r *Replica) runUpkeep() {
	if r.broken() != nil {
		return
	}
	_, _ = r.clock.believe(r.cfg.Now(), time.Now()) // followers too: they may lead when the clock jumps
	if r.IsLeader() {
		if err := r.retain(r.stopCtx); err != nil && !errors.Is(err, ErrNotLeader) && !r.closing.Load() {
			r.logger.Warn("retention could not be applied; it is tried again", "partition", r.cfg.Name, "error", err)
		}
	}
	r.keeper.work.kick()
}

// retain computes what may go and proposes that, so that all replicas have the same log start.
func (r *Replica) retain(ctx context.Context) error {
	s := r.settings.Load()
	r.rollOld(s)
	start, hw := r.Bounds()
	now, jumped := r.clock.believe(r.cfg.Now(), time.Now())
	if jumped > 0 {
		r.logger.Warn("the clock has jumped ahead: records are not dropped for it until it has stayed there for a day", "partition", r.cfg.Name, "by", jumped)
	}
	cmd := trimCommand{logStart: min(retainedFrom(r.log.Segments(), s, now), hw)}
	if r.cfg.Machine != nil {
		cmd.index = r.machineTrim(s)
	}
	if cmd.logStart <= start && cmd.index <= r.trimIndex() {
		return nil
	}
	cmd.logStart = max(cmd.logStart, start)
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := r.propose(ctx, submission{data: cmd.encode(), upkeep: true})
	return err
}

// retainedFrom returns the offset at which the retained log begins, or 0: the end of the last of the oldest sealed segments that are too old or
// too much, as Kafka decides it.
func retainedFrom(segments []raftlog.SegmentInfo, s *Settings, now time.Time) record.Offset {
	var total int64
	for _, seg := range segments {
		total += seg.Bytes
	}
	var from record.Offset
	for i, seg := range segments {
		if seg.MaxTimestamp > now.UnixMilli() && i+1 < len(segments) {
			// Times of the future would keep the segment, and all after it, until then. What counts is when its successor was begun.
			seg.MaxTimestamp = segments[i+1].CreatedAt.UnixMilli()
		}
		tooMuch := s.RetentionBytes >= 0 && total-seg.Bytes >= s.RetentionBytes
		if !seg.Sealed || (!tooMuch && !expired(seg, s, now)) {
			break
		}
		total -= seg.Bytes
		from = seg.NextOffset
	}
	return from
}

// expired tells whether all records of a segment are older than retention.ms. A segment without any goes with those before it once it is as old itself.
func expired(seg raftlog.SegmentInfo, s *Settings, now time.Time) bool {
	if s.RetentionAge < 0 {
		return false
	}
	limit := now.Add(-s.RetentionAge)
	if seg.NextOffset == seg.BaseOffset || seg.MaxTimestamp < 0 {
		return seg.CreatedAt.Before(limit)
	}
	return seg.MaxTimestamp < limit.UnixMilli()
}

// rollOld seals the active segment if it has records and is older than segment.ms, or all its records have expired: an idle partition has no append that would do it. A
// machine group's is sealed when it is large enough to be trimmed.
func (r *Replica) rollOld(s *Settings) {
	segments := r.log.Segments()
	if len(segments) == 0 {
		return
	}
	active, now := segments[len(segments)-1], r.cfg.Now()
	if active.Sealed {
		return
	}
	hasRecords := active.NextOffset > active.BaseOffset
	aged := s.SegmentAge > 0 && now.Sub(active.CreatedAt) > s.SegmentAge
	large := r.cfg.Machine != nil && s.MachineTrimBytes >= 0 && active.Bytes > s.MachineTrimBytes
	if (hasRecords && (aged || expired(active, s, now))) || large {
		r.roll()
	}
}

func (r *Replica) roll() {
	if err := r.log.Roll(); err != nil {
		r.logger.Warn("could not seal a segment; it is tried again", "partition", r.cfg.Name, "error", err)
	}
}

// machineTrim returns the index up to which a machine group's log may go, or 0: everything that a durable checkpoint covers, once that is
// more than the bound.
func (r *Replica) machineTrim(s *Settings) raftlog.Index {
	if s.MachineTrimBytes < 0 {
		return 0
	}
	durable := r.keeper.durableIndex()
	var bytes int64
	var upTo raftlog.Index
	for _, seg := range r.log.Segments() {
		if !seg.Sealed || seg.LastIndex > durable {
			break
		}
		bytes += seg.Bytes
		upTo = seg.LastIndex
	}
	if bytes < s.MachineTrimBytes {
		return 0
	}
	return upTo
}

func (r *Replica) trimIndex() raftlog.Index {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	return r.state.trimIndex
}

// removable is what the keeper may remove on this replica.
func (r *Replica) removable() (record.Offset, raftlog.Index) {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	upTo := r.state.applied
	if r.cfg.Machine != nil {
		upTo = min(upTo, r.state.trimIndex)
	}
	return r.state.logStart, upTo
}

// sealHistory seals the active segment if the log start has passed all its records, so that it can go on every replica, and has the state machine checkpointed at its
// end.
func (r *Replica) sealHistory() {
	start, _ := r.Bounds()
	segments := r.log.Segments()
	if n := len(segments); n > 0 {
		active := segments[n-1]
		if !active.Sealed && active.NextOffset > active.BaseOffset && active.NextOffset <= start {
			r.roll()
		}
	}
	if err := r.fsm.saveIdleBoundaries(); err != nil {
		r.logger.Warn("could not checkpoint the end of a segment", "partition", r.cfg.Name, "error", err)
	}
}

// DeleteRecords moves the log start up to before (-1: the high watermark) and returns the new one. What is before it can no longer be read, on any replica; its
// segments are removed in the background.
func (r *Replica) DeleteRecords(ctx context.Context, before record.Offset) (record.Offset, error) {
	if err := r.serves(); err != nil {
		return -1, err
	}
	start, hw := r.Bounds()
	if before == -1 {
		before = hw
	}
	switch {
	case before < 0 || before > hw:
		return -1, r.rangeError(before)
	case before <= start:
		return start, nil
	}
	if _, err := r.propose(ctx, submission{data: trimCommand{logStart: before}.encode(), upkeep: true}); err != nil {
		return -1, fmt.Errorf("delete records before %d: %w", before, err)
	}
	start, _ = r.Bounds()
	return start, nil
}
