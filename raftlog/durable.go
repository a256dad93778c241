package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// errUncertain marks a failure after which nobody knows whether a file would be there after a crash: the fsync of a directory failed.
var errUncertain = errors.New("not known to be durable")

// writeFile makes a file durable in one step: under a temporary name it is written and synced, then renamed, then the directory is synced. A crash leaves
// the old state or the new one, and possibly a temporary file, which Open removes. An error that wraps errUncertain leaves either of the two; after any
// other one nothing has changed.
func writeFile(fs vfs.FS, path string, data []byte) error {
	tmp := path + tmpExt
	if err := writeTemp(fs, tmp, data); err != nil {
		fs.Remove(tmp) // best effort: Open removes it otherwise
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fs.Rename(tmp, path); err != nil {
		fs.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(fs, filepath.Dir(path))
}

func syncDir(fs vfs.FS, dir string) error {
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("%w: sync directory %s: %w", errUncertain, dir, err)
	}
	return nil
}

func writeTemp(fs vfs.FS, path string, data []byte) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// readFile reads a whole file of at most limit bytes.
func readFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, &DamageError{File: path, Offset: limit, Reason: fmt.Sprintf("it has %d bytes, and at most %d are possible", size, limit)}
	}
	return readUpTo(f, size)
}

// readUpTo reads the first n bytes, or fewer if the file ends before.
func readUpTo(f vfs.File, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}

// readHead reads the first n bytes of a file, or fewer if it is shorter.
func readHead(fs vfs.FS, path string, n int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readUpTo(f, n)
}

// writeDurable is writeFile that poisons the log when the outcome is uncertain.
func (l *Log) writeDurable(name string, data []byte) error {
	err := writeFile(l.fs, l.path(name), data)
	if errors.Is(err, errUncertain) {
		return l.poison(err)
	}
	return err
}

// usable says whether the log may be changed.
func (l *Log) usable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return l.Err()
}

// unmark removes the file "clean", durably, before anything that it describes changes: if it outlived a change, the change would look like
// damage. The caller holds wmu.
func (l *Log) unmark() error {
	l.mu.RLock()
	clean := l.clean
	l.mu.RUnlock()
	if !clean {
		return nil
	}
	if err := l.fs.Remove(l.path(cleanName)); err != nil {
		return fmt.Errorf("%s: remove the mark of a clean close: %w", l.dir, err)
	}
	if err := syncDir(l.fs, l.dir); err != nil {
		return l.poison(err)
	}
	l.mu.Lock()
	l.clean = false
	l.mu.Unlock()
	return nil
}
