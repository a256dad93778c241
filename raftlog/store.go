package raftlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

const (
	// Preallocation goes in steps that grow with the segment, so that a hundred idle logs do not reserve a hundred segments.
	preallocateMin = 256 << 10
	preallocateMax = 16 << 20

	// copyMax is up to which size payloads are copied into one buffer instead of being written from where they are.
	copyMax = 1 << 10
	// sumMin is from which size on the CRC of a payload by itself is kept with it in the tail cache.
	sumMin = 2 << 10
	// arenaKeepMax is the largest such buffer that is kept for the next write.
	arenaKeepMax = 1 << 20
)

// StoreLog is StoreLogs for one entry.
func (l *Log) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, the first at LastIndex+1, and returns when they are durable (see Durability): one write and one fdatasync, and the
// same again for each further segment that they reach into. Data and Extensions stay shared with the tail cache and must not change afterwards.
//
// If it fails, none of the entries are there. With ErrNoSpace the log is healthy; after a failed fsync it is poisoned. If the entries were to replace
// some that DeleteRange has just removed, any failure poisons it with ErrOutOfStep.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	err := l.store(logs)
	if err == nil {
		l.truncated = false
	} else if l.truncated {
		err = l.poison(fmt.Errorf("%w: entries were removed, and storing others in their place failed: %w", ErrOutOfStep, err))
	}
	l.mu.Lock()
	l.storeErr = err
	l.mu.Unlock()
	return err
}

func (l *Log) store(logs []*raft.Log) error {
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.checkEntries(logs); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	if err := l.unmark(); err != nil {
		return err
	}
	before := l.last // wmu is enough to read it
	for rest := logs; len(rest) > 0; {
		n, err := l.storeRun(rest)
		if err != nil {
			return l.undoRuns(before, fmt.Errorf("%s: store entries %d to %d: %w", l.dir, logs[0].Index, logs[len(logs)-1].Index, err))
		}
		rest = rest[n:]
	}
	return nil
}

// checkEntries refuses what would break the log's order, before anything is written.
func (l *Log) checkEntries(logs []*raft.Log) error {
	want, term := uint64(l.last)+1, l.lastTerm
	for _, e := range logs {
		switch {
		case e.Index != want:
			return fmt.Errorf("%w: entry %d where %d belongs", ErrInvalid, e.Index, want)
		case e.Term < term:
			return fmt.Errorf("%w: entry %d has term %d, and the one before it %d", ErrInvalid, e.Index, e.Term, term)
		case len(e.Data)+len(e.Extensions) > l.maxEntry || len(e.Extensions) > maxExtensions:
			return fmt.Errorf("%w: entry %d has %d bytes and %d of extensions", ErrTooLarge, e.Index, len(e.Data), len(e.Extensions))
		}
		want, term = want+1, e.Term
	}
	return nil
}

