package partition

import (
	"bytes"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Raft's start gets configurations and the last entry as they are, and of other commands that recovery has read no more than what they are. Afterwards it gets everything.
func TestStartLog(t *testing.T) {
	mem := vfs.NewMem()
	opts := raftlog.Options{FS: mem, Dir: "/data/p", TailCacheBytes: -1}
	log, err := raftlog.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	config := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "1"}}})
	entries := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: config},
		{Index: 2, Term: 1, Type: raft.LogCommand, Data: recordtest.Batch(1, 100)},
		{Index: 3, Term: 1, Type: raft.LogConfiguration, Data: config},
		{Index: 4, Term: 1, Type: raft.LogCommand, Data: recordtest.Batch(1, 100)},
		{Index: 5, Term: 2, Type: raft.LogCommand, Data: recordtest.Batch(1, 100)},
	}
	if err := log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	opts.FS = mem.CrashClone(nil)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if log, err = raftlog.Open(opts); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	start, err := newStartLog(&logGuard{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	check := func(running bool) {
		t.Helper()
		for _, want := range entries {
			var got raft.Log
			if err := start.GetLog(want.Index, &got); err != nil || got.Index != want.Index || got.Type != want.Type {
				t.Fatalf("entry %d: %+v, %v", want.Index, got, err)
			}
			whole := running || want.Type != raft.LogCommand || want.Index == 5
			if bytes.Equal(got.Data, want.Data) != whole || whole && got.Term != want.Term || !whole && len(got.Data) > 0 {
				t.Errorf("running %v: entry %d has %d bytes and term %d", running, want.Index, len(got.Data), got.Term)
			}
		}
	}
	check(false)
	start.running.Store(true)
	check(true)
}
