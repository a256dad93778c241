package partition

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog"
)

// errDead is the outcome of a batch that was committed with a stamp that does not match: one before it was refused or lost.
var errDead = errors.New("a batch before it failed")

// outcome translates what raft's future said into what the caller may conclude.
//
// Definite: raft answers ErrNotLeader and ErrLeadershipTransferInProgress from the loop that takes proposals out of its queue, instead of appending
// them; ErrEnqueueTimeout means that it never got there; ErrNoSpace and ErrTooLarge that the log stored nothing of the group, and a leader replicates only
// what its own log has stored. All others may come for an entry that is, or may yet be, on other replicas' disks: ErrLeadershipLost of course, and ErrRaftShutdown too,
// which raft gives for committed entries that it no longer applies.
func (s *sequencer) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, errDead):
		return s.notLeader()
	case errors.Is(err, raftlog.ErrNoSpace):
		return fmt.Errorf("%s: %w: %w", s.name, ErrStorageFull, err)
	case errors.Is(err, raftlog.ErrTooLarge):
		return fmt.Errorf("%s: %w: %w", s.name, ErrTooLarge, err)
	}
	return fmt.Errorf("%s: %w: %w", s.name, ErrOutcomeUnknown, err)
}
