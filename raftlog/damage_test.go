package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// damagedLog makes a log of several segments with checkpoints, trimmed once, and returns its file system after a clean close or a crash.
func damagedLog(t *testing.T, clean bool) (*vfs.Mem, []SegmentInfo) {
	t.Helper()
	mem := newMem(t)
	l := mustOpen(t, testOptions(mem))
	for range 30 {
		fill(t, l, 1, 900)
	}
	first := l.Segments()[0].LastIndex
	mustCheckpoint(t, l, first)
	if err := l.Trim(l.NextOffset(), first); err != nil {
		t.Fatal(err)
	}
	mustCheckpoint(t, l, l.Segments()[1].LastIndex)
	waitIndexes(l)
	segs := l.Segments()
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	if clean {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		mem.Crash(nil)
		l.poison(vfs.ErrCrashed)
		l.Close()
	}
	return mem, segs
}

func remove(t *testing.T, mem *vfs.Mem, name string) {
	t.Helper()
	if err := mem.Remove(filepath.Join(testDir, name)); err != nil {
		t.Fatal(err)
	}
}

func truncateFile(t *testing.T, mem *vfs.Mem, name string, size int64) {
	t.Helper()
	f, err := mem.OpenFile(filepath.Join(testDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// TestDamageAtOpen: what no interruption explains is refused, named, and left as it is.
func TestDamageAtOpen(t *testing.T) {
	segment := func(i Index) string { return numbered(i, segmentExt) }
	cases := map[string]struct {
		clean bool
		do    func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) (file string)
	}{
		"bit flip in a sealed segment without index": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, numbered(segs[1].FirstIndex, indexExt))
			flip(t, mem, segment(segs[1].FirstIndex), 1500)
			return segment(segs[1].FirstIndex)
		}},
		"bit flip in a segment header": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			last := segment(segs[len(segs)-1].FirstIndex)
			flip(t, mem, last, 20)
			return last
		}},
		"bit flip in the newest segment before valid frames": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			last := segment(segs[len(segs)-1].FirstIndex)
			flip(t, mem, last, 200)
			return last
		}},
		"zeros in the newest segment before valid frames": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			last := segment(segs[len(segs)-1].FirstIndex)
			f, _ := mem.OpenFile(filepath.Join(testDir, last))
			defer f.Close()
			f.WriteAt(make([]byte, 500), segmentHeaderSize)
			return last
		}},
		"shorter sealed segment": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			truncateFile(t, mem, segment(segs[1].FirstIndex), 2000)
			return segment(segs[1].FirstIndex)
		}},
		"missing first segment": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, segment(segs[0].FirstIndex))
			return segment(segs[0].FirstIndex)
		}},
		"missing segment in the middle": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, segment(segs[1].FirstIndex))
			return segment(segs[1].FirstIndex)
		}},
		"missing newest segment": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, segment(segs[len(segs)-1].FirstIndex))
			return segment(segs[len(segs)-2].FirstIndex)
		}},
		"missing newest segment after a clean close": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			n := len(segs) - 1
			remove(t, mem, segment(segs[n].FirstIndex))
			remove(t, mem, numbered(segs[n-1].FirstIndex, indexExt))
			return segment(segs[n].FirstIndex)
		}},
		"cut newest segment after a clean close": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			last := segment(segs[len(segs)-1].FirstIndex)
			truncateFile(t, mem, last, sizeOf(t, mem, last)-8)
			return last
		}},
		"last frame flipped after a clean close": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			n := len(segs) - 1
			last := segment(segs[n].FirstIndex)
			remove(t, mem, numbered(segs[n].FirstIndex, indexExt)) // otherwise a read finds it
			flip(t, mem, last, sizeOf(t, mem, last)-100)
			return last
		}},
		"missing start": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, startName)
			return startName
		}},
		"bit flip in start": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			flip(t, mem, startName, 20)
			return startName
		}},
		"bit flip in the newest checkpoint": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			name := numbered(segs[1].LastIndex, ckptExt)
			flip(t, mem, name, sizeOf(t, mem, name)-6)
			return name
		}},
		"missing checkpoint before the first entry": {true, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			remove(t, mem, numbered(segs[0].FirstIndex-1, ckptExt))
			return numbered(segs[0].FirstIndex-1, ckptExt)
		}},
		"log that ends before its newest checkpoint": {false, func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) string {
			for _, s := range segs[2:] {
				remove(t, mem, segment(s.FirstIndex))
			}
			for _, s := range segs[1:] {
				mem.Remove(filepath.Join(testDir, numbered(s.FirstIndex, indexExt)))
			}
			truncateFile(t, mem, segment(segs[1].FirstIndex), 1200)
			return segment(segs[1].FirstIndex)
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			mem, segs := damagedLog(t, c.clean)
			file := c.do(t, mem, segs)
			before := snapshotFiles(t, mem)
			_, err := Open(testOptions(mem))
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Fatalf("open: %v", err)
			}
			if damage.File != filepath.Join(testDir, file) || damage.Reason == "" {
				t.Fatalf("damage in %s, and it is in %s: %v", damage.File, file, err)
			}
			if after := snapshotFiles(t, mem); after != before {
				t.Fatalf("opening changed files:\n%s\nwere\n%s", after, before)
			}
			report, err := Inspect(mem, testDir, InspectOptions{Verify: true}, nil)
			if err != nil || report.Healthy() || report.Damage[0].File != damage.File {
				t.Fatalf("verify: %v, %+v", err, report.Damage)
			}
		})
	}
}

