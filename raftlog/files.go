package raftlog

import (
	"sync"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// openSegmentsMax is how many sealed segments one log keeps open for its readers.
const openSegmentsMax = 4

// handle is an open segment file. It stays open while somebody holds a reference, the cache being one of the holders.
type handle struct {
	seg    *segment
	file   vfs.File
	points sparse // of a sealed segment, from its index file
	refs   int
	pinned bool // the active segment's: not evicted
}

// fileCache holds the open segment files of a log: the active one, and the sealed ones that were read last.
type fileCache struct {
	mu   sync.Mutex
	open []*handle // used last at the end
	shut bool
}

// get returns a reference to the open file of a segment, or nil.
func (c *fileCache) get(seg *segment) *handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(seg)
}

func (c *fileCache) find(seg *segment) *handle {
	for i, h := range c.open {
		if h.seg == seg {
			copy(c.open[i:], c.open[i+1:])
			c.open[len(c.open)-1] = h
			h.refs++
			return h
		}
	}
	return nil
}

// put adds an open file and returns a reference to it; if another goroutine was faster, to the other's, and file is closed.
func (c *fileCache) put(seg *segment, file vfs.File, points sparse, pinned bool) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		file.Close()
		return nil, ErrClosed
	}
	if h := c.find(seg); h != nil {
		file.Close()
		return h, nil
	}
	h := &handle{seg: seg, file: file, points: points, refs: 2, pinned: pinned}
	c.open = append(c.open, h)
	c.evict()
	return h, nil
}

// evict closes the longest unused sealed segments above the limit.
func (c *fileCache) evict() {
	n := 0
	for i := len(c.open) - 1; i >= 0; i-- {
		if c.open[i].pinned {
			continue
		}
		if n++; n > openSegmentsMax {
			c.forget(i)
		}
	}
}

func (c *fileCache) forget(i int) {
	h := c.open[i]
	c.open = append(c.open[:i], c.open[i+1:]...)
	c.unref(h)
}

func (c *fileCache) unref(h *handle) {
	if h.refs--; h.refs == 0 {
		h.file.Close()
	}
}

// release ends a reference.
func (c *fileCache) release(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unref(h)
}

// unpin makes the file one of the cached ones, when its segment is sealed.
func (c *fileCache) unpin(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.pinned = false
	c.evict()
}

// drop forgets a segment; its file is closed when its last reader is done.
func (c *fileCache) drop(seg *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, h := range c.open {
		if h.seg == seg {
			c.forget(i)
			return
		}
	}
}

// close forgets all of them, and refuses further ones.
func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	for len(c.open) > 0 {
		c.forget(len(c.open) - 1)
	}
}
