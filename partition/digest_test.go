package partition

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
)

// digestLog makes a log as a leader would: batches of several producers, trims, and indexes that the state machine never sees (no-ops).
func digestLog(rng *rand.Rand, entries int) []*raft.Log {
	var logs []*raft.Log
	next := record.Offset(0)
	at := time.Unix(1_000_000, 0)
	sequences := map[int64]int32{}
	index := uint64(0)
	for range entries {
		index++
		if rng.IntN(40) == 0 {
			index += uint64(rng.IntN(200)) // no-ops and barriers
		}
		at = at.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
		l := &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, AppendedAt: at}
		if rng.IntN(20) == 0 {
			l.Data = trimCommand{logStart: record.Offset(rng.Int64N(int64(next) + 1))}.encode()
		} else {
			producer := rng.Int64N(5) + 1
			l.Data = digestBatch(next, producer, sequences[producer], rng.IntN(3)+1)
			h, _ := record.ParseHeader(l.Data)
			sequences[producer] += h.Count
			next = h.Next()
		}
		logs = append(logs, l)
	}
	return logs
}

func digestBatch(base record.Offset, producer int64, sequence int32, n int) []byte {
	b := recordtest.Batch(n, 40, recordtest.Producer(producer, 0, sequence))
	record.Stamp(b, base, 1)
	return b
}

// digestReplica applies a log, and is killed and restarted from checkpoints on the way.
type digestReplica struct {
	t     *testing.T
	fsm   *fsm
	state *state
}

func newDigestReplica(t *testing.T) *digestReplica {
	r := &digestReplica{t: t, state: &state{}}
	r.fsm = &fsm{
		state: r.state, log: noBoundaries{}, checkpointBytes: 1 << 40, save: func(raftlog.Checkpoint) {}, applied: func(applySummary) {},
		restored: func(raftlog.Index) {}, failed: func(err error) { t.Error(err) },
	}
	return r
}

type noBoundaries struct{}

func (noBoundaries) Boundary(raftlog.Index) (raftlog.Boundary, bool) {
	return raftlog.Boundary{}, false
}

// apply applies entries in groups of random size, from the first that is not applied yet.
func (r *digestReplica) apply(rng *rand.Rand, logs []*raft.Log) {
	for i := 0; i < len(logs); {
		n := min(1+rng.IntN(64), len(logs)-i)
		part := logs[i : i+n]
		i += n
		part = slices.DeleteFunc(slices.Clone(part), func(l *raft.Log) bool { return raftlog.Index(l.Index) <= r.state.applied })
		if len(part) > 0 {
			r.fsm.ApplyBatch(part)
		}
	}
}

// restart begins anew from a checkpoint as it is now, which is also what a follower that is far behind gets.
func (r *digestReplica) restart() {
	cp, err := r.state.checkpoint(r.state.applied, r.state.appliedTerm)
	if err != nil {
		r.t.Fatal(err)
	}
	*r.state = state{}
	if err := r.state.restore(cp); err != nil {
		r.t.Fatal(err)
	}
}

func (r *digestReplica) digest() Digest { return (&Replica{state: r.state}).Digest() }

// compareDigests counts the indexes that two replicas have both, and returns the first at which they differ.
func compareDigests(a, b Digest) (common int, differ raftlog.Index) {
	for _, m := range append([]Mark{a.Now}, a.Marks...) {
		if sum, ok := b.At(m.Index); ok && m.Index > 0 {
			common++
			if sum != m.Sum && (differ == 0 || m.Index < differ) {
				differ = m.Index
			}
		}
	}
	return common, differ
}

// TestDigestsAgree: whatever happens to replicas that apply the same log (groups of any size, restarts, installed checkpoints), their marks agree, and
// there are some to compare.
func TestDigestsAgree(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	common := 0
	for round := range 20 {
		logs := digestLog(rng, 1000+rng.IntN(12000))
		a, b := newDigestReplica(t), newDigestReplica(t)
		for at := 0; at < len(logs); {
			to := min(at+1+rng.IntN(3000), len(logs))
			a.apply(rng, logs[at:to])
			lag := max(at, to-rng.IntN(500))
			b.apply(rng, logs[:lag])
			n, differ := compareDigests(a.digest(), b.digest())
			if differ != 0 {
				t.Fatalf("seed %d, round %d: a false alarm at entry %d", seed, round, differ)
			}
			common += n
			b.apply(rng, logs[:to])
			if rng.IntN(2) == 0 {
				a.restart()
			}
			if rng.IntN(2) == 0 {
				b.restart()
			}
			at = to
		}
		if n, differ := compareDigests(a.digest(), b.digest()); n == 0 || differ != 0 {
			t.Fatalf("seed %d, round %d: %d indexes in common at the end, differing at %d", seed, round, n, differ)
		}
	}
	if common < 20 {
		t.Errorf("seed %d: only %d indexes in common on the way", seed, common)
	}
}

// TestDigestsDiffer: one byte of one record that is not what the others have shows in every later mark, also after a restart, and the first mark that
// shows it is near.
func TestDigestsDiffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	logs := digestLog(rng, 700)
	a, b := newDigestReplica(t), newDigestReplica(t)
	bad := slices.IndexFunc(logs, func(l *raft.Log) bool { return l.Index > 500 && raftlog.IsBatch(l.Type, l.Data) })
	flipped := *logs[bad]
	flipped.Data = slices.Clone(flipped.Data)
	flipped.Data[len(flipped.Data)-2] ^= 1
	other := slices.Clone(logs)
	other[bad] = &flipped
	a.apply(rng, logs)
	b.apply(rng, other)
	_, differ := compareDigests(a.digest(), b.digest())
	if int(differ) <= bad || differ > raftlog.Index(logs[bad].Index)+2*markFine+200 {
		t.Errorf("entry %d differs, and the first mark that shows it is %d", logs[bad].Index, differ)
	}
	b.restart()
	if _, differ := compareDigests(a.digest(), b.digest()); differ == 0 {
		t.Error("after a restart from its own checkpoint the replica passes for a good one")
	}
}

// TestDigestCoversTheState: what is not in the batches counts, too.
func TestDigestCoversTheState(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	logs := digestLog(rng, 300)
	for name, spoil := range map[string]func(*state){
		"log start": func(s *state) { s.logStart++ },
		"clock":     func(s *state) { s.clock++ },
		"producers": func(s *state) { s.producers.oldest.seen++ },
	} {
		a, b := newDigestReplica(t), newDigestReplica(t)
		a.apply(rng, logs)
		b.apply(rng, logs)
		spoil(b.state)
		if _, differ := compareDigests(a.digest(), b.digest()); differ == 0 {
			t.Errorf("%s: a difference is not seen", name)
		}
	}
}
