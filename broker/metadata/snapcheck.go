package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// checkedSnapshots puts checks around snapshots. raft's own store has a CRC of the state and none of what describes it, and leaves a snapshot whose
// description does not parse out of the list. Here the state is stored as
//
//	0  "FLTSNAP1"
//	8  CRC-32C of the description (index, term, configuration and its index), u32, little-endian
//	12 the state
//	.. CRC-32C of the state, u32, little-endian
//
// What an earlier release stored begins with the state's "{" and has only the CRC of raft's store.
type checkedSnapshots struct {
	raft.SnapshotStore
	damaged []string // IDs that were damaged at the beginning
}

const (
	snapMagic    = "FLTSNAP1"
	snapHead     = len(snapMagic) + 4
	snapOverhead = int64(snapHead + 4)
)

// newCheckedSnapshots reads all snapshots once. A damaged one is left out if there is an earlier one; whether the log goes back that far is for the caller to see. ErrDamaged if
// none of them is sound.
func newCheckedSnapshots(store raft.SnapshotStore, log hclog.Logger) (*checkedSnapshots, error) {
	s := &checkedSnapshots{SnapshotStore: store}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		_, r, err := s.Open(m.ID)
		if err == nil {
			_ = r.Close()
			continue
		}
		log.Error("a snapshot of the metadata is damaged", "snapshot", m.ID, "error", err)
		s.damaged = append(s.damaged, m.ID)
		if len(s.damaged) == len(list) {
			return nil, fmt.Errorf("%w: snapshot %s: %w: %s", ErrDamaged, m.ID, err, remedy)
		}
	}
	return s, nil
}

// List implements raft.SnapshotStore.
func (s *checkedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.SnapshotStore.List()
	return slices.DeleteFunc(list, func(m *raft.SnapshotMeta) bool { return slices.Contains(s.damaged, m.ID) }), err
}

func descriptionCheck(index, term uint64, c raft.Configuration, configurationIndex uint64) uint32 {
	b := binary.LittleEndian.AppendUint64(nil, index)
	b = binary.LittleEndian.AppendUint64(b, term)
	b = binary.LittleEndian.AppendUint64(b, configurationIndex)
	for _, s := range c.Servers {
		b = fmt.Appendf(b, "%d %q %q;", s.Suffrage, s.ID, s.Address)
	}
	return crc32.Checksum(b, castagnoli)
}

// Create implements raft.SnapshotStore.
func (s *checkedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, c, configurationIndex, t)
	if err != nil {
		return nil, err
	}
	head := binary.LittleEndian.AppendUint32([]byte(snapMagic), descriptionCheck(index, term, c, configurationIndex))
	if _, err := sink.Write(head); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &checkedSink{SnapshotSink: sink}, nil
}

// checkedSink is used by one goroutine.
type checkedSink struct {
	raft.SnapshotSink
	sum   uint32
	ended bool
}

// Write implements io.Writer.
func (s *checkedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	s.sum = crc32.Update(s.sum, castagnoli, b[:n])
	return n, err
}

// Cancel implements raft.SnapshotSink.
func (s *checkedSink) Cancel() error {
	s.ended = true
	return s.SnapshotSink.Cancel()
}

// Close implements raft.SnapshotSink.
func (s *checkedSink) Close() error {
	if s.ended {
		return s.SnapshotSink.Close()
	}
	s.ended = true
	if _, err := s.SnapshotSink.Write(binary.LittleEndian.AppendUint32(nil, s.sum)); err != nil {
		return errors.Join(err, s.SnapshotSink.Cancel())
	}
	return s.SnapshotSink.Close()
}

// Open implements raft.SnapshotStore. The state is in memory then, as it is anyway.
func (s *checkedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	state, err := unwrapSnapshot(meta, data)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	m := *meta
	m.Size = int64(len(state))
	return &m, io.NopCloser(bytes.NewReader(state)), nil
}

// unwrapSnapshot returns the state.
func unwrapSnapshot(m *raft.SnapshotMeta, data []byte) ([]byte, error) {
	if len(data) > 0 && data[0] == '{' {
		return data, nil
	}
	if int64(len(data)) < snapOverhead || string(data[:len(snapMagic)]) != snapMagic {
		return nil, fmt.Errorf("%w: it does not begin as a snapshot", ErrDamaged)
	}
	state := data[snapHead : len(data)-4]
	switch {
	case binary.LittleEndian.Uint32(data[len(snapMagic):]) != descriptionCheck(m.Index, m.Term, m.Configuration, m.ConfigurationIndex):
		return nil, fmt.Errorf("%w: its description has not the bits that were stored", ErrDamaged)
	case binary.LittleEndian.Uint32(data[len(data)-4:]) != crc32.Checksum(state, castagnoli):
		return nil, fmt.Errorf("%w: the state has not the bits that were stored", ErrDamaged)
	}
	return state, nil
}
