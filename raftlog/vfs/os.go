package vfs

import (
	"io"
	"os"
)

// OS is the file system of the operating system.
func OS() FS { return osFS{} }

type osFS struct{}

// osFile is an *os.File with the calls that package os does not have. Nobody closes it while a call is under way: its users count references.
type osFile struct {
	f  *os.File
	fd int
}

func newOSFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, mapError(err)
	}
	return &osFile{f: f, fd: int(f.Fd())}, nil
}

func (osFS) Create(name string) (File, error) {
	return newOSFile(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644))
}

func (osFS) Open(name string) (File, error) { return newOSFile(os.Open(name)) }

func (osFS) OpenFile(name string) (File, error) { return newOSFile(os.OpenFile(name, os.O_RDWR, 0)) }

func (osFS) Remove(name string) error { return mapError(os.Remove(name)) }

func (osFS) RemoveAll(name string) error { return mapError(os.RemoveAll(name)) }

func (osFS) Rename(oldName, newName string) error { return mapError(os.Rename(oldName, newName)) }

func (osFS) MkdirAll(name string) error { return mapError(os.MkdirAll(name, 0o755)) }

func (osFS) ReadDir(name string) ([]Info, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, mapError(err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		fi, err := e.Info()
		if os.IsNotExist(err) {
			continue // removed since the listing
		}
		if err != nil {
			return nil, mapError(err)
		}
		infos = append(infos, Info{Name: e.Name(), Size: fi.Size(), Dir: e.IsDir()})
	}
	return infos, nil
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Info{}, mapError(err)
	}
	return Info{Name: fi.Name(), Size: fi.Size(), Dir: fi.IsDir()}, nil
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return mapError(err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return mapError(err)
}

func (osFS) Lock(name string) (io.Closer, error) { return lockFile(name) }

func (osFS) FreeBytes(name string) (int64, error) { return freeBytes(name) }

// TotalBytes is the size of the operating system's file system that holds name, in bytes.
func TotalBytes(name string) (int64, error) { return totalBytes(name) }

func (o *osFile) ReadAt(p []byte, off int64) (int, error) { return o.f.ReadAt(p, off) }

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, mapError(err)
}

func (o *osFile) Close() error { return mapError(o.f.Close()) }

func (o *osFile) Sync() error { return mapError(o.f.Sync()) }

func (o *osFile) Truncate(size int64) error { return mapError(o.f.Truncate(size)) }

func (o *osFile) Size() (int64, error) {
	fi, err := o.f.Stat()
	if err != nil {
		return 0, mapError(err)
	}
	return fi.Size(), nil
}
