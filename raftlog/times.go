package raftlog

import (
	"sort"

	"github.com/flotilla-log/flotilla/proto/record"
)

// BatchForTimestamp returns the first accepted batch with offsets in [from, limit) whose largest timestamp is at least ms (since 1970). The batch may begin
// before from if it holds from. ok is false if there is none.
func (l *Log) BatchForTimestamp(ms int64, from, limit record.Offset) (batch []byte, ok bool, err error) {
	err = l.retryMoved(func() error {
		batch, ok = nil, false
		for _, seg := range l.overlapping(from, limit, ms) {
			b, _, err := l.firstInSegment(seg, ms, from, limit)
			if err != nil {
				return err
			}
			if b != nil {
				batch, ok = b, true
				return nil
			}
		}
		return nil
	})
	return batch, ok, l.readFailed(err)
}

// MaxTimestampBatch returns the first of the accepted batches with offsets in [from, limit) whose largest timestamp none of the others exceeds. ok is false
// if there is no batch with a timestamp.
func (l *Log) MaxTimestampBatch(from, limit record.Offset) (batch []byte, ok bool, err error) {
	err = l.retryMoved(func() error {
		batch, ok = nil, false
		best := int64(noTimestamp)
		segs := l.overlapping(from, limit, 0)
		sort.SliceStable(segs, func(i, j int) bool { return segs[i].MaxTimestamp > segs[j].MaxTimestamp })
		var at record.Offset
		for _, seg := range segs {
			if seg.MaxTimestamp < best {
				break
			}
			b, ts, err := l.maxInSegment(seg, from, limit)
			if err != nil {
				return err
			}
			if b != nil && (ts > best || (ts == best && seg.BaseOffset < at)) {
				batch, ok, best, at = b, true, ts, seg.BaseOffset
			}
		}
		return nil
	})
	return batch, ok, l.readFailed(err)
}

// timeSegment is a segment that may hold what a search by time wants.
type timeSegment struct {
	SegmentInfo
	seg    *segment
	points sparse // a copy, if the index is in memory
}

// overlapping lists the segments that have batches with offsets in [from, limit) and timestamps from ms on.
func (l *Log) overlapping(from, limit record.Offset, ms int64) []timeSegment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []timeSegment
	for _, s := range l.segs {
		if s.next > from && s.header.nextOffset < limit && s.maxTS >= ms && s.next > s.header.nextOffset {
			out = append(out, timeSegment{SegmentInfo: s.info(), seg: s, points: append(sparse(nil), s.points...)})
		}
	}
	return out
}

// firstInSegment searches one segment for BatchForTimestamp.
func (l *Log) firstInSegment(s timeSegment, ms int64, from, limit record.Offset) (batch []byte, ts int64, err error) {
	err = l.searchIntervals(s, from, limit, inOrder, func(p point) bool { return p.maxTS >= ms }, func(f frame) bool {
		if f.batch.MaxTimestamp < ms {
			return false
		}
		batch, ts = copyPayload(f), f.batch.MaxTimestamp
		return true
	})
	return batch, ts, err
}

// maxInSegment searches one segment for MaxTimestampBatch: the intervals with the largest timestamps first, until no other can have a larger one.
func (l *Log) maxInSegment(s timeSegment, from, limit record.Offset) (batch []byte, ts int64, err error) {
	ts = noTimestamp
	var at record.Offset
	err = l.searchIntervals(s, from, limit, byMaxTimestamp, func(p point) bool { return p.maxTS >= ts }, func(f frame) bool {
		if f.batch.MaxTimestamp > ts || (f.batch.MaxTimestamp == ts && batch != nil && f.before < at) {
			batch, ts, at = copyPayload(f), f.batch.MaxTimestamp, f.before
		}
		return false
	})
	return batch, ts, err
}

func copyPayload(f frame) []byte {
	return append([]byte(nil), f.raw[frameHeaderSize:frameHeaderSize+int(f.header.length)]...)
}

// interval is the frames from one point of the index to the next.
type interval struct {
	point
	end int64
}

func inOrder([]interval) {}

func byMaxTimestamp(list []interval) {
	sort.SliceStable(list, func(i, j int) bool { return list[i].maxTS > list[j].maxTS })
}

// searchIntervals calls visit for the accepted batches with offsets in [from, limit) of the intervals that are wanted, until it returns true.
func (l *Log) searchIntervals(s timeSegment, from, limit record.Offset, order func([]interval), wanted func(point) bool, visit func(frame) bool) error {
	h, err := l.acquire(s.seg)
	if err != nil {
		return err
	}
	defer l.files.release(h)
	points := s.points
	if points == nil {
		points = h.points
	}
	list := intervals(points, s.Bytes, s.NextOffset, from, limit)
	order(list)
	for _, iv := range list {
		if !wanted(iv.point) {
			continue
		}
		done, err := searchInterval(s.seg, h, iv, from, limit, visit)
		if done || err != nil {
			return err
		}
	}
	return nil
}

// intervals lists those that may hold offsets in [from, limit).
func intervals(points sparse, end int64, next, from, limit record.Offset) []interval {
	var list []interval
	for i, p := range points {
		iv, after := interval{p, end}, next
		if i+1 < len(points) {
			iv.end, after = int64(points[i+1].pos), points[i+1].offset
		}
		if after > from && p.offset < limit {
			list = append(list, iv)
		}
	}
	return list
}

func searchInterval(seg *segment, h *handle, iv interval, from, limit record.Offset, visit func(frame) bool) (bool, error) {
	sc := seg.scan(h.file, iv.point, iv.end, scanChunk)
	defer sc.close()
	for sc.pos < iv.end {
		f, err := sc.read()
		if err != nil {
			return false, seg.readError(sc.pos, err)
		}
		if f.accepted() && f.after > from && f.after <= limit && visit(f) {
			return true, nil
		}
	}
	return false, nil
}
