package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"

	"github.com/hashicorp/raft"
)

// What protects the entries in raft.db, of which bbolt and raft-boltdb check nothing. Each is stored with 8 bytes behind its Extensions, little-endian:
//
//	0  the check of the entry before it, 0 if there was none
//	4  its own check: CRC-32C of index, term, type, data, extensions and the 4 bytes before
//
// and raft-boltdb's bucket of settings has, under "flotilla-seal", from which index on entries have checks (those before were written by an earlier release) and
// which is the last one, with its check. So an entry is not mistaken for another, no earlier version of one goes for the present one, and none is lost
// at the end. The order: entries, then the seal, then StoreLogs returns; a crash in between leaves more entries than the seal says, which nobody was told
// of. Before entries are cut off at the end the seal says so.
const (
	checkSize   = 8
	sealSize    = 25 // format u8, from u64, last u64, check u32, CRC-32C u32
	sealFormat  = 1
	sealPayload = sealSize - 4
)

var (
	sealKey    = []byte("flotilla-seal")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// keyValues is what raft-boltdb's store has besides entries. A LogBackend without it has no seal, and checks from its first entry on.
type keyValues interface {
	Set(key, val []byte) error
	Get(key []byte) ([]byte, error)
}

// sealed is where a log begins to have checks, and where it ends.
type sealed struct {
	from, last uint64
	check      uint32
}

func (s sealed) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{sealFormat}, s.from)
	b = binary.LittleEndian.AppendUint64(b, s.last)
	b = binary.LittleEndian.AppendUint32(b, s.check)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSeal(b []byte) (s sealed, err error) {
	if len(b) != sealSize || binary.LittleEndian.Uint32(b[sealPayload:]) != crc32.Checksum(b[:sealPayload], castagnoli) {
		return s, fmt.Errorf("%w: the seal of raft.db", ErrDamaged)
	}
	if b[0] != sealFormat {
		return s, fmt.Errorf("%w: raft.db has format %d", ErrNewerFormat, b[0])
	}
	return sealed{binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:]), binary.LittleEndian.Uint32(b[17:])}, nil
}

// entryCheck is an entry's own check; prev is that of the entry before.
func entryCheck(l *raft.Log, extensions []byte, prev uint32) uint32 {
	var head [29]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	binary.LittleEndian.PutUint64(head[17:], uint64(len(l.Data)))
	binary.LittleEndian.PutUint32(head[25:], prev)
	c := crc32.Update(0, castagnoli, head[:])
	c = crc32.Update(c, castagnoli, l.Data)
	return crc32.Update(c, castagnoli, extensions)
}

// withCheck returns a copy to store.
func withCheck(l *raft.Log, prev uint32) (*raft.Log, uint32) {
	own := entryCheck(l, l.Extensions, prev)
	c := *l
	c.Extensions = make([]byte, 0, len(l.Extensions)+checkSize)
	c.Extensions = append(c.Extensions, l.Extensions...)
	c.Extensions = binary.LittleEndian.AppendUint32(c.Extensions, prev)
	c.Extensions = binary.LittleEndian.AppendUint32(c.Extensions, own)
	return &c, own
}

// withoutCheck turns what was stored under index back into what was given to StoreLogs.
func withoutCheck(index uint64, l *raft.Log) (prev, own uint32, err error) {
	n := len(l.Extensions) - checkSize
	if n >= 0 {
		prev, own = binary.LittleEndian.Uint32(l.Extensions[n:]), binary.LittleEndian.Uint32(l.Extensions[n+4:])
	}
	if n < 0 || l.Index != index || own != entryCheck(l, l.Extensions[:n], prev) {
		return 0, 0, fmt.Errorf("%w: entry %d of the log has not the bits that were stored", ErrDamaged, index)
	}
	l.Extensions = l.Extensions[:n:n]
	if n == 0 {
		l.Extensions = nil
	}
	return prev, own, nil
}

// verify reads the whole log and its seal.
func (l *logStore) verify() error {
	first, err := l.LogBackend.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LogBackend.LastIndex()
	if err != nil {
		return err
	}
	if err := l.readSeal(first, last); err != nil {
		return err
	}
	l.from.Store(l.seal.from)
	if last < l.seal.last {
		return fmt.Errorf("%w: the log ends with entry %d, and had %d", ErrDamaged, last, l.seal.last)
	}
	before := uint32(0)
	for i := first; i <= last && i > 0; i++ {
		own, err := l.verifyEntry(i, i > first && i > l.seal.from, before)
		if err != nil {
			return err
		}
		if _, kept := l.LogBackend.(keyValues); kept && i == l.seal.last && i >= l.seal.from && own != l.seal.check {
			return fmt.Errorf("%w: entry %d of the log is not the newest one of that index", ErrDamaged, i)
		}
		before = own
	}
	l.last, l.check = last, before
	return nil
}

