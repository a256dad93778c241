//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mapError adds ErrNoSpace to the errors that mean it.
func mapError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// lockFile holds a flock, which the kernel drops when the process dies, however it dies. Two open files of one process exclude each other too.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, mapError(err)
	}
	err = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

func freeBytes(name string) (int64, error) {
	st, err := statfs(name)
	return inBytes(uint64(st.Bavail), uint64(st.Bsize)), err
}

func totalBytes(name string) (int64, error) {
	st, err := statfs(name)
	return inBytes(uint64(st.Blocks), uint64(st.Bsize)), err
}

func statfs(name string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(name, &st) }); err != nil {
		return unix.Statfs_t{}, &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	return st, nil
}

func inBytes(blocks, size uint64) int64 {
	if size != 0 && blocks > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(blocks * size)
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
