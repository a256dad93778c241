package vfs

import (
	"fmt"
	"io"
	"io/fs"
)

// memFile is a handle on a node of a Mem.
type memFile struct {
	m        *Mem
	name     string
	node     *memNode
	epoch    int
	writable bool
	closed   bool
}

// check says whether the handle still works. The caller has the lock.
func (f *memFile) check(op string) error {
	switch {
	case f.closed:
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	case f.epoch != f.m.epoch:
		return &fs.PathError{Op: op, Path: f.name, Err: ErrCrashed}
	}
	return nil
}

// checkWrite is check for an operation that changes the file.
func (f *memFile) checkWrite(op string) error {
	if !f.writable {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrPermission}
	}
	return f.check(op)
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.now)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.WriteVecAt([][]byte{p}, off)
	return int(n), err
}

func (f *memFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) {
	f.m.mutate("write", f.name)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("write"); err != nil {
		return 0, err
	}
	var total int64
	for _, b := range bufs {
		f.node.write(b, int(off+total))
		total += int64(len(b))
	}
	return total, nil
}

func (n *memNode) write(p []byte, off int) {
	if len(p) == 0 {
		return
	}
	end := off + len(p)
	if end > len(n.now) {
		n.resize(end)
	}
	copy(n.now[off:], p)
	if k := len(n.dirty) - 1; k >= 0 && n.dirty[k].to == off {
		n.dirty[k].to = end // sequential writes, as a log's
	} else {
		n.dirty = append(n.dirty, extent{off, end})
	}
	n.noteSize()
}

// noteSize remembers that there is something to sync, and that the file may come out of a crash with the present size.
func (n *memNode) noteSize() {
	if k := len(n.sizes); k == 0 || n.sizes[k-1] != len(n.now) {
		n.sizes = append(n.sizes, len(n.now))
	}
	n.least = min(n.least, len(n.now))
}

func (n *memNode) resize(size int) {
	if size <= len(n.now) {
		n.now = n.now[:size:size] // the capacity goes too: what comes back later is zeros
	} else {
		n.now = append(n.now, make([]byte, size-len(n.now))...)
	}
	n.noteSize()
}

// sync makes the dirty extents durable, and the size.
func (n *memNode) sync() {
	n.durable = n.durable[:min(n.least, len(n.durable))]
	if grow := len(n.now) - len(n.durable); grow > 0 {
		n.durable = append(n.durable, make([]byte, grow)...)
	}
	for _, e := range n.dirty {
		if e.from < len(n.now) {
			copy(n.durable[e.from:min(e.to, len(n.now))], n.now[e.from:])
		}
	}
	n.sizes, n.dirty, n.least = nil, nil, len(n.now)
}

func (f *memFile) Sync() error {
	f.m.mutate("sync", f.name)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("sync"); err != nil {
		return err
	}
	if err := f.m.syncFault(f); err != nil {
		return err
	}
	f.node.sync()
	return nil
}

func (f *memFile) Datasync() error { return f.Sync() }

func (f *memFile) Preallocate(off, n int64) error {
	f.m.mutate("preallocate", f.name)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("preallocate"); err != nil {
		return err
	}
	if end := int(off + n); end > len(f.node.now) {
		f.node.resize(end)
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mutate("truncate", f.name)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("truncate %s to %d", f.name, size)
	}
	f.node.resize(int(size))
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("stat"); err != nil {
		return 0, err
	}
	return int64(len(f.node.now)), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	return nil
}
