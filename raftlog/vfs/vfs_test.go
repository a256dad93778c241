package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// each runs a test on every implementation.
func each(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) { m := NewMem(); m.MkdirAll("/d"); test(t, m, "/d") })
	t.Run("faulty", func(t *testing.T) { m := NewMem(); m.MkdirAll("/d"); test(t, NewFaulty(m), "/d") })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, fsys FS, path, content string, sync bool) File {
	t.Helper()
	f, err := fsys.Create(path)
	must(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	return f
}

func read(fsys FS, path string) string {
	f, err := fsys.Open(path)
	if err != nil {
		return "error: " + err.Error()
	}
	defer f.Close()
	size, _ := f.Size()
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return "error: " + err.Error()
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		path := filepath.Join(dir, "a")
		f := write(t, fsys, path, "hello", true)
		defer f.Close()
		var many [][]byte
		want := "hello"
		for i := range 2500 { // more than one pwritev takes
			many = append(many, []byte{byte('a' + i%26)}, nil)
			want += string(byte('a' + i%26))
		}
		n, err := f.WriteVecAt(many, 5)
		if err != nil || n != 2500 {
			t.Fatalf("WriteVecAt: %d, %v", n, err)
		}
		if len(many[0]) != 1 {
			t.Fatal("WriteVecAt changed its argument")
		}
		if got := read(fsys, path); got != want {
			t.Fatalf("read %q", got)
		}
		must(t, f.Truncate(3))
		must(t, f.Preallocate(3, 4))
		got := read(fsys, path)
		if got != "hel\x00\x00\x00\x00" && got != "hel" {
			t.Fatalf("after a truncation: %q", got)
		}
		if n, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, io.EOF) || n != len(got) {
			t.Fatalf("read past the end: %d, %v", n, err)
		}
		must(t, f.Datasync())
		if _, err := fsys.Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("open of nothing: %v", err)
		}
		if _, err := fsys.Stat(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("stat of nothing: %v", err)
		}
		if free, err := fsys.FreeBytes(dir); err != nil || free <= 0 {
			t.Fatalf("free bytes: %d, %v", free, err)
		}
	})
}

func TestDirectories(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		sub := filepath.Join(dir, "x", "y")
		must(t, fsys.MkdirAll(sub))
		write(t, fsys, filepath.Join(sub, "b"), "b", false).Close()
		f := write(t, fsys, filepath.Join(sub, "a"), "aa", false)
		defer f.Close()
		must(t, fsys.Rename(filepath.Join(sub, "a"), filepath.Join(sub, "c")))
		infos, err := fsys.ReadDir(sub)
		must(t, err)
		if want := []Info{{Name: "b", Size: 1}, {Name: "c", Size: 2}}; fmt.Sprint(infos) != fmt.Sprint(want) {
			t.Fatalf("listed %v", infos)
		}
		must(t, fsys.Remove(filepath.Join(sub, "c")))
		if n, err := f.ReadAt(make([]byte, 2), 0); n != 2 || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("read of a removed file through its handle: %d, %v", n, err)
		}
		must(t, fsys.SyncDir(sub))
		moved := filepath.Join(dir, "x", "z")
		must(t, fsys.Rename(sub, moved))
		if infos, err = fsys.ReadDir(moved); err != nil || len(infos) != 1 || infos[0].Name != "b" {
			t.Fatalf("a directory that was renamed: %v, %v", infos, err)
		}
		if _, err := fsys.Stat(sub); err == nil {
			t.Fatal("the directory is still there under its old name")
		}
		must(t, fsys.RemoveAll(filepath.Join(dir, "x")))
		must(t, fsys.RemoveAll(filepath.Join(dir, "x")))
		if _, err := fsys.Stat(moved); err == nil {
			t.Fatal("the directory is still there")
		}
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		path := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(path)
		must(t, err)
		if _, err := fsys.Lock(path); !errors.Is(err, ErrLocked) {
			t.Fatalf("second lock: %v", err)
		}
		must(t, l.Close())
		l, err = fsys.Lock(path)
		must(t, err)
		must(t, l.Close())
	})
}

