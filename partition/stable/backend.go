package stable

import (
	"fmt"
	"strings"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// Backend is where a Store keeps its values, if not in a file of bbolt. It is called by one goroutine at a time.
type Backend interface {
	// Load returns all that was committed.
	Load() ([]Change, error)
	// Commit makes changes durable, all or none, before it returns. An *fs.PathError with Op "write" around syscall.ENOSPC means that there is no space and
	// that nothing changed; any other error is final.
	Commit([]Change) error
	// Close ends the use by this Store.
	Close() error
}

// Change is one value of a group, or, with Delete, the removal of all that the group has.
type Change struct {
	Group  transport.GroupID
	Key    string // unique in the group; its form is the Store's business
	Value  []byte // not to be changed
	Delete bool
}

func (s *Store) openBackend() error {
	all, err := s.opts.Backend.Load()
	if err != nil {
		return err
	}
	for _, c := range all {
		if !strings.Contains(c.Key, "\x00") {
			return fmt.Errorf("%w: key %q", ErrDamaged, c.Key)
		}
		s.keep(c.Group, c.Key, c.Value)
	}
	return nil
}

func (s *Store) commitBackend(batch []*write) error {
	changes := make([]Change, len(batch))
	for i, w := range batch {
		changes[i] = Change{Group: w.group, Delete: w.bucket == nil}
		if w.bucket != nil {
			changes[i].Key, changes[i].Value = cacheKey(w.bucket, w.key), w.value
		}
	}
	return s.opts.Backend.Commit(changes)
}
