package partition

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

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
		r, guard := soleVoter(t, log)
		defer func() { _ = r.Shutdown().Error() }()
		if !<-r.LeaderCh() {
			t.Fatal("the only voter does not lead")
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
