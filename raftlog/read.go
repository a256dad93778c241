package raftlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sort"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// readRetriesMax bounds how often a read starts anew because entries went away under it.
const readRetriesMax = 8

// errMoved means that the segment a read found is gone or was shortened meanwhile.
var errMoved = errors.New("the log changed during the read")

// GetLog reads an entry. For FirstIndex-1 it answers a no-op with that entry's term, which raft needs to know at the log's beginning. For others that are not
// there it returns raft.ErrLogNotFound, exactly. See FailFast for what happens if one that is there cannot be read.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	return l.getOrEnd(index, out, l.getFromDisk)
}

// getOrEnd is GetLog with another way to read from the disk.
func (l *Log) getOrEnd(index uint64, out *raft.Log, fromDisk func(Index, *raft.Log) error) error {
	err := l.getLog(Index(index), out, fromDisk)
	if err == nil || err == raft.ErrLogNotFound {
		return err
	}
	err = l.readFailed(err)
	if l.failFast.Load() {
		l.logger.Error("ending the goroutine that needs an unreadable entry", "dir", l.dir, "index", index, "error", err)
		if !errors.Is(err, ErrClosed) {
			l.poison(err)
		}
		runtime.Goexit()
	}
	return err
}

func (l *Log) getLog(i Index, out *raft.Log, fromDisk func(Index, *raft.Log) error) error {
	return l.retryMoved(func() error {
		l.mu.RLock()
		e := l.tail.get(i)
		if e != nil {
			*out = e.log
			l.mu.RUnlock()
			return nil
		}
		start, last := l.start, l.last
		l.mu.RUnlock()
		switch {
		case i == start.index && i > 0:
			*out = raft.Log{Index: uint64(i), Term: start.term, Type: raft.LogNoop}
			return nil
		case i <= start.index || i > last:
			return raft.ErrLogNotFound
		}
		return fromDisk(i, out)
	})
}

// PayloadSum is the CRC-32C that the payload of an entry had when it was written, if that is known without reading it: the entry is in the tail cache and large,
// and its payload is this very slice.
func (l *Log) PayloadSum(index uint64, payload []byte) (sum uint32, known bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.tail.get(Index(index))
	if e == nil || e.sum == 0 || len(payload) == 0 || len(e.log.Data) != len(payload) || &e.log.Data[0] != &payload[0] {
		return 0, false
	}
	return e.sum, true
}

// retryMoved repeats a read whose segment went away. What fails although nothing went away is a failure.
func (l *Log) retryMoved(read func() error) error {
	var err error
	for range readRetriesMax {
		l.mu.RLock()
		version := l.version
		l.mu.RUnlock()
		err = read()
		if err == nil || err == raft.ErrLogNotFound || errors.Is(err, ErrOutOfRange) {
			return err
		}
		l.mu.RLock()
		same := version == l.version
		l.mu.RUnlock()
		if same && !errors.Is(err, errMoved) {
			return err
		}
	}
	return err
}

// readFailed poisons the log if the error says that the disk or its content is bad.
func (l *Log) readFailed(err error) error {
	var damage *DamageError
	if errors.As(err, &damage) || errors.Is(err, errUnreadable) {
		l.poison(err)
	}
	return err
}

// errUnreadable is wrapped by I/O errors of reads.
var errUnreadable = errors.New("cannot be read")

// readError names file and position. Bytes that are no valid frame where one was stored are damage.
func (s *segment) readError(pos int64, err error) error {
	var bad *badFrame
	switch {
	case errors.As(err, &bad):
		return s.damage(bad.pos, "%s", bad.reason)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return s.damage(pos, "the file ends here, before its last stored entry")
	case errors.Is(err, fs.ErrClosed):
		return fmt.Errorf("%s: %w", s.path, errMoved)
	}
	return fmt.Errorf("%s at byte %d: %w: %w", s.path, pos, errUnreadable, err)
}

