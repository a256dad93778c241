// Package vfs is the seam between the log and a file system. Three implementations stand behind it: OS for real disks, Mem for tests that crash
// (it keeps only what was synced), and Faulty, which puts errors and damage into either.
//
// Paths use the separator of the operating system. Every implementation is safe for concurrent use.
package vfs

import (
	"errors"
	"io"
)

// Sentinels. Implementations wrap them together with the error of the operating system, so that errors.Is finds both.
var (
	// ErrNoSpace comes when the disk or a quota is full. What was asked for may have happened in part; the caller has to undo it.
	ErrNoSpace = errors.New("no space left on device")
	// ErrLocked comes from Lock when another holder, in this process or in another one, has the file.
	ErrLocked = errors.New("locked by another process")
	// ErrCrashed comes from every file and lock of a Mem that were opened before its Crash.
	ErrCrashed = errors.New("file system crashed")
)

// FS is a file system. Creating, renaming and removing are durable only after SyncDir of the directory they happened in.
type FS interface {
	// Create makes an empty file for reading and writing; an existing one is emptied.
	Create(name string) (File, error)
	// Open opens a file for reading only.
	Open(name string) (File, error)
	// OpenFile opens an existing file for reading and writing.
	OpenFile(name string) (File, error)
	// Remove removes a file or an empty directory. Files that are open stay readable through their handles.
	Remove(name string) error
	// RemoveAll removes a whole tree. It is no error if there is none.
	RemoveAll(name string) error
	// Rename replaces newName by oldName in one step; both are in the same directory.
	Rename(oldName, newName string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(name string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]Info, error)
	// Stat describes a file. The error is fs.ErrNotExist if there is none.
	Stat(name string) (Info, error)
	// SyncDir makes the creations, renames and removals in a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file, creating it, until the returned handle is closed. The error wraps ErrLocked if it is taken.
	Lock(name string) (io.Closer, error)
	// FreeBytes says how many bytes an unprivileged process may still write on the file system that holds name.
	FreeBytes(name string) (int64, error)
}

// File is an open file. Offsets and sizes are in bytes.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WriteVecAt writes the buffers one after the other from offset off on, as if they were one. The buffers are not changed.
	WriteVecAt(bufs [][]byte, off int64) (int64, error)
	// Datasync makes the content durable, and as much of the size as is needed to read it. After an error nothing is known about what is on the
	// disk, and a second call may succeed without having written anything: never retry.
	Datasync() error
	// Sync is Datasync that makes all metadata durable too, a smaller size in particular.
	Sync() error
	// Preallocate reserves disk blocks for n bytes from off on and makes the file at least off+n long, reading as zeros. It is no error if
	// the file system cannot do it; then nothing happens. The error wraps ErrNoSpace if there is too little space.
	Preallocate(off, n int64) error
	// Truncate sets the size. Bytes that come back by a later extension read as zeros.
	Truncate(size int64) error
	// Size is the present size.
	Size() (int64, error)
}

// Info describes a file.
type Info struct {
	Name string // without the directory
	Size int64  // bytes
	Dir  bool
}
