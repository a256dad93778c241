package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// sector is the unit in which Mem tears writes: bytes of one sector reach the disk together.
const sector = 512

// Mem is a file system in memory that can crash. After a crash only synced file content and synced directory entries are left, plus, if asked
// for, an arbitrary part of what was not synced: any sectors of a file, any of its sizes, and any first part of a directory's changes.
type Mem struct {
	mu    sync.Mutex
	dirs  map[string]*memDir // by clean path
	locks map[string]*memLock
	epoch int // number of crashes; handles of an earlier one are dead
	free  int64
	hook  func(op string)

	failGlob string
	failErr  error
	failed   map[*memNode]bool
}

// memDir holds one directory's entries as they are, and as they are on the disk.
type memDir struct {
	now     map[string]*memNode
	durable map[string]*memNode
	// pending are the unsynced changes, oldest first; each touches one name, or two for a rename.
	pending []dirChange
}

type dirChange struct {
	set    string // name that node gets; "" for a removal
	node   *memNode
	remove string // name that goes; "" for a creation
}

// memNode is a file's content as it is, and as it is on the disk.
type memNode struct {
	now     []byte
	durable []byte
	sizes   []int    // sizes since the last sync
	dirty   []extent // what a sync would write
	least   int      // smallest size since the last sync: durable bytes behind it go with the next
}

// extent is a range of bytes.
type extent struct{ from, to int }

// NewMem returns an empty file system. Directories have to be made, as on a disk; the root "/" and "." are there.
func NewMem() *Mem {
	m := &Mem{dirs: map[string]*memDir{}, locks: map[string]*memLock{}, free: math.MaxInt64}
	m.dirs["/"] = newMemDir()
	m.dirs["."] = newMemDir()
	return m
}

func newMemDir() *memDir {
	return &memDir{now: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// OnMutation has fn called before each operation that changes anything, syncs included, with its name and path. fn may call CrashClone; it may be
// called from several goroutines at once. nil ends it.
func (m *Mem) OnMutation(fn func(op string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = fn
}

// SetFreeBytes sets what FreeBytes answers. It does not limit writes: use a Faulty for that.
func (m *Mem) SetFreeBytes(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = n
}

// Crash turns the file system into what a power failure leaves: what was synced and, if rng is not nil, an arbitrary part of the rest.
// Handles and locks from before return ErrCrashed.
func (m *Mem) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirs = m.afterCrash(rng)
	m.locks = map[string]*memLock{}
	m.epoch++
}

// FailSync makes the next sync of each file whose base name the glob matches fail as Linux does: the call returns err, and what it should have written stays visible and
// counts as clean, so that no later sync writes it either. A file's new size is not lost. nil ends it.
func (m *Mem) FailSync(glob string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failGlob, m.failErr, m.failed = glob, err, map[*memNode]bool{}
}

// syncFault returns the error that FailSync has for this file.
func (m *Mem) syncFault(f *memFile) error {
	ok, _ := filepath.Match(m.failGlob, filepath.Base(f.name))
	if m.failErr == nil || !ok || m.failed[f.node] {
		return nil
	}
	m.failed[f.node] = true
	f.node.dirty = nil
	return &fs.PathError{Op: "sync", Path: f.name, Err: m.failErr}
}

// KillClone returns what Kill would leave, unsynced state included, and leaves this one as it is.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Mem{dirs: map[string]*memDir{}, locks: map[string]*memLock{}, free: m.free}
	nodes := map[*memNode]*memNode{}
	for p, d := range m.dirs {
		c.dirs[p] = d.clone(nodes)
	}
	return c
}

func (d *memDir) clone(nodes map[*memNode]*memNode) *memDir {
	node := func(n *memNode) *memNode {
		if n == nil {
			return nil
		}
		if nodes[n] == nil {
			c := newMemNode(n.now)
			c.durable = append([]byte(nil), n.durable...)
			c.sizes, c.dirty, c.least = append([]int(nil), n.sizes...), append([]extent(nil), n.dirty...), n.least
			nodes[n] = c
		}
		return nodes[n]
	}
	c := newMemDir()
	for name, n := range d.now {
		c.now[name] = node(n)
	}
	for name, n := range d.durable {
		c.durable[name] = node(n)
	}
	for _, p := range d.pending {
		c.pending = append(c.pending, dirChange{set: p.set, node: node(p.node), remove: p.remove})
	}
	return c
}

// Kill is the death of the process alone: content and directories stay as they are, synced or not, and handles and locks return ErrCrashed.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locks = map[string]*memLock{}
	m.epoch++
}

