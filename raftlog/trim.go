package raftlog

import (
	"errors"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Trim removes sealed segments from the beginning of the log, whole ones only: those whose records are all below logStart and whose entries are all at or
// below upTo, as far as there is a durable checkpoint at the end of the last of them. It may well remove nothing.
//
// The start record, with the entry that the log then begins after, is durable before the first file goes; recovery completes an interrupted
// removal, and takes a file that is missing otherwise for damage. On a full disk what is preallocated makes room for that record. Readers that are in a removed segment finish their read.
func (l *Log) Trim(logStart record.Offset, upTo Index) error {
	l.adm.Lock()
	defer l.adm.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	n, start := l.trimmable(logStart, upTo)
	if n == 0 {
		return nil
	}
	err := l.writeDurable(startName, start.encode())
	if errors.Is(err, ErrNoSpace) && l.giveBack() {
		err = l.writeDurable(startName, start.encode())
	}
	if err != nil {
		return err
	}
	l.logger.Info("removing old segments", "dir", l.dir, "segments", n, "first offset", start.nextOffset, "first index", start.index+1)
	segs, checkpoints := l.trimTo(start, n)
	l.removeOld(segs, checkpoints)
	return nil
}

// giveBack returns to the file system what was preallocated behind the last frame, and says whether that was anything.
func (l *Log) giveBack() bool {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	seg := l.active()
	if seg == nil || l.alloc <= seg.end {
		return false
	}
	h := l.files.get(seg)
	if h == nil {
		return false
	}
	defer l.files.release(h)
	if err := h.file.Truncate(seg.end); err != nil {
		return false
	}
	l.alloc = seg.end
	return true
}

// trimmable counts the segments that may go, and says where the log begins then.
func (l *Log) trimmable(logStart record.Offset, upTo Index) (n int, start startRecord) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i, s := range l.segs {
		if !s.sealed || s.next > logStart || s.last > upTo {
			break
		}
		if l.hasCheckpoint(s.last) {
			n = i + 1
			start = startRecord{epoch: l.start.epoch, index: s.last, term: s.lastTerm, nextOffset: s.next}
		}
	}
	return n, start
}

// trimTo forgets the first n segments, and the checkpoints before the new beginning.
func (l *Log) trimTo(start startRecord, n int) ([]*segment, []checkpointInfo) {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.background.Wait() // no index of a segment that goes is being written
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.segs[:n]
	for _, s := range segs {
		l.files.drop(s)
	}
	l.segs = append([]*segment(nil), l.segs[n:]...)
	l.start = start
	var keep, gone []checkpointInfo
	for _, c := range l.checkpoints {
		if c.index < start.index {
			gone = append(gone, c)
		} else {
			keep = append(keep, c)
		}
	}
	l.checkpoints = keep
	l.tail.dropUpTo(start.index)
	l.version++
	l.setEnd()
	return segs, gone
}
