package partition

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

const (
	// confirmWithin bounds one round of questions to the voters.
	confirmWithin = time.Second
	// confirmPause is the pause before a voter whose broker could not be asked is asked again.
	confirmPause = 10 * time.Millisecond
)

// ConfirmLeader returns nil if, since the call, a quorum has taken this replica for the leader of a term. What was read from it before the call, after Serving returned that term, was then the
// newest there was: nothing had been acknowledged by a later leader. (Raft dissertation, section 6.4, steps 1 to 3; the barrier of the term is step 1.)
//
// A leader that was cut off learns late that others have elected another one; until then Read and Bounds answer from what it knows. That does no harm
// to who reads on from an offset, since all of it is committed and stays. It does to who asks for the end. The cost is a round trip to a quorum, shared by all who ask at the same
// time. ctx should be bounded: a leader without a quorum hears nothing. The error wraps ErrNotLeader, or ErrFailed or ErrClosed.
func (r *Replica) ConfirmLeader(ctx context.Context, term uint64) error {
	confirmed, err := r.confirms.Do(ctx)
	if broken := r.broken(); broken != nil {
		return broken
	}
	// Without a hint: as far as is known here the leader is this replica, and nobody should try it again at once.
	unsure := &NotLeaderError{Name: r.cfg.Name}
	switch {
	case err != nil:
		return fmt.Errorf("%w: no quorum confirms it: %w", unsure, err)
	case confirmed != term:
		return fmt.Errorf("%w: it was in term %d, and is in term %d", unsure, term, confirmed)
	}
	return nil
}

// askQuorum asks all voters until a quorum of them has agreed that this replica leads in its present term, which it returns.
func (r *Replica) askQuorum(ctx context.Context) (uint64, error) {
	term, err := r.Serving()
	if err != nil {
		return 0, err
	}
	var asked sync.WaitGroup
	defer asked.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := r.raft.GetConfiguration().Configuration().Servers
	answers := make(chan error, len(servers))
	voters, agree := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == r.cfg.LocalID {
			agree++
			continue
		}
		asked.Go(func() { answers <- r.askVoter(ctx, s, term) })
	}
	for 2*agree <= voters {
		if err := <-answers; err != nil { // it was told of a later term, or nobody answers before ctx ends
			return 0, err
		}
		agree++
	}
	return term, nil
}

// askVoter asks until there is an answer.
func (r *Replica) askVoter(ctx context.Context, s raft.Server, term uint64) error {
	for {
		err := r.group.Confirm(ctx, s.ID, s.Address, term)
		if err == nil || errors.Is(err, transport.ErrOvertaken) {
			return err
		}
		select {
		case <-time.After(confirmPause):
		case <-ctx.Done():
			return err
		}
	}
}
