package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// Read returns committed batches from offset on, of at most maxBytes (but the first one whatever its size), without waiting for more: nothing at the high
// watermark. Only a leader that serves answers (ErrNotLeader); one that was deposed and does not know it yet answers with what it has applied,
// which is committed, but perhaps not the newest.
func (r *Replica) Read(offset record.Offset, maxBytes int) (ReadResult, error) {
	if err := r.serves(); err != nil {
		return ReadResult{}, err
	}
	return r.ReadLocal(offset, maxBytes)
}

// ReadLocal is Read from whatever replica this is. A follower lags behind the leader.
func (r *Replica) ReadLocal(offset record.Offset, maxBytes int) (ReadResult, error) {
	if err := r.broken(); err != nil {
		return ReadResult{}, err
	}
	res := ReadResult{Next: offset, LeaderEpoch: int32(r.raft.CurrentTerm())}
	res.LogStart, res.HighWatermark = r.Bounds()
	if offset < res.LogStart || offset > res.HighWatermark {
		return res, r.rangeError(offset)
	}
	if offset == res.HighWatermark {
		return res, nil
	}
	got, err := r.log.ReadBatches(offset, res.HighWatermark, max(maxBytes, 1))
	if err != nil {
		return res, r.readError(offset, err)
	}
	res.Batches, res.Bytes, res.Next, res.Release = got.Batches, got.Bytes, got.Next, got.Release
	return res, nil
}

func (r *Replica) rangeError(offset record.Offset) error {
	start, end := r.Bounds()
	return &RangeError{Name: r.cfg.Name, Offset: offset, LogStart: start, HighWatermark: end}
}

// readError translates the log's errors. A range that has just been trimmed is the usual reason for ErrOutOfRange.
func (r *Replica) readError(offset record.Offset, err error) error {
	if errors.Is(err, raftlog.ErrOutOfRange) {
		return r.rangeError(offset)
	}
	if broken := r.broken(); broken != nil {
		return broken
	}
	return fmt.Errorf("%s: read at offset %d: %w", r.cfg.Name, offset, err)
}

// Bounds returns the log start and the high watermark as this replica knows them.
func (r *Replica) Bounds() (logStart, highWatermark record.Offset) {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	return r.state.logStart, r.state.next
}

// Watch sends on ch once, without blocking, as soon as the high watermark is above from, leadership is lost, or the replica closes; then, or at cancel, it forgets
// ch. Give ch a buffer of one. It may wake its caller for nothing.
func (r *Replica) Watch(from record.Offset, ch chan<- struct{}) (cancel func()) {
	return r.watchers.add(from, ch, func(from record.Offset) bool {
		_, hw := r.Bounds()
		return hw > from || r.serves() != nil
	})
}

// Fetch reads from req.Offset and waits until MinBytes are there, MaxWait has passed, or leadership is lost; what there is at the end of the wait is not
// an error.
func (r *Replica) Fetch(ctx context.Context, req FetchRequest) (ReadResult, error) {
	res, err := r.Read(req.Offset, req.MaxBytes)
	if err != nil || req.MaxWait <= 0 || res.Bytes >= max(req.MinBytes, 1) {
		return res, err
	}
	timer := time.NewTimer(req.MaxWait)
	defer timer.Stop()
	wake := make(chan struct{}, 1)
	for res.Bytes < min(max(req.MinBytes, 1), max(req.MaxBytes, 1)) {
		cancel := r.Watch(res.Next, wake)
		select {
		case <-wake:
		case <-timer.C:
			cancel()
			return res, nil
		case <-ctx.Done():
			cancel()
			return res, fmt.Errorf("%s: fetch at offset %d: %w", r.cfg.Name, req.Offset, ctx.Err())
		}
		cancel()
		more, err := r.Read(res.Next, req.MaxBytes-res.Bytes)
		if err != nil {
			return fetchEnd(res, err)
		}
		if len(res.Batches) > 0 && res.Bytes+more.Bytes > req.MaxBytes {
			return res, nil
		}
		if len(res.Batches) > 0 {
			more.Release = nil // the batches of two reads are left to the garbage collector
		}
		more.Batches, more.Bytes = append(res.Batches, more.Batches...), res.Bytes+more.Bytes
		res = more
	}
	return res, nil
}

// fetchEnd decides what a fetch returns that could not go on: what it has, which is committed, or else the error.
func fetchEnd(res ReadResult, err error) (ReadResult, error) {
	if res.Bytes > 0 {
		return res, nil
	}
	return res, err
}
