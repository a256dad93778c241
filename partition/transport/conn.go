package transport

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	readBuffer   = 64 << 10
	sendQueue    = 16 << 20 // bytes waiting in one connection's send queue before senders wait
	sendFrames   = 1 << 16  // and frames
	batchBytes   = 1 << 20  // bytes taken from the queue for one write
	batchBuffers = 1000     // and buffers: writev takes 1024
	beatsFrame   = 64 << 10 // heartbeats are sent early once they fill this much
)

// conn is one connection after its handshake. Requests travel from the dialler to the acceptor only; the
// acceptor sends replies. A conn owns a reader goroutine and a writer goroutine, both ended by fail and
// waited for by the transport.
//
// Lock order: mu is innermost; nothing is called with it held.
type conn struct {
	t       *Transport
	nc      net.Conn
	br      *bufio.Reader
	peer    raft.ServerAddress
	purpose purpose
	dialled bool   // we are the dialler
	cluster string // the cluster ID agreed on, "" while neither side knew one and they were not pledged to begin the same one

	out       window // what is in queue
	loads     window // data of deferred entries that is not yet in queue
	wake      chan struct{}
	lazy      *time.Timer   // wakes the writer for lazy frames
	done      chan struct{} // closed by fail
	lastRead  atomic.Int64  // when bytes last arrived, in the transport's clock
	lastWrite atomic.Int64  // when a write of frames last began
	silent    atomic.Bool   // counted as evidence; see evidence.go

	mu      sync.Mutex
	err     error // set before done closes
	queue   []*frame
	beats   *batch
	pending map[uint64]*call
	nextID  uint64
	serving map[uint64]func() // cancel functions of calls being handled
}

func newConn(t *Transport, nc net.Conn, br *bufio.Reader, peer raft.ServerAddress, p purpose, dialled bool) *conn {
	c := &conn{t: t, nc: nc, br: br, peer: peer, purpose: p, dialled: dialled,
		out: window{maxCount: sendFrames, maxBytes: sendQueue}, loads: window{maxCount: 1 << 30, maxBytes: loadBytes},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		pending: map[uint64]*call{}, serving: map[uint64]func(){}}
	c.lastRead.Store(int64(t.now()))
	c.beats = newBatch(c)
	c.lazy = time.AfterFunc(time.Hour, c.signal)
	c.lazy.Stop()
	return c
}

// failure is why the connection ended; valid after done closed.
func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection once: every request in flight fails at this moment, not at its own deadline.
func (c *conn) fail(cause error) { c.end(cause, false) }

// failIdle is fail for a connection on which nothing is in flight; it leaves another alone.
func (c *conn) failIdle(cause error) { c.end(cause, true) }

func (c *conn) end(cause error, onlyIdle bool) {
	c.mu.Lock()
	if c.err != nil || onlyIdle && (len(c.pending) > 0 || len(c.queue) > 0) {
		c.mu.Unlock()
		return
	}
	c.err = fmt.Errorf("%s connection with broker %s: %w: %w", c.purpose, c.peer, ErrConnLost, cause)
	err := c.err
	pending, serving, queue := c.pending, c.serving, c.queue
	c.pending, c.serving, c.queue = nil, nil, nil
	c.mu.Unlock()

	close(c.done)
	c.beats.stop()
	c.lazy.Stop()
	c.nc.Close()
	for _, cl := range pending {
		cl.finish(err)
	}
	for _, cancel := range serving {
		cancel()
	}
	for _, f := range queue {
		f.release()
	}
	c.t.connLost(c, cause)
}

// errStopped says that the caller's stop channel closed.
var errStopped = errors.New("given up")

// send queues a frame, waiting while the queue is full. It returns the connection's failure, or errStopped
// when stop closes first.
func (c *conn) send(f *frame, stop <-chan struct{}) error {
	if !c.out.enter(int64(f.size), c.done, stop) {
		f.release()
		if err := c.failure(); err != nil {
			return err
		}
		return errStopped
	}
	return c.push(f)
}

// post queues a frame without waiting. It is for replies, whose number is bounded by the requests they answer.
func (c *conn) post(f *frame) {
	c.out.force(int64(f.size))
	_ = c.push(f) // a lost connection has nobody to tell
}

func (c *conn) push(f *frame) error {
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		f.release()
		return err
	}
	first := len(c.queue) == 0
	c.queue = append(c.queue, f)
	c.mu.Unlock()
	switch {
	case !f.lazy:
		c.signal()
	case first:
		c.lazy.Reset(c.t.cfg.HeartbeatWindow) // at worst it fires once in vain after fail
	}
	return nil
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes whatever has gathered, in one write per batch: while one batch is on its way to the kernel
// the next gathers.
func (c *conn) writeLoop() {
	var w batchWriter
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		for c.writeBatch(&w) {
		}
	}
}

