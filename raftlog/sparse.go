package raftlog

import (
	"sort"

	"github.com/flotilla-log/flotilla/proto/record"
)

// indexInterval is how many bytes of a segment one point of its index stands for: a lookup reads at most this much in vain.
const indexInterval = 32 << 10

// noTimestamp is the maximum of no timestamps. Kafka's "none" is the same.
const noTimestamp = -1

// point is one entry of a segment's sparse index: the frame at pos, and what is known about the frames from there to the next point.
type point struct {
	index  Index
	offset record.Offset // next offset before the frame
	maxTS  int64         // largest timestamp of the accepted batches up to the next point, ms
	pos    uint32
}

// sparse is the index of one segment, by Raft index, offset and time at once. It is built as frames are written, and from scans.
type sparse []point

// add notes the frame at pos. after is the next offset behind it; ts counts if the frame's batch was accepted.
func (s sparse) add(pos int64, index Index, before record.Offset, ts int64) sparse {
	n := len(s)
	if n == 0 || pos-int64(s[n-1].pos) >= indexInterval {
		return append(s, point{index: index, offset: before, maxTS: ts, pos: uint32(pos)})
	}
	s[n-1].maxTS = max(s[n-1].maxTS, ts)
	return s
}

// byIndex returns the last point at or before an entry. The index is not empty.
func (s sparse) byIndex(i Index) point {
	n := sort.Search(len(s), func(k int) bool { return s[k].index > i })
	return s[max(n-1, 0)]
}

// byOffset returns the last point at or before the batch that holds an offset. Where several points have that very offset, no batch was accepted
// between them, so the last one is right.
func (s sparse) byOffset(o record.Offset) point {
	n := sort.Search(len(s), func(k int) bool { return s[k].offset > o })
	return s[max(n-1, 0)]
}

// upper returns a position that no frame with an offset below limit lies behind; end if the index does not know one.
func (s sparse) upper(limit record.Offset, end int64) int64 {
	n := sort.Search(len(s), func(k int) bool { return s[k].offset >= limit })
	if n == len(s) {
		return end
	}
	return int64(s[n].pos)
}

// before drops the points of frames at pos and behind it. The last remaining point's maxTS is then too large, and is the caller's to correct.
func (s sparse) before(pos int64) sparse {
	n := sort.Search(len(s), func(k int) bool { return int64(s[k].pos) >= pos })
	return s[:n:n]
}

// maxTS is the largest timestamp of the segment.
func (s sparse) maxTS() int64 {
	ts := int64(noTimestamp)
	for _, p := range s {
		ts = max(ts, p.maxTS)
	}
	return ts
}
