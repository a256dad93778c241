package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"
)

// Snapshots presents the checkpoints as raft's snapshots, one at a time: before ServeFollowers the newest, with which raft starts; afterwards the one at
// FirstIndex-1, with which a follower that is too far behind begins, so that all retained entries reach it by ordinary replication.
func (l *Log) Snapshots() raft.SnapshotStore { return snapshotStore{l} }

// ServeFollowers is to be called when raft has started.
func (l *Log) ServeFollowers() {
	l.serve.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		s.notCommands = nil
	}
}

// WasCommand says that recovery has read an entry, found it good, and a command: raft, which looks at every entry after the newest checkpoint before it starts, for configurations
// among them, need not read it again. It knows nothing once ServeFollowers was called.
func (l *Log) WasCommand(index uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := Index(index)
	for _, s := range l.segs {
		if s.notCommands != nil && s.header.first <= i && i <= s.scannedTo {
			_, other := slices.BinarySearch(s.notCommands, i)
			return !other
		}
	}
	return false
}

type snapshotStore struct{ l *Log }

// snapshotID is opaque for raft.
func (c checkpointInfo) snapshotID() string { return fmt.Sprintf("%020d-%d", uint64(c.index), c.term) }

// List returns the one snapshot that there is to see, or none.
func (s snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.l.adm.Lock()
	defer s.l.adm.Unlock()
	info, ok := s.l.visible()
	if !ok {
		return nil, nil
	}
	meta, _, err := s.l.snapshot(info)
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, nil
}

// visible chooses the checkpoint that List shows. The caller holds adm.
func (l *Log) visible() (checkpointInfo, bool) {
	n := len(l.checkpoints)
	if n == 0 {
		return checkpointInfo{}, false
	}
	if !l.serve.Load() {
		return l.checkpoints[n-1], true
	}
	first := l.checkpoints[0]
	return first, first.index == l.start.index
}

// snapshot reads a checkpoint. The caller holds adm.
func (l *Log) snapshot(info checkpointInfo) (*raft.SnapshotMeta, []byte, error) {
	c, b, err := l.readCheckpoint(info)
	if err != nil {
		return nil, nil, err
	}
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: info.snapshotID(), Index: uint64(c.Index), Term: c.Term,
		Configuration: c.Configuration, ConfigurationIndex: uint64(c.ConfigurationIndex), Size: int64(len(b)),
	}, b, nil
}

// Open returns a checkpoint, encoded as ReadCheckpoint wants it.
func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.l.adm.Lock()
	defer s.l.adm.Unlock()
	for _, info := range s.l.checkpoints {
		if info.snapshotID() == id {
			meta, b, err := s.l.snapshot(info)
			if err != nil {
				return nil, nil, err
			}
			return meta, io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	return nil, nil, fmt.Errorf("%s: no snapshot %q", s.l.dir, id)
}

// Create begins to receive a leader's checkpoint. Closing the sink installs it. It is refused (ErrHaveEntry) if the log already holds the entry, or has passed it:
// a follower whose disk was full would otherwise wipe entries that it has acknowledged.
func (s snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, _ raft.Configuration, _ uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	s.l.adm.Lock()
	defer s.l.adm.Unlock()
	if version < raft.SnapshotVersionMin || version > raft.SnapshotVersionMax {
		return nil, fmt.Errorf("%s: %w: snapshot version %d", s.l.dir, ErrInvalid, version)
	}
	info := checkpointInfo{index: Index(index), term: term}
	if err := s.l.mayInstall(info); err != nil {
		return nil, err
	}
	return &sink{l: s.l, info: info}, nil
}

// Holds says whether the log has the entry of an index and a term, so that the next one can follow. It is false, too, if that cannot be read.
func (l *Log) Holds(index, term uint64) bool {
	first, err := l.FirstIndex()
	if err != nil || first == 0 || index < first {
		return false
	}
	if last, err := l.LastIndex(); err != nil || index > last {
		return false
	}
	have, _, err := l.stateAt(Index(index))
	return err == nil && have == term
}

// mayInstall says whether a leader's checkpoint may replace the log. The caller holds adm.
func (l *Log) mayInstall(info checkpointInfo) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.mu.RLock()
	start, last := l.start.index, l.last
	newest := start
	if n := len(l.checkpoints); n > 0 {
		newest = l.checkpoints[n-1].index
	}
	l.mu.RUnlock()
	have := fmt.Errorf("%s: %w: index %d, term %d", l.dir, ErrHaveEntry, info.index, info.term)
	switch {
	case info.index == 0:
		return fmt.Errorf("%s: %w: snapshot of index 0", l.dir, ErrInvalid)
	case info.index <= newest: // checkpoints cover committed entries only
		return have
	case info.index > last:
		return nil
	}
	term, _, err := l.stateAt(info.index)
	if err != nil {
		return l.readFailed(err)
	}
	if term == info.term {
		return have
	}
	return nil
}