// writeBatch writes one batch and reports whether there may be more.
func (c *conn) writeBatch(w *batchWriter) bool {
	frames, size := c.takeBatch()
	if len(frames) == 0 {
		return false
	}
	c.lastWrite.Store(int64(c.t.now()))
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.t.cfg.WriteTimeout))
	err := w.write(c.nc, frames)
	for _, f := range frames {
		f.release()
	}
	c.out.leave(len(frames), int64(size))
	if err != nil {
		c.fail(fmt.Errorf("write: %w", err))
		return false
	}
	c.t.stats.FramesSent.Add(uint64(len(frames)))
	c.t.stats.BytesSent.Add(uint64(size))
	switch {
	case !c.dialled:
	case c.purpose == purposeData:
		c.t.stats.LiveBytes.Add(uint64(size))
	case c.purpose == purposeCatchUp:
		c.t.stats.CatchUpBytes.Add(uint64(size))
	}
	c.t.stats.Writes.Add(1)
	return true
}

// takeBatch takes frames for one write off the queue, with the heartbeats gathered so far before them.
func (c *conn) takeBatch() (frames []*frame, size int) {
	if f := c.beats.take(); f != nil {
		c.out.force(int64(f.size))
		frames = append(frames, f)
		size = f.size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, buffers := 0, 0
	for n < len(c.queue) && size < batchBytes && buffers < batchBuffers {
		size += c.queue[n].size
		buffers += len(c.queue[n].bufs)
		n++
	}
	if n == 0 {
		return frames, size
	}
	frames = append(frames, c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	return frames, size
}

// batchWriter writes many frames with one system call. On a TCP connection that is writev; other
// connections (TLS, the tests' simulated network) get one joined buffer per batch, as they would otherwise make a
// record or packet of each piece.
type batchWriter struct {
	vec  net.Buffers
	flat []byte
}

func (w *batchWriter) write(nc net.Conn, frames []*frame) error {
	if _, ok := nc.(*net.TCPConn); !ok {
		return w.writeFlat(nc, frames)
	}
	all := w.vec[:0]
	for _, f := range frames {
		all = append(all, f.bufs...)
	}
	w.vec = all
	_, err := all.WriteTo(nc)
	clear(w.vec)
	return err
}

func (w *batchWriter) writeFlat(nc net.Conn, frames []*frame) error {
	buf := w.flat[:0]
	for _, f := range frames {
		for _, b := range f.bufs {
			buf = append(buf, b...)
		}
	}
	_, err := nc.Write(buf)
	if cap(buf) <= 2*batchBytes {
		w.flat = buf
	}
	return err
}

// readLoop reads frames until the connection fails. It never waits for a group or a handler.
func (c *conn) readLoop() {
	limit := c.frameLimit()
	for {
		h, payload, err := readFrame(c.br, limit)
		if err == nil {
			c.arrived()
			c.t.stats.FramesReceived.Add(1)
			c.t.stats.BytesReceived.Add(uint64(headerSize + len(payload)))
			err = c.dispatch(h, payload)
		}
		if err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
	}
}

func (c *conn) frameLimit() int {
	if c.purpose == purposeControl {
		return maxControlFrame
	}
	return c.t.cfg.MaxFrameBytes
}

// dispatch handles one frame. An error means that the peer broke the protocol.
func (c *conn) dispatch(h header, payload []byte) error {
	if c.dialled {
		return c.dispatchReply(h, payload)
	}
	switch {
	case (c.purpose == purposeData || c.purpose == purposeCatchUp) && h.kind == kindAppend:
		return c.serveAppend(h, payload)
	case c.purpose == purposeControl && h.kind == kindHeartbeats:
		return c.serveHeartbeats(h.flags, payload)
	case c.purpose == purposeControl && h.kind == kindClaims:
		return c.serveClaims(payload)
	case c.purpose == purposeControl:
		return c.serveControl(h, payload)
	case c.purpose == purposeCall && h.kind == kindCall:
		c.serveCall(h, payload)
		return nil
	case c.purpose == purposeCall && h.kind == kindCancel:
		c.cancelServing(h.id)
		return nil
	}
	return fmt.Errorf("%w: frame of kind %d on a %s connection", errMalformed, h.kind, c.purpose)
}

// dispatchReply completes the request that a reply belongs to. Replies to requests given up are dropped.
func (c *conn) dispatchReply(h header, payload []byte) error {
	if h.kind == kindHeartbeatReplies {
		return c.heartbeatReplies(payload)
	}
	if h.kind == kindClaimsReply {
		return c.claimsReply(payload)
	}
	cl := c.claim(h.id)
	if cl == nil {
		return nil
	}
	if h.kind == kindError {
		cl.finish(decodeError(h, payload))
		return nil
	}
	if h.kind != cl.want {
		err := fmt.Errorf("%w: reply of kind %d, expected %d", errMalformed, h.kind, cl.want)
		cl.finish(err)
		return err
	}
	err := cl.decode(payload)
	cl.finish(err)
	return err
}
