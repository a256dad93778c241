package partition

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// What a leader has applied and does not have in memory any more, it reads for followers that lack it, without the data of what is large; a replica that does not lead reads it whole.
func TestLeaderReadsHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := raftlog.Open(raftlog.Options{FS: vfs.NewMem(), Dir: "/log", TailCacheBytes: 150 << 10})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
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
		defer func() { _ = r.Shutdown().Error() }()
		if err := r.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "1"}}}).Error(); err != nil {
			t.Fatal(err)
		}
		for r.State() != raft.Leader {
			time.Sleep(time.Second)
		}
		data := bytes.Repeat([]byte("x"), 60<<10)
		for range 10 {
			if err := r.Apply(data, 0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		held := func() (bytes int) {
			for i := uint64(1); i <= r.LastIndex(); i++ {
				var e raft.Log
				if err := guard.GetLog(i, &e); err != nil || e.Index != i {
					t.Errorf("entry %d: %d, %v", i, e.Index, err)
				}
				bytes += len(e.Data)
			}
			return bytes
		}
		if n := held(); n < 10*len(data) {
			t.Errorf("before raft is known %d bytes were read, of %d", n, 10*len(data))
		}
		guard.raft.Store(r)
		if n := held(); n > 150<<10 {
			t.Errorf("%d bytes were read for a follower at once", n)
		}
	})
}
