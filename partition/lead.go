package partition

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// leadership is what reconsider knew and told last. Only reconsider touches it.
type leadership struct {
	term   uint64 // of the leadership that the sequencer was told of, 0: none
	told   uint64 // of the EventLeader that was sent, 0: none, or taken back
	leader raft.ServerAddress
	id     raft.ServerID
	failed bool // EventFailed was sent
}

// observe is called by raft, on whichever of its goroutines, at each change of its state or its leader. It must not block: it only has
// reconsider look.
func (r *Replica) observe(o *raft.Observation) bool {
	r.elector.Observe(o)
	switch o.Data.(type) {
	case raft.RaftState, raft.LeaderObservation:
		r.lead.kick()
	}
	return false
}

// opened is called by the sequencer when it is ready in a term.
func (r *Replica) opened(term uint64) {
	r.serving.Store(term)
	r.lead.kick()
}

// reconsider compares what raft says with what it last said and acts on the difference. Runs do not overlap, so events come in an order that makes sense; a leadership so
// short that it was never seen did nothing.
func (r *Replica) reconsider() {
	if err := r.broken(); err != nil {
		if r.led.term != 0 {
			r.failedLeader.Store(true)
		}
		r.stepAside()
		r.seq.close(err)
		r.halt()
		r.tellFailure()
		return
	}
	node := raftNode{r.raft}
	addr, id, term := node.leader()
	leads := node.leads(term)
	if r.led.term != 0 && (!leads || r.led.term != term) {
		r.stepAside()
	}
	if leads && r.led.term != term {
		r.led.term = term
		r.seq.lead(term)
	}
	if leads && r.serving.Load() == term && r.led.told != term {
		r.led.told = term
		r.emit(Event{Type: EventLeader, Leader: addr, LeaderID: id, Term: term})
	}
	if addr != r.led.leader || id != r.led.id {
		r.led.leader, r.led.id = addr, id
		r.emit(Event{Type: EventLeaderChanged, Leader: addr, LeaderID: id, Term: term})
	}
}

// tellFailure sends EventFailed once.
func (r *Replica) tellFailure() {
	err := r.failure.Load()
	if err == nil || r.led.failed {
		return
	}
	r.led.failed = true
	r.watchers.wakeAll(false)
	r.logger.Error("the replica has failed", "partition", r.cfg.Name, "error", *err)
	r.emit(Event{Type: EventFailed, Err: *err})
}

// stepAside ends a leadership.
func (r *Replica) stepAside() {
	if r.led.term == 0 {
		return
	}
	r.serving.Store(0)
	r.seq.follow()
	r.watchers.wakeAll(false)
	if r.led.told != 0 {
		r.emit(Event{Type: EventNotLeader, Term: r.led.told})
	}
	r.led.term, r.led.told = 0, 0
}

// serves is Serving where the term does not matter.
func (r *Replica) serves() error {
	_, err := r.Serving()
	return err
}

// Serving returns the term in which this replica leads, if its barrier in this term is through: then its high watermark covers all that was ever acknowledged, as far as it knows (see ConfirmLeader).
// The error wraps ErrNotLeader, or ErrFailed or ErrClosed.
func (r *Replica) Serving() (term uint64, err error) {
	if err := r.broken(); err != nil {
		return 0, err
	}
	node := raftNode{r.raft}
	if term := r.serving.Load(); term != 0 && node.leads(term) {
		return term, nil
	}
	addr, id, term := node.leader()
	return 0, &NotLeaderError{Name: r.cfg.Name, Leader: addr, LeaderID: id, Term: term}
}

// IsLeader tells whether this replica leads and serves.
func (r *Replica) IsLeader() bool { return r.serves() == nil }

// Leader returns the leader's address as far as this replica knows, and the term.
func (r *Replica) Leader() (raft.ServerAddress, uint64) {
	addr, _, term := raftNode{r.raft}.leader()
	return addr, term
}

// TransferLeadership hands leadership to a voter; nil means the one with the longest log. Appends wait meanwhile, and then are told who leads. It returns nil when this replica no longer
// leads, ErrBusy if another change is under way, and ErrNotLeader.
func (r *Replica) TransferLeadership(ctx context.Context, to *raft.Server) error {
	if err := r.serves(); err != nil {
		return err
	}
	return r.changing(ctx, func() (raft.Future, func(), error) { return r.transfer(ctx, to) })
}

// changing makes one change of the configuration or the leadership, while no other is made. If ctx ends first the outcome is unknown, and the next change has to wait for it: raft answers in
// bounded time, at the latest when it loses leadership, but not once it was stopped, which is why close takes the token first.
func (r *Replica) changing(ctx context.Context, begin func() (f raft.Future, undo func(), err error)) error {
	select {
	case r.change <- struct{}{}:
	default:
		return fmt.Errorf("%s: %w", r.cfg.Name, ErrBusy)
	}
	f, undo, err := begin()
	if err != nil {
		<-r.change
		return fmt.Errorf("%s: %w", r.cfg.Name, err)
	}
	ch := make(chan error, 1)
	go func() {
		ch <- r.answer(f)
		undo()
		<-r.change
	}()
	select {
	case err = <-ch:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.cfg.Name, err)
	}
	return nil
}

// answer waits for raft's answer, or until raft has ended: then it gives none to what it has committed and not applied, and the goroutine that asked it stays.
func (r *Replica) answer(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.halted:
	}
	select {
	case err := <-done:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}