// undoRuns removes what earlier runs of a failed StoreLogs stored: all or nothing.
func (l *Log) undoRuns(last Index, cause error) error {
	if l.last == last || l.Err() != nil {
		return cause
	}
	if err := l.truncateAfter(last); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// storeRun stores as many entries as belong into one segment, and returns how many.
func (l *Log) storeRun(logs []*raft.Log) (int, error) {
	set := l.settings.Load()
	h, err := l.writable(entrySize(logs[0]), set)
	if err != nil {
		return 0, err
	}
	defer l.files.release(h)
	n, size := 0, int64(0)
	for n < len(logs) && (n == 0 || h.seg.end+size+entrySize(logs[n]) <= set.segmentBytes) {
		size += entrySize(logs[n])
		n++
	}
	if err := l.preallocate(h, h.seg.end+size, set.segmentBytes); err != nil {
		return 0, err
	}
	r := newRun(h.seg, logs[:n])
	defer r.close()
	if _, err := h.file.WriteVecAt(r.vec, h.seg.end); err != nil {
		return 0, l.undoWrite(h, err)
	}
	synced := h.seg.synced
	if set.durability == DurabilityQuorum || slices.ContainsFunc(logs[:n], isConfiguration) {
		began := time.Now()
		if err := h.file.Datasync(); err != nil {
			return 0, l.syncFailed(h, err)
		}
		l.onSync(time.Since(began))
		synced = h.seg.end + size
	}
	l.publish(h.seg, r.frames, logs[:n], synced)
	return n, nil
}

// isConfiguration tells entries that are durable at once in any case: a group of which no replica knows who belongs to it has no leader ever again.
func isConfiguration(e *raft.Log) bool { return e.Type == raft.LogConfiguration }

// publish makes stored entries visible to readers.
func (l *Log) publish(seg *segment, frames []frame, logs []*raft.Log, synced int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range frames {
		seg.note(f)
		l.tail.add(tailEntry{log: *logs[i], before: f.before, after: f.after, sum: f.sum})
	}
	seg.synced = max(seg.synced, synced)
	l.last, l.lastTerm, l.next = seg.last, seg.lastTerm, seg.next
}

// undoWrite cuts off what a failed write left, durably: whoever is told that there was no space may rely on the entries never coming back. Until then a crash may
// bring back whole frames or a torn tail; and because the next frames have a higher generation, they cannot follow on leftovers.
func (l *Log) undoWrite(h *handle, cause error) error {
	l.failedGen = true
	err := h.file.Truncate(h.seg.end)
	if err == nil {
		err = h.file.Sync()
	}
	if err != nil {
		return l.poison(fmt.Errorf("undo of a failed write (%w): %w", cause, err))
	}
	l.alloc = h.seg.end
	return cause
}

// syncFailed poisons the log. The page cache may go on showing what never reached the disk, as clean, so that no later fsync would write it. Therefore what was not
// yet stored is cut off at once, as well as may be; and recovery writes everything again that no later frame calls durable, before it counts as stored (see
// settle).
func (l *Log) syncFailed(h *handle, cause error) error {
	err := fmt.Errorf("fsync of %s: %w", h.seg.path, cause)
	if terr := h.file.Truncate(h.seg.end); terr != nil {
		err = fmt.Errorf("%w (and the unsynced bytes cannot be cut off: %w)", err, terr)
	}
	return l.poison(err)
}

// writable returns the active segment's file, after beginning a new segment if the entry belongs into one. The caller holds wmu and has to release it.
func (l *Log) writable(size int64, set *settings) (*handle, error) {
	if seg := l.active(); seg == nil || l.wantsRoll(seg, size, set) {
		if err := l.roll(set); err != nil {
			return nil, err
		}
	}
	seg := l.active()
	h := l.files.get(seg)
	if h == nil {
		return nil, ErrClosed
	}
	if l.failedGen && seg.gen < math.MaxUint8 {
		l.setGeneration(seg, seg.gen+1)
		l.failedGen = false
	}
	return h, nil
}

func (l *Log) setGeneration(seg *segment, gen uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seg.gen = gen
}

// wantsRoll says whether the next entry begins a new segment: the active one is full, old, or out of generations.
func (l *Log) wantsRoll(seg *segment, size int64, set *settings) bool {
	if seg.empty() {
		return false
	}
	old := set.segmentAge > 0 && l.now().Sub(time.Unix(0, seg.header.createdAt)) > set.segmentAge
	return old || seg.end+size > set.segmentBytes || (l.failedGen && seg.gen == math.MaxUint8)
}

// Roll seals the active segment if it has entries, as size or age would: for retention on a partition that nobody writes to.
func (l *Log) Roll() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if seg := l.active(); seg == nil || seg.empty() {
		return nil
	}
	if err := l.unmark(); err != nil {
		return err
	}
	return l.roll(l.settings.Load())
}

