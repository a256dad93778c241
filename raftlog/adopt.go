package raftlog

import (
	"fmt"
	"math"
	"path/filepath"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// adopt makes the surveyed files the log's own, and completes what was interrupted. Whatever can still turn out to be damage is looked at before the first change.
// Then, in this order: an installation's start record, since the files that it makes obsolete are leftovers only once it is durable; removals; the newest
// segment is cut behind its last frame, and what is not known to be on the disk is written again.
func (l *Log) adopt(s *survey) error {
	for _, w := range s.warnings {
		l.logger.Warn("recovery", "dir", l.dir, "problem", w)
	}
	l.start, l.segs, l.checkpoints, l.clean = s.start, s.segs, s.checkpoints, s.clean != nil
	l.setEnd()
	if err := l.openNewest(s); err != nil {
		return err
	}
	if err := l.verifyNewestCheckpoint(); err != nil {
		return err
	}
	if s.clean == nil {
		// The process may have died between a rename and the sync of the directory: what is seen here must not vanish later.
		if err := syncDir(l.fs, l.dir); err != nil {
			return err
		}
	}
	if s.finishInstall != nil {
		l.logger.Info("completing the installation of a checkpoint", "dir", l.dir, "index", s.start.index)
		if err := writeFile(l.fs, l.path(startName), s.start.encode()); err != nil {
			return err
		}
	}
	for _, name := range s.leftovers {
		l.logger.Info("removing what an interrupted operation left", "file", l.path(name))
		if err := removeIfThere(l.fs, l.path(name)); err != nil {
			return err
		}
	}
	for _, seg := range s.segs {
		if seg.sealed && seg.points != nil {
			l.writeMissingIndex(seg)
		}
	}
	if err := l.settle(s); err != nil {
		return err
	}
	return l.finishCut(s)
}

// finishCut removes the record of a truncation, now that it is complete: first that has to be durable, then the removal, before anything else is stored.
func (l *Log) finishCut(s *survey) error {
	if _, ok := s.sizes[cutName]; !ok {
		return nil
	}
	if err := syncDir(l.fs, l.dir); err != nil {
		return err
	}
	if s.cut != nil {
		l.logger.Info("completed an interrupted removal of entries", "dir", l.dir, "last index", s.cut.last)
		if err := removeIfThere(l.fs, s.newest().idxPath); err != nil {
			return err
		}
		if err := syncDir(l.fs, l.dir); err != nil {
			return err
		}
	}
	if err := l.fs.Remove(l.path(cutName)); err != nil {
		return err
	}
	return syncDir(l.fs, l.dir)
}

// openNewest opens the newest segment for appending, without changing it, and brings its index into memory.
func (l *Log) openNewest(s *survey) error {
	seg := s.newest()
	if seg == nil {
		return nil
	}
	file, err := l.fs.OpenFile(seg.path)
	if err != nil {
		return err
	}
	if !s.scanned {
		if seg.points, err = l.activePoints(seg, file); err != nil {
			file.Close()
			return err
		}
	}
	h, err := l.files.put(seg, file, nil, true)
	if err != nil {
		return err
	}
	l.files.release(h) // the cache has it
	l.alloc = s.sizes[filepath.Base(seg.path)]
	return nil
}

// activePoints reads the index that a clean close wrote for the newest segment. If it is bad, a scan up to the end that the close recorded replaces it.
func (l *Log) activePoints(seg *segment, file vfs.File) (sparse, error) {
	b, err := readFile(l.fs, seg.idxPath, indexSizeMax(seg.end))
	if err == nil {
		var points sparse
		if _, points, err = decodeIndex(b); err == nil {
			return points, nil
		}
	}
	l.logger.Warn("index file is unusable; scanning its segment instead", "file", seg.idxPath, "error", err)
	scanned, err := scanSealed(seg, file, seg.end)
	if err != nil {
		return nil, err
	}
	return scanned.points, nil
}

// verifyNewestCheckpoint reads the checkpoint that the state machine is to start from, and compares it with the log.
func (l *Log) verifyNewestCheckpoint() error {
	n := len(l.checkpoints)
	if n == 0 {
		return nil
	}
	info := l.checkpoints[n-1]
	path := l.path(info.file())
	b, err := readFile(l.fs, path, MaxCheckpointBytes)
	if err != nil {
		return err
	}
	if _, _, err := decodeCheckpoint(b); err != nil {
		return &DamageError{File: path, Reason: err.Error()}
	}
	term, next, err := l.stateAt(info.index)
	if err != nil {
		return err
	}
	if term != info.term || next != info.nextOffset {
		return &DamageError{File: path, Offset: 16, Reason: fmt.Sprintf("it says term %d and next offset %d, and the log says %d and %d at index %d",
			info.term, info.nextOffset, term, next, info.index)}
	}
	return nil
}

// writeMissingIndex writes the index file of a sealed segment that recovery had to scan.
func (l *Log) writeMissingIndex(seg *segment) {
	if err := writeFile(l.fs, seg.idxPath, seg.record(true).encode(seg.points)); err != nil {
		l.logger.Warn("cannot write an index; the next start will rebuild it", "file", seg.idxPath, "error", err)
		return
	}
	l.files.drop(seg) // it may have been opened while the points were here
	seg.points = nil
}

// settle makes a scanned newest segment what memory says that it is. Its torn tail is cut off. Frames that no later frame calls durable may be in the page cache
// alone: the process may have died before its fsync, or the fsync may have failed, which marks pages clean that never reached the disk. So they are written
// again before the sync; only then are they stored.
func (l *Log) settle(s *survey) error {
	seg := s.newest()
	if seg == nil {
		return nil
	}
	if s.scanned {
		if t := s.torn; t != nil {
			l.logger.Warn("cutting off what an interrupted write left", "file", seg.path, "position", t.pos, "bytes", t.end-t.pos, "reason", t.reason)
		}
		if s.torn != nil || s.cut != nil {
			if err := l.cutBehind(seg); err != nil {
				return err
			}
		}
		if err := l.rewriteEnd(seg); err != nil {
			return err
		}
	}
	if l.failedGen = seg.gen == math.MaxUint8; !l.failedGen {
		seg.gen++ // frames that a crash may yet have left count as older
	}
	return nil
}

// cutBehind ends the newest segment's file behind its last frame. Zeros that were preallocated there may stay: to change a file's size durably is what an fsync waits for longest.
func (l *Log) cutBehind(seg *segment) error {
	h := l.files.get(seg)
	if h == nil {
		return ErrClosed
	}
	defer l.files.release(h)
	if err := h.file.Truncate(seg.end); err != nil {
		return err
	}
	l.alloc = seg.end
	if err := h.file.Sync(); err != nil {
		return fmt.Errorf("fsync of %s: %w", seg.path, err)
	}
	return nil
}

func (l *Log) rewriteEnd(seg *segment) error {
	h := l.files.get(seg)
	if h == nil {
		return ErrClosed
	}
	defer l.files.release(h)
	buf := make([]byte, scanChunk)
	for pos := seg.synced; pos < seg.end; pos += scanChunk {
		b := buf[:min(scanChunk, seg.end-pos)]
		if _, err := h.file.ReadAt(b, pos); err != nil {
			return seg.readError(pos, err)
		}
		if _, err := h.file.WriteAt(b, pos); err != nil {
			return err
		}
	}
	if err := h.file.Datasync(); err != nil {
		return fmt.Errorf("fsync of %s: %w", seg.path, err)
	}
	seg.synced = seg.end
	return nil
}
