package broker

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func woken(h *hosted) bool {
	select {
	case <-h.wake:
		return true
	default:
		return false
	}
}

// A report about one of a topic's thousand partitions makes a new Topic; the other replicas have nothing to do for it.
func TestUpdateWakesOnlyThoseConcerned(t *testing.T) {
	p := &metadata.Partition{Topic: "orders"}
	topic := &metadata.Topic{Name: "orders", Settings: map[string]string{"retention.ms": "1"}, Partitions: []*metadata.Partition{p, {}}}
	h := &hosted{topic: topic, partition: p, wake: make(chan struct{}, 1)}

	other := *topic
	other.Partitions = []*metadata.Partition{p, {Leader: 2}}
	h.update(&other, p)
	if got, _ := h.assigned(); woken(h) || got != &other {
		t.Error("another partition's report wakes the replica, or the new topic is not noted")
	}
	led := *p
	led.Leader = 1
	if h.update(&other, &led); !woken(h) {
		t.Error("its own partition's change does not wake the replica")
	}
	altered := other
	altered.Settings = map[string]string{"retention.ms": "2"}
	if h.update(&altered, &led); !woken(h) {
		t.Error("altered settings do not wake the replica")
	}
}

// countingFS counts the listings.
type countingFS struct {
	vfs.FS
	listed int
}

func (f *countingFS) ReadDir(name string) ([]vfs.Info, error) {
	f.listed++
	return f.FS.ReadDir(name)
}

func TestReplicaDirsAreListedWhenTheyMayHaveChanged(t *testing.T) {
	fs := &countingFS{FS: vfs.OS()}
	m := &replicaManager{b: &Broker{}, log: hclog.NewNullLogger(), dir: t.TempDir(), foreign: map[string]bool{}}
	m.b.cfg.Seams.PartitionFS = fs
	m.relist.Store(true)
	count := func(wantDirs, wantListed int) {
		t.Helper()
		dirs, err := m.listDirs()
		if err != nil || len(dirs) != wantDirs || fs.listed != wantListed {
			t.Fatalf("%d directories after %d listings (%v), want %d after %d", len(dirs), fs.listed, err, wantDirs, wantListed)
		}
	}
	count(0, 1)
	count(0, 1)
	h := &hosted{m: m, dirName: "orders-0.5-1"}
	if err := fs.MkdirAll(m.dir + "/" + h.dirName); err != nil {
		t.Fatal(err)
	}
	m.relist.Store(true)
	count(1, 2)
	m.b.cfg.Seams.Now = time.Now
	if err := h.setAside(); err != nil {
		t.Fatal(err)
	}
	count(1, 3)
	if dirs, _ := m.listDirs(); !dirs[0].damaged {
		t.Errorf("%+v was set aside", dirs[0])
	}
	m.dir = "/nowhere/at/all"
	m.relist.Store(true)
	for range 2 {
		if _, err := m.listDirs(); err == nil {
			t.Error("a listing that fails is not tried again")
		}
	}
}