// verifyEntry returns an entry's check. chained says that the entry before has one too.
func (l *logStore) verifyEntry(index uint64, chained bool, before uint32) (uint32, error) {
	var e raft.Log
	err := l.backendGet(index, &e)
	if errors.Is(err, raft.ErrLogNotFound) && index < l.seal.from {
		return 0, nil // earlier releases left gaps behind a snapshot
	}
	if err != nil {
		return 0, fmt.Errorf("%w: entry %d of the log: %w", ErrDamaged, index, err)
	}
	if index < l.seal.from {
		if _, _, err := withoutCheck(index, &e); err == nil {
			return 0, fmt.Errorf("%w: entry %d of the log has a check, and the seal says that it has none", ErrDamaged, index)
		}
		return 0, nil
	}
	prev, own, err := withoutCheck(index, &e)
	if err == nil && chained && prev != before {
		err = fmt.Errorf("%w: entry %d of the log does not follow on entry %d", ErrDamaged, index, index-1)
	}
	return own, err
}

// readSeal reads the seal, or makes the first one: then the entries that are there already have no checks.
func (l *logStore) readSeal(first, last uint64) error {
	s, ok := l.LogBackend.(keyValues)
	if !ok {
		l.seal = sealed{from: first, last: last}
		return nil
	}
	b, err := s.Get(sealKey)
	if err == nil {
		l.seal, err = decodeSeal(b)
		return err
	}
	if !isNotFound(err) {
		return err
	}
	l.seal = sealed{from: last + 1, last: last}
	for i := first; i <= last && i > 0; i++ { // before the seal is made: it may have been lost
		if _, err := l.verifyEntry(i, false, 0); err != nil {
			return err
		}
	}
	return s.Set(sealKey, l.seal.encode())
}

// isNotFound is raft-boltdb's ErrKeyNotFound, by the text that raft itself compares with.
func isNotFound(err error) bool { return err != nil && err.Error() == "not found" }

// putSeal notes where the log ends. What comes behind it has checks.
func (l *logStore) putSeal(last uint64, check uint32) error {
	l.seal = sealed{min(l.seal.from, last+1), last, check}
	l.from.Store(l.seal.from)
	if s, ok := l.LogBackend.(keyValues); ok {
		return s.Set(sealKey, l.seal.encode())
	}
	return nil
}

// backendGet reads an entry. bbolt touches memory that is not there, or panics, on pages that were damaged since the log was opened.
func (l *logStore) backendGet(index uint64, out *raft.Log) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return l.LogBackend.GetLog(index, out)
}

// GetLog implements raft.LogStore.
func (l *logStore) GetLog(index uint64, out *raft.Log) error {
	err := l.backendGet(index, out)
	if err == nil && index >= l.from.Load() {
		_, _, err = withoutCheck(index, out)
	}
	if errors.Is(err, ErrDamaged) && l.fail != nil {
		l.fail(err)
	}
	return err
}

// storeChecked stores entries that raft has put in order: they follow on the last one, or on a snapshot. The caller has the gate.
func (l *logStore) storeChecked(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	var err error
	switch first := logs[0].Index; {
	case first <= l.last: // stored before, but for the seal, so that raft thinks they are not
		err = l.deleteRange(first, l.last)
	case first > l.last+1 && l.last > 0: // a crash came between a snapshot from the leader and the deletion of what that covers
		err = l.deleteRange(1, l.last)
	}
	if err != nil {
		return err
	}
	prev := l.check
	if logs[0].Index != l.last+1 {
		prev = 0
	}
	checked := make([]*raft.Log, len(logs))
	for i, e := range logs {
		checked[i], prev = withCheck(e, prev)
	}
	if err := l.LogBackend.StoreLogs(checked); err != nil {
		return err
	}
	l.last, l.check = logs[len(logs)-1].Index, prev
	return l.putSeal(l.last, l.check)
}

// DeleteRange implements raft.LogStore.
func (l *logStore) DeleteRange(from, to uint64) error {
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	return l.deleteRange(from, to)
}

// deleteRange is DeleteRange for who has the gate.
func (l *logStore) deleteRange(from, to uint64) error {
	if to >= l.last && from <= l.last {
		last, check := uint64(0), uint32(0)
		first, err := l.LogBackend.FirstIndex()
		if err != nil {
			return err
		}
		if from > first {
			if last = from - 1; last >= l.seal.from {
				if check, err = l.verifyEntry(last, false, 0); err != nil {
					return err
				}
			}
		}
		if err := l.putSeal(last, check); err != nil {
			return err
		}
		l.last, l.check = last, check
	}
	return l.LogBackend.DeleteRange(from, to)
}

// IsMonotonic implements raft.MonotonicLogStore: raft deletes what is there before it goes on behind a snapshot, so that there are no gaps.
func (l *logStore) IsMonotonic() bool { return true }
