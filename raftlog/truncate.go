package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sort"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// DeleteRange removes entries; from and to are inclusive, as raft wants it.
//
// A suffix goes (it conflicts with a leader's log), and durably so before DeleteRange returns: no crash brings an entry back once others may be
// stored in its place. A suffix that reaches below a checkpoint is refused, since what a checkpoint covers was committed. A prefix is not removed,
// without an error: retention owns the beginning of the log, see Trim. A range in the middle is refused.
//
// When raft empties the log after it has installed a snapshot, there is nothing left to do: closing the sink has reset the log.
func (l *Log) DeleteRange(from, to uint64) error {
	l.adm.Lock()
	defer l.adm.Unlock()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	first, last := l.start.index+1, l.last
	lo, hi := Index(from), Index(to)
	switch {
	case last < first || lo > hi || hi < first || lo > last:
		return nil
	case hi < last && lo <= first:
		return nil
	case hi < last:
		return fmt.Errorf("%s: %w: entries %d to %d are in the middle of %d to %d", l.dir, ErrInvalid, lo, hi, first, last)
	}
	lo = max(lo, first)
	if n := len(l.checkpoints); n > 0 && lo <= l.checkpoints[n-1].index {
		return fmt.Errorf("%s: %w: entries from %d on cannot go: there is a checkpoint at %d", l.dir, ErrInvalid, lo, l.checkpoints[n-1].index)
	}
	l.logger.Info("removing conflicting entries", "dir", l.dir, "from", lo, "to", last)
	if err := l.truncateAfter(lo - 1); err != nil {
		return err
	}
	l.truncated = true
	return nil
}

// truncateAfter removes the entries above keep, of which there is at least one. The caller holds wmu.
//
// Memory goes first, so that no reader begins to read what is about to go. Then, on disk: the index files that call the shortened segment and those after
// it sealed; the segments after it, newest first; the tail of the segment itself. Each step is durable before the next. A crash in between leaves a log
// that is shortened by less than was asked, and whose newest segment has no index that promises a successor. A failure in between poisons.
func (l *Log) truncateAfter(keep Index) error {
	l.background.Wait() // no index of a segment is being written that would be sealed no more
	if err := l.unmark(); err != nil {
		return err
	}
	k := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].last > keep })
	if k == len(l.segs) {
		return nil
	}
	cut, err := l.findCut(l.segs[k], keep)
	if err != nil {
		return l.readFailed(err)
	}
	gone := l.segs[k+1:]
	l.forgetAfter(k, cut)
	if err := l.removeSegments(l.segs[k], gone); err != nil {
		return l.poison(err)
	}
	if err := l.shorten(l.segs[k]); err != nil {
		return l.poison(err)
	}
	return nil
}

// cut is a segment as it is after its last entries have gone.
type cut struct {
	rec    indexRecord
	points sparse
}

// findCut scans the end of a segment for the entry after keep, and derives what the segment is before it.
func (l *Log) findCut(seg *segment, keep Index) (cut, error) {
	h, err := l.acquire(seg)
	if err != nil {
		return cut{}, err
	}
	defer l.files.release(h)
	l.mu.RLock()
	rec, points := seg.record(false), seg.points
	l.mu.RUnlock()
	if points == nil {
		points = h.points
	}
	if keep < seg.header.first {
		rec.last, rec.lastTerm, rec.nextOffset, rec.maxTS, rec.end = seg.header.first-1, seg.header.prevTerm, seg.header.nextOffset, noTimestamp, segmentHeaderSize
		return cut{rec: rec}, nil
	}
	from := points.byIndex(keep)
	points = append(sparse(nil), points.before(int64(from.pos))...)
	sc := seg.scan(h.file, from, seg.end, scanChunk)
	defer sc.close()
	for sc.index <= keep {
		f, err := sc.read()
		if err != nil {
			return cut{}, seg.readError(sc.pos, err)
		}
		points = points.add(f.pos, f.header.index, f.before, f.ts())
	}
	rec.last, rec.lastTerm, rec.nextOffset, rec.maxTS, rec.end = keep, sc.term, sc.next, points.maxTS(), sc.pos
	return cut{rec: rec, points: points}, nil
}

// forgetAfter makes segment k, shortened, the active one.
func (l *Log) forgetAfter(k int, c cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, seg := range l.segs[k+1:] {
		l.files.drop(seg)
	}
	seg := l.segs[k]
	synced := min(seg.synced, c.rec.end)
	seg.restore(c.rec)
	seg.points, seg.synced = c.points, synced
	if seg.gen < math.MaxUint8 {
		seg.gen++
	} else {
		l.failedGen = true
	}
	l.segs = append([]*segment(nil), l.segs[:k+1]...)
	l.tail.truncate(c.rec.last)
	l.version++
	l.setEnd()
}

// removeSegments removes the files behind the segment that is to be the newest.
func (l *Log) removeSegments(seg *segment, gone []*segment) error {
	for _, s := range append([]*segment{seg}, gone...) {
		if err := removeIfThere(l.fs, s.idxPath); err != nil {
			return err
		}
	}
	if err := syncDir(l.fs, l.dir); err != nil {
		return err
	}
	for i := len(gone) - 1; i >= 0; i-- {
		if err := l.fs.Remove(gone[i].path); err != nil {
			return err
		}
		if err := syncDir(l.fs, l.dir); err != nil {
			return err
		}
	}
	return nil
}

// shorten cuts the file behind the segment's last frame, durably, and keeps it open for the frames to come.
func (l *Log) shorten(seg *segment) error {
	l.files.drop(seg) // it may be open for reading only
	file, err := l.fs.OpenFile(seg.path)
	if err != nil {
		return err
	}
	h, err := l.files.put(seg, file, nil, true)
	if err != nil {
		return err
	}
	defer l.files.release(h)
	if err := h.file.Truncate(seg.end); err != nil {
		return err
	}
	if err := h.file.Sync(); err != nil {
		return fmt.Errorf("fsync of %s: %w", seg.path, err)
	}
	l.mu.Lock()
	seg.synced = seg.end
	l.mu.Unlock()
	l.alloc = seg.end
	return nil
}

func removeIfThere(fsys vfs.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
