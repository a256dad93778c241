package stable

import (
	"errors"
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
	Value  []byte // with its checks (see sealed.go): a flipped bit in it is noticed by the next Open. Not to be changed
	Delete bool
}

func (s *Store) openBackend() error {
	all, err := s.opts.Backend.Load()
	if err != nil {
		return err
	}
	for _, c := range all {
		bucket, key, ok := strings.Cut(c.Key, "\x00")
		if !ok {
			return fmt.Errorf("%w: key %q", ErrDamaged, c.Key)
		}
		value, err := unseal([]byte(bucket), fileKey(c.Group, key), c.Value)
		switch {
		case errors.Is(err, errValueCheck):
			s.condemn(c.Group, key, err)
		case err != nil:
			return fmt.Errorf("%w: key %q of raft group %d: %w", ErrDamaged, key, c.Group, err)
		}
		s.keep(c.Group, c.Key, value)
	}
	return nil
}

func (s *Store) commitBackend(batch []*write) error {
	var changes []Change
	for _, w := range batch {
		if w.clear {
			changes = append(changes, Change{Group: w.group, Delete: true})
		}
		if w.bucket != nil {
			changes = append(changes, Change{Group: w.group, Key: cacheKey(w.bucket, w.key), Value: seal(w.bucket, fileKey(w.group, w.key), w.value)})
		}
	}
	return s.opts.Backend.Commit(changes)
}
