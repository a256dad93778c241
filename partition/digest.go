package partition

import (
	"cmp"
	"hash/crc64"
	"slices"

	"github.com/flotilla-log/flotilla/raftlog"
)

// Replicas of a partition apply the same entries and so have the same state after each of them. To notice when they do not, each notes a digest of its
// state (the very bytes that a checkpoint at that place would hold, among them the running digest of the batches) at indexes that all share: the multiples
// of markFine and markCoarse. Whoever has the marks of two replicas compares those of equal index; see package broker for who asks whom.
//
// The state after entry i is known without having stopped there, as in saveBoundaries: it is the state when the first entry behind i is about to be
// applied. After a restart or the installation of a checkpoint the replica knows the marks from there on.
const (
	// Fine marks let replicas be compared that are a few hundred entries apart, and name the place; they are taken where the state is small.
	markFine    = 64
	markFineMax = 4 << 10 // bytes of state
	// Coarse marks are for the rest: busy partitions, many producers, consumer groups.
	markCoarse = 4096
	// marksKept of each kind are in memory, 16 bytes each.
	marksKept = 16
)

// Mark is the digest of the state after an entry.
type Mark struct {
	Index raftlog.Index
	Sum   uint64
}

// Digest is what a replica tells of its state, to be compared with another one's.
type Digest struct {
	// Format says how the sums were made. Those of different formats cannot be compared.
	Format uint16
	// Now is at the last entry that was applied.
	Now Mark
	// Marks are in ascending order.
	Marks []Mark
}

// At returns the sum at an index.
func (d Digest) At(i raftlog.Index) (sum uint64, ok bool) {
	if d.Now.Index == i {
		return d.Now.Sum, true
	}
	for _, m := range d.Marks {
		if m.Index == i {
			return m.Sum, true
		}
	}
	return 0, false
}

// marks are guarded by the state's mu.
type marks struct {
	since        raftlog.Index // the state is known from here on
	fine, coarse ring
	size         int // of the encoded state, at the last mark
}

// ring keeps the newest marks, the oldest first.
type ring []Mark

func (r ring) last() raftlog.Index {
	if len(r) == 0 {
		return 0
	}
	return r[len(r)-1].Index
}

func (r *ring) add(m Mark) {
	if len(*r) == marksKept {
		copy(*r, (*r)[1:])
		*r = (*r)[:marksKept-1]
	}
	*r = append(*r, m)
}

// digestFormat goes up with whatever changes the bytes of a state: two releases that encode the same state differently must not take it for a difference.
const digestFormat = 1

var digestTable = crc64.MakeTable(crc64.ECMA)

// noteMarks takes the marks that lie between the entries applied so far and the next one.
func (s *state) noteMarks(next raftlog.Index) {
	if at := (next - 1) / markCoarse * markCoarse; s.marks.due(at, s.marks.coarse) {
		if sum, ok := s.sum(); ok {
			s.marks.coarse.add(Mark{at, sum})
		}
	}
	if s.host != nil || s.marks.size > markFineMax {
		return
	}
	if at := (next - 1) / markFine * markFine; s.marks.due(at, s.marks.fine) {
		if sum, ok := s.sum(); ok {
			s.marks.fine.add(Mark{at, sum})
		}
	}
}

// due says that the state at index at is the present one and was not noted yet.
func (m *marks) due(at raftlog.Index, r ring) bool { return at > 0 && at >= m.since && at > r.last() }

// sum is the digest of the present state. A Machine that cannot tell its state will say so when a checkpoint is due.
func (s *state) sum() (uint64, bool) {
	if s.host != nil {
		b, err := s.host.Checkpoint()
		if err != nil {
			return 0, false
		}
		s.machine = append(make([]byte, 0), b...)
		defer func() { s.machine = nil }()
	}
	b := s.encode()
	s.marks.size = len(b)
	return crc64.Checksum(b, digestTable), true
}

// Digest tells the digests that this replica has of its state.
func (r *Replica) Digest() Digest {
	s := r.state
	s.mu.Lock() // also because a Machine is used by one goroutine at a time
	defer s.mu.Unlock()
	d := Digest{Format: digestFormat}
	if sum, ok := s.sum(); ok && s.applied > 0 {
		d.Now = Mark{s.applied, sum}
	}
	d.Marks = append(append(d.Marks, s.marks.coarse...), s.marks.fine...)
	slices.SortFunc(d.Marks, func(a, b Mark) int { return cmp.Compare(a.Index, b.Index) })
	return d
}

// Condemn fails a replica of which others have found that its state is wrong, as if its files were damaged: it has to be set aside and rebuilt.
func (r *Replica) Condemn(reason string) {
	_ = r.log.Poison(&raftlog.DamageError{File: r.cfg.Dir, Reason: reason})
}
