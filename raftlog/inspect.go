package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// IsLogDir says whether a directory holds a log: segments, checkpoints or a start record.
func IsLogDir(fsys vfs.FS, dir string) (bool, error) {
	infos, err := fsys.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, fi := range infos {
		_, segment := parseNumbered(fi.Name, segmentExt)
		_, ckpt := parseNumbered(fi.Name, ckptExt)
		if !fi.Dir && (segment || ckpt || fi.Name == startName) {
			return true, nil
		}
	}
	return false, nil
}

// lockExisting holds the lock of a log that was opened before, so that no broker writes to it meanwhile. Where the file is not there or may not be opened, nobody
// locks it either.
func lockExisting(fsys vfs.FS, dir string) (io.Closer, error) {
	path := filepath.Join(dir, lockName)
	if _, err := fsys.Stat(path); err != nil {
		return nil, nil
	}
	lock, err := fsys.Lock(path)
	if errors.Is(err, ErrLocked) {
		return nil, err
	}
	return lock, nil
}

// Inspect reads the files of a log that nobody has open, changes nothing, and reports what is in them; files are named by dir and name. fn, if not nil, is called for
// each entry in order; an error of it ends the inspection and is returned. Damage is in the report and not an error, and what can be read besides is read on. The
// error wraps ErrLocked if a broker has the log open, and ErrNewerFormat if a later release wrote it.
func Inspect(fsys vfs.FS, dir string, opts InspectOptions, fn func(EntryInfo) error) (*Report, error) {
	in := &inspection{fs: fsys, opts: opts, fn: fn, report: &Report{Dir: dir, Damage: []DamageInfo{}, Segments: []SegmentReport{}, Checkpoints: []CheckpointReport{}}}
	lock, err := lockExisting(fsys, dir)
	if err != nil {
		return in.report, err
	}
	if lock != nil {
		defer lock.Close()
	}
	s, err := surveyDir(fsys, dir)
	if err != nil {
		return in.report, in.damaged(err)
	}
	in.survey = s
	in.report.CleanClose = s.clean != nil
	in.report.Leftovers = s.leftovers
	if err := in.judge(); err != nil {
		return in.report, err
	}
	in.bounds()
	for _, c := range s.checkpoints {
		if err := in.checkpoint(c); err != nil {
			return in.report, err
		}
	}
	for i := range s.segs {
		if err := in.segment(i); err != nil {
			return in.report, err
		}
	}
	return in.report, nil
}

type inspection struct {
	fs     vfs.FS
	opts   InspectOptions
	fn     func(EntryInfo) error
	survey *survey
	report *Report
}

// judge checks each segment, and the whole if no segment is damaged: otherwise it would only say the same again.
func (in *inspection) judge() error {
	for i := range in.survey.segs {
		if err := in.damaged(in.survey.judgeSegment(i, in.opts.Verify)); err != nil {
			return err
		}
	}
	if len(in.report.Damage) > 0 {
		return nil
	}
	return in.damaged(in.survey.judgeWhole())
}

// damaged moves a *DamageError into the report, once; other errors remain.
func (in *inspection) damaged(err error) error {
	var d *DamageError
	if !errors.As(err, &d) {
		return err
	}
	info := DamageInfo{File: d.File, Position: d.Offset, Reason: d.Reason}
	for _, known := range in.report.Damage {
		if known.File == info.File && known.Position == info.Position {
			return nil
		}
	}
	in.report.Damage = append(in.report.Damage, info)
	return nil
}

// bounds fills in where the log begins and ends.
func (in *inspection) bounds() {
	s, r := in.survey, in.report
	r.FirstOffset = s.start.nextOffset
	end := s.end()
	r.NextOffset = end.nextOffset
	if end.index > s.start.index {
		r.FirstIndex, r.LastIndex = s.start.index+1, end.index
	}
	if t := s.torn; t != nil {
		r.TornTail = &TornTail{File: s.newest().path, Position: t.pos, Bytes: t.end - t.pos, Reason: t.reason}
	}
}

