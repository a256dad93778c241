package partition

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// stacks are those of all goroutines.
func stacks() string {
	buf := make([]byte, 1<<20)
	for {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
		buf = make([]byte, 2*len(buf))
	}
}

func spareIn(text string) (names []string) {
	for _, name := range spare {
		if strings.Contains(text, "hashicorp/raft"+name+"(") {
			names = append(names, name)
		}
	}
	return names
}

// soleVoter runs raft as a replica does, over a log that only this one votes on; the guard does not know it yet.
func soleVoter(t *testing.T, log *raftlog.Log) (*raft.Raft, *logGuard) {
	t.Helper()
	cfg, err := Config{Dir: "/log", Name: "orders/0", LocalID: "1", LocalAddr: "1", Transport: &transport.Transport{}, Stable: raft.NewInmemStore()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("1")
	guard := &logGuard{Log: log}
	r, err := raft.NewRaft(raftConfig(cfg), &raft.MockFSM{}, guard, cfg.Stable, log.Snapshots(), trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "1"}}}).Error(); err != nil {
		t.Fatal(err)
	}
	return r, guard
}

// Goroutines of raft that a replica does not need end, and raft goes on without them. Should a later release of raft do without them, or not ask the log any more, this says so.
func TestSpareGoroutinesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := raftlog.Open(raftlog.Options{FS: vfs.NewMem(), Dir: "/log"})
		if err != nil {
			t.Fatal(err)
		}
		r, guard := soleVoter(t, log)
		guard.raft.Store(r)
		synctest.Wait()
		started := spareIn(stacks())
		if !<-r.LeaderCh() {
			t.Fatal("the only voter does not lead")
		}
		synctest.Wait()
		if got := slices.Concat(started, spareIn(stacks())); len(got) != len(spare) {
			t.Errorf("of those to spare, raft started %v: spare.go has become needless, or its names are others", got)
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for seconds := 0; len(spareIn(stacks())) > 0; seconds++ {
			if seconds == 60 {
				t.Errorf("%v still run", spareIn(stacks()))
				break
			}
			<-tick.C
			synctest.Wait()
		}
		for range 3 {
			if err := r.Apply([]byte("x"), 0).Error(); err != nil {
				t.Errorf("raft does not go on: %v", err)
			}
		}
		if first, err := guard.FirstIndex(); first != 1 || err != nil {
			t.Errorf("first index %d, %v", first, err)
		}
		if last, err := guard.LastIndex(); last < 4 || err != nil {
			t.Errorf("last index %d, %v", last, err)
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Errorf("raft does not end: %v", err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}