// acquire opens a segment's file, with the index if it is sealed, and returns a reference.
func (l *Log) acquire(seg *segment) (*handle, error) {
	if h := l.files.get(seg); h != nil {
		return h, nil
	}
	if l.closed.Load() {
		return nil, ErrClosed
	}
	file, err := l.fs.Open(seg.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, seg.damage(0, "the file is missing")
	}
	if err != nil {
		return nil, err // too many open files, for example: nothing is wrong with this one
	}
	points, err := l.loadPoints(seg, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return l.files.put(seg, file, points, false)
}

// loadPoints reads a sealed segment's index file. If it is bad, a scan of the segment replaces it, in memory: a reader changes no file, since the segment may be
// cut or go meanwhile, and an index that says "sealed" would then look like the trace of a lost segment.
func (l *Log) loadPoints(seg *segment, file io.ReaderAt) (sparse, error) {
	l.mu.RLock()
	want, points, version, sealed := seg.record(true), seg.points, l.version, seg.sealed
	l.mu.RUnlock()
	switch {
	case !sealed:
		return nil, nil // it grows: readers use those of the segment
	case points != nil:
		return points, nil
	}
	b, err := readFile(l.fs, seg.idxPath, indexSizeMax(want.end))
	if err == nil {
		var rec indexRecord
		rec, points, err = decodeIndex(b)
		rec.count, rec.pointsCRC = 0, 0
		if err == nil && rec == want {
			return points, nil
		}
	}
	l.logger.Warn("index file is unusable; scanning its segment instead", "file", seg.idxPath, "error", err)
	scanned, err := scanSealed(seg, file, want.end)
	if err != nil {
		return nil, err
	}
	l.keepPoints(seg, scanned.points, version)
	return scanned.points, nil
}

// keepPoints spares the next reader the scan, unless entries have gone since.
func (l *Log) keepPoints(seg *segment, points sparse, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version == version && seg.sealed {
		seg.points = points
	}
}

// indexSizeMax is how large the index file of a segment can be.
func indexSizeMax(end int64) int64 { return indexHeaderSize + indexPointSize*(end/indexInterval+2) }

// scanSealed verifies a whole segment up to end and returns a copy of it as the scan found it.
func scanSealed(seg *segment, file io.ReaderAt, end int64) (*segment, error) {
	scanned := *seg
	scanned.restore(newSegment("", seg.header).record(false))
	scanned.points = nil
	sc := seg.scanAll(file, end)
	defer sc.close()
	for sc.pos < end {
		f, err := sc.read()
		if err != nil {
			return nil, seg.readError(sc.pos, err)
		}
		scanned.note(f)
		scanned.gen = f.header.generation
	}
	return &scanned, nil
}

// cursor remembers where a reader stopped: whoever reads on needs no index. It is void once entries have gone: its position may mean another one then.
type cursor struct {
	seg     *segment
	version uint64
	point
}

// cursors are the last few of them.
type cursors struct {
	mu     sync.Mutex
	slots  [8]cursor
	oldest int
}

func (c *cursors) put(p place, at point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots[c.oldest] = cursor{p.seg, p.version, at}
	c.oldest = (c.oldest + 1) % len(c.slots)
}

// take finds a cursor and frees its slot for the one that its reader leaves next.
func (c *cursors) take(p place, match func(point) bool) (point, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.slots {
		if s := c.slots[i]; s.seg == p.seg && s.version == p.version && match(s.point) {
			c.slots[i] = cursor{}
			return s.point, true
		}
	}
	return point{}, false
}

// place is where a read begins.
type place struct {
	seg     *segment
	version uint64 // Log.version then
	from    point
	known   bool  // from is the frame sought, or the first that may be it
	end     int64 // of the segment's stored frames
	upper   int64 // nothing sought lies behind it
}

// getFromDisk reads one entry.
func (l *Log) getFromDisk(i Index, out *raft.Log) error {
	p, h, err := l.placeOfIndex(i)
	if err != nil {
		return err
	}
	defer l.files.release(h)
	chunk := scanChunk
	if p.known {
		chunk = entryChunk
	}
	sc := p.seg.scan(h.file, p.from, p.end, chunk)
	defer sc.close()
	for sc.index < i {
		if _, err := sc.skip(); err != nil {
			return p.seg.readError(sc.pos, err)
		}
	}
	f, err := sc.read()
	if err != nil {
		return p.seg.readError(sc.pos, err)
	}
	raw := f.raw
	if !sc.w.handOver() {
		raw = append([]byte(nil), raw...)
	}
	*out = f.header.entry(raw)
	l.cursors.put(p, point{index: i + 1, offset: unknownOffset, pos: uint32(sc.pos)})
	return nil
}

// unknownOffset is in cursors of reads that do not know offsets.
const unknownOffset = record.Offset(-1)

// placeOfIndex finds the segment that holds an entry, and a position at or before it.
func (l *Log) placeOfIndex(i Index) (place, *handle, error) {
	l.mu.RLock()
	k := sort.Search(len(l.segs), func(n int) bool { return l.segs[n].last >= i })
	if k == len(l.segs) || i < l.segs[k].header.first {
		l.mu.RUnlock()
		return place{}, nil, errMoved
	}
	p := place{seg: l.segs[k], version: l.version, end: l.segs[k].end, upper: l.segs[k].end}
	p.from, p.known = l.cursors.take(p, func(c point) bool { return c.index == i })
	indexed := p.known
	if !p.known && p.seg.points != nil {
		p.from, indexed = p.seg.points.byIndex(i), true
	}
	l.mu.RUnlock()
	h, err := l.acquire(p.seg)
	if err != nil {
		return place{}, nil, err
	}
	if !indexed {
		p.from = h.points.byIndex(i)
	}
	return p, h, nil
}
