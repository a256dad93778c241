package partition

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// phase is what the sequencer does with proposals.
type phase uint8

const (
	phaseFollowing phase = iota // not the leader: refuse
	phaseOpening                // leads, but the next offset is not certain yet: proposals wait
	phaseReady                  // leads, and the prediction of the next offset is good: propose
	phasePaused                 // leads, and is about to hand over: proposals wait
	phaseClosed                 // refuse, for good
)

// consensus is what the sequencer needs of raft.
type consensus interface {
	// propose enqueues an entry; the futures of entries resolve, all of them, once raft has applied, refused or lost them. It does not block as
	// long as no more than raft's queue holds are unresolved.
	propose(data []byte) future
	// barrier is a proposal that resolves when all before it are applied.
	barrier() future
	// leads says whether this replica is the leader of that very term. Between two positive answers it never ceased to be.
	leads(term uint64) bool
	// leader says who is, for error messages.
	leader() (raft.ServerAddress, raft.ServerID, uint64)
}

type future interface {
	Error() error
	Response() any
}

// sequencer is the one place where a partition's leader proposes. Under mu it validates a batch against the applied state and everything in flight,
// stamps it with the predicted next offset and the term, and enqueues it, so that the order of stamps is the order of raft's queue.
//
// The prediction holds as long as everything enqueued in this term is accepted. After the first failure it is void: the sequencer accepts nothing more, waits until
// all that is in flight has its outcome, passes a barrier, and starts again from the state machine's next offset.
//
// The collector goroutine exists only while something is in flight; abandon is its stop signal when raft can no longer answer.
type sequencer struct {
	name   string
	raft   consensus
	state  *state
	space  *spaceGuard
	budget *Budget // of this partition
	least  int64   // a proposal is charged at least so many bytes, which bounds their number
	shared *Budget // of the broker; nil: none
	ready  time.Duration
	// opened is called when a term's first barrier is through. Like all callbacks it is called without mu.
	opened func(term uint64)

	mu         sync.Mutex
	phase      phase
	closed     error // why, with phaseClosed
	term       uint64
	next       record.Offset       // the offset that the next batch will be stamped with; phaseReady only
	inflight   fifo                // in raft's order
	producers  map[int64]*pipeline // with batches in flight
	collecting bool
	changed    chan struct{} // closed at the next change of phase; nil: nobody waits
	retry      *time.Timer
	wg         sync.WaitGroup
}

// proposal is one entry in flight.
type proposal struct {
	future  future
	header  record.Header // of a batch, stamped
	batch   bool
	barrier bool
	term    uint64 // of the barrier
	reply   func(proposalResult)
	retries []func(proposalResult) // of the same batch, that came while it was in flight
	settled bool
}

// proposalResult is what became of a proposal.
type proposalResult struct {
	header    record.Header // of the accepted batch; BaseOffset and LeaderEpoch are what counts
	duplicate bool
	value     any // of a command
	err       error
}

// pipeline is the batches of one producer that are in flight, oldest first.
type pipeline struct {
	batches []*proposal
}

func (p *pipeline) last() record.Header { return p.batches[len(p.batches)-1].header }

// find returns the batch in flight with the same epoch and sequence numbers.
func (p *pipeline) find(h record.Header) *proposal {
	if p == nil {
		return nil
	}
	for _, b := range p.batches {
		if g := b.header; g.ProducerEpoch == h.ProducerEpoch && g.BaseSequence == h.BaseSequence && g.Count == h.Count {
			return b
		}
	}
	return nil
}

// submission is a proposal on its way in.
type submission struct {
	data     []byte
	batch    bool
	upkeep   bool // goes through on a full disk: it is what makes room
	header   record.Header
	expected *record.Offset
	reply    func(proposalResult) // called once, from another goroutine, if submit returned nil
}

// submit enters a proposal, waiting while the leader is not ready. The error is definite, and then reply is not called.
func (s *sequencer) submit(ctx context.Context, sub submission) error {
	deadline := time.Time{}
	for {
		s.mu.Lock()
		if s.phase == phaseReady {
			err := s.enter(sub)
			s.mu.Unlock()
			return err
		}
		wait, err := s.waitLocked()
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(s.ready)
		}
		if err := s.await(ctx, wait, deadline); err != nil {
			return err
		}
	}
}

// waitLocked returns a channel that closes at the next change of phase, or the error if there is nothing to wait for.
func (s *sequencer) waitLocked() (<-chan struct{}, error) {
	switch s.phase {
	case phaseClosed:
		return nil, s.closed
	case phaseFollowing:
		return nil, s.notLeader()
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed, nil
}

func (s *sequencer) await(ctx context.Context, wait <-chan struct{}, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-wait:
		return nil
	case <-timer.C:
		return s.notLeader()
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for the leader to be ready: %w", s.name, ctx.Err())
	}
}

// notLeader says whom to ask instead. A disk that is full explains it better when there is nobody.
func (s *sequencer) notLeader() error {
	addr, id, term := s.raft.leader()
	if addr == "" {
		if err := s.space.lastStore(); err != nil {
			return fmt.Errorf("%s: %w: %w", s.name, ErrStorageFull, err)
		}
	}
	return &NotLeaderError{Name: s.name, Leader: addr, LeaderID: id, Term: term}
}

