package vfs

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// Op names the operations that a Rule can match.
type Op string

// The operations of FS and File. OpSync matches Sync and Datasync.
const (
	OpCreate      Op = "create"
	OpOpen        Op = "open"
	OpRemove      Op = "remove"
	OpRename      Op = "rename"
	OpSyncDir     Op = "syncdir"
	OpRead        Op = "read"
	OpWrite       Op = "write"
	OpSync        Op = "sync"
	OpPreallocate Op = "preallocate"
	OpTruncate    Op = "truncate"
)

// Rule is one fault. It applies to operations of its kind on files whose base name its glob matches.
type Rule struct {
	Op   Op
	Glob string // of path/filepath.Match, on the base name; "" means every file
	// After lets this many matching operations pass first; Times is how often the fault happens then, 0 meaning until the rule is cleared.
	After, Times int
	// Err is returned instead of doing the operation, for writes after Short bytes of it were done.
	Err   error
	Short int
	// FlipBit, if not zero, inverts bit FlipBit-1 (counted from the beginning of the file) in what a read returns. Err is not used then.
	FlipBit int64
}

// Faulty is an FS that fails by rules.
type Faulty struct {
	FS
	mu    sync.Mutex
	rules []*ruleState
	free  *int64
}

type ruleState struct {
	Rule
	seen, hits int
}

// NewFaulty wraps a file system; without rules it does as that does.
func NewFaulty(fs FS) *Faulty { return &Faulty{FS: fs} }

// Add adds a rule. The first one that matches an operation decides.
func (f *Faulty) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &ruleState{Rule: r})
}

// Clear removes all rules, and what SetFreeBytes said.
func (f *Faulty) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.free = nil, nil
}

// Hits says how many faults have happened since the last Clear.
func (f *Faulty) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.rules {
		n += r.hits
	}
	return n
}

// SetFreeBytes sets what FreeBytes answers.
func (f *Faulty) SetFreeBytes(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = &n
}

// hit returns the rule that applies to this operation, or nil.
func (f *Faulty) hit(op Op, name string) *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		if r.Op != op || !r.matches(name) {
			continue
		}
		r.seen++
		if r.seen <= r.After || (r.Times > 0 && r.hits >= r.Times) {
			continue
		}
		r.hits++
		return &r.Rule
	}
	return nil
}

func (r *ruleState) matches(name string) bool {
	if r.Glob == "" {
		return true
	}
	ok, err := filepath.Match(r.Glob, filepath.Base(name))
	return ok && err == nil
}

// fail returns the error of the rule that applies, or nil.
func (f *Faulty) fail(op Op, name string) error {
	if r := f.hit(op, name); r != nil {
		return fmt.Errorf("%s %s: %w", op, name, r.Err)
	}
	return nil
}

func (f *Faulty) file(name string, file File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, fs: f, name: name}, nil
}

// Create implements FS.
func (f *Faulty) Create(name string) (File, error) {
	if err := f.fail(OpCreate, name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	return f.file(name, file, err)
}

// Open implements FS.
func (f *Faulty) Open(name string) (File, error) {
	if err := f.fail(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name)
	return f.file(name, file, err)
}

// OpenFile implements FS.
func (f *Faulty) OpenFile(name string) (File, error) {
	if err := f.fail(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name)
	return f.file(name, file, err)
}

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	if err := f.fail(OpRemove, name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// Rename implements FS.
func (f *Faulty) Rename(oldName, newName string) error {
	if err := f.fail(OpRename, newName); err != nil {
		return err
	}
	return f.FS.Rename(oldName, newName)
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(name string) error {
	if err := f.fail(OpSyncDir, name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

// FreeBytes implements FS.
func (f *Faulty) FreeBytes(name string) (int64, error) {
	f.mu.Lock()
	free := f.free
	f.mu.Unlock()
	if free != nil {
		return *free, nil
	}
	return f.FS.FreeBytes(name)
}

type faultyFile struct {
	File
	fs   *Faulty
	name string
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	r := f.fs.hit(OpRead, f.name)
	if r != nil && r.FlipBit == 0 {
		return 0, fmt.Errorf("read %s: %w", f.name, r.Err)
	}
	n, err := f.File.ReadAt(p, off)
	if r != nil {
		if at := (r.FlipBit-1)/8 - off; at >= 0 && at < int64(n) {
			p[at] ^= 1 << ((r.FlipBit - 1) % 8)
		}
	}
	return n, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.WriteVecAt([][]byte{p}, off)
	return int(n), err
}

func (f *faultyFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) {
	r := f.fs.hit(OpWrite, f.name)
	if r == nil {
		return f.File.WriteVecAt(bufs, off)
	}
	n, err := f.File.WriteVecAt(firstBytes(bufs, r.Short), off)
	if err != nil {
		return n, err
	}
	if r.Err == nil {
		return n, fmt.Errorf("write %s: %w", f.name, io.ErrShortWrite)
	}
	return n, fmt.Errorf("write %s: %w", f.name, r.Err)
}

// firstBytes is a view on the first n bytes of bufs.
func firstBytes(bufs [][]byte, n int) [][]byte {
	var out [][]byte
	for _, b := range bufs {
		if n <= 0 {
			break
		}
		out = append(out, b[:min(n, len(b))])
		n -= len(b)
	}
	return out
}

func (f *faultyFile) Datasync() error {
	if err := f.fs.fail(OpSync, f.name); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f *faultyFile) Sync() error {
	if err := f.fs.fail(OpSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Preallocate(off, n int64) error {
	if err := f.fs.fail(OpPreallocate, f.name); err != nil {
		return err
	}
	return f.File.Preallocate(off, n)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.fs.fail(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}