// CrashClone returns what Crash would leave, and leaves this one as it is.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Mem{dirs: m.afterCrash(rng), locks: map[string]*memLock{}, free: m.free}
}

func (m *Mem) afterCrash(rng *rand.Rand) map[string]*memDir {
	paths := make([]string, 0, len(m.dirs))
	for p := range m.dirs {
		paths = append(paths, p)
	}
	sort.Strings(paths) // map order must not reach rng
	out := make(map[string]*memDir, len(paths))
	for _, p := range paths {
		d := newMemDir()
		entries := m.dirs[p].afterCrash(rng)
		names := make([]string, 0, len(entries))
		for name := range entries {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			node := entries[name].afterCrash(rng)
			d.now[name], d.durable[name] = node, node
		}
		out[p] = d
	}
	return out
}

// afterCrash is the durable entries and, with rng, a first part of the pending changes.
func (d *memDir) afterCrash(rng *rand.Rand) map[string]*memNode {
	entries := make(map[string]*memNode, len(d.durable))
	for name, node := range d.durable {
		entries[name] = node
	}
	if rng == nil {
		return entries
	}
	for _, c := range d.pending[:rng.IntN(len(d.pending)+1)] {
		c.apply(entries)
	}
	return entries
}

func (c dirChange) apply(entries map[string]*memNode) {
	if c.remove != "" {
		delete(entries, c.remove)
	}
	if c.set != "" {
		entries[c.set] = c.node
	}
}

// afterCrash is the durable content and, with rng, arbitrary sectors and sizes of the unsynced one.
func (n *memNode) afterCrash(rng *rand.Rand) *memNode {
	if rng == nil || len(n.sizes) == 0 {
		return newMemNode(n.durable)
	}
	size := len(n.durable)
	if pick := rng.IntN(len(n.sizes) + 1); pick < len(n.sizes) {
		size = n.sizes[pick]
	}
	data := make([]byte, size)
	copy(data, n.durable)
	for at := 0; at < size; at += sector {
		if rng.IntN(2) == 0 || !n.unsynced(at, at+sector) {
			continue
		}
		end := min(at+sector, size)
		clear(data[at:end])
		if at < len(n.now) {
			copy(data[at:end], n.now[at:])
		}
	}
	return newMemNode(data)
}

// unsynced says whether the next sync would change any byte of a range.
func (n *memNode) unsynced(from, to int) bool {
	if to > n.least {
		return true
	}
	for _, e := range n.dirty {
		if e.from < to && from < e.to {
			return true
		}
	}
	return false
}

func newMemNode(data []byte) *memNode {
	return &memNode{now: append([]byte(nil), data...), durable: append([]byte(nil), data...), least: len(data)}
}

// mutate calls the hook, without the lock.
func (m *Mem) mutate(op, name string) {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		hook(op + " " + name)
	}
}

// dir finds the directory that holds name. The caller has the lock.
func (m *Mem) dir(op, name string) (*memDir, string, error) {
	name = filepath.Clean(name)
	d, ok := m.dirs[filepath.Dir(name)]
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return d, filepath.Base(name), nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mutate("create", name)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir("create", name)
	if err != nil {
		return nil, err
	}
	node, ok := d.now[base]
	if ok {
		node.resize(0)
	} else {
		node = &memNode{}
		d.change(dirChange{set: base, node: node})
	}
	return m.handle(name, node, true), nil
}

func (d *memDir) change(c dirChange) {
	c.apply(d.now)
	d.pending = append(d.pending, c)
}

