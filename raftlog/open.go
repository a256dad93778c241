package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Open opens the log in a directory, or begins a new one. It repairs what an interrupted write, trim or installation left, and says so in the log. What
// cannot come from an interruption is damage: then Open changes nothing, and the error is a *DamageError. Other errors wrap ErrLocked, ErrNewerFormat,
// ErrInvalid, or are those of the file system.
func Open(opts Options) (*Log, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{
		adm: newGate(), wmu: newGate(),
		fs: opts.FS, dir: filepath.Clean(opts.Dir), logger: opts.Logger, now: opts.Now, maxEntry: opts.MaxEntryBytes,
		onFailure: opts.OnFailure, onSync: opts.OnSync, onRepair: opts.OnRepair, tail: tailCache{limit: opts.TailCacheBytes},
	}
	l.settings.Store(&settings{opts.SegmentBytes, opts.SegmentAge, opts.Durability})
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if l.lock, err = l.fs.Lock(l.path(lockName)); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.recover(); err != nil {
		l.background.Wait()
		l.files.close()
		l.lock.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// recover reads the directory, judges it, and only then changes it: see survey and repair.
func (l *Log) recover() error {
	s, err := surveyDir(l.fs, l.dir)
	if err != nil {
		return err
	}
	if s.fresh {
		return l.begin()
	}
	if err := s.judge(); err != nil {
		return err
	}
	return l.adopt(s)
}

// begin makes the start record of a new log.
func (l *Log) begin() error {
	l.start = startRecord{epoch: 1}
	if err := syncDir(l.fs, filepath.Dir(l.dir)); err != nil { // the directory itself has to stay
		return err
	}
	return writeFile(l.fs, l.path(startName), l.start.encode())
}

// survey is what a log's directory holds, and what an interruption left in it. It changes nothing. Open and Inspect share it.
type survey struct {
	fs    vfs.FS
	dir   string
	fresh bool // there is no log yet

	start     startRecord
	clean     *cleanRecord
	cut       *cutRecord       // a truncation to complete
	sizes     map[string]int64 // of all files, by name
	leftovers []string         // names of files to remove
	// finishInstall says that the start record still has to be replaced by this one, for a checkpoint that was installed.
	finishInstall *startRecord

	segs        []*segment // ascending
	checkpoints []checkpointInfo
	warnings    []string

	// Of the newest segment.
	scanned bool
	torn    *tornTail
}

// tornTail is what an interrupted write left behind the last frame.
type tornTail struct {
	pos, end int64 // end is behind the last byte that is not zero
	reason   string
}

// surveyDir lists the files and reads the small ones.
func surveyDir(fsys vfs.FS, dir string) (*survey, error) {
	infos, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &survey{fs: fsys, dir: dir, sizes: map[string]int64{}}
	var logs, ckpts, idxs []Index
	for _, fi := range infos {
		s.sizes[fi.Name] = fi.Size
		if i, ok := parseNumbered(fi.Name, segmentExt); ok {
			logs = append(logs, i)
		} else if i, ok := parseNumbered(fi.Name, ckptExt); ok {
			ckpts = append(ckpts, i)
		} else if i, ok := parseNumbered(fi.Name, indexExt); ok {
			idxs = append(idxs, i)
		} else if strings.HasSuffix(fi.Name, tmpExt) {
			s.leftovers = append(s.leftovers, fi.Name)
		}
	}
	if _, ok := s.sizes[startName]; !ok {
		if len(logs)+len(ckpts) > 0 {
			return nil, &DamageError{File: s.path(startName), Reason: "the file is missing, although there are segments or checkpoints"}
		}
		s.fresh = true
		return s, nil
	}
	for _, load := range []func() error{s.loadStart, s.loadClean, s.loadCut, func() error { return s.loadCheckpoints(ckpts) }, func() error { return s.loadSegments(logs) }} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	s.findOrphans(idxs)
	return s, nil
}

func (s *survey) path(name string) string { return filepath.Join(s.dir, name) }

// damaged makes a *DamageError of an error of decoding, unless it says that a later release wrote the file.
func (s *survey) damaged(name string, pos int64, err error) error {
	if errors.Is(err, ErrNewerFormat) {
		return fmt.Errorf("%s: %w", s.path(name), err)
	}
	return &DamageError{File: s.path(name), Offset: pos, Reason: err.Error()}
}

func (s *survey) loadStart() error {
	b, err := readHead(s.fs, s.path(startName), startSize)
	if err != nil {
		return err
	}
	if s.start, err = decodeStart(b); err != nil {
		return s.damaged(startName, 0, err)
	}
	return nil
}

// loadClean reads the mark of a clean close. A bad one is as good as none: recovery scans then.
func (s *survey) loadClean() error {
	if _, ok := s.sizes[cleanName]; !ok {
		return nil
	}
	b, err := readHead(s.fs, s.path(cleanName), cleanSize)
	if err != nil {
		return err
	}
	c, err := decodeClean(b)
	switch {
	case errors.Is(err, ErrNewerFormat):
		return s.damaged(cleanName, 0, err)
	case err != nil:
		s.warnings = append(s.warnings, fmt.Sprintf("%s: %v", s.path(cleanName), err))
		s.leftovers = append(s.leftovers, cleanName)
	default:
		s.clean = &c
	}
	return nil
}

// loadCut reads the record of a truncation under way. It was made durable in one step, so a bad one is damage.
func (s *survey) loadCut() error {
	if _, ok := s.sizes[cutName]; !ok {
		return nil
	}
	b, err := readHead(s.fs, s.path(cutName), cutSize)
	if err != nil {
		return err
	}
	c, err := decodeCut(b)
	if err != nil {
		return s.damaged(cutName, 0, err)
	}
	if c.epoch == s.start.epoch {
		s.cut = &c
	}
	return nil
}

// applyCut drops the segments behind a cut, and checks that the one that it goes through is there.
func (s *survey) applyCut() error {
	if s.cut == nil || s.finishInstall != nil {
		s.cut = nil // an installation came after it
		return nil
	}
	for n := len(s.segs); n > 0 && s.segs[n-1].header.first > s.cut.segment; n-- {
		s.drop(s.segs[n-1])
		s.segs = s.segs[:n-1]
	}
	seg := s.newest()
	if seg == nil || seg.header.first != s.cut.segment {
		return &DamageError{File: s.path(numbered(s.cut.segment, segmentExt)), Reason: "the file is missing: the log was being cut within it"}
	}
	if size := s.sizes[filepath.Base(seg.path)]; size < int64(s.cut.end) {
		return seg.damage(size, "the file ends here, and the log was being cut at byte %d", s.cut.end)
	}
	s.sizes[filepath.Base(seg.path)] = int64(s.cut.end) // as if the rest had gone
	seg.restore(newSegment(s.dir, seg.header).record(false))
	return nil
}

// loadCheckpoints reads the headers, decides where the log begins, and sorts out what an interrupted trim or installation left.
func (s *survey) loadCheckpoints(indexes []Index) error {
	var all []checkpointInfo
	for _, i := range indexes {
		name := numbered(i, ckptExt)
		b, err := readHead(s.fs, s.path(name), ckptHeaderSize)
		if err != nil {
			return err
		}
		h, err := decodeCheckpointHeader(b)
		if err == nil && (h.info.index != i || h.size() != s.sizes[name]) {
			err = fmt.Errorf("its header says index %d and %d bytes, and the file has %d", h.info.index, h.size(), s.sizes[name])
		}
		if err != nil {
			return s.damaged(name, 0, err)
		}
		all = append(all, h.info)
	}
	for _, c := range all {
		if c.installed && c.index > s.start.index { // step 2 of an installation is still to be done
			s.start = startRecord{epoch: s.start.epoch + 1, index: c.index, term: c.term, nextOffset: c.nextOffset}
			start := s.start
			s.finishInstall = &start
		}
	}
	for _, c := range all {
		if c.index < s.start.index || (s.finishInstall != nil && c.index != s.start.index) {
			s.leftovers = append(s.leftovers, c.file())
		} else {
			s.checkpoints = append(s.checkpoints, c)
		}
	}
	return nil
}

// loadSegments reads the header of each segment, from its index file if that is good, and drops those that an interrupted operation left.
func (s *survey) loadSegments(firsts []Index) error {
	for _, first := range firsts {
		seg, err := s.loadSegment(first)
		if err != nil {
			return err
		}
		switch {
		case seg.header.epoch < s.start.epoch:
			s.drop(seg)
		case seg.header.epoch > s.start.epoch:
			return seg.damage(12, "its epoch is %d, and the log is in epoch %d: the file %q is an old one", seg.header.epoch, s.start.epoch, startName)
		default:
			s.segs = append(s.segs, seg)
		}
	}
	// A trim goes from the oldest on, so segments that end at or before the start are leftovers. Where the next one begins, a segment ends.
	for len(s.segs) > 1 && s.segs[1].header.first <= s.start.index+1 {
		s.drop(s.segs[0])
		s.segs = s.segs[1:]
	}
	return s.applyCut()
}

func (s *survey) drop(seg *segment) {
	for _, p := range []string{seg.idxPath, seg.path} {
		if _, ok := s.sizes[filepath.Base(p)]; ok {
			s.leftovers = append(s.leftovers, filepath.Base(p))
		}
	}
}

// loadSegment reads a segment's header. If its index file is good, the result is as the index says, sealed or not; otherwise it looks empty.
func (s *survey) loadSegment(first Index) (*segment, error) {
	name := numbered(first, segmentExt)
	if rec, ok := s.loadIndexHeader(first); ok {
		seg := newSegment(s.dir, rec.header)
		seg.restore(rec)
		return seg, nil
	}
	b, err := readHead(s.fs, s.path(name), segmentHeaderSize)
	if err != nil {
		return nil, err
	}
	h, err := decodeSegmentHeader(b)
	if err == nil && h.first != first {
		err = fmt.Errorf("its header says that it begins at index %d", h.first)
	}
	if err != nil {
		return nil, s.damaged(name, 0, err)
	}
	return newSegment(s.dir, h), nil
}

// loadIndexHeader reads an index file if it can be relied on: those of sealed segments, and the newest one's after a clean close.
func (s *survey) loadIndexHeader(first Index) (indexRecord, bool) {
	name := numbered(first, indexExt)
	size, ok := s.sizes[name]
	if !ok {
		return indexRecord{}, false
	}
	b, err := readHead(s.fs, s.path(name), indexHeaderSize)
	if err != nil {
		return indexRecord{}, false
	}
	r, err := decodeIndexHeader(b)
	if err != nil || r.header.first != first || size != indexHeaderSize+int64(r.count)*indexPointSize {
		s.warnings = append(s.warnings, fmt.Sprintf("%s is unusable: %v", s.path(name), err))
		return indexRecord{}, false
	}
	if !r.sealed && (s.clean == nil || s.clean.segment != first) {
		return indexRecord{}, false // of an earlier clean close
	}
	r.count, r.pointsCRC = 0, 0
	return r, true
}

// findOrphans finds index files without a segment.
func (s *survey) findOrphans(indexes []Index) {
	listed := map[string]bool{}
	for _, name := range s.leftovers {
		listed[name] = true
	}
	for _, i := range indexes {
		_, ok := s.sizes[numbered(i, segmentExt)]
		if name := numbered(i, indexExt); !ok && !listed[name] {
			s.leftovers = append(s.leftovers, name)
		}
	}
	sort.Strings(s.leftovers)
}
