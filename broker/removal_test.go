package broker

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// slowFS deletes when it is told to, and then perhaps fails.
type slowFS struct {
	vfs.FS
	begun  atomic.Int32
	result chan error
}

func (f *slowFS) RemoveAll(name string) error {
	f.begun.Add(1)
	if err := <-f.result; err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

// removalFixture is a manager, not running, with one directory of a replica on disk whose group has a marker.
func removalFixture(t *testing.T) (*replicaManager, *slowFS, replicaDir) {
	t.Helper()
	dir := t.TempDir()
	fs := &slowFS{FS: vfs.OS(), result: make(chan error)}
	b := &Broker{cfg: Config{ID: 1, DataDir: dir, Seams: Seams{PartitionFS: fs}}, log: hclog.NewNullLogger()}
	var err error
	if b.identity, err = metadata.OpenIdentity(dir, 1); err != nil {
		t.Fatal(err)
	}
	if b.stable, err = stable.Open(filepath.Join(dir, stableFile)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.stable.Close() })
	m, err := newReplicaManager(b)
	if err != nil {
		t.Fatal(err)
	}
	d := replicaDir{name: "orders-0.7-1", group: 7, generation: 1}
	if err := os.Mkdir(filepath.Join(m.dir, d.name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := b.stable.Put(d.group, markerKey, []byte(m.serverID(1))); err != nil {
		t.Fatal(err)
	}
	return m, fs, d
}

func marked(t *testing.T, m *replicaManager, d replicaDir) bool {
	t.Helper()
	b, err := m.b.stable.Get(d.group, markerKey)
	if err != nil {
		t.Fatal(err)
	}
	return len(b) > 0
}

// TestNoReplicaOpensWhileVotesGo: a replica that comes to a group whose vote is being deleted waits, or it could lose the vote it gives.
func TestNoReplicaOpensWhileVotesGo(t *testing.T) {
	m, fs, d := removalFixture(t)
	m.removals.begin(d, true)
	m.removals.begin(d, true) // is under way
	if !m.removals.votes(d.group) || m.removals.votes(8) {
		t.Error("a removal under way does not keep its group, and only that, from opening")
	}
	fs.result <- nil
	m.removals.wg.Wait()
	if m.removals.votes(d.group) || marked(t, m, d) {
		t.Error("the group's votes were not deleted")
	}
	if _, err := os.Stat(filepath.Join(m.dir, d.name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if len(m.wake) == 0 {
		t.Error("the manager was not woken")
	}
	if n := fs.begun.Load(); n != 1 {
		t.Errorf("deleted %d times", n)
	}
}

// TestFailedRemovalWaits: one that fails keeps the vote, and is not tried again before retry.
func TestFailedRemovalWaits(t *testing.T) {
	m, fs, d := removalFixture(t)
	m.removals.begin(d, true)
	fs.result <- errors.New("input/output error")
	m.removals.wg.Wait()
	if m.removals.votes(d.group) || !marked(t, m, d) {
		t.Error("after a removal that failed the group must have its vote, and be free to open")
	}
	m.removals.begin(d, true)
	if n := fs.begun.Load(); n != 1 {
		t.Errorf("tried %d times without a pause", n)
	}
	m.removals.retry()
	m.removals.begin(d, true)
	fs.result <- nil
	m.removals.wg.Wait()
	if marked(t, m, d) {
		t.Error("the group's votes were not deleted")
	}
}
