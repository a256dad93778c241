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
// stored in its place. A suffix that reaches below a checkpoint is refused, since what a checkpoint covers was committed: the error wraps ErrInvalid and a
// *DamageError with the checkpoint's file. A prefix is not removed, without an error: retention owns the beginning of the log, see Trim. A range in the
// middle is refused.
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
		return fmt.Errorf("%w: entries from %d on cannot go: %w", ErrInvalid, lo, &DamageError{
			File: l.path(l.checkpoints[n-1].file()), Offset: 16, Reason: "it covers entries that were committed, and that the others have lost",
		})
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
// Memory goes first, so that no reader begins to read what is about to go. On disk the cut record comes first: from then on recovery completes the rest.
// The files of later segments and the index files that call a segment sealed are removed; the segment itself is shortened; and when all that is durable, the
// record goes, durably too. So a crash leaves either all of the old entries or none, and nothing stored afterwards can be mistaken for something to cut.
//
// On a full disk the record may be impossible. Then the truncation, which makes space, is done without it, and only a crash in its midst may look like damage.
// A failure poisons.
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
	if err := l.syncSegment(l.active()); err != nil { // what stays has to be there when recovery reads the record: under DurabilityOS it may not be yet
		return err
	}
	rec := cutRecord{epoch: l.start.epoch, segment: l.segs[k].header.first, last: keep, end: uint32(cut.rec.end)}
	err = l.writeDurable(cutName, rec.encode())
	recorded := err == nil
	if err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	seg, gone := l.segs[k], l.segs[k+1:]
	l.forgetAfter(k, cut)
	if err := l.cutFiles(seg, gone, recorded); err != nil {
		return l.poison(err)
	}
	return nil
}

// cutFiles makes the disk what memory is after a truncation.
func (l *Log) cutFiles(seg *segment, gone []*segment, recorded bool) error {
	for i := len(gone) - 1; i >= 0; i-- {
		if err := l.fs.Remove(gone[i].path); err != nil {
			return err
		}
		if err := removeIfThere(l.fs, gone[i].idxPath); err != nil {
			return err
		}
	}
	if err := removeIfThere(l.fs, seg.idxPath); err != nil {
		return err
	}
	if err := syncDir(l.fs, l.dir); err != nil {
		return err
	}
	if err := l.shorten(seg); err != nil {
		return err
	}
	if !recorded {
		return nil
	}
	if err := l.fs.Remove(l.path(cutName)); err != nil {
		return err
	}
	return syncDir(l.fs, l.dir)
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
