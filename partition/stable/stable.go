// Package stable keeps the term, the vote and small markers of all Raft groups of a broker in one file.
package stable

import (
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// ErrClosed comes from every use of a store after Close.
var ErrClosed = errors.New("stable store is closed")

// Options configures a Store.
type Options struct {
	Path      string
	OnFailure func(error)
	Logger    hclog.Logger
}

// Store is one broker's stable store.
type Store struct{}

// Open opens or creates the store's file with default options.
func Open(path string) (*Store, error) { return OpenWith(Options{Path: path}) }

// OpenWith opens or creates the store's file.
func OpenWith(opts Options) (*Store, error) { return nil, errors.New("under construction") }

// Group returns the raft.StableStore of one group.
func (s *Store) Group(id transport.GroupID) raft.StableStore { return nil }

// Has tells whether anything is stored for the group.
func (s *Store) Has(id transport.GroupID) bool { return false }

// Delete removes all that is stored for the group.
func (s *Store) Delete(id transport.GroupID) error { return nil }

// Groups lists the groups for which something is stored, in order.
func (s *Store) Groups() []transport.GroupID { return nil }

// Put stores a small marker of a group durably; Get returns it, nil when there is none.
func (s *Store) Put(id transport.GroupID, key string, value []byte) error { return nil }

// Get returns a marker, nil when there is none.
func (s *Store) Get(id transport.GroupID, key string) ([]byte, error) { return nil, nil }

// Close closes the file. Writes that wait for space end.
func (s *Store) Close() error { return nil }