func (m *Mem) handle(name string, node *memNode, writable bool) *memFile {
	return &memFile{m: m, name: name, node: node, epoch: m.epoch, writable: writable}
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenFile implements FS.
func (m *Mem) OpenFile(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir("open", name)
	if err != nil {
		return nil, err
	}
	node, ok := d.now[base]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return m.handle(name, node, writable), nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mutate("remove", name)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir("remove", name)
	if err != nil {
		return err
	}
	if _, ok := d.now[base]; ok {
		d.change(dirChange{remove: base})
		return nil
	}
	if sub, ok := m.dirs[filepath.Clean(name)]; ok && len(sub.now) == 0 {
		delete(m.dirs, filepath.Clean(name))
		return nil
	}
	return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(name string) error {
	m.mutate("removeall", name)
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	for p := range m.dirs {
		if p == name || strings.HasPrefix(p, name+string(filepath.Separator)) {
			delete(m.dirs, p)
		}
	}
	if d, base, err := m.dir("remove", name); err == nil && d.now[base] != nil {
		d.change(dirChange{remove: base})
	}
	return nil
}

// Rename implements FS; directories are renamed durably at once.
func (m *Mem) Rename(oldName, newName string) error {
	m.mutate("rename", newName)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirs[filepath.Clean(oldName)] != nil {
		return m.renameDir(filepath.Clean(oldName), filepath.Clean(newName))
	}
	d, from, err := m.dir("rename", oldName)
	if err != nil {
		return err
	}
	to, toBase, err := m.dir("rename", newName)
	if err != nil {
		return err
	}
	node, ok := d.now[from]
	if !ok || to != d {
		return &fs.PathError{Op: "rename", Path: oldName, Err: fs.ErrNotExist}
	}
	d.change(dirChange{set: toBase, node: node, remove: from})
	return nil
}

func (m *Mem) renameDir(from, to string) error {
	if m.dirs[to] != nil || m.dirs[filepath.Dir(to)] == nil || filepath.Dir(from) != filepath.Dir(to) {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrExist}
	}
	moved := map[string]*memDir{}
	for p, d := range m.dirs {
		if p == from || strings.HasPrefix(p, from+string(filepath.Separator)) {
			moved[p] = d
		}
	}
	for p, d := range moved {
		delete(m.dirs, p)
		m.dirs[to+p[len(from):]] = d
	}
	return nil
}

// MkdirAll implements FS, except that directories are durable at once.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := filepath.Clean(name); m.dirs[p] == nil; p = filepath.Dir(p) {
		m.dirs[p] = newMemDir()
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) ([]Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	d, ok := m.dirs[name]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var infos []Info
	for base, node := range d.now {
		infos = append(infos, Info{Name: base, Size: int64(len(node.now))})
	}
	for p := range m.dirs {
		if p != name && filepath.Dir(p) == name {
			infos = append(infos, Info{Name: filepath.Base(p), Dir: true})
		}
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.dirs[filepath.Clean(name)]; ok {
		return Info{Name: filepath.Base(name), Dir: true}, nil
	}
	d, base, err := m.dir("stat", name)
	if err != nil {
		return Info{}, err
	}
	node, ok := d.now[base]
	if !ok {
		return Info{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return Info{Name: base, Size: int64(len(node.now))}, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	m.mutate("syncdir", name)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.dirs[filepath.Clean(name)]
	if !ok {
		return &fs.PathError{Op: "syncdir", Path: name, Err: fs.ErrNotExist}
	}
	for _, c := range d.pending {
		c.apply(d.durable)
	}
	d.pending = nil
	return nil
}

// FreeBytes implements FS.
func (m *Mem) FreeBytes(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, nil
}

type memLock struct {
	m    *Mem
	name string
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir("lock", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] == nil {
		d.change(dirChange{set: base, node: &memNode{}})
	}
	if m.locks[name] != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	l := &memLock{m: m, name: name}
	m.locks[name] = l
	return l, nil
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.locks[l.name] == l { // not if a crash gave it to somebody else
		delete(l.m.locks, l.name)
	}
	return nil
}
