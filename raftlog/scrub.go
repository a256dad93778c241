package raftlog

import (
	"context"
	"errors"
	"io/fs"
	"slices"
)

// scrubStep is after how many bytes Scrub calls pace.
const scrubStep = 256 << 10

// Scrub reads the sealed segments from the first byte to the last and checks every frame's CRC, so that damage is found while there are other
// replicas to repair it from, and not when it is read at last. pace is called with the number of bytes read since it was called before; it may
// wait to bound the rate, and its error ends the scrub. Damage poisons the log as in any other read, and is returned as a *DamageError.
//
// It locks nothing while it reads; segments that retention or raft removes meanwhile are left out. The newest segment, which recovery reads whole
// after a crash, is not read. What the operating system has cached is taken from there, so that damage below the cache shows in a later scrub.
func (l *Log) Scrub(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	l.mu.RLock()
	segs := slices.Clone(l.segs)
	l.mu.RUnlock()
	for _, seg := range segs {
		err := l.retryMoved(func() error { return l.scrubSegment(ctx, seg, pace) })
		if err != nil {
			return l.readFailed(err)
		}
	}
	return nil
}

func (l *Log) scrubSegment(ctx context.Context, seg *segment, pace func(context.Context, int) error) error {
	end, ok := l.sealedEnd(seg)
	if !ok {
		return nil
	}
	file, err := l.fs.Open(seg.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, ok := l.sealedEnd(seg); !ok {
			return nil
		}
		return seg.damage(0, "the file is missing")
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	sc := seg.scanAll(file, end)
	defer sc.close()
	for paced := sc.pos; sc.pos < end; {
		if _, err := sc.read(); err != nil {
			return seg.readError(sc.pos, err)
		}
		if sc.pos-paced < scrubStep && sc.pos < end {
			continue
		}
		if l.closed.Load() {
			return ErrClosed
		}
		if err := pace(ctx, int(sc.pos-paced)); err != nil {
			return err
		}
		paced = sc.pos
	}
	return nil
}

// sealedEnd is where a segment of the log ends; false if it has gone or is not sealed.
func (l *Log) sealedEnd(seg *segment) (int64, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !seg.sealed || !slices.Contains(l.segs, seg) {
		return 0, false
	}
	return seg.record(true).end, true
}