// roll begins a new segment. The order is: the old one is synced (under DurabilityOS it may not be), the new file is durable under its final name,
// then the first frame is written to it. So a crash never leaves frames in a file that may vanish, and only the newest segment can end in a torn tail.
// The old one's index follows in the background; until it is there, recovery scans that segment.
func (l *Log) roll(set *settings) error {
	old := l.active()
	if old != nil {
		if err := l.syncSegment(old); err != nil {
			return err
		}
	}
	l.background.Wait() // at most one index is being written at a time
	seg, file, err := l.createSegment()
	if err != nil {
		return err
	}
	h, err := l.files.put(seg, file, nil, true)
	if err != nil {
		return err
	}
	l.files.release(h) // the cache has it
	l.mu.Lock()
	l.segs = append(l.segs, seg)
	if old != nil {
		old.sealed = true
		l.lastSealed.Store(uint64(old.last))
	}
	l.mu.Unlock()
	l.alloc, l.failedGen = segmentHeaderSize, false
	if old != nil {
		l.background.Go(func() { l.seal(old) })
	}
	return nil
}

// createSegment makes the file of the segment after the last entry: durable and under its final name, but without frames.
func (l *Log) createSegment() (*segment, vfs.File, error) {
	seg := newSegment(l.dir, segmentHeader{
		epoch: l.start.epoch, salt: rand.Uint64(), first: l.last + 1, prevTerm: l.lastTerm, nextOffset: l.next, createdAt: l.now().UnixNano(),
	})
	if err := l.writeDurable(numbered(seg.header.first, segmentExt), seg.header.encode()); err != nil {
		return nil, nil, err
	}
	file, err := l.fs.OpenFile(seg.path)
	if err != nil {
		return nil, nil, l.removeOrphan(seg, fmt.Errorf("open new segment: %w", err))
	}
	return seg, file, nil
}

// removeOrphan removes a segment's file that could not be opened. It must not stay: if the log were shortened before the next attempt, the file would look like
// the far side of a gap.
func (l *Log) removeOrphan(seg *segment, cause error) error {
	err := l.fs.Remove(seg.path)
	if err == nil {
		err = syncDir(l.fs, l.dir)
	}
	if err != nil {
		return l.poison(errors.Join(cause, err))
	}
	return cause
}

// seal gives back what was preallocated behind the last frame and writes the index file. Both only save work later, so failures are only logged.
func (l *Log) seal(seg *segment) {
	h := l.files.get(seg)
	if h == nil {
		return // closed
	}
	defer l.files.release(h)
	l.mu.RLock()
	rec, points := seg.record(true), seg.points
	l.mu.RUnlock()
	if err := h.file.Truncate(rec.end); err != nil {
		l.logger.Warn("cannot give back preallocated space", "file", seg.path, "error", err)
	}
	if err := writeFile(l.fs, seg.idxPath, rec.encode(points)); err != nil {
		l.logger.Warn("cannot write an index; the next start will rebuild it", "file", seg.idxPath, "error", err)
	} else {
		l.dropPoints(seg, h, points)
	}
	l.files.unpin(h)
}

// dropPoints moves a sealed segment's index from the segment to its open file, with which it goes.
func (l *Log) dropPoints(seg *segment, h *handle, points sparse) {
	l.files.mu.Lock()
	h.points = points
	l.files.mu.Unlock()
	l.mu.Lock()
	seg.points = nil
	l.mu.Unlock()
}

// preallocate makes sure that the active file has blocks up to end, and some more.
func (l *Log) preallocate(h *handle, end, segmentBytes int64) error {
	if end <= l.alloc {
		return nil
	}
	if end > math.MaxUint32 {
		return fmt.Errorf("%w: the segment would pass 4 GiB", ErrTooLarge)
	}
	ahead := max(end, min(end+min(max(end, preallocateMin), preallocateMax), segmentBytes))
	err := h.file.Preallocate(l.alloc, ahead-l.alloc)
	if err != nil && ahead > end {
		h.file.Truncate(l.alloc) // a failed one may have got a part
		ahead = end
		err = h.file.Preallocate(l.alloc, ahead-l.alloc)
	}
	if err != nil {
		h.file.Truncate(l.alloc)
		return err
	}
	l.alloc = ahead
	return nil
}

