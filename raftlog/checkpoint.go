package raftlog

import (
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

const (
	ckptHeaderSize = 96
	// MaxCheckpointBytes bounds a checkpoint, encoded.
	MaxCheckpointBytes = 256 << 20

	ckptFlagInstalled = 1 // it came from a leader, and the log was reset to it
)

// checkpointInfo is what is kept in memory of a checkpoint.
type checkpointInfo struct {
	index      Index
	term       uint64
	nextOffset record.Offset
	installed  bool
}

func (c checkpointInfo) file() string { return numbered(c.index, ckptExt) }

// encodeCheckpoint makes the content of a checkpoint file, which is also what a snapshot's stream carries.
//
//	 0       8    10    12      16      24     32           40              48          56             60    68   92         96
//	+-------+----+-----+-------+-------+------+------------+---------------+-----------+--------------+-----+----+----------+--------+-------+-----+
//	| magic | v  | 96  | flags | index | term | nextOffset | configuration | createdAt | config bytes | state bytes | 0 | header CRC | config | state | CRC |
//	|       |    |     |       |       |      |            | index         |           | (4)          | (8)         |   |            |        |       |     |
//	+-------+----+-----+-------+-------+------+------------+---------------+-----------+--------------+-------------+---+------------+--------+-------+-----+
//
// The last CRC covers everything before it. The configuration is encoded by raft.EncodeConfiguration.
func encodeCheckpoint(c Checkpoint, installed bool, createdAt time.Time) ([]byte, error) {
	config := raft.EncodeConfiguration(c.Configuration)
	size := ckptHeaderSize + len(config) + len(c.State) + 4
	if size > MaxCheckpointBytes {
		return nil, fmt.Errorf("%w: checkpoint of %d bytes", ErrTooLarge, size)
	}
	b := make([]byte, ckptHeaderSize, size)
	putPreamble(b, ckptMagic)
	le.PutUint16(b[10:], ckptHeaderSize)
	if installed {
		le.PutUint32(b[12:], ckptFlagInstalled)
	}
	le.PutUint64(b[16:], uint64(c.Index))
	le.PutUint64(b[24:], c.Term)
	le.PutUint64(b[32:], uint64(c.NextOffset))
	le.PutUint64(b[40:], uint64(c.ConfigurationIndex))
	le.PutUint64(b[48:], uint64(createdAt.UnixNano()))
	le.PutUint32(b[56:], uint32(len(config)))
	le.PutUint64(b[60:], uint64(len(c.State)))
	le.PutUint32(b[92:], crcOf(b[:92]))
	b = append(append(b, config...), c.State...)
	return le.AppendUint32(b, crcOf(b)), nil
}

// ckptHeader is the fixed part of a checkpoint.
type ckptHeader struct {
	info        checkpointInfo
	configIndex Index
	configBytes int64
	stateBytes  int64
}

func (h ckptHeader) size() int64 { return ckptHeaderSize + h.configBytes + h.stateBytes + 4 }

func decodeCheckpointHeader(b []byte) (ckptHeader, error) {
	if err := checkPreamble(b, ckptMagic, ckptHeaderSize); err != nil {
		return ckptHeader{}, err
	}
	if err := checkCRC(b[:ckptHeaderSize]); err != nil {
		return ckptHeader{}, err
	}
	h := ckptHeader{
		info: checkpointInfo{
			index: Index(le.Uint64(b[16:])), term: le.Uint64(b[24:]), nextOffset: record.Offset(le.Uint64(b[32:])),
			installed: le.Uint32(b[12:])&ckptFlagInstalled != 0,
		},
		configIndex: Index(le.Uint64(b[40:])),
		configBytes: int64(le.Uint32(b[56:])),
		stateBytes:  int64(le.Uint64(b[60:])),
	}
	if h.info.index == 0 || h.info.nextOffset < 0 || h.stateBytes < 0 || h.stateBytes > MaxCheckpointBytes {
		return h, fmt.Errorf("impossible header: index %d, next offset %d, %d bytes of state", h.info.index, h.info.nextOffset, h.stateBytes)
	}
	return h, nil
}

// decodeCheckpoint is the inverse of encodeCheckpoint. State shares b.
func decodeCheckpoint(b []byte) (Checkpoint, checkpointInfo, error) {
	h, err := decodeCheckpointHeader(b)
	if err != nil {
		return Checkpoint{}, h.info, err
	}
	if int64(len(b)) != h.size() {
		return Checkpoint{}, h.info, fmt.Errorf("%w: %d bytes instead of %d", errTooShort, len(b), h.size())
	}
	if err := checkCRC(b); err != nil {
		return Checkpoint{}, h.info, err
	}
	config, err := decodeConfiguration(b[ckptHeaderSize : ckptHeaderSize+h.configBytes])
	if err != nil {
		return Checkpoint{}, h.info, err
	}
	return Checkpoint{
		Index: h.info.index, Term: h.info.term, NextOffset: h.info.nextOffset, Configuration: config, ConfigurationIndex: h.configIndex,
		State: b[ckptHeaderSize+h.configBytes : len(b)-4 : len(b)-4],
	}, h.info, nil
}

// decodeConfiguration is raft.DecodeConfiguration, which panics on bytes that it does not understand.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("configuration cannot be decoded: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// ReadCheckpoint decodes what a snapshot's stream carries: FSM.Restore gets exactly this. It reads at most MaxCheckpointBytes.
func ReadCheckpoint(r io.Reader) (Checkpoint, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxCheckpointBytes+1))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read checkpoint: %w", err)
	}
	c, _, err := decodeCheckpoint(b)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read checkpoint: %w", err)
	}
	return c, nil
}

