package broker

import (
	"context"
	"path/filepath"
	"time"
)

// Deleting a large file at once keeps a file system busy for as long as it takes to free its blocks, and whatever is synced meanwhile waits. So files are cut shorter in steps, with pauses.
const (
	deleteBytesPerSecond = 256 << 20
	deleteStep           = 32 << 20
)

// deletePace bounds the rate at which files are deleted, all directories together.
type deletePace struct {
	rate int64         // bytes per second
	turn chan struct{} // has a place for whoever waits out a step
}

func newDeletePace(rate int64) deletePace { return deletePace{rate, make(chan struct{}, 1)} }

// wait waits for as long as deleting so many bytes may take. The error is ctx's.
func (p deletePace) wait(ctx context.Context, bytes int64) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t := time.NewTimer(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deleteFiles deletes a directory at the pace. When the broker stops it leaves the rest.
func (m *replicaManager) deleteFiles(dir string) error {
	infos, err := m.fs().ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range infos {
		if f.Dir {
			continue
		}
		path := filepath.Join(dir, f.Name)
		if err := m.shorten(path, f.Size); err != nil {
			return err
		}
		if err := m.fs().Remove(path); err != nil {
			return err
		}
	}
	return m.fs().RemoveAll(dir)
}

// shorten cuts a file down to at most one step, and waits after each.
func (m *replicaManager) shorten(path string, size int64) error {
	if size > deleteStep {
		f, err := m.fs().OpenFile(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for size > deleteStep {
			size -= deleteStep
			if err := f.Truncate(size); err != nil {
				return err
			}
			if err := m.awaitPace(deleteStep); err != nil {
				return err
			}
		}
	}
	return m.awaitPace(size)
}

// awaitPace does not wait while space is short: then it is needed more than a quiet disk.
func (m *replicaManager) awaitPace(bytes int64) error {
	if free, err := m.fs().FreeBytes(m.dir); err == nil && free < m.b.cfg.DiskReserve {
		return m.ctx.Err()
	}
	return m.pace.wait(m.ctx, bytes)
}