// sink collects a leader's checkpoint in memory. Raft calls it from one goroutine.
type sink struct {
	l    *Log
	info checkpointInfo
	buf  bytes.Buffer
	done bool
}

// ID names the snapshot that Close installs.
func (s *sink) ID() string { return s.info.snapshotID() }

// Write collects; the error wraps ErrTooLarge above MaxCheckpointBytes.
func (s *sink) Write(p []byte) (int, error) {
	if s.buf.Len()+len(p) > MaxCheckpointBytes {
		return 0, fmt.Errorf("%s: %w: snapshot of more than %d bytes", s.l.dir, ErrTooLarge, MaxCheckpointBytes)
	}
	return s.buf.Write(p)
}

// Cancel throws away what was received.
func (s *sink) Cancel() error {
	s.done = true
	s.buf = bytes.Buffer{}
	return nil
}

// Close checks what was received and installs it: when it returns, the log is durably empty and begins after the checkpoint.
func (s *sink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	c, _, err := decodeCheckpoint(s.buf.Bytes())
	if err != nil {
		return fmt.Errorf("%s: received snapshot: %w", s.l.dir, err)
	}
	if c.Index != s.info.index || c.Term != s.info.term {
		return fmt.Errorf("%s: %w: received the snapshot of index %d, term %d instead of %d, %d", s.l.dir, ErrInvalid, c.Index, c.Term, s.info.index, s.info.term)
	}
	return s.l.install(c)
}

// install resets the log to a leader's checkpoint, in an order that a crash can interrupt anywhere:
//
//  1. the checkpoint is durable, marked as installed. From here on recovery completes the rest.
//  2. the start record with the next epoch is durable: every segment there is now belongs to an earlier epoch.
//  3. the old files are removed. Those that a crash leaves are recognised by their epoch, or by not being the start's checkpoint.
func (l *Log) install(c Checkpoint) error {
	l.adm.Lock()
	defer l.adm.Unlock()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	info := checkpointInfo{index: c.Index, term: c.Term, nextOffset: c.NextOffset, installed: true}
	if err := l.mayInstall(info); err != nil {
		return err
	}
	l.background.Wait() // no index of a segment that goes is being written
	if err := l.unmark(); err != nil {
		return err
	}
	b, err := encodeCheckpoint(c, true, l.now())
	if err != nil {
		return err
	}
	if err := l.writeDurable(info.file(), b); err != nil {
		return err
	}
	start := startRecord{epoch: l.start.epoch + 1, index: c.Index, term: c.Term, nextOffset: c.NextOffset}
	if err := l.writeDurable(startName, start.encode()); err != nil {
		return l.uninstall(info, err)
	}
	last := l.last
	segs, checkpoints := l.resetTo(start, info)
	l.removeOld(segs, checkpoints)
	if last > c.Index {
		// raft keeps its own memory of the last entry, looks for the ones behind the checkpoint when the leader sends them, and would fail for ever.
		l.poison(fmt.Errorf("%w: a snapshot at %d replaced a log that ended at %d", ErrOutOfStep, c.Index, last))
	}
	return nil
}

// uninstall takes the checkpoint back when the start record could not be written: the log goes on as it was, and recovery must not reset it later.
func (l *Log) uninstall(info checkpointInfo, cause error) error {
	if errors.Is(cause, ErrPoisoned) {
		return cause
	}
	err := l.fs.Remove(l.path(info.file()))
	if err == nil {
		err = syncDir(l.fs, l.dir)
	}
	if err != nil {
		return l.poison(errors.Join(cause, err))
	}
	return cause
}

// resetTo empties the log in memory and returns what it had.
func (l *Log) resetTo(start startRecord, info checkpointInfo) ([]*segment, []checkpointInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	segs, checkpoints := l.segs, l.checkpoints
	for _, s := range segs {
		l.files.drop(s)
	}
	l.start, l.segs, l.checkpoints = start, nil, []checkpointInfo{info}
	l.tail.clear()
	l.version++
	l.setEnd()
	return segs, checkpoints
}

// removeOld removes files that nothing refers to any more. What stays because of an error or a crash is removed by the next start.
func (l *Log) removeOld(segs []*segment, checkpoints []checkpointInfo) {
	var paths []string
	for _, s := range segs {
		paths = append(paths, s.idxPath, s.path)
	}
	for _, c := range checkpoints {
		paths = append(paths, l.path(c.file()))
	}
	for _, p := range paths {
		if err := removeIfThere(l.fs, p); err != nil {
			l.logger.Warn("cannot remove a file; the next start will", "file", p, "error", err)
		}
	}
	if err := syncDir(l.fs, l.dir); err != nil {
		l.logger.Warn("cannot sync a directory after removing files", "dir", l.dir, "error", err)
	}
}
