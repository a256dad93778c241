package partition

import (
	"context"
	"fmt"
	"math"
	"time"
)

// reopenDelay is the pause before a barrier that raft refused, as it does during a transfer of leadership, is tried again.
const reopenDelay = 25 * time.Millisecond

// collect takes the outcomes in raft's order, and ends when nothing is in flight.
func (s *sequencer) collect() {
	for {
		p := s.firstInflight()
		if p == nil {
			return
		}
		err := p.future.Error()
		var value any
		if err == nil {
			value = p.future.Response()
		}
		s.settle(p, value, err)
	}
}

func (s *sequencer) firstInflight() *proposal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight.len() == 0 {
		s.openLocked() // may put a barrier in flight
	}
	if s.inflight.len() == 0 {
		s.collecting = false
		s.changedLocked() // whoever waits for drain
		return nil
	}
	return s.inflight.first()
}

// settle tells all who wait for p what became of it.
func (s *sequencer) settle(p *proposal, value any, err error) {
	res, _ := value.(applyResult)
	if err == nil && p.batch && !res.accepted {
		err = errDead
	}
	result := proposalResult{header: p.header, value: res.value, err: s.outcome(err)}
	s.mu.Lock()
	replies := s.removeLocked(p)
	var opened uint64
	switch {
	case p.barrier:
		opened = s.barrierDone(p.term, err)
	case err != nil && s.phase == phaseReady:
		s.setPhase(phaseOpening) // the prediction is void
	}
	s.mu.Unlock()
	if opened != 0 {
		s.opened(opened)
	}
	tell(replies, result)
}

// tell gives the first its result, and the others the same as a duplicate's.
func tell(replies []func(proposalResult), result proposalResult) {
	for i, reply := range replies {
		result.duplicate = i > 0
		if reply != nil {
			reply(result)
		}
	}
}

// removeLocked takes p out of flight and returns whom to tell; nobody if abandon has done that.
func (s *sequencer) removeLocked(p *proposal) []func(proposalResult) {
	if p.settled {
		return nil
	}
	p.settled = true
	s.inflight.pop()
	if p.batch && p.header.Idempotent() {
		pipe := s.producers[p.header.ProducerID]
		pipe.batches = pipe.batches[1:]
		if len(pipe.batches) == 0 {
			delete(s.producers, p.header.ProducerID)
		}
	}
	return append([]func(proposalResult){p.reply}, p.retries...)
}

// setPhase changes the phase and wakes who waits for that.
func (s *sequencer) setPhase(p phase) {
	s.phase = p
	s.changedLocked()
}

func (s *sequencer) changedLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// openLocked puts the barrier in flight that a new leader, or one that recovers, has to pass. The collector calls it when nothing is in flight.
func (s *sequencer) openLocked() {
	if s.phase != phaseOpening || s.retry != nil {
		return
	}
	if s.term > math.MaxInt32 {
		s.phase, s.closed = phaseClosed, fmt.Errorf("%s: %w: term %d does not fit a leader epoch", s.name, ErrFailed, s.term)
		return
	}
	s.inflight.push(&proposal{future: s.raft.barrier(), barrier: true, term: s.term})
}

// barrierDone makes the sequencer ready. The barrier was enqueued while raft led the term, and if raft leads it still, it was appended in it: nobody else has
// appended since this term began, and all that this sequencer proposed in it is applied or refused, so the state machine's next offset is the log's. (A barrier of an
// earlier term proves nothing: another leader may have appended since.) It returns the term that was opened, or 0.
func (s *sequencer) barrierDone(term uint64, err error) (opened uint64) {
	if s.phase != phaseOpening || term != s.term {
		return 0
	}
	if err == nil && s.raft.leads(s.term) {
		s.state.mu.RLock()
		s.next = s.state.next
		s.state.mu.RUnlock()
		s.setPhase(phaseReady)
		return s.term
	}
	// Refused for now, or leadership is lost and follow will be called. Without the pause the collector would ask again and again until then.
	s.retry = time.AfterFunc(reopenDelay, s.reopen)
	return 0
}

// reopen tries the barrier again.
func (s *sequencer) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry = nil
	s.startOpening()
}

// startOpening begins with the barrier now if nothing is in flight; else the collector does so when it is through.
func (s *sequencer) startOpening() {
	if s.collecting || s.phase != phaseOpening {
		return
	}
	s.openLocked()
	if s.inflight.len() > 0 {
		s.collecting = true
		s.wg.Go(s.collect)
	}
}

// lead is called when raft has won an election for term.
func (s *sequencer) lead(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseClosed {
		return
	}
	s.term = term
	s.stopRetry()
	s.setPhase(phaseOpening)
	s.startOpening()
}

// follow is called when raft no longer leads. What is in flight gets its outcome from raft.
func (s *sequencer) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseClosed {
		return
	}
	s.stopRetry()
	s.setPhase(phaseFollowing)
}

func (s *sequencer) stopRetry() {
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
}

// pause makes proposals wait, if the sequencer is ready.
func (s *sequencer) pause() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseReady {
		return false
	}
	s.setPhase(phasePaused)
	return true
}

// resume undoes pause if leadership was not lost meanwhile.
func (s *sequencer) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phasePaused {
		return
	}
	s.setPhase(phaseOpening)
	s.startOpening()
}

// drained returns a channel that closes when nothing is in flight, or when it is worth looking again; nil if nothing is.
func (s *sequencer) drained() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight.len() == 0 && !s.collecting {
		return nil
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// waitDrained waits until nothing is in flight or stop is closed, and says which.
func (s *sequencer) waitDrained(stop <-chan struct{}) bool {
	for {
		wait := s.drained()
		if wait == nil {
			return true
		}
		select {
		case <-wait:
		case <-stop:
			return false
		}
	}
}

// wait waits until the collector has ended, but not longer than d.
func (s *sequencer) wait(d time.Duration) bool {
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	return within(context.Background(), d, done)
}

// close refuses everything from now on with err. What is in flight goes on.
func (s *sequencer) close(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseClosed {
		return
	}
	s.stopRetry()
	s.closed = err
	s.setPhase(phaseClosed)
}

// abandon gives all that is in flight an unknown outcome: raft will never answer. The collector may stay behind, waiting for it, which is why close and wait are
// enough only after waitDrained.
func (s *sequencer) abandon(err error) {
	for {
		s.mu.Lock()
		if s.inflight.len() == 0 {
			s.mu.Unlock()
			return
		}
		p := s.inflight.first()
		replies := s.removeLocked(p)
		s.mu.Unlock()
		tell(replies, proposalResult{header: p.header, err: fmt.Errorf("%s: %w: %w", s.name, ErrOutcomeUnknown, err)})
	}
}