func (in *inspection) checkpoint(c checkpointInfo) error {
	path := in.survey.path(c.file())
	r := CheckpointReport{File: path, Index: c.index, Term: c.term, NextOffset: c.nextOffset, Installed: c.installed}
	b, err := readFile(in.fs, path, MaxCheckpointBytes)
	if err == nil {
		var full Checkpoint
		if full, _, err = decodeCheckpoint(b); err != nil {
			err = in.survey.damaged(c.file(), 0, err)
		}
		r.StateBytes = len(full.State)
		for _, srv := range full.Configuration.Servers {
			r.Servers = append(r.Servers, fmt.Sprintf("%s %s %s", srv.ID, srv.Address, srv.Suffrage))
		}
	}
	in.report.Checkpoints = append(in.report.Checkpoints, r)
	return in.damaged(err)
}

// segment reports on one segment, and reads its entries if anybody wants them.
func (in *inspection) segment(i int) error {
	seg := in.survey.segs[i]
	size := in.survey.sizes[filepath.Base(seg.path)]
	r := SegmentReport{
		File: seg.path, FirstIndex: seg.header.first, LastIndex: seg.last, BaseOffset: seg.header.nextOffset, NextOffset: seg.next,
		Bytes: seg.end, FileBytes: size, MaxTimestamp: seg.maxTS, CreatedAt: time.Unix(0, seg.header.createdAt), Sealed: i < len(in.survey.segs)-1,
		Index: in.indexState(seg),
	}
	in.report.Segments = append(in.report.Segments, r)
	if !in.opts.Verify && in.fn == nil {
		return nil
	}
	file, err := in.fs.Open(seg.path)
	if err != nil {
		return err
	}
	defer file.Close()
	return in.entries(seg, file, min(size, max(seg.end, segmentHeaderSize)))
}

// indexState says what is to be said about a segment's index file.
func (in *inspection) indexState(seg *segment) string {
	b, err := readFile(in.fs, seg.idxPath, indexSizeMax(max(seg.end, in.survey.sizes[filepath.Base(seg.path)])))
	if err != nil {
		return "missing"
	}
	rec, _, err := decodeIndex(b)
	switch {
	case err != nil:
		return "unusable: " + err.Error()
	case rec.header != seg.header:
		return "unusable: it belongs to another segment"
	case rec.end != seg.end:
		return "out of date"
	}
	return "ok"
}

// entries reads the frames of a segment.
func (in *inspection) entries(seg *segment, file io.ReaderAt, end int64) error {
	sc := seg.scanAll(file, end)
	defer sc.close()
	for {
		f, err := sc.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return in.damaged(seg.readError(sc.pos, err))
		}
		if err := in.entry(seg, f); err != nil {
			return err
		}
	}
}

func (in *inspection) entry(seg *segment, f frame) error {
	e := f.header.entry(f.raw)
	in.report.Entries++
	info := EntryInfo{
		File: seg.path, Position: f.pos, Index: f.header.index, Term: f.header.term, Kind: kindOf(&e), Bytes: len(e.Data), AppendedAt: e.AppendedAt, Data: e.Data,
	}
	if info.Kind == KindBatch {
		info.Batch = batchInfo(e.Data, f.accepted())
		in.count(f)
		if in.opts.Verify && f.accepted() {
			if _, err := record.Validate(e.Data); err != nil {
				in.damaged(seg.damage(f.pos, "the frame is intact, and the record batch in it is not: %v", err))
			}
		}
	}
	if in.fn == nil || info.Index < in.opts.From || (in.opts.To > 0 && info.Index > in.opts.To) {
		return nil
	}
	return in.fn(info)
}

func (in *inspection) count(f frame) {
	if !f.accepted() {
		in.report.DeadBatches++
		return
	}
	in.report.Batches++
	in.report.Records += int64(f.after - f.before)
}

func kindOf(e *raft.Log) EntryKind {
	switch e.Type {
	case raft.LogCommand:
		if IsBatch(e.Type, e.Data) {
			return KindBatch
		}
		return KindCommand
	case raft.LogNoop:
		return KindNoop
	case raft.LogBarrier:
		return KindBarrier
	case raft.LogConfiguration:
		return KindConfiguration
	}
	return KindOther
}

// batchInfo is what the header says; nil if there is none to read.
func batchInfo(data []byte, accepted bool) *BatchInfo {
	h, err := record.ParseHeader(data)
	if err != nil {
		return nil
	}
	return &BatchInfo{
		BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), Records: h.Count, Accepted: accepted, MaxTimestamp: time.UnixMilli(h.MaxTimestamp),
		Compression: h.Attributes.Compression().String(), LeaderEpoch: h.LeaderEpoch, ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch, BaseSequence: h.BaseSequence,
	}
}
