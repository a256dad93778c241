package broker

import (
	"path/filepath"
	"strings"
	"sync"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// removalsAtOnce bounds the directories that are being deleted at a time; the others are found again by a later pass.
const removalsAtOnce = 16

// removals deletes directories of replicas in the background. The manager's run begins them, and is woken when one has ended; the manager's
// close waits for all.
type removals struct {
	m  *replicaManager
	wg sync.WaitGroup

	mu      sync.Mutex
	running map[string]removal // by directory
	failed  map[string]bool    // directories that are left alone until retry
}

type removal struct {
	group transport.GroupID
	vote  bool // the group's term and vote go too
}

func newRemovals(m *replicaManager) *removals {
	return &removals{m: m, running: map[string]removal{}, failed: map[string]bool{}}
}

// votes says that a removal under way may delete the group's term and vote: a replica that opened now could lose the vote it has just given.
func (r *removals) votes(g transport.GroupID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.running {
		if x.vote && x.group == g {
			return true
		}
	}
	return false
}

// retry lets the removals that failed begin again.
func (r *removals) retry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.failed)
}

// begin deletes a directory, unless that is going on already, has just failed, or must wait for others. vote says that no replica of the group
// is open, so that the group's term and vote go as well.
func (r *removals) begin(d replicaDir, vote bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := strings.TrimSuffix(d.name, deletedSuffix)
	if _, running := r.running[name]; running || r.failed[name] || len(r.running) >= removalsAtOnce {
		return
	}
	r.running[name] = removal{d.group, vote}
	r.wg.Go(func() {
		path := filepath.Join(r.m.dir, name)
		err := r.m.removeDir(d, path, vote, func() { r.votesGone(name) })
		switch {
		case err == nil:
			r.m.log.Info("deleted a replica that is not needed any more", "directory", path)
		case r.m.ctx.Err() != nil: // the next start goes on with it
		default:
			r.m.log.Error("deleting a replica that is not needed any more; it is tried again", "directory", path, "error", err)
		}
		r.end(name, err)
	})
}

// votesGone lets another replica of the group open.
func (r *removals) votesGone(name string) {
	r.mu.Lock()
	r.running[name] = removal{}
	r.mu.Unlock()
	r.m.relist.Store(true)
	r.m.wakeUp()
}

func (r *removals) end(name string, err error) {
	r.mu.Lock()
	delete(r.running, name)
	if err != nil {
		r.failed[name] = true
	}
	r.mu.Unlock()
	r.m.relist.Store(true)
	r.m.wakeUp()
}

// removeDir renames the directory, so that from then on it is nothing but something to delete, then deletes the vote, tells votesGone, and then takes its time for the files. The
// renaming is durable first: a crash in between leaves a vote of a replica whose name is never used again.
func (m *replicaManager) removeDir(d replicaDir, path string, vote bool, votesGone func()) error {
	if !d.deleted {
		if err := m.fs().Rename(path, path+deletedSuffix); err != nil {
			return err
		}
		if err := m.fs().SyncDir(m.dir); err != nil {
			return err
		}
		if err := m.removeVote(d, vote); err != nil {
			return err
		}
		votesGone()
	}
	if err := m.deleteFiles(path + deletedSuffix); err != nil {
		return err
	}
	return m.fs().SyncDir(m.dir)
}

func (m *replicaManager) removeVote(d replicaDir, vote bool) error {
	if !vote {
		return nil
	}
	if m.b.stable.Damaged(d.group) != nil {
		return m.b.stable.Delete(d.group) // nobody is open that could have another one
	}
	owner, err := m.b.stable.Get(d.group, markerKey)
	if err != nil || string(owner) != m.serverID(d.generation) {
		return err // it is another replica's
	}
	return m.b.stable.Delete(d.group)
}
