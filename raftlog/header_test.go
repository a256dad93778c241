package raftlog

import (
	"testing"

	"github.com/hashicorp/raft"
)

// GetHeader leaves the data of large entries on the disk, and says all else that GetLog says; of small ones, and of those in the tail cache, it has everything.
func TestGetHeader(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir(), TailCacheBytes: 64 << 10, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := appenderFor(t, l)
	var want []*raft.Log
	for i := range 60 {
		size := 100
		if i%3 > 0 {
			size = 40 << 10
		}
		e := a.batch(1, size, int64(i))
		want = append(want, e)
		if err := l.StoreLog(e); err != nil {
			t.Fatal(err)
		}
	}
	deferred := 0
	for round, order := range [][]int{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {40, 7, 59, 3, 22, 1, 58, 10, 11, 12}} {
		for _, i := range order {
			var got raft.Log
			size, err := l.GetHeader(want[i].Index, &got)
			if err != nil || got.Index != want[i].Index || got.Term != want[i].Term || got.Type != want[i].Type {
				t.Errorf("round %d, entry %d: %+v, %v", round, i, got, err)
			}
			if size == 0 && string(got.Data) != string(want[i].Data) || size > 0 && (got.Data != nil || size != len(want[i].Data)) {
				t.Errorf("round %d, entry %d: size %d, %d bytes of data, of %d", round, i, size, len(got.Data), len(want[i].Data))
			}
			if size > 0 {
				deferred++
			}
			if large, tail := i%3 > 0, i >= 59; (size > 0) != (large && !tail) {
				t.Errorf("round %d, entry %d: size %d", round, i, size)
			}
		}
	}
	if deferred < 8 {
		t.Errorf("%d entries were deferred", deferred)
	}
	if _, err := l.GetHeader(61, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Errorf("behind the end: %v", err)
	}
}
