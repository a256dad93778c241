package sim

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// dataDir is where every broker keeps its data, each on a disk of its own.
const dataDir = "/data"

// Disk is what a broker's machine has stored. It outlives the broker's lives; each life uses it through a life's files, which end with it.
type Disk struct {
	mem    *vfs.Mem
	faults *vfs.Faulty
	rng    *rand.Rand // under mu

	mu     sync.Mutex
	syncMs [2]int // a sync takes this long, from and to, in ms of virtual time
	stall  time.Time
	full   bool
	stable stableData
	meta   metadataData
	rotten bool // the vote store or the metadata's files were damaged
}

// NewDisk returns an empty disk.
func NewDisk(rng *rand.Rand) *Disk {
	mem := vfs.NewMem()
	return &Disk{mem: mem, faults: vfs.NewFaulty(mem), rng: rng, stable: stableData{}}
}

// SetFull fills the disk, or drains it: while it is full, no file gets longer and nothing is stored.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full == full {
		return
	}
	d.full = full
	d.faults.Clear()
	if full {
		d.faults.SetFreeBytes(0)
		noSpace := fmt.Errorf("%w: %w", vfs.ErrNoSpace, syscall.ENOSPC)
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpPreallocate, vfs.OpCreate} {
			d.faults.Add(vfs.Rule{Op: op, Err: noSpace, Short: d.rng.IntN(100)})
		}
	}
}

// SetSlow makes syncs take a time between two, in milliseconds.
func (d *Disk) SetSlow(from, to int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncMs = [2]int{from, to}
}

// Stall makes all syncs wait until a time.
func (d *Disk) Stall(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stall = until
}

// Heal ends what makes the disk slow, full or faulty. What is damaged stays damaged.
func (d *Disk) Heal() {
	d.SetFull(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncMs, d.stall = [2]int{}, time.Time{}
	d.faults.Clear()
	d.mem.FailSync("", nil)
}

// delay is how long a sync that begins now takes.
func (d *Disk) delay() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := time.Duration(50+d.rng.IntN(250)) * time.Microsecond
	if d.syncMs[1] > 0 {
		took = time.Duration(d.syncMs[0]*1000+d.rng.IntN(1+1000*(d.syncMs[1]-d.syncMs[0]))) * time.Microsecond
	}
	return max(took, time.Until(d.stall))
}

// crash is a power failure, or the death of the process alone.
func (d *Disk) crash(power bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if power {
		d.mem.Crash(d.rng)
	} else {
		d.mem.Kill()
	}
}

// life is one process on a disk. Once it has ended nothing of it reaches the disk any more.
type life struct {
	*Disk
	ended   atomic.Bool
	dead    chan struct{} // closed with it
	begun   chan struct{} // closed when the broker's Start has returned
	started bool          // it did so without an error; to be read after begun
}

func (l *life) check(op, name string) error {
	if l.ended.Load() {
		return fmt.Errorf("%s %s: %w", op, name, vfs.ErrCrashed)
	}
	return nil
}

// wait lets a sync take its time. It is part of the life: a crash meanwhile loses what was to be synced.
func (l *life) wait() error {
	time.Sleep(l.delay())
	return l.check("sync", "")
}

// lifeFS is the file system as one life sees it.
type lifeFS struct {
	vfs.FS
	l *life
	// slow: syncs take their time. Not so for what is synced under a sync.Mutex, where no goroutine of a bubble may sleep.
	slow bool
}

func (f *lifeFS) file(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &lifeFile{File: file, fs: f, name: name}, nil
}

func (f *lifeFS) Create(name string) (vfs.File, error) {
	if err := f.l.check("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	return f.file(name, file, err)
}

func (f *lifeFS) Open(name string) (vfs.File, error) {
	if err := f.l.check("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name)
	return f.file(name, file, err)
}

func (f *lifeFS) OpenFile(name string) (vfs.File, error) {
	if err := f.l.check("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name)
	return f.file(name, file, err)
}

func (f *lifeFS) Remove(name string) error {
	if err := f.l.check("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *lifeFS) RemoveAll(name string) error {
	if err := f.l.check("remove", name); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

func (f *lifeFS) Rename(from, to string) error {
	if err := f.l.check("rename", from); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *lifeFS) MkdirAll(name string) error {
	if err := f.l.check("mkdir", name); err != nil {
		return err
	}
	return f.FS.MkdirAll(name)
}

func (f *lifeFS) ReadDir(name string) ([]vfs.Info, error) {
	if err := f.l.check("readdir", name); err != nil {
		return nil, err
	}
	return f.FS.ReadDir(name)
}

func (f *lifeFS) Stat(name string) (vfs.Info, error) {
	if err := f.l.check("stat", name); err != nil {
		return vfs.Info{}, err
	}
	return f.FS.Stat(name)
}

func (f *lifeFS) SyncDir(name string) error {
	if f.slow {
		if err := f.l.wait(); err != nil {
			return err
		}
	}
	if err := f.l.check("syncdir", name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

func (f *lifeFS) Lock(name string) (io.Closer, error) {
	if err := f.l.check("lock", name); err != nil {
		return nil, err
	}
	return f.FS.Lock(name)
}

type lifeFile struct {
	vfs.File
	fs   *lifeFS
	name string
}

func (f *lifeFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.l.check("write", f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *lifeFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) {
	if err := f.fs.l.check("write", f.name); err != nil {
		return 0, err
	}
	return f.File.WriteVecAt(bufs, off)
}

func (f *lifeFile) Datasync() error { return f.sync(f.File.Datasync) }

func (f *lifeFile) Sync() error { return f.sync(f.File.Sync) }

func (f *lifeFile) sync(do func() error) error {
	if f.fs.slow {
		if err := f.fs.l.wait(); err != nil {
			return err
		}
	}
	if err := f.fs.l.check("sync", f.name); err != nil {
		return err
	}
	return do()
}

// files lists the files of all replicas with an extension; with sealed, all but the newest of each replica.
func (d *Disk) files(ext string, sealed bool) []string {
	root := filepath.Join(dataDir, "partitions")
	dirs, err := d.mem.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, dir := range dirs {
		if strings.Contains(dir.Name, ".damaged-") {
			continue
		}
		files, err := d.mem.ReadDir(filepath.Join(root, dir.Name))
		if err != nil {
			continue
		}
		var mine []string
		for _, f := range files {
			if filepath.Ext(f.Name) == ext && f.Size > 0 {
				mine = append(mine, filepath.Join(root, dir.Name, f.Name))
			}
		}
		if sealed && len(mine) > 0 {
			mine = mine[:len(mine)-1]
		}
		out = append(out, mine...)
	}
	return out
}

// ended says that only zeros follow in a file: preallocated, or left over. They carry nothing, and nobody looks at them.
func (d *Disk) ended(name string, at int64) bool {
	f, err := d.mem.Open(name)
	if err != nil {
		return true
	}
	defer f.Close()
	rest, err := io.ReadAll(io.NewSectionReader(f, at, 1<<30))
	return err == nil && len(bytes.Trim(rest, "\x00")) == 0
}

// flip inverts a bit of a file, durably.
func (d *Disk) flip(name string, at int64, bit uint) error {
	f, err := d.mem.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		return err
	}
	return f.Sync()
}

// cut shortens a file, durably.
func (d *Disk) cut(name string, size int64) error {
	f, err := d.mem.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// remove removes a file, durably.
func (d *Disk) remove(name string) error {
	if err := d.mem.Remove(name); err != nil {
		return err
	}
	return d.mem.SyncDir(filepath.Dir(name))
}