// WriteCheckpoint stores the state of the state machine after the entry at c.Index, durably. The log up to there is made durable first, so that after a crash no
// checkpoint is ahead of its log. Term and NextOffset have to be those of the log at that index, or the error wraps ErrInvalid and ErrOutOfStep: the state machine and
// the log disagree on what was accepted. Checkpoints that nobody needs any more are removed afterwards: kept are the newest, the one at FirstIndex-1, and those at
// the ends of sealed segments.
//
// It runs beside StoreLogs without holding it up.
func (l *Log) WriteCheckpoint(c Checkpoint) error {
	l.adm.Lock()
	defer l.adm.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.hasCheckpoint(c.Index) {
		return nil
	}
	if err := l.checkCheckpoint(c); err != nil {
		return l.readFailed(fmt.Errorf("%s: checkpoint at %d: %w", l.dir, c.Index, err))
	}
	b, err := encodeCheckpoint(c, false, l.now())
	if err != nil {
		return err
	}
	if err := l.syncUpTo(c.Index); err != nil {
		return err
	}
	info := checkpointInfo{index: c.Index, term: c.Term, nextOffset: c.NextOffset}
	if err := l.writeDurable(info.file(), b); err != nil {
		return err
	}
	l.addCheckpoint(info)
	l.pruneCheckpoints()
	return nil
}

// checkCheckpoint compares a checkpoint with the log.
func (l *Log) checkCheckpoint(c Checkpoint) error {
	l.mu.RLock()
	start, last := l.start.index, l.last
	l.mu.RUnlock()
	if c.Index <= start || c.Index > last {
		return fmt.Errorf("%w: the log holds %d to %d", ErrInvalid, start+1, last)
	}
	term, next, err := l.stateAt(c.Index)
	if err != nil {
		return err
	}
	if term != c.Term || next != c.NextOffset {
		return fmt.Errorf("%w: %w: it says term %d and next offset %d, and the log says %d and %d", ErrInvalid, ErrOutOfStep, c.Term, c.NextOffset, term, next)
	}
	return nil
}

// stateAt returns the term of an entry in the log, and the next offset after it.
func (l *Log) stateAt(i Index) (term uint64, next record.Offset, err error) {
	err = l.retryMoved(func() error {
		term, next, err = l.stateInMemory(i)
		if err == errMoved {
			term, next, err = l.stateOnDisk(i)
		}
		return err
	})
	return term, next, err
}

// stateInMemory answers for cached entries and for the ends of segments; otherwise errMoved.
func (l *Log) stateInMemory(i Index) (uint64, record.Offset, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if i == l.start.index {
		return l.start.term, l.start.nextOffset, nil
	}
	if e := l.tail.get(i); e != nil {
		return e.log.Term, e.after, nil
	}
	k := sort.Search(len(l.segs), func(n int) bool { return l.segs[n].last >= i })
	if k < len(l.segs) && l.segs[k].last == i {
		return l.segs[k].lastTerm, l.segs[k].next, nil
	}
	return 0, 0, errMoved
}

