package metadata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/flotilla-log/flotilla/partition/stable/boltfile"
)

// Stores are a log and snapshots that are not files. What either has answered is durable.
type Stores struct {
	Log       LogBackend
	Snapshots raft.SnapshotStore
}

const logFile = "raft.db"

// LogBackend holds the entries: raft.db, or what Config.Stores has.
type LogBackend interface {
	raft.LogStore
	io.Closer
}

// logStore is the group's log. It gives each entry a check (logcheck.go), and remembers whether the last write failed.
type logStore struct {
	LogBackend
	failed atomic.Pointer[error]
	// fail is told why the node must not go on: a damaged entry was read, or see StoreLogs.
	fail func(error)
	raft atomic.Pointer[raft.Raft] // nil until NewRaft has returned

	from atomic.Uint64 // seal.from, for readers

	// gate has a place for whoever changes the log: raft does so from two goroutines. It is no mutex, as it is held during disk writes, which take virtual time in a simulation.
	gate  chan struct{}
	seal  sealed
	last  uint64 // of the newest entry, 0 if there is none
	check uint32 // of the newest entry
}

// newLogStore takes over a log and reads all of it. ErrDamaged, ErrNewerFormat.
func newLogStore(b LogBackend) (*logStore, error) {
	l := &logStore{LogBackend: b, gate: make(chan struct{}, 1)}
	if err := l.verify(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return l, nil
}

// openLog opens raft.db. What bbolt would not survive is found before. ErrDamaged, ErrNewerFormat.
func openLog(dir string) (l *logStore, err error) {
	_, err = boltfile.Read(filepath.Join(dir, logFile))
	switch {
	case errors.Is(err, boltfile.ErrDamaged):
		return nil, fmt.Errorf("%w: raft.db: %w", ErrDamaged, err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open raft.db: %w", err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(dir, logFile),
		BoltOptions:             &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open raft.db: %w", err)
	}
	return newLogStore(bolt)
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. A leader of hashicorp/raft v1.7.3 goes on with a configuration whether or not it could store the entry, and counts votes by it. So the broker
// must not go on then: its next start finds the configuration that is in the log. Node.reconfigure sees to it that this happens only to a disk that fails at that very moment.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	err := l.storeChecked(logs)
	if err == nil {
		l.failed.Store(nil)
		return nil
	}
	l.failed.Store(&err)
	if node := l.raft.Load(); node != nil && node.State() == raft.Leader && slices.ContainsFunc(logs, func(e *raft.Log) bool { return e.Type == raft.LogConfiguration }) {
		l.fail(fmt.Errorf("%w: %w", ErrConfigurationNotStored, err))
	}
	return err
}

var errStoreFailed = errors.New("the follower cannot write its log")

// checkResponse is for transport.GroupOptions. To Raft, a follower that cannot write (a full disk) looks like one whose log does not match,
// and the leader would go back entry by entry and in the end send a snapshot. An error makes it try the same again. A log that does not match (NoRetryBackoff is set
// then only) is no such case, whatever failed before: were the leader not to go back then, nothing would ever be written that could succeed.
func (l *logStore) checkResponse(_ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := l.failed.Load(); err != nil && !resp.Success && !resp.NoRetryBackoff {
		return fmt.Errorf("%w: %w", errStoreFailed, *err)
	}
	return nil
}