// snapshotFiles is a text that changes with any file.
func snapshotFiles(t *testing.T, mem *vfs.Mem) string {
	t.Helper()
	infos, err := mem.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, fi := range infos {
		content, err := readFile(mem, filepath.Join(testDir, fi.Name), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %08x\n", fi.Name, fi.Size, crcOf(content))
	}
	return b.String()
}

// TestHarmlessLosses: files that can be rebuilt are, without a word of damage.
func TestHarmlessLosses(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo){
		"index removed": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			remove(t, mem, numbered(segs[1].FirstIndex, indexExt))
		},
		"index header flipped": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			flip(t, mem, numbered(segs[1].FirstIndex, indexExt), 30)
		},
		"index points flipped": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			flip(t, mem, numbered(segs[1].FirstIndex, indexExt), indexHeaderSize+3)
		},
		"newest index points flipped": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			flip(t, mem, numbered(segs[len(segs)-1].FirstIndex, indexExt), indexHeaderSize+3)
		},
		"index of another segment": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			b, err := readFile(mem, filepath.Join(testDir, numbered(segs[0].FirstIndex, indexExt)), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeFile(mem, filepath.Join(testDir, numbered(segs[1].FirstIndex, indexExt)), b); err != nil {
				t.Fatal(err)
			}
		},
		"clean mark flipped": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) { flip(t, mem, cleanName, 20) },
		"clean mark removed": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) { remove(t, mem, cleanName) },
		"foreign temporary file": func(t *testing.T, mem *vfs.Mem, segs []SegmentInfo) {
			if err := writeTemp(mem, filepath.Join(testDir, "start.tmp"), []byte("half")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem, segs := damagedLog(t, true)
			do(t, mem, segs)
			l := mustOpen(t, testOptions(mem))
			defer l.Close()
			if got, err := contents(l); err != nil || len(got) != 30-int(segs[0].FirstIndex)+1 {
				t.Fatalf("%d entries, %v", len(got), err)
			}
			for o := l.FirstOffset(); o < l.NextOffset(); o++ {
				if res, err := l.ReadBatches(o, l.NextOffset(), 1); err != nil || len(res.Batches) != 1 {
					t.Fatalf("read at %d: %d batches, %v", o, len(res.Batches), err)
				}
			}
			fill(t, l, 3, 900)
			waitIndexes(l)
			if infos, _ := mem.ReadDir(testDir); strings.Contains(fmt.Sprint(infos), tmpExt) {
				t.Fatalf("a temporary file is left: %v", infos)
			}
		})
	}
}