// enter validates and enqueues, under mu and in phaseReady.
func (s *sequencer) enter(sub submission) error {
	if sub.batch {
		return s.enterBatch(sub)
	}
	if !sub.upkeep {
		if err := s.space.check(len(sub.data), true); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	s.enqueue(&proposal{future: s.raft.propose(sub.data), reply: sub.reply})
	return nil
}

func (s *sequencer) enterBatch(sub submission) error {
	if sub.header.Idempotent() {
		if done, err := s.checkProducer(sub); done || err != nil {
			return err
		}
	}
	if err := s.checkOffset(sub); err != nil {
		return err
	}
	if err := s.space.check(len(sub.data), false); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	h := sub.header
	h.BaseOffset, h.LeaderEpoch = s.next, int32(s.term)
	record.Stamp(sub.data, h.BaseOffset, h.LeaderEpoch)
	s.next = h.Next()
	p := &proposal{future: s.raft.propose(sub.data), header: h, batch: true, reply: sub.reply}
	s.enqueue(p)
	if h.Idempotent() {
		s.pipelineOf(h.ProducerID).batches = append(s.pipelineOf(h.ProducerID).batches, p)
	}
	return nil
}

// checkProducer checks an idempotent producer's batch. done says that it was stored before, or is in flight, and that reply is taken care of.
func (s *sequencer) checkProducer(sub submission) (done bool, err error) {
	h := sub.header
	pipe := s.producers[h.ProducerID]
	if p := pipe.find(h); p != nil {
		p.retries = append(p.retries, sub.reply)
		return true, nil
	}
	view, old, found := s.viewProducer(h, pipe)
	if found {
		h.BaseOffset, h.MaxTimestamp = old.base, old.timestamp
		h.LeaderEpoch = int32(s.term)
		s.wg.Go(func() { sub.reply(proposalResult{header: h, duplicate: true}) })
		return true, nil
	}
	if err := checkSequence(view, h); err != nil {
		return false, fmt.Errorf("%s: %w", s.name, err)
	}
	return false, nil
}

// viewProducer looks at the applied state and at what is in flight. found says that the batch is one of the remembered ones.
func (s *sequencer) viewProducer(h record.Header, pipe *pipeline) (view producerView, old remembered, found bool) {
	s.state.mu.RLock()
	if p := s.state.producers.get(h.ProducerID); p != nil {
		if p.epoch == h.ProducerEpoch {
			old, found = p.find(h.BaseSequence, h.Count)
		}
		view = producerView{known: true, epoch: p.epoch, next: record.AddSequence(p.last().lastSequence(), 1)}
	}
	s.state.mu.RUnlock()
	if pipe != nil {
		last := pipe.last()
		view = producerView{known: true, epoch: last.ProducerEpoch, next: record.AddSequence(last.LastSequence(), 1)}
	}
	return view, old, found
}

func (s *sequencer) checkOffset(sub submission) error {
	if sub.expected != nil && *sub.expected != s.next {
		s.state.mu.RLock()
		defer s.state.mu.RUnlock()
		return &ExpectedOffsetError{
			Name: s.name, Expected: *sub.expected, Next: s.next, LogStart: s.state.logStart, HighWatermark: s.state.next,
		}
	}
	if int64(s.next) > math.MaxInt64-int64(sub.header.Count) {
		return fmt.Errorf("%s: %w: the partition has used up its offsets", s.name, ErrFailed)
	}
	return nil
}

func (s *sequencer) pipelineOf(id int64) *pipeline {
	p := s.producers[id]
	if p == nil {
		if s.producers == nil {
			s.producers = make(map[int64]*pipeline)
		}
		p = &pipeline{}
		s.producers[id] = p
	}
	return p
}

// enqueue puts a proposal behind the others and sees to it that it is collected.
func (s *sequencer) enqueue(p *proposal) {
	s.inflight.push(p)
	if !s.collecting {
		s.collecting = true
		s.wg.Go(s.collect)
	}
}

// decoders is the budget whose turns to decompress count: the broker's, if there is one.
func (s *sequencer) decoders() *Budget {
	if s.shared != nil {
		return s.shared
	}
	return s.budget
}

// charge takes n bytes of the budgets; it may wait. release gives them back.
func (s *sequencer) charge(ctx context.Context, n int) (release func(), err error) {
	own, err := s.budget.acquire(ctx, max(int64(n), s.least), int64(n))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if s.shared == nil {
		return func() { s.budget.release(own) }, nil
	}
	shared, err := s.shared.acquire(ctx, int64(n), int64(n))
	if err != nil {
		s.budget.release(own)
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return func() {
		s.budget.release(own)
		s.shared.release(shared)
	}, nil
}

// fifo is a queue that gives its memory back when it is empty.
type fifo struct {
	items []*proposal
	head  int
}

func (f *fifo) push(p *proposal) { f.items = append(f.items, p) }
func (f *fifo) len() int         { return len(f.items) - f.head }
func (f *fifo) first() *proposal { return f.items[f.head] }

func (f *fifo) pop() {
	f.items[f.head] = nil
	f.head++
	switch {
	case f.head == len(f.items):
		*f = fifo{}
	case f.head >= 64 && f.head*2 >= len(f.items):
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
}
