package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// judge completes the survey by scanning where there is no usable index, and returns a *DamageError for whatever no interruption explains. Nothing is changed.
func (s *survey) judge() error {
	for i := range s.segs {
		if err := s.judgeSegment(i, false); err != nil {
			return err
		}
	}
	return s.judgeWhole()
}

// judgeSegment checks one segment; with deep, it is scanned even if there is an index.
func (s *survey) judgeSegment(i int, deep bool) error {
	if i < len(s.segs)-1 {
		return s.judgeSealed(s.segs[i], s.segs[i+1], deep)
	}
	return s.judgeNewest(s.segs[i], deep)
}

// judgeWhole checks, when all segments are known, whether anything is missing.
func (s *survey) judgeWhole() error {
	for _, check := range []func() error{s.judgeOrder, s.judgeClean, s.judgeCheckpoints} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// newest is the newest segment, or nil.
func (s *survey) newest() *segment {
	if len(s.segs) == 0 {
		return nil
	}
	return s.segs[len(s.segs)-1]
}

// judgeSealed checks a segment that has a successor: it was synced before that one was made, so every byte has to be right.
func (s *survey) judgeSealed(seg, next *segment, deep bool) error {
	size := s.sizes[filepath.Base(seg.path)]
	indexed := seg.sealed
	if indexed && size < seg.end {
		return seg.damage(size, "the file ends here, and its frames go up to %d", seg.end)
	}
	if indexed && !deep {
		return nil
	}
	file, err := s.fs.Open(seg.path)
	if err != nil {
		return err
	}
	defer file.Close()
	was := *seg
	if bad, err := seg.rebuild(file, size); err != nil {
		return err
	} else if only, last, err := zeros(file, seg.end, size); err != nil {
		return seg.readError(seg.end, err)
	} else if !only {
		return seg.damage(seg.end, "%s, and yet there are bytes up to %d, and a next segment from index %d on", bad.reason, last, next.header.first)
	}
	seg.sealed, seg.synced = true, seg.end
	if indexed && (was.last != seg.last || was.end != seg.end || was.next != seg.next || was.lastTerm != seg.lastTerm) {
		return seg.damage(seg.end, "its entries end at index %d here, and its index says %d at %d", seg.last, was.last, was.end)
	}
	if indexed {
		seg.points, seg.gen = nil, was.gen // the index file stays
	}
	return nil
}

// rebuild scans the frames of a segment into it, up to the first position without one, and says why there is none.
func (s *segment) rebuild(file io.ReaderAt, size int64) (*badFrame, error) {
	s.restore(newSegment("", s.header).record(false))
	s.points, s.notCommands = nil, []Index{}
	sc := s.scanAll(file, size)
	defer sc.close()
	for {
		f, err := sc.read()
		var bad *badFrame
		switch {
		case err == nil:
			s.note(f)
			if f.header.kind != raft.LogCommand {
				s.notCommands = append(s.notCommands, f.header.index)
			}
			s.scannedTo = f.header.index
			s.gen = f.header.generation
			s.synced = max(s.synced, int64(f.header.durableEnd))
		case errors.Is(err, io.EOF):
			return &badFrame{sc.pos, "the file ends here"}, nil
		case errors.As(err, &bad):
			return bad, nil
		default:
			return nil, s.readError(sc.pos, err)
		}
	}
}

// judgeNewest checks the newest segment, which may end in what an interrupted write left.
func (s *survey) judgeNewest(seg *segment, deep bool) error {
	if seg.sealed {
		return seg.damage(seg.end, "its index file says that a segment from index %d on follows, and that file is missing", seg.last+1)
	}
	size := s.sizes[filepath.Base(seg.path)]
	indexed := s.clean != nil && s.clean.segment == seg.header.first && s.clean.end == uint32(seg.end) && s.clean.last == seg.last && !seg.empty()
	if indexed && size == seg.end && !deep {
		return nil
	}
	s.scanned = true
	file, err := s.fs.Open(seg.path)
	if err != nil {
		return err
	}
	defer file.Close()
	bad, err := seg.rebuild(file, size)
	if err != nil {
		return err
	}
	if s.cut != nil {
		if seg.last != s.cut.last || seg.end != size {
			return seg.damage(bad.pos, "%s; the log was being cut after index %d at byte %d", bad.reason, s.cut.last, s.cut.end)
		}
		return nil
	}
	return s.judgeEnd(seg, file, size, bad)
}

// judgeEnd looks at what is behind the last frame of the newest segment: preallocated zeros, a torn tail, or damage.
func (s *survey) judgeEnd(seg *segment, file vfs.File, size int64, bad *badFrame) error {
	only, last, err := zeros(file, seg.end, size)
	if err != nil {
		return seg.readError(seg.end, err)
	}
	if only {
		return nil
	}
	sc := seg.scan(file, point{index: seg.last + 1, offset: seg.next, pos: uint32(seg.end)}, size, scanChunk)
	defer sc.close()
	sc.term, sc.gen = seg.lastTerm, seg.gen
	at, proven, err := sc.provenDamage(seg.end)
	if err != nil {
		return seg.readError(seg.end, err)
	}
	if proven {
		return seg.damage(seg.end, "%s; the valid frame at byte %d says that this had been stored before", bad.reason, at)
	}
	s.torn = &tornTail{pos: seg.end, end: last, reason: bad.reason}
	return nil
}

// judgeOrder checks that the segments begin where the start record says and follow on one another.
func (s *survey) judgeOrder() error {
	index, term, next := s.start.index, s.start.term, s.start.nextOffset
	for _, seg := range s.segs {
		h := seg.header
		if h.first != index+1 {
			return &DamageError{File: s.path(numbered(index+1, segmentExt)), Reason: fmt.Sprintf("the file is missing or lost its end: the log should go on at index %d, and the next segment begins at %d", index+1, h.first)}
		}
		if h.prevTerm != term || h.nextOffset != next {
			return seg.damage(32, "it says that term %d and next offset %d came before it, and it was term %d and next offset %d", h.prevTerm, h.nextOffset, term, next)
		}
		index, term, next = seg.last, seg.lastTerm, seg.next
	}
	return nil
}

// end is the state at the log's end.
func (s *survey) end() startRecord {
	if seg := s.newest(); seg != nil {
		return startRecord{index: seg.last, term: seg.lastTerm, nextOffset: seg.next}
	}
	return s.start
}

// judgeClean compares the log with what it was when it was closed in order. The record goes before anything changes, so they have to agree.
func (s *survey) judgeClean() error {
	if s.clean == nil {
		return nil
	}
	seg, end := s.newest(), s.end()
	if s.finishInstall != nil || s.cut != nil {
		return &DamageError{File: s.path(cleanName), Reason: "the log was closed in order, and yet a checkpoint was being installed or entries removed"}
	}
	switch {
	case seg == nil && s.clean.segment != 0:
		return &DamageError{File: s.path(numbered(s.clean.segment, segmentExt)), Reason: fmt.Sprintf("the file is missing: the log was closed in order with last index %d", s.clean.last)}
	case seg == nil:
		return nil
	case s.clean.segment != seg.header.first:
		return &DamageError{File: s.path(numbered(s.clean.segment, segmentExt)), Reason: fmt.Sprintf("the file is missing: the log was closed in order with this as its newest segment, last index %d", s.clean.last)}
	case s.clean.last != end.index || s.clean.lastTerm != end.term || s.clean.nextOffset != end.nextOffset || int64(s.clean.end) != seg.end || s.torn != nil:
		return seg.damage(seg.end, "the log was closed in order with last index %d at byte %d, and now the valid entries end here with %d", s.clean.last, s.clean.end, end.index)
	}
	return nil
}

// judgeCheckpoints compares the checkpoints with the log: it has to reach the newest, which was written after the entries that it covers were durable.
func (s *survey) judgeCheckpoints() error {
	end := s.end()
	if n := len(s.checkpoints); n > 0 && s.checkpoints[n-1].index > end.index {
		return &DamageError{File: s.lastFile(), Offset: s.lastEnd(), Reason: fmt.Sprintf("the log ends at index %d, and %s is a checkpoint of index %d: entries that had been stored are lost", end.index, s.path(s.checkpoints[n-1].file()), s.checkpoints[n-1].index)}
	}
	if s.start.index == 0 {
		return nil
	}
	if len(s.checkpoints) == 0 || s.checkpoints[0].index != s.start.index {
		return &DamageError{File: s.path(numbered(s.start.index, ckptExt)), Reason: "the file is missing: the log begins after this checkpoint"}
	}
	if c := s.checkpoints[0]; c.term != s.start.term || c.nextOffset != s.start.nextOffset {
		return &DamageError{File: s.path(c.file()), Offset: 16, Reason: fmt.Sprintf("it says term %d and next offset %d, and the log begins after term %d and next offset %d", c.term, c.nextOffset, s.start.term, s.start.nextOffset)}
	}
	return nil
}

// lastFile is where the log ends.
func (s *survey) lastFile() string {
	if seg := s.newest(); seg != nil {
		return seg.path
	}
	return s.path(numbered(s.start.index+1, segmentExt))
}

func (s *survey) lastEnd() int64 {
	if seg := s.newest(); seg != nil {
		return seg.end
	}
	return 0
}
