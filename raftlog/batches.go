package raftlog

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/flotilla-log/flotilla/proto/record"
)

// ReadBatches returns accepted batches with offsets in [from, limit), the first being the one that holds from: at least one if there is one, and
// further ones while all of them together have at most maxBytes. A batch that reaches to limit or beyond is not returned, so limit is best the
// high watermark. It never waits. The error wraps ErrOutOfRange if from is before FirstOffset or after NextOffset; damage is a *DamageError.
//
// The batches of one call are slices of one buffer, or are shared with the tail cache: keep them only as long as they are needed. See ReadResult.Release.
func (l *Log) ReadBatches(from, limit record.Offset, maxBytes int) (res ReadResult, err error) {
	err = l.retryMoved(func() error {
		done := false
		if res, done, err = l.readTail(from, limit, maxBytes); done {
			return err
		}
		res, err = l.readDisk(from, limit, maxBytes)
		return err
	})
	if err != nil {
		return ReadResult{Next: from}, l.readFailed(err)
	}
	return res, nil
}

// readTail answers from memory if it can.
func (l *Log) readTail(from, limit record.Offset, maxBytes int) (ReadResult, bool, error) {
	if l.closed.Load() {
		return ReadResult{}, true, ErrClosed
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case from < l.start.nextOffset || from > l.next:
		return ReadResult{}, true, fmt.Errorf("%s: %w: %d is not in %d to %d", l.dir, ErrOutOfRange, from, l.start.nextOffset, l.next)
	case from == l.next || from >= limit:
		return ReadResult{Next: from}, true, nil
	case l.tail.covers(from):
		return l.tail.read(from, limit, maxBytes), true, nil
	}
	return ReadResult{}, false, nil
}

// readDisk reads from the one segment that holds from.
func (l *Log) readDisk(from, limit record.Offset, maxBytes int) (ReadResult, error) {
	p, h, err := l.placeOfOffset(from, limit)
	if err != nil {
		return ReadResult{}, err
	}
	defer l.files.release(h)
	r := batchReader{p: p, file: h.file, at: p.from, from: from, limit: limit, maxBytes: maxBytes, res: ReadResult{Next: from}}
	if err := r.run(); err != nil {
		r.buf.release()
		return ReadResult{}, p.seg.readError(int64(r.at.pos), err)
	}
	l.cursors.put(p, r.at)
	if buf := r.buf; len(r.res.Batches) == 0 {
		buf.release()
	} else if buf.pooled != nil {
		r.res.Release = buf.release
	}
	return r.res, nil
}

// placeOfOffset finds the segment whose batches hold an offset that is in the log, and a position at or before that batch.
func (l *Log) placeOfOffset(from, limit record.Offset) (place, *handle, error) {
	l.mu.RLock()
	k := sort.Search(len(l.segs), func(n int) bool { return l.segs[n].next > from })
	if k == len(l.segs) || from < l.segs[k].header.nextOffset { // trimmed since readTail looked
		l.mu.RUnlock()
		return place{}, nil, errMoved
	}
	p := place{seg: l.segs[k], version: l.version, end: l.segs[k].end}
	points := p.seg.points
	indexed := points != nil
	if indexed {
		p.from, p.upper = points.byOffset(from), points.upper(limit, p.end)
	}
	l.mu.RUnlock()
	h, err := l.acquire(p.seg)
	if err != nil {
		return place{}, nil, err
	}
	if !indexed {
		p.from, p.upper = h.points.byOffset(from), h.points.upper(limit, p.end)
	}
	c, ok := l.cursors.take(p, func(c point) bool { return c.offset == from })
	if ok && int64(c.pos) < p.upper {
		p.from, p.known = c, true
	}
	return p, h, nil
}

// batchReader collects batches out of few large reads.
type batchReader struct {
	p           place
	file        io.ReaderAt
	at          point // the next frame
	from, limit record.Offset
	maxBytes    int
	res         ReadResult
	buf         readBuffer // of the last chunk, in which all of res's batches are
}

// errFull ends a reader's run.
var errFull = errors.New("enough")

func (r *batchReader) run() error {
	slack := int64(indexInterval)
	if r.p.known {
		slack = entryChunk
	}
	want := min(int64(max(r.maxBytes, 0)), maxReadBytes) + slack
	for int64(r.at.pos) < r.p.upper {
		need, err := r.chunk(want)
		if errors.Is(err, errFull) || len(r.res.Batches) > 0 {
			return ioOK(err)
		}
		if err != nil {
			return err
		}
		want = max(want, need)
	}
	return nil
}

// maxReadBytes bounds the buffer of one read; a single batch may still be larger.
const maxReadBytes = 64 << 20

func ioOK(err error) error {
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// chunk reads up to want bytes and takes the frames that are whole in them. It returns how many bytes the first one needs that is not.
func (r *batchReader) chunk(want int64) (need int64, err error) {
	pos := int64(r.at.pos)
	r.buf.release() // nothing was taken from the chunk before, else it would have been the last
	r.buf = newReadBuffer(min(want, r.p.upper-pos))
	buf := r.buf.b
	n, err := r.file.ReadAt(buf, pos)
	if err != nil && (n < len(buf) || !errors.Is(err, io.EOF)) {
		return 0, err
	}
	sc := scanner{w: &window{limit: r.p.upper, buf: buf, start: pos}, saltCRC: r.p.seg.saltCRC, pos: pos, index: r.at.index, next: r.at.offset}
	for sc.pos < r.p.upper {
		have := pos + int64(len(buf)) - sc.pos
		if have < frameHeaderSize {
			return frameHeaderSize, nil
		}
		h, err := sc.readHeader()
		if err != nil {
			return 0, err
		}
		if h.size() > have {
			return h.size(), nil
		}
		if err := r.frame(&sc); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// frame takes the next frame. It verifies those too that it passes over, since whether a batch is accepted rests on the ones before.
func (r *batchReader) frame(sc *scanner) error {
	f, err := sc.read()
	if err != nil {
		return err
	}
	if f.accepted() && f.after > r.from {
		e := f.header.entry(f.raw)
		before := len(r.res.Batches)
		more := r.res.take(e.Data, f.after, r.limit, r.maxBytes)
		if len(r.res.Batches) == before {
			return errFull // it is the next reader's
		}
		if !more {
			r.at = sc.point()
			return errFull
		}
	}
	r.at = sc.point()
	return nil
}

// point is where the scanner stands.
func (s *scanner) point() point { return point{index: s.index, offset: s.next, pos: uint32(s.pos)} }
