package raftlog

import (
	"context"
	"errors"
	"io/fs"
	"slices"
)

// scrubStep is after how many bytes Scrub calls pace.
const scrubStep = 256 << 10

// Scrub reads every file that the log cannot do without, from its path and not through a handle that is open, and checks each byte: the record of where the
// log begins, the checkpoints, and all segments, the newest one too, up to its last stored frame. So damage, and files that were deleted or cut short under
// the running log, are found while there are other replicas to repair them from, and not when they are needed. pace is called with the number of bytes
// read since it was called before; it may wait to bound the rate, and its error ends the scrub. Damage poisons the log as in any other read, and is
// returned as a *DamageError. An index file is a copy of what its segment says: a bad one is written anew.
//
// Segments are read without a lock; those that retention or raft removes meanwhile are left out. What the operating system has cached is taken from
// there, so that damage below the cache shows in a later scrub.
func (l *Log) Scrub(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	if err := l.scrubHeads(ctx, pace); err != nil {
		return err
	}
	l.mu.RLock()
	segs := slices.Clone(l.segs)
	l.mu.RUnlock()
	for _, seg := range segs {
		err := l.retryMoved(func() error { return l.scrubSegment(ctx, seg, pace) })
		if err != nil {
			return l.readFailed(err)
		}
		if err := l.scrubIndex(seg); err != nil {
			return err
		}
	}
	return nil
}

// scrubHeads checks the start record and the checkpoints, each under the lock that keeps it from being replaced meanwhile.
func (l *Log) scrubHeads(ctx context.Context, pace func(context.Context, int) error) error {
	if err := l.scrubStart(); err != nil {
		return err
	}
	var done Index
	for {
		n, next, err := l.scrubCheckpointAfter(done)
		if err != nil || n == 0 {
			return err
		}
		if err := pace(ctx, n); err != nil {
			return err
		}
		done = next
	}
}

func (l *Log) scrubStart() error {
	l.adm.Lock()
	defer l.adm.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	path := l.path(startName)
	b, err := readFile(l.fs, path, startSize)
	if err == nil {
		var got startRecord
		if got, err = decodeStart(b); err == nil && got != l.start {
			err = errors.New("it is not the record that was there before")
		}
		if err == nil {
			return nil
		}
		err = &DamageError{File: path, Reason: err.Error()}
	}
	return l.readFailed(missingIsDamage(path, err))
}

// missingIsDamage is for files that have to be there.
func missingIsDamage(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &DamageError{File: path, Reason: "the file is missing"}
	}
	return err
}

// scrubCheckpointAfter checks the first checkpoint above an index; 0 bytes mean that there is none.
func (l *Log) scrubCheckpointAfter(after Index) (size int, index Index, err error) {
	l.adm.Lock()
	defer l.adm.Unlock()
	if err := l.usable(); err != nil {
		return 0, 0, err
	}
	i := slices.IndexFunc(l.checkpoints, func(c checkpointInfo) bool { return c.index > after })
	if i < 0 {
		return 0, 0, nil
	}
	info := l.checkpoints[i]
	_, b, err := l.readCheckpoint(info)
	if err != nil {
		return 0, 0, l.readFailed(missingIsDamage(l.path(info.file()), err))
	}
	return len(b), info.index, nil
}

func (l *Log) scrubSegment(ctx context.Context, seg *segment, pace func(context.Context, int) error) error {
	end, _, ok := l.storedEnd(seg)
	if !ok {
		return nil
	}
	file, err := l.fs.Open(seg.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, _, ok := l.storedEnd(seg); !ok {
			return nil
		}
		return seg.damage(0, "the file is missing")
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	head, err := readUpTo(file, segmentHeaderSize)
	if err != nil {
		return seg.readError(0, err)
	}
	if h, err := decodeSegmentHeader(head); err != nil || h != seg.header {
		return seg.damage(0, "its header is not what it was: %v", err)
	}
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

// storedEnd is where the stored frames of a segment of the log end; false if it has gone.
func (l *Log) storedEnd(seg *segment) (end int64, sealed, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !slices.Contains(l.segs, seg) {
		return 0, false, false
	}
	return seg.end, seg.sealed, true
}

// scrubIndex compares a sealed segment's index file with what the segment says, which has just been found good, and replaces a bad one. Nobody changes
// the log meanwhile: an index file that calls a segment sealed must not come up after the segment was cut.
func (l *Log) scrubIndex(seg *segment) error {
	l.adm.Lock()
	defer l.adm.Unlock()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	l.background.Wait() // it may be being written for the first time
	end, sealed, ok := l.storedEnd(seg)
	if !ok || !sealed {
		return nil
	}
	l.mu.RLock()
	want := seg.record(true)
	l.mu.RUnlock()
	b, err := readFile(l.fs, seg.idxPath, indexSizeMax(end))
	if err == nil {
		var got indexRecord
		if got, _, err = decodeIndex(b); err == nil {
			got.count, got.pointsCRC = 0, 0
			if got == want {
				return nil
			}
			err = errors.New("it does not describe its segment")
		}
	}
	return l.replaceIndex(seg, want, err)
}

// replaceIndex writes an index anew. That this fails is not the replica's end: it is tried again, here or at the next start.
func (l *Log) replaceIndex(seg *segment, rec indexRecord, cause error) error {
	l.logger.Error("an index file is damaged; it is written anew from its segment", "file", seg.idxPath, "error", cause)
	file, err := l.fs.Open(seg.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	scanned, err := scanSealed(seg, file, rec.end)
	if err != nil {
		return l.readFailed(err)
	}
	if err := writeFile(l.fs, seg.idxPath, rec.encode(scanned.points)); err != nil {
		l.logger.Warn("cannot write an index; the next start will rebuild it", "file", seg.idxPath, "error", err)
		return nil
	}
	l.onRepair(seg.idxPath)
	return nil
}