// TestCrashKeepsOnlySynced walks through what survives.
func TestCrashKeepsOnlySynced(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(m *Mem, f File)
		want string
	}{
		"nothing synced":       {func(m *Mem, f File) {}, "error: open /d/a: file does not exist"},
		"file only":            {func(m *Mem, f File) { f.Sync() }, "error: open /d/a: file does not exist"},
		"directory only":       {func(m *Mem, f File) { m.SyncDir("/d") }, ""},
		"both":                 {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d") }, "hello"},
		"unsynced write":       {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d"); f.WriteAt([]byte("J"), 0) }, "hello"},
		"unsynced truncation":  {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d"); f.Truncate(1) }, "hello"},
		"truncated and longer": {func(m *Mem, f File) { f.Sync(); f.Truncate(1); f.Preallocate(1, 3); f.Sync(); m.SyncDir("/d") }, "h\x00\x00\x00"},
		"synced rename":        {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d"); m.Rename("/d/a", "/d/b"); m.SyncDir("/d") }, "error: open /d/a: file does not exist"},
		"unsynced rename":      {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d"); m.Rename("/d/a", "/d/b") }, "hello"},
		"unsynced removal":     {func(m *Mem, f File) { f.Sync(); m.SyncDir("/d"); m.Remove("/d/a") }, "hello"},
		"failed sync":          {func(m *Mem, f File) { m.SyncDir("/d"); m.FailSync("a", io.ErrClosedPipe); f.Sync(); f.Sync() }, "\x00\x00\x00\x00\x00"},
	} {
		m := NewMem()
		m.MkdirAll("/d")
		f := write(t, m, "/d/a", "hello", false)
		c.do(m, f)
		clone, killed := m.CrashClone(nil), m.KillClone()
		visible := read(m, "/d/a")
		if got := read(killed, "/d/a"); got != visible {
			t.Errorf("%s: %q after a kill instead of %q", name, got, visible)
		}
		killed.Crash(nil)
		m.Crash(nil)
		for _, fsys := range []*Mem{m, clone, killed} {
			if got := read(fsys, "/d/a"); got != c.want {
				t.Errorf("%s: %q after a crash instead of %q", name, got, c.want)
			}
		}
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrCrashed) {
			t.Errorf("%s: write through an old handle: %v", name, err)
		}
	}
}

// TestTornCrash: a torn crash gives, sector by sector, the old or the new bytes, and each of the sizes.
func TestTornCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	m := NewMem()
	m.MkdirAll("/d")
	f := write(t, m, "/d/a", string(bytes.Repeat([]byte("o"), 4*sector)), true)
	m.SyncDir("/d")
	f.WriteAt(bytes.Repeat([]byte("n"), 4*sector), 2*sector)
	kinds := map[string]bool{}
	for range 200 {
		got := read(m.CrashClone(rng), "/d/a")
		if len(got) != 4*sector && len(got) != 6*sector {
			t.Fatalf("seed %d: size %d", seed, len(got))
		}
		kind := ""
		for at := 0; at < len(got); at += sector {
			if s := got[at : at+sector]; s != string(bytes.Repeat([]byte{s[0]}, sector)) {
				t.Fatalf("seed %d: a torn sector at %d", seed, at)
			}
			kind += got[at : at+1]
		}
		if kind[:2] != "oo" {
			t.Fatalf("seed %d: bytes changed that nobody wrote: %q", seed, kind)
		}
		kinds[kind] = true
	}
	if len(kinds) < 8 {
		t.Fatalf("seed %d: only %d different outcomes", seed, len(kinds))
	}
}

func TestFaults(t *testing.T) {
	m := NewMem()
	m.MkdirAll("/d")
	f := NewFaulty(m)
	f.Add(Rule{Op: OpWrite, Glob: "*.log", After: 1, Times: 1, Err: ErrNoSpace, Short: 3})
	file := write(t, f, "/d/a.log", "first", false) // passes
	if n, err := file.WriteAt([]byte("second"), 5); !errors.Is(err, ErrNoSpace) || n != 3 {
		t.Fatalf("write: %d, %v", n, err)
	}
	if _, err := file.WriteAt([]byte("third"), 5); err != nil {
		t.Fatal(err)
	}
	write(t, f, "/d/other", "x", true).Close()
	f.Clear()
	for op, call := range map[Op]func() error{
		OpCreate:      func() error { _, err := f.Create("/d/c"); return err },
		OpOpen:        func() error { _, err := f.Open("/d/a.log"); return err },
		OpRemove:      func() error { return f.Remove("/d/a.log") },
		OpRename:      func() error { return f.Rename("/d/a.log", "/d/b") },
		OpSyncDir:     func() error { return f.SyncDir("/d") },
		OpRead:        func() error { _, err := file.ReadAt(make([]byte, 1), 0); return err },
		OpSync:        func() error { return errors.Join(file.Sync(), file.Datasync()) },
		OpPreallocate: func() error { return file.Preallocate(0, 10) },
		OpTruncate:    func() error { return file.Truncate(1) },
	} {
		f.Add(Rule{Op: op, Err: syscall.EIO})
		if err := call(); !errors.Is(err, syscall.EIO) || f.Hits() == 0 {
			t.Errorf("%s: %v", op, err)
		}
		f.Clear()
	}
	f.Add(Rule{Op: OpRead, FlipBit: 8*1 + 1})
	b := make([]byte, 4)
	if _, err := file.ReadAt(b, 0); err != nil || string(b) != "fhrs" {
		t.Fatalf("flipped %q, %v", b, err)
	}
	f.SetFreeBytes(7)
	if n, _ := f.FreeBytes("/d"); n != 7 {
		t.Fatalf("free bytes %d", n)
	}
}

func TestNoSpaceIsMapped(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if err := mapError(&fs.PathError{Op: "write", Path: "x", Err: errno}); !errors.Is(err, ErrNoSpace) || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
	}
	if err := mapError(syscall.EIO); errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.EIO) {
		t.Errorf("EIO became %v", err)
	}
}