func (l *Log) stateOnDisk(i Index) (uint64, record.Offset, error) {
	l.mu.RLock()
	k := sort.Search(len(l.segs), func(n int) bool { return l.segs[n].last >= i })
	if k == len(l.segs) || i < l.segs[k].header.first {
		l.mu.RUnlock()
		return 0, 0, errMoved
	}
	seg, end := l.segs[k], l.segs[k].end
	var from point
	indexed := seg.points != nil
	if indexed {
		from = seg.points.byIndex(i)
	}
	l.mu.RUnlock()
	h, err := l.acquire(seg)
	if err != nil {
		return 0, 0, err
	}
	defer l.files.release(h)
	if !indexed {
		from = h.points.byIndex(i)
	}
	sc := seg.scan(h.file, from, end, scanChunk)
	defer sc.close()
	for sc.index <= i {
		if _, err := sc.read(); err != nil {
			return 0, 0, seg.readError(sc.pos, err)
		}
	}
	return sc.term, sc.next, nil
}

// syncUpTo makes the entries up to an index durable. Under DurabilityQuorum they are.
func (l *Log) syncUpTo(i Index) error {
	l.mu.RLock()
	seg := l.active()
	var h *handle
	end, version := int64(0), l.version
	if seg != nil && i >= seg.header.first && seg.synced < seg.end {
		h, end = l.files.get(seg), seg.end
	}
	l.mu.RUnlock()
	if h == nil {
		return nil // synced, or sealed, which implies it
	}
	defer l.files.release(h)
	if err := h.file.Datasync(); err != nil {
		return l.poison(fmt.Errorf("fsync of %s: %w", seg.path, err))
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if version == l.version { // otherwise what lay before end may be replaced
		seg.synced = max(seg.synced, end)
	}
	return nil
}

// LatestCheckpoint returns the newest checkpoint; ok is false if there is none. A damaged one is a *DamageError.
func (l *Log) LatestCheckpoint() (c Checkpoint, ok bool, err error) {
	l.adm.Lock()
	defer l.adm.Unlock()
	n := len(l.checkpoints)
	if n == 0 {
		return Checkpoint{}, false, nil
	}
	c, _, err = l.readCheckpoint(l.checkpoints[n-1])
	return c, err == nil, err
}

// readCheckpoint reads a checkpoint's file. The caller holds adm, so that the file stays.
func (l *Log) readCheckpoint(info checkpointInfo) (Checkpoint, []byte, error) {
	path := l.path(info.file())
	b, err := readFile(l.fs, path, MaxCheckpointBytes)
	if err != nil {
		return Checkpoint{}, nil, l.readFailed(err)
	}
	c, got, err := decodeCheckpoint(b)
	if err == nil && got != info {
		err = fmt.Errorf("it is not the checkpoint that was there at the start")
	}
	if err != nil {
		return Checkpoint{}, nil, l.readFailed(&DamageError{File: path, Reason: err.Error()})
	}
	return c, b, nil
}

func (l *Log) hasCheckpoint(i Index) bool {
	k := sort.Search(len(l.checkpoints), func(n int) bool { return l.checkpoints[n].index >= i })
	return k < len(l.checkpoints) && l.checkpoints[k].index == i
}

// addCheckpoint keeps the list sorted. The caller holds adm.
func (l *Log) addCheckpoint(info checkpointInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := sort.Search(len(l.checkpoints), func(n int) bool { return l.checkpoints[n].index >= info.index })
	list := append([]checkpointInfo(nil), l.checkpoints[:k]...)
	l.checkpoints = append(append(list, info), l.checkpoints[k:]...)
}

// pruneCheckpoints removes those that nobody needs. What a crash brings back is removed again by the next one. The caller holds adm.
func (l *Log) pruneCheckpoints() {
	l.mu.Lock()
	ends := map[Index]bool{l.start.index: true}
	for _, s := range l.segs {
		if s.sealed {
			ends[s.last] = true
		}
	}
	var keep, gone []checkpointInfo
	for i, c := range l.checkpoints {
		if i == len(l.checkpoints)-1 || (ends[c.index] && c.index >= l.start.index) {
			keep = append(keep, c)
		} else {
			gone = append(gone, c)
		}
	}
	l.checkpoints = keep
	l.mu.Unlock()
	for _, c := range gone {
		if err := removeIfThere(l.fs, l.path(c.file())); err != nil {
			l.logger.Warn("cannot remove an old checkpoint", "dir", l.dir, "index", c.index, "error", err)
		}
	}
}
