package raftlog

import (
	"errors"
	"fmt"
)

// Close syncs, waits for what runs in the background, and records that the log was closed in order, so that the next Open need not scan. Reads that are under
// way finish. A poisoned log is closed without that record. Close again returns nil.
func (l *Log) Close() error {
	l.adm.Lock()
	defer l.adm.Unlock()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.closed.Load() {
		return nil
	}
	l.background.Wait()
	var err error
	if l.failure.Load() == nil {
		err = l.markClean()
	}
	l.closed.Store(true)
	l.files.close()
	return errors.Join(err, l.lock.Close())
}

// markClean makes everything durable and then writes the file "clean", last: it vouches for the rest.
func (l *Log) markClean() error {
	if l.clean {
		return nil // nothing has changed since it was written
	}
	rec := cleanRecord{last: l.last, lastTerm: l.lastTerm, nextOffset: l.next}
	if seg := l.active(); seg != nil {
		if err := l.finish(seg); err != nil {
			return fmt.Errorf("close log: %w", err)
		}
		rec.segment, rec.end = seg.header.first, uint32(seg.end)
	}
	if err := writeFile(l.fs, l.path(cleanName), rec.encode()); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// finish syncs the active segment, without preallocated space, and writes its index.
func (l *Log) finish(seg *segment) error {
	h := l.files.get(seg)
	if h == nil {
		return ErrClosed
	}
	defer l.files.release(h)
	if err := h.file.Truncate(seg.end); err != nil {
		return err
	}
	if err := h.file.Sync(); err != nil {
		return l.poison(fmt.Errorf("fsync of %s: %w", seg.path, err))
	}
	if err := writeFile(l.fs, seg.idxPath, seg.record(false).encode(seg.points)); err != nil {
		l.logger.Warn("cannot write an index; the next start will scan", "file", seg.idxPath, "error", err)
	}
	return nil
}

// Destroy closes the log and removes its directory with everything in it.
func (l *Log) Destroy() error {
	gone := fmt.Errorf("%s: %w: it is being destroyed", l.dir, ErrClosed)
	l.failure.CompareAndSwap(nil, &gone) // no failure to report, but nothing to record either
	err := l.Close()
	return errors.Join(err, l.fs.RemoveAll(l.dir))
}
