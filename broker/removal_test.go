package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// slowFS renames when it is told to, and then perhaps fails.
type slowFS struct {
	vfs.FS
	begun  atomic.Int32
	result chan error
}

func (f *slowFS) Rename(oldName, newName string) error {
	f.begun.Add(1)
	if err := <-f.result; err != nil {
		return err
	}
	return f.FS.Rename(oldName, newName)
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

// TestDeletionIsPaced: the files of a directory go step by step, no faster than the pace, and long after the group's votes; a broker that stops leaves the rest, and the next one deletes that.
func TestDeletionIsPaced(t *testing.T) {
	m, fs, d := removalFixture(t)
	path := filepath.Join(m.dir, d.name)
	const size = 3*deleteStep + 5
	for _, name := range []string{"a.log", "b.log"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(path, name), size); err != nil { // it takes no blocks
			t.Fatal(err)
		}
	}
	m.pace = newDeletePace(2 * deleteStep)
	m.removals.begin(d, true)
	fs.result <- nil
	await(t, "a file that is shorter", func() bool {
		info, err := os.Stat(filepath.Join(path+deletedSuffix, "a.log"))
		return err == nil && info.Size() < size
	})
	await(t, "the votes are gone", func() bool { return !m.removals.votes(d.group) })
	if marked(t, m, d) {
		t.Error("the group's votes were not deleted first")
	}
	m.pace.turn <- struct{}{} // and it stands still
	m.cancel()
	m.removals.wg.Wait()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory has its name still: %v", err)
	}

	// The next broker finds what is left, in the metadata of a cluster that has never heard of it.
	<-m.pace.turn
	m.ctx, m.cancel = context.WithCancel(context.Background())
	defer m.cancel()
	m.removals = newRemovals(m)
	dirs, foreign, err := listReplicaDirs(m.fs(), m.dir)
	if err != nil || len(dirs) != 1 || len(foreign) != 0 || !dirs[0].deleted || dirs[0].group != d.group {
		t.Fatalf("found %+v, %v, %v", dirs, foreign, err)
	}
	rest := int64(0)
	for _, name := range []string{"a.log", "b.log"} {
		if info, err := os.Stat(filepath.Join(path+deletedSuffix, name)); err == nil {
			rest += info.Size()
		}
	}
	if rest == 0 || rest >= 2*size {
		t.Errorf("%d of %d bytes are left", rest, 2*size)
	}
	m.pace = newDeletePace(20 * deleteStep)
	began := time.Now()
	s := metadata.NewState()
	m.clean(s, dirs, s.Groups(), m.wanted(s, dirs, s.Groups()))
	m.removals.wg.Wait()
	if left, err := os.ReadDir(m.dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if took := time.Since(began); took < time.Duration(float64(rest)/float64(m.pace.rate)*float64(time.Second)) {
		t.Errorf("%d MiB are gone after %s", rest>>20, took)
	}
}

// TestDeletionOnAFullDisk: where space is short nobody waits for a quiet disk.
func TestDeletionOnAFullDisk(t *testing.T) {
	m, fs, d := removalFixture(t)
	m.b.cfg.DiskReserve = 1 << 62
	m.pace = newDeletePace(1)
	if err := os.WriteFile(filepath.Join(m.dir, d.name, "a.log"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m.removals.begin(d, false)
	fs.result <- nil
	m.removals.wg.Wait()
	if left, err := os.ReadDir(m.dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// await polls.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-tick.C
	}
}
