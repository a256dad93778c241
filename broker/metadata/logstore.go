package metadata

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Stores are a log and snapshots that are not files. What either has answered is durable.
type Stores struct {
	Log       LogBackend
	Snapshots raft.SnapshotStore
}

// LogBackend holds the entries: raft.db, or what Config.Stores has.
type LogBackend interface {
	raft.LogStore
	io.Closer
}

// logStore is the group's log. It remembers whether the last write failed.
type logStore struct {
	LogBackend
	failed atomic.Pointer[error]
}

// openLog opens raft.db. bbolt panics on some damaged files; that becomes an error.
func openLog(dir string) (l *logStore, err error) {
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, fmt.Errorf("%w: raft.db: %v", ErrMalformed, r)
		}
	}()
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(dir, "raft.db"),
		BoltOptions:             &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open raft.db: %w", err)
	}
	return &logStore{LogBackend: bolt}, nil
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	err := l.LogBackend.StoreLogs(logs)
	if err != nil {
		l.failed.Store(&err)
		return err
	}
	l.failed.Store(nil)
	return nil
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