// TestReadersChangeNoFile: the index that replaces a bad one stays in memory. Written by a reader it could come after a truncation, and tell of a segment that is gone.
func TestReadersChangeNoFile(t *testing.T) {
	mem, segs := damagedLog(t, true)
	flip(t, mem, numbered(segs[1].FirstIndex, indexExt), indexHeaderSize+3)
	opts := testOptions(mem)
	opts.TailCacheBytes = -1
	l := mustOpen(t, opts)
	defer l.Close()
	before := snapshotFiles(t, mem)
	for o := l.FirstOffset(); o < l.NextOffset(); o++ {
		if res, err := l.ReadBatches(o, l.NextOffset(), 1); err != nil || len(res.Batches) != 1 {
			t.Fatalf("read at %d: %d batches, %v", o, len(res.Batches), err)
		}
	}
	if after := snapshotFiles(t, mem); after != before {
		t.Errorf("reads changed\n%sinto\n%s", before, after)
	}
	if l.segs[1].points == nil {
		t.Error("every reader would scan the segment again")
	}
}

// TestTornTail: what an interrupted write left is cut off, wherever it was interrupted.
func TestTornTail(t *testing.T) {
	mem := newMem(t)
	opts := testOptions(mem)
	opts.SegmentBytes = 1 << 20
	l := mustOpen(t, opts)
	all := fill(t, l, 5, 300)
	end := l.active().end
	a := appenderFor(t, l)
	torn := []*raft.Log{a.batch(1, 300, 1), a.batch(1, 300, 2), a.batch(1, 300, 3)}
	frames := newRun(l.active(), torn)
	var bytes []byte
	for _, v := range frames.vec {
		bytes = append(bytes, v...)
	}
	mem.Crash(nil)
	l.poison(vfs.ErrCrashed)
	l.Close()
	whole := torn[:0]
	at, tails := 0, 0
	for cut := 1; cut < len(bytes); cut += 13 {
		for at < 3 && int64(cut) >= frames.frames[at].pos-end+frames.frames[at].header.size() {
			whole, at = append(whole, torn[at]), at+1
		}
		clone := mem.CrashClone(nil)
		f, err := clone.OpenFile(filepath.Join(testDir, numbered(1, segmentExt)))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt(bytes[:cut], end)
		f.Sync()
		f.Close()
		report, err := Inspect(clone, testDir, InspectOptions{}, nil)
		if err != nil || !report.Healthy() {
			t.Fatalf("cut at %d: %v, %+v", cut, err, report.Damage)
		}
		if report.TornTail != nil {
			tails++
		}
		o := opts
		o.FS = clone
		l := mustOpen(t, o)
		mustContain(t, l, append(all[:5:5], whole...))
		l.Close()
	}
	if at < 2 || tails < 20 {
		t.Fatalf("%d whole frames and %d torn tails: not what was to be tested", at, tails)
	}
}

// A flipped bit in a file's version is damage, which is repaired, and not a later release, which is waited for.
func TestFlippedVersion(t *testing.T) {
	for _, name := range []string{startName, numbered(1, segmentExt)} {
		mem := newMem(t)
		l := mustOpen(t, testOptions(mem))
		fill(t, l, 2, 100)
		mem.Crash(nil)
		l.poison(vfs.ErrCrashed)
		l.Close()
		path := filepath.Join(testDir, name)
		b, err := readFile(mem, path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		b[8] ^= 1 << 4
		if err := writeFile(mem, path, b); err != nil {
			t.Fatal(err)
		}
		var damage *DamageError
		if _, err = Open(testOptions(mem)); !errors.As(err, &damage) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestNewerFormat(t *testing.T) {
	for name, crc := range map[string]int{startName: 60, numbered(1, segmentExt): 60} {
		mem := newMem(t)
		l := mustOpen(t, testOptions(mem))
		fill(t, l, 2, 100)
		mem.Crash(nil)
		l.poison(vfs.ErrCrashed)
		l.Close()
		path := filepath.Join(testDir, name)
		b, err := readFile(mem, path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		le.PutUint16(b[8:], 7)
		le.PutUint32(b[crc:], crcOf(b[:crc]))
		if err := writeFile(mem, path, b); err != nil {
			t.Fatal(err)
		}
		_, err = Open(testOptions(mem))
		if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "version 7") {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
