package raftlog

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Names of the files in a log's directory. A temporary file gets its final name in one step when it is whole and synced.
const (
	segmentExt = ".log"
	indexExt   = ".idx"
	ckptExt    = ".ckpt"
	tmpExt     = ".tmp"
	startName  = "start"
	cleanName  = "clean"
	cutName    = "cut"
	lockName   = "LOCK"
)

// numbered is the name of a file that stands for an index; names sort as the indexes do.
func numbered(i Index, ext string) string { return fmt.Sprintf("%020d%s", uint64(i), ext) }

// parseNumbered is the inverse of numbered.
func parseNumbered(name, ext string) (Index, bool) {
	digits, ok := strings.CutSuffix(name, ext)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return Index(n), err == nil
}

// segment is one segment file. The header never changes; the rest is guarded by Log.mu.
type segment struct {
	header  segmentHeader
	saltCRC uint32
	path    string
	idxPath string

	last     Index // header.first-1 if it is empty
	lastTerm uint64
	next     record.Offset
	maxTS    int64
	end      int64 // position behind the last stored frame
	synced   int64 // position up to which the file is known to be synced
	gen      uint8 // generation of the next frames
	sealed   bool
	points   sparse // nil when it is sealed and its index file is written

	// notCommands are the entries of other types that recovery found when it scanned the segment, up to scannedTo; nil if it did not, and once raft runs.
	notCommands []Index
	scannedTo   Index
}

func newSegment(dir string, h segmentHeader) *segment {
	return &segment{
		header:   h,
		saltCRC:  h.saltCRC(),
		path:     filepath.Join(dir, numbered(h.first, segmentExt)),
		idxPath:  filepath.Join(dir, numbered(h.first, indexExt)),
		last:     h.first - 1,
		lastTerm: h.prevTerm,
		next:     h.nextOffset,
		maxTS:    noTimestamp,
		end:      segmentHeaderSize,
		synced:   segmentHeaderSize,
	}
}

// firstPoint is where the first frame is, or will be.
func (s *segment) firstPoint() point {
	return point{index: s.header.first, offset: s.header.nextOffset, pos: segmentHeaderSize}
}

func (s *segment) empty() bool { return s.last < s.header.first }

// note takes a frame into account that is stored at f.pos, the segment's end.
func (s *segment) note(f frame) {
	s.points = s.points.add(f.pos, f.header.index, f.before, f.ts())
	s.last, s.lastTerm, s.next = f.header.index, f.header.term, f.after
	s.maxTS = max(s.maxTS, f.ts())
	s.end = f.pos + f.header.size()
}

// record is what the segment's index file says.
func (s *segment) record(sealed bool) indexRecord {
	return indexRecord{header: s.header, sealed: sealed, last: s.last, lastTerm: s.lastTerm, nextOffset: s.next, maxTS: s.maxTS, end: s.end, generation: s.gen}
}

// restore is the inverse of record.
func (s *segment) restore(r indexRecord) {
	s.last, s.lastTerm, s.next, s.maxTS, s.end, s.gen, s.sealed = r.last, r.lastTerm, r.nextOffset, r.maxTS, r.end, r.generation, r.sealed
	s.synced = r.end
}

// info is the segment as users see it.
func (s *segment) info() SegmentInfo {
	return SegmentInfo{
		FirstIndex: s.header.first, LastIndex: s.last, BaseOffset: s.header.nextOffset, NextOffset: s.next,
		Bytes: s.end, MaxTimestamp: s.maxTS, Sealed: s.sealed, CreatedAt: time.Unix(0, s.header.createdAt),
	}
}

func (s *segment) damage(pos int64, format string, args ...any) *DamageError {
	return &DamageError{File: s.path, Offset: pos, Reason: fmt.Sprintf(format, args...)}
}
