package partition

import (
	"context"
	"fmt"
)

// ConfirmLeader returns nil if a quorum has taken this replica for the leader since the call. What was read from it before the call, after it said
// that it serves, was then the newest there was: nothing had been acknowledged by a later leader.
//
// A leader that was cut off learns late that others have elected another one; until then Read and Bounds answer from what it knows. That does no harm
// to who reads on from an offset, since all of it is committed and stays. It does to who asks for the end. The cost is a round of
// heartbeats, which wait for one another for some ten milliseconds. ctx should be bounded: a leader without a quorum hears nothing. The error
// wraps ErrNotLeader.
func (r *Replica) ConfirmLeader(ctx context.Context) error {
	if err := r.serves(); err != nil {
		return err
	}
	// Without a hint: as far as is known here the leader is this replica, and nobody should try it again at once.
	unsure := &NotLeaderError{Name: r.cfg.Name}
	verified := make(chan error, 1)
	go func() { verified <- r.raft.VerifyLeader().Error() }() // ends with the leadership at the latest
	select {
	case err := <-verified:
		if err == nil {
			return r.serves()
		}
		return fmt.Errorf("%w: %w", unsure, err)
	case <-ctx.Done():
		return fmt.Errorf("%w: no quorum confirms it: %w", unsure, ctx.Err())
	}
}
