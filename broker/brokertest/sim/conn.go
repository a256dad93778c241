package sim

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// windowBytes is how much a stream holds that was not read yet, before its writer waits.
	windowBytes = 1 << 20
	// echoBytes of a connection come a second time, if it has an echo.
	echoBytes = 64 << 10
)

// Conn is one end of a connection.
type Conn struct {
	n             *Network
	local, remote addr
	peer          *Conn
	in, out       *half

	echo   *Conn // gets what is written too
	echoed int
}

// half carries bytes in one direction.
type half struct {
	n    *Network
	link link

	mu        sync.Mutex
	chunks    []chunk
	size      int
	last      time.Time // when the newest chunk arrives
	waiting   chan struct{}
	closed    bool  // the reader's end is closed
	finished  bool  // the writer's end is closed
	lost      bool  // the reader's end vanished with its host
	err       error // reset
	readBy    time.Time
	writeBy   time.Time
	resetting *time.Timer
}

// chunk is what one write sent. Without data it is the end.
type chunk struct {
	data []byte
	at   time.Time
}

// pair makes a connection. The caller has n.mu.
func (n *Network) pair(a, b addr) (near, far *Conn) {
	there, back := &half{n: n, link: link{a.ip, b.ip}}, &half{n: n, link: link{b.ip, a.ip}}
	near = &Conn{n: n, local: a, remote: b, in: back, out: there}
	far = &Conn{n: n, local: b, remote: a, in: there, out: back}
	near.peer, far.peer = far, near
	n.host(a.ip).ends[near] = true
	n.host(b.ip).ends[far] = true
	return near, far
}

// drop forgets a connection that was never used. The caller has n.mu.
func (c *Conn) drop() { delete(c.n.host(c.local.ip).ends, c) }

// gone says that this end vanished with its host.
func (c *Conn) gone() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.lost
}

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

func (h *half) wakeLocked() {
	if h.waiting != nil {
		close(h.waiting)
		h.waiting = nil
	}
}

// wait gives the lock up until something changes, until a time comes (zero: never), or the deadline is over.
func (h *half) wait(until time.Time, deadline time.Time) {
	if h.waiting == nil {
		h.waiting = make(chan struct{})
	}
	ch := h.waiting
	if !deadline.IsZero() && (until.IsZero() || deadline.Before(until)) {
		until = deadline
	}
	h.mu.Unlock()
	if until.IsZero() {
		<-ch
	} else {
		t := time.NewTimer(time.Until(until))
		select {
		case <-ch:
		case <-t.C:
		}
		t.Stop()
	}
	h.mu.Lock()
}

func expired(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	h := c.in
	for {
		// The network's lock comes before the half's. A link that changes in between has another version, or wakes who waits.
		version := c.n.version.Load()
		cut := c.n.isCut(h.link)
		h.mu.Lock()
		n, done, err := h.read(b, c.remote, cut)
		if !done && c.n.version.Load() == version {
			h.wait(h.ready(cut), h.readBy)
		}
		h.mu.Unlock()
		if done {
			return n, err
		}
	}
}

// ready is when the first chunk will be there; zero: not by the passing of time.
func (h *half) ready(cut bool) time.Time {
	if cut || len(h.chunks) == 0 {
		return time.Time{}
	}
	return h.chunks[0].at
}

// read takes what has arrived, if anything has.
func (h *half) read(b []byte, from addr, cut bool) (n int, done bool, err error) {
	switch {
	case h.closed || h.lost:
		return 0, true, net.ErrClosed
	case h.err != nil:
		return 0, true, &net.OpError{Op: "read", Net: "tcp", Addr: from, Err: h.err}
	case expired(h.readBy):
		return 0, true, os.ErrDeadlineExceeded
	case cut || len(h.chunks) == 0 || time.Now().Before(h.chunks[0].at):
		return 0, false, nil
	case h.chunks[0].data == nil:
		return 0, true, io.EOF
	}
	return h.take(b), true, nil
}

