package stable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// errNotFound has the text that raft compares with.
var errNotFound = errors.New("not found")

// termKey is the key under which raft stores its term, the one whose failure it answers with a panic.
const termKey = "CurrentTerm"

// Group is the raft.StableStore of one Raft group.
type Group struct {
	s      *Store
	id     transport.GroupID
	once   sync.Once
	closed chan struct{}
}

var _ raft.StableStore = (*Group)(nil)

// Group returns the raft.StableStore of one group. Different groups may be used concurrently, and one group by raft's
// main goroutine and its heartbeat handler.
func (s *Store) Group(id transport.GroupID) *Group {
	return &Group{s: s, id: id, closed: make(chan struct{})}
}

// Close ends a term write of this group that waits for space: the goroutine in it ends. For closing one replica while
// the disk is full. The group's stored values stay.
func (g *Group) Close() error {
	g.once.Do(func() { close(g.closed) })
	return nil
}

// Set implements raft.StableStore. The value is durable when Set returns nil. For the current term see the package
// comment.
func (g *Group) Set(key, val []byte) error {
	w := &write{group: g.id, bucket: bucketConf, key: string(key), value: nonNil(val), patient: string(key) == termKey}
	err := g.s.write(w, g.closed)
	if err == nil {
		return nil
	}
	if w.patient {
		g.s.log.Error("the term cannot be stored, the raft group stands still", "group", g.id, "error", err)
		runtime.Goexit()
	}
	return fmt.Errorf("raft group %d: %s: %w", g.id, key, err)
}

// Get implements raft.StableStore. The error of a missing key is raft's "not found"; ErrDamaged as Damaged has it.
func (g *Group) Get(key []byte) ([]byte, error) {
	v, err := g.s.value(g.id, bucketConf, string(key))
	if v == nil && err == nil {
		err = errNotFound
	}
	return v, err
}

// SetUint64 implements raft.StableStore.
func (g *Group) SetUint64(key []byte, val uint64) error {
	return g.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	v, err := g.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("raft group %d: %s: %w: %d bytes", g.id, key, ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