// Sync makes everything stored so far durable. Only DurabilityOS needs it.
func (l *Log) Sync() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if seg := l.active(); seg != nil {
		return l.syncSegment(seg)
	}
	return nil
}

// syncSegment syncs the active segment if it has unsynced frames. The caller holds wmu. (Sealed ones were synced when they were sealed.)
func (l *Log) syncSegment(seg *segment) error {
	if seg.synced >= seg.end {
		return nil
	}
	h := l.files.get(seg)
	if h == nil {
		return ErrClosed
	}
	defer l.files.release(h)
	if err := h.file.Datasync(); err != nil {
		return l.poison(fmt.Errorf("fsync of %s: %w", seg.path, err))
	}
	l.mu.Lock()
	seg.synced = seg.end
	l.mu.Unlock()
	return nil
}

func entrySize(e *raft.Log) int64 { return frameSize(len(e.Data), len(e.Extensions)) }

// run is a gather write of consecutive frames: headers, paddings and small payloads from one buffer, large payloads from where they are.
type run struct {
	arena  *[]byte
	vec    [][]byte
	frames []frame
}

var arenas = sync.Pool{New: func() any { return new([]byte) }}

// newRun encodes entries as frames that follow the segment's last one.
func newRun(seg *segment, logs []*raft.Log) *run {
	r := &run{arena: arenas.Get().(*[]byte), frames: make([]frame, 0, len(logs))}
	need := 0
	for _, e := range logs {
		need += frameHeaderSize + frameAlign
		if body := len(e.Data) + len(e.Extensions); body <= copyMax {
			need += body
		}
	}
	if cap(*r.arena) < need {
		*r.arena = make([]byte, 0, need)
	}
	b := (*r.arena)[:0] // never grows beyond need, so that slices of it stay valid
	cut, pos, next := 0, seg.end, seg.next
	for _, e := range logs {
		f := newFrame(seg, e, pos, next)
		b = append(b, make([]byte, frameHeaderSize)...)
		hdr := b[len(b)-frameHeaderSize:]
		f.header.put(hdr)
		f.header.crc, f.sum = sumFrame(seg.saltCRC, hdr, e.Data, e.Extensions)
		f.header.put(hdr)
		if len(e.Data)+len(e.Extensions) <= copyMax {
			b = append(append(b, e.Data...), e.Extensions...)
		} else {
			r.vec = append(r.vec, b[cut:], e.Data, e.Extensions)
			cut = len(b)
		}
		pad := f.header.size() - frameHeaderSize - f.header.body()
		b = append(b, make([]byte, pad)...)
		r.frames = append(r.frames, f)
		pos, next = pos+f.header.size(), f.after
	}
	r.vec = append(r.vec, b[cut:])
	return r
}

// newFrame is an entry's frame at a position.
func newFrame(seg *segment, e *raft.Log, pos int64, next record.Offset) frame {
	f := frame{pos: pos, before: next, after: next, header: frameHeader{
		length: uint32(len(e.Data)), index: Index(e.Index), term: e.Term, durableEnd: uint32(seg.synced),
		kind: e.Type, generation: seg.gen, extLen: uint16(len(e.Extensions)),
	}}
	if !e.AppendedAt.IsZero() {
		f.header.appendedAt = e.AppendedAt.UnixNano()
	}
	if IsBatch(e.Type, e.Data) {
		if h, ok := acceptHeader(e.Data, e.Term, next); ok {
			f.batch, f.after = h, h.Next()
		}
	}
	return f
}

// close gives the buffer back.
func (r *run) close() {
	if cap(*r.arena) <= arenaKeepMax {
		arenas.Put(r.arena)
	}
}