func (h *half) take(b []byte) int {
	n := 0
	now := time.Now()
	for n < len(b) && len(h.chunks) > 0 {
		first := &h.chunks[0]
		if first.data == nil || now.Before(first.at) {
			break
		}
		k := copy(b[n:], first.data)
		n += k
		if first.data = first.data[k:]; len(first.data) == 0 {
			h.chunks = h.chunks[1:]
		}
	}
	h.size -= n
	h.wakeLocked()
	return n
}

// Write implements net.Conn. As with TCP, what is written to an end that is closed breaks the connection in both directions.
func (c *Conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	latency := c.n.latency(c.out.link)
	reached := !c.n.host(c.remote.ip).off && !c.n.links[c.out.link].cut && !c.n.links[c.in.link].cut
	c.n.mu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	broken, err := c.out.write(b, latency, c.remote, reached)
	if broken {
		c.in.reset(0)
	}
	if err != nil {
		return 0, err
	}
	if c.echo != nil {
		c.repeat(b)
	}
	return len(b), nil
}

func (h *half) write(b []byte, latency time.Duration, to addr, reached bool) (broken bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.finished:
			return false, net.ErrClosed
		case h.err != nil || h.closed || h.lost && reached:
			return true, &net.OpError{Op: "write", Net: "tcp", Addr: to, Err: syscall.EPIPE}
		case expired(h.writeBy):
			return false, os.ErrDeadlineExceeded
		}
		if h.size < windowBytes {
			break
		}
		h.wait(time.Time{}, h.writeBy)
	}
	h.add(append([]byte(nil), b...), latency)
	return false, nil
}

// repeat sends the first bytes of the connection on its echo too, which ends soon after.
func (c *Conn) repeat(b []byte) {
	b = b[:min(len(b), echoBytes-c.echoed)]
	c.echoed += len(b)
	ghost := c.echo.out
	ghost.mu.Lock()
	if ghost.err == nil && !ghost.closed && len(b) > 0 {
		ghost.add(append([]byte(nil), b...), 20*time.Millisecond)
	}
	ghost.mu.Unlock()
	if c.echoed == echoBytes {
		ghost.reset(50 * time.Millisecond)
		c.echo = nil
	}
}

// add queues data, or the end, behind what is under way.
func (h *half) add(data []byte, latency time.Duration) {
	at := time.Now().Add(latency)
	if at.Before(h.last) {
		at = h.last
	}
	h.last = at
	h.chunks = append(h.chunks, chunk{data, at})
	h.size += len(data)
	h.wakeLocked()
}

// reset makes both ends of a half fail, after a while.
func (h *half) reset(after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after > 0 {
		if h.resetting == nil {
			h.resetting = time.AfterFunc(after, func() { h.reset(0) })
		}
		return
	}
	if h.err == nil {
		h.err = syscall.ECONNRESET
	}
	h.wakeLocked()
}

// vanish takes this end away with its process, or its host.
func (c *Conn) vanish(reset bool) {
	c.in.mu.Lock()
	c.in.lost = true
	c.in.chunks, c.in.size = nil, 0
	c.in.wakeLocked()
	c.in.mu.Unlock()
	c.out.mu.Lock()
	c.out.finished = true
	c.out.wakeLocked()
	c.out.mu.Unlock()
	// Over a cut link the reset is lost; who sends on the connection later gets another.
	if reset && !c.n.isCut(c.out.link) {
		c.out.reset(time.Millisecond)
		c.in.reset(time.Millisecond)
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.host(c.local.ip).ends, c)
	latency := c.n.latency(c.out.link)
	c.n.mu.Unlock()
	c.in.mu.Lock()
	already := c.in.closed
	c.in.closed = true
	c.in.chunks, c.in.size = nil, 0
	if c.in.resetting != nil {
		c.in.resetting.Stop()
	}
	c.in.wakeLocked()
	c.in.mu.Unlock()
	if already {
		return nil
	}
	c.out.mu.Lock()
	if !c.out.finished {
		c.out.finished = true
		c.out.add(nil, latency)
	}
	c.out.mu.Unlock()
	if c.echo != nil {
		c.echo.out.reset(time.Millisecond)
	}
	return nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.readBy = t
	c.in.wakeLocked()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.writeBy = t
	if c.out.size >= windowBytes {
		c.out.wakeLocked()
	}
	return nil
}
