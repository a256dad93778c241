package partition

import (
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// state is the replicated state machine. apply is deterministic: its only inputs are the entries of the log, in order; the clock is the largest time
// at which a leader appended one of them.
//
// raft's FSM goroutine writes it; everyone else reads it, under mu.
type state struct {
	mu          sync.RWMutex
	snapshot                  // what a checkpoint holds
	applied     raftlog.Index // of the last entry that apply saw
	appliedTerm uint64
	config      raft.Configuration // the last committed one
	configIndex raftlog.Index
	host        Machine // nil: none
	marks       marks   // digests, see digest.go
	// sums knows the CRC-32C of the payloads of entries that were written a moment ago; nil: none.
	sums func(index uint64, payload []byte) (uint32, bool)
}

// applyResult is what the state machine answers for one entry.
type applyResult struct {
	accepted bool // for a batch: its stamp matched
	value    any  // of Machine.Apply
	trimmed  bool // the log start or the trim index moved
	config   bool // the configuration changed
}

// apply applies one entry: a command or a configuration. An error is final: the replica does not understand the log and must stop.
func (s *state) apply(l *raft.Log) (applyResult, error) {
	s.tick(l.AppendedAt)
	res, err := s.applyEntry(l)
	if err != nil {
		return res, fmt.Errorf("entry %d: %w", l.Index, err)
	}
	s.applied, s.appliedTerm = raftlog.Index(l.Index), l.Term
	return res, nil
}

func (s *state) applyEntry(l *raft.Log) (applyResult, error) {
	switch {
	case l.Type == raft.LogConfiguration:
		config, err := decodeConfiguration(l.Data)
		s.config, s.configIndex = config, raftlog.Index(l.Index)
		return applyResult{config: true}, err
	case len(l.Data) == 0:
		return applyResult{}, fmt.Errorf("%w: it is empty", errCommand)
	case raftlog.IsBatch(l.Type, l.Data):
		return s.applyBatch(l)
	case l.Data[0] < ownCommandMin:
		return s.applyMachine(l)
	default:
		return s.applyTrim(l.Data)
	}
}

// checksum is the CRC of a batch's bytes as they are, or as they were when they were written to the disk.
func (s *state) checksum(l *raft.Log) uint32 {
	if s.sums != nil {
		if sum, ok := s.sums(l.Index, l.Data); ok {
			return record.ChecksumOf(l.Data, sum)
		}
	}
	return record.Checksum(l.Data)
}

// tick moves the clock, never backwards. Times before 1970, and the zero time of a bootstrap entry, do not count.
func (s *state) tick(at time.Time) {
	if ns := at.UnixNano(); !at.IsZero() && ns > s.clock {
		s.clock = ns
	}
}

// tickWriting moves the writing clock by the time since the batch before, but not by more than a day.
func (s *state) tickWriting() {
	if s.lastBatch != 0 {
		s.writing += min(s.clock-s.lastBatch, writingStepNs)
	}
	s.lastBatch = s.clock
}

// applyBatch accepts the batch or leaves everything as it is.
func (s *state) applyBatch(l *raft.Log) (applyResult, error) {
	after, ok := raftlog.Accept(l, s.next)
	if !ok {
		return applyResult{}, nil
	}
	h, err := record.ParseHeader(l.Data)
	if err != nil {
		return applyResult{}, err // Accept has parsed the same bytes
	}
	s.next = after
	s.digest = mixDigest(s.digest, h.BaseOffset, s.checksum(l))
	s.tickWriting()
	if h.Idempotent() {
		s.producers.record(h, s.writing)
	}
	return applyResult{accepted: true}, nil
}

func (s *state) applyMachine(l *raft.Log) (applyResult, error) {
	if s.host == nil {
		return applyResult{}, fmt.Errorf("%w: this group has no machine", errCommand)
	}
	return applyResult{value: s.host.Apply(l.Data, time.Unix(0, s.clock).UTC(), raftlog.Index(l.Index))}, nil
}

func (s *state) applyTrim(b []byte) (applyResult, error) {
	c, err := decodeCommand(b)
	if err != nil {
		return applyResult{}, err
	}
	start, index := min(c.logStart, s.next), c.index
	res := applyResult{trimmed: start > s.logStart || index > s.trimIndex}
	s.logStart = max(s.logStart, start)
	s.trimIndex = max(s.trimIndex, index)
	return res, nil
}

// mixDigest folds one accepted batch into the running digest: the CRC covers the records, the offset their place. It is that of the bytes as they are here,
// and not what the batch says of itself: memory that fails between the network and the disk changes the one and not the other. Not cryptographic; two
// replicas that agree on it hold the same batches.
func mixDigest(d uint64, base record.Offset, crc uint32) uint64 {
	const prime1, prime2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F // xxhash's
	d ^= bits.RotateLeft64((uint64(base)^uint64(crc)<<32|uint64(crc))*prime2, 31) * prime1
	return bits.RotateLeft64(d, 27)*prime1 + prime2
}

// checkpoint encodes the state as it is, for the boundary at index.
func (s *state) checkpoint(index raftlog.Index, term uint64) (raftlog.Checkpoint, error) {
	if s.host != nil {
		b, err := s.host.Checkpoint()
		if err != nil {
			return raftlog.Checkpoint{}, fmt.Errorf("machine's checkpoint at entry %d: %w", index, err)
		}
		s.machine = append(make([]byte, 0), b...) // never nil: nil means that there is no machine
	}
	cp := raftlog.Checkpoint{
		Index: index, Term: term, NextOffset: s.next,
		Configuration: s.config.Clone(), ConfigurationIndex: s.configIndex,
		State: s.encode(),
	}
	s.machine = nil
	return cp, nil
}

// restore replaces the state by a checkpoint's. On an error it is unchanged, unless the Machine failed.
func (s *state) restore(cp raftlog.Checkpoint) error {
	snap, err := decodeSnapshot(cp.State)
	if err != nil {
		return err
	}
	if snap.next != cp.NextOffset {
		return fmt.Errorf("%w: its next offset is %d, the log's is %d", errState, snap.next, cp.NextOffset)
	}
	if (snap.machine != nil) != (s.host != nil) {
		return fmt.Errorf("%w: it is of another kind of group", errState)
	}
	if s.host != nil {
		if err := s.host.Restore(snap.machine); err != nil {
			return fmt.Errorf("machine's checkpoint at entry %d: %w", cp.Index, err)
		}
	}
	snap.machine = nil
	s.snapshot = *snap
	s.applied, s.appliedTerm = cp.Index, cp.Term
	s.marks = marks{since: cp.Index}
	s.config, s.configIndex = cp.Configuration, cp.ConfigurationIndex
	return nil
}

// decodeConfiguration is raft.DecodeConfiguration without its panic.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft configuration: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}
