package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// TestInspectTrace shows what a dump of a small log looks like.
func TestInspectTrace(t *testing.T) {
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	a := appenderFor(t, l)
	mustStore(t, l, a.entry(raft.LogConfiguration, raft.EncodeConfiguration(testConfiguration())), a.noop(), a.batch(3, 30, 5), a.dead(2, 20))
	mustStore(t, l, a.command("x"), a.batch(1, 10, 9), a.entry(raft.LogBarrier, nil))
	mustCheckpoint(t, l, 6)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before := snapshotFiles(t, mem)
	var trace strings.Builder
	report, err := Inspect(mem, testDir, InspectOptions{Verify: true}, func(e EntryInfo) error {
		fmt.Fprintf(&trace, "%d %s", e.Index, e.Kind)
		if b := e.Batch; b != nil {
			fmt.Fprintf(&trace, " %d-%d accepted=%v", b.BaseOffset, b.LastOffset, b.Accepted)
		}
		trace.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `1 configuration
2 noop
3 batch 0-2 accepted=true
4 batch 8-9 accepted=false
5 command
6 batch 3-3 accepted=true
7 barrier
`
	if trace.String() != want {
		t.Errorf("got\n%swant\n%s", &trace, want)
	}
	if !report.Healthy() || !report.CleanClose || report.Entries != 7 || report.Batches != 2 || report.Records != 4 || report.DeadBatches != 1 || report.LastIndex != 7 || report.NextOffset != 4 {
		t.Errorf("report %+v", report)
	}
	if c := report.Checkpoints; len(c) != 1 || c[0].Index != 6 || len(c[0].Servers) != 2 || c[0].Servers[1] != "2-b 2 Nonvoter" {
		t.Errorf("checkpoints %+v", c)
	}
	if s := report.Segments; len(s) != 1 || s[0].Index != "ok" || s[0].FileBytes != s[0].Bytes {
		t.Errorf("segments %+v", s)
	}
	if b, err := json.Marshal(report); err != nil || !strings.Contains(string(b), `"damage":[]`) {
		t.Errorf("JSON %s, %v", b, err)
	}
	if after := snapshotFiles(t, mem); after != before {
		t.Errorf("inspection changed files")
	}
}

func TestInspectBoundsAndErrors(t *testing.T) {
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	fill(t, l, 10, 900)
	l.Close()
	l = mustOpen(t, testOptions(mem))
	if _, err := Inspect(mem, testDir, InspectOptions{}, nil); !errors.Is(err, ErrLocked) {
		t.Fatalf("inspection of an open log: %v", err)
	}
	l.Close()
	if is, err := IsLogDir(mem, testDir); err != nil || !is {
		t.Fatalf("IsLogDir: %v, %v", is, err)
	}
	if is, err := IsLogDir(vfs.OS(), t.TempDir()); err != nil || is {
		t.Fatalf("IsLogDir of an empty directory: %v, %v", is, err)
	}
	var seen []Index
	report, err := Inspect(mem, testDir, InspectOptions{From: 3, To: 5}, func(e EntryInfo) error { seen = append(seen, e.Index); return nil })
	if err != nil || fmt.Sprint(seen) != "[3 4 5]" || report.Entries != 10 {
		t.Fatalf("saw %v, %v", seen, err)
	}
	if _, err := Inspect(mem, testDir, InspectOptions{}, func(EntryInfo) error { return io.ErrShortBuffer }); !errors.Is(err, io.ErrShortBuffer) {
		t.Fatalf("error of the callback: %v", err)
	}
	if _, err := Inspect(mem, "/nowhere", InspectOptions{}, nil); err == nil {
		t.Fatal("no error for a directory that is not there")
	}
	if report, err := Inspect(vfs.OS(), t.TempDir(), InspectOptions{Verify: true}, nil); err != nil || !report.Healthy() || report.LastIndex != 0 {
		t.Fatalf("an empty directory: %+v, %v", report, err)
	}
}

// TestInspectFindsAllDamage: damage in several segments is reported for each, with its place, also where an index hides it from Open.
func TestInspectFindsAllDamage(t *testing.T) {
	mem, segs := damagedLog(t, true)
	flip(t, mem, numbered(segs[0].FirstIndex, segmentExt), 1100)
	flip(t, mem, numbered(segs[2].FirstIndex, segmentExt), 1100)
	l := mustOpen(t, testOptions(mem)) // it reads neither
	l.Close()
	report, err := Inspect(mem, testDir, InspectOptions{Verify: true}, nil)
	if err != nil || len(report.Damage) != 2 {
		t.Fatalf("%+v, %v", report.Damage, err)
	}
	for i, k := range []int{0, 2} {
		if d := report.Damage[i]; filepath.Base(d.File) != numbered(segs[k].FirstIndex, segmentExt) || d.Position == 0 || d.Position > 1100 {
			t.Errorf("damage %+v", d)
		}
	}
}
