package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// The vote store and the metadata group's stores are bbolt files in real life, which need memory maps and so real files. Here they are plain
// memory with what bbolt promises: what was committed is durable, all of a commit or nothing.

// stableData is what the vote store has committed.
type stableData map[transport.GroupID]map[string][]byte

// stableLife is the vote store of one life.
type stableLife struct{ l *life }

var _ stable.Backend = stableLife{}

// Load implements stable.Backend.
func (s stableLife) Load() ([]stable.Change, error) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	var out []stable.Change
	for g, kv := range s.l.stable {
		for k, v := range kv {
			out = append(out, stable.Change{Group: g, Key: k, Value: v})
		}
	}
	return out, nil
}

// Commit implements stable.Backend.
func (s stableLife) Commit(changes []stable.Change) error {
	return s.l.store("stable.db", func() {
		for _, c := range changes {
			if c.Delete {
				delete(s.l.stable, c.Group)
				continue
			}
			if s.l.stable[c.Group] == nil {
				s.l.stable[c.Group] = map[string][]byte{}
			}
			s.l.stable[c.Group][c.Key] = bytes.Clone(c.Value)
		}
	})
}

// store has a change made durably, all of it or nothing, as bbolt's commits are; file names it in the error of a full disk.
func (l *life) store(file string, change func()) error {
	if err := l.wait(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended.Load() {
		return vfs.ErrCrashed
	}
	if l.full {
		return &fs.PathError{Op: "write", Path: file, Err: syscall.ENOSPC}
	}
	change()
	return nil
}

// Close implements stable.Backend.
func (s stableLife) Close() error { return nil }

// metadataData is the metadata group's log and newest snapshot.
type metadataData struct {
	log  map[uint64]raft.Log
	kv   map[string][]byte
	meta *raft.SnapshotMeta
	data []byte
}

// metadataLog is the log of one life.
type metadataLog struct{ l *life }

var _ metadata.LogBackend = metadataLog{}

func (m metadataLog) bounds() (first, last uint64) {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if len(m.l.meta.log) == 0 {
		return 0, 0
	}
	keys := slices.Collect(maps.Keys(m.l.meta.log))
	return slices.Min(keys), slices.Max(keys)
}

// FirstIndex implements raft.LogStore.
func (m metadataLog) FirstIndex() (uint64, error) { first, _ := m.bounds(); return first, nil }

// LastIndex implements raft.LogStore.
func (m metadataLog) LastIndex() (uint64, error) { _, last := m.bounds(); return last, nil }

// GetLog implements raft.LogStore.
func (m metadataLog) GetLog(index uint64, out *raft.Log) error {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	e, ok := m.l.meta.log[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*out = e
	return nil
}

// StoreLog implements raft.LogStore.
func (m metadataLog) StoreLog(e *raft.Log) error { return m.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore.
func (m metadataLog) StoreLogs(logs []*raft.Log) error {
	return m.l.store("raft.db", func() {
		if m.l.meta.log == nil {
			m.l.meta.log = map[uint64]raft.Log{}
		}
		for _, e := range logs {
			m.l.meta.log[e.Index] = *e
		}
	})
}

// Set implements what the metadata's log has for its seal; it is durable like an entry.
func (m metadataLog) Set(key, val []byte) error {
	return m.l.store("raft.db", func() {
		if m.l.meta.kv == nil {
			m.l.meta.kv = map[string][]byte{}
		}
		m.l.meta.kv[string(key)] = bytes.Clone(val)
	})
}

// Get implements the other half.
func (m metadataLog) Get(key []byte) ([]byte, error) {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if v, ok := m.l.meta.kv[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	return nil, errors.New("not found") // raft-boltdb's text
}

// DeleteRange implements raft.LogStore.
func (m metadataLog) DeleteRange(from, to uint64) error {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if m.l.ended.Load() {
		return vfs.ErrCrashed
	}
	for i := from; i <= to; i++ {
		delete(m.l.meta.log, i)
	}
	return nil
}

// Close implements metadata.LogBackend.
func (m metadataLog) Close() error { return nil }

// metadataSnapshots are the snapshots of one life; the newest is kept.
type metadataSnapshots struct{ l *life }

// Create implements raft.SnapshotStore.
func (m metadataSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	meta := raft.SnapshotMeta{Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex}
	return &metadataSink{l: m.l, meta: meta}, nil
}

// List implements raft.SnapshotStore.
func (m metadataSnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if m.l.meta.meta == nil {
		return nil, nil
	}
	meta := *m.l.meta.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (m metadataSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if m.l.meta.meta == nil || m.l.meta.meta.ID != id {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, fs.ErrNotExist)
	}
	meta := *m.l.meta.meta
	return &meta, io.NopCloser(bytes.NewReader(m.l.meta.data)), nil
}

type metadataSink struct {
	l    *life
	meta raft.SnapshotMeta
	buf  bytes.Buffer
	once sync.Once
}

// Write implements io.Writer.
func (s *metadataSink) Write(b []byte) (int, error) { return s.buf.Write(b) }

// ID implements raft.SnapshotSink.
func (s *metadataSink) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *metadataSink) Cancel() error {
	s.once.Do(func() {})
	return nil
}

// Close implements raft.SnapshotSink: only now the snapshot counts.
func (s *metadataSink) Close() (err error) {
	s.once.Do(func() {
		if err = s.l.wait(); err != nil {
			return
		}
		s.l.mu.Lock()
		defer s.l.mu.Unlock()
		if s.l.ended.Load() {
			err = vfs.ErrCrashed
			return
		}
		if s.l.full {
			err = fmt.Errorf("snapshot: %w", syscall.ENOSPC)
			return
		}
		s.meta.Size = int64(s.buf.Len())
		s.l.meta.meta, s.l.meta.data = &s.meta, s.buf.Bytes()
	})
	return err
}
