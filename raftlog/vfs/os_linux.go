package vfs

import (
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxIovecs is IOV_MAX: how many buffers one pwritev takes.
const maxIovecs = 1024

func (o *osFile) Datasync() error {
	err := retry(func() error { return unix.Fdatasync(o.fd) })
	return o.wrap("fdatasync", err)
}

func (o *osFile) Preallocate(off, n int64) error {
	err := retry(func() error { return unix.Fallocate(o.fd, 0, off, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return o.wrap("fallocate", err)
}

func (o *osFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) {
	if len(bufs) == 1 {
		n, err := o.WriteAt(bufs[0], off)
		return int64(n), err
	}
	rest := append([][]byte(nil), bufs...) // advance cuts into it
	var total int64
	for {
		rest = advance(rest, 0)
		if len(rest) == 0 {
			return total, nil
		}
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pwritev(o.fd, rest[:min(len(rest), maxIovecs)], off+total)
			return err
		})
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, o.wrap("pwritev", err)
		}
		total += int64(n)
		rest = advance(rest, n)
	}
}

// advance drops the first n bytes of bufs, and the empty buffers at its beginning.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && len(bufs[0]) <= n {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// wrap names the call and the file, and keeps the file from being finalised during the call.
func (o *osFile) wrap(op string, err error) error {
	runtime.KeepAlive(o.f)
	if err == nil {
		return nil
	}
	return mapError(&os.PathError{Op: op, Path: o.f.Name(), Err: err})
}
