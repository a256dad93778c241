package partition

import (
	"context"
)

// Scrub reads the replica's sealed segments and checks them; see raftlog.Log.Scrub for pace. Damage fails the replica, as in any other read, and
// is returned as a *raftlog.DamageError. It may run beside everything else, and ends with ErrClosed or another error when the replica closes.
func (r *Replica) Scrub(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	if err := r.broken(); err != nil {
		return err
	}
	return r.log.Scrub(ctx, pace)
}
