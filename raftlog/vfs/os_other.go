//go:build unix && !linux

package vfs

import "io"

// Datasync is a full sync where fdatasync is missing or does not reach the platters (package os uses F_FULLFSYNC on darwin).
func (o *osFile) Datasync() error { return o.Sync() }

// Preallocate does nothing: without fallocate the file simply grows.
func (o *osFile) Preallocate(off, n int64) error { return nil }

func (o *osFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) { return writeEach(o, bufs, off) }

// writeEach is WriteVecAt by one WriteAt per buffer.
func writeEach(w io.WriterAt, bufs [][]byte, off int64) (int64, error) {
	var total int64
	for _, b := range bufs {
		n, err := w.WriteAt(b, off+total)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
