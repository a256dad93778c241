package transport

import (
	"bufio"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// acceptLoop accepts peers until the listener closes. Past MaxConns a connection is closed at once.
func (t *Transport) acceptLoop() {
	delay := time.Duration(0)
	for {
		nc, err := t.cfg.Listener.Accept()
		if err != nil {
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			if !t.pause(delay, err) {
				return
			}
			continue
		}
		delay = 0
		t.accepted(nc)
	}
}

// pause waits after a failed Accept. It returns false when the transport closes.
func (t *Transport) pause(delay time.Duration, err error) bool {
	select {
	case <-t.ctx.Done():
		return false
	default:
		t.log.Error("cannot accept connections", "error", err, "retry", delay)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

func (t *Transport) accepted(nc net.Conn) {
	select {
	case t.slots <- struct{}{}:
	default:
		t.log.Warn("too many connections, closing a new one", "limit", t.cfg.MaxConns, "from", nc.RemoteAddr())
		nc.Close()
		return
	}
	if !t.track(nc) {
		nc.Close()
		return
	}
	started := t.spawn(func() {
		defer func() { <-t.slots }()
		defer t.untrack(nc)
		t.serve(nc)
	})
	if !started {
		t.untrack(nc)
	}
}

// serve runs one accepted connection from its handshake to its end.
func (t *Transport) serve(nc net.Conn) {
	noDelay(nc)
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetKeepAliveConfig(keepAlive)
	}
	_ = nc.SetDeadline(time.Now().Add(t.cfg.DialTimeout))
	br := bufio.NewReaderSize(nc, readBuffer)
	h, err := t.receive(br, nc)
	if err != nil {
		t.log.Warn("refused a connection", "from", nc.RemoteAddr(), "error", err)
		return
	}
	_ = nc.SetDeadline(time.Time{})
	if h.purpose == purposeSnapshot {
		t.serveSnapshot(nc, br, h.from)
		return
	}
	t.serveConn(newConn(t, nc, br, h.from, h.purpose, false))
}

// receive runs the acceptor's side of the handshake.
func (t *Transport) receive(br *bufio.Reader, nc net.Conn) (hello, error) {
	body, err := readGreeting(br)
	if err != nil {
		return hello{}, err
	}
	h, err := decodeHello(body)
	if err != nil {
		return h, err
	}
	w := t.judge(h)
	if _, err := nc.Write(w.encode()); err != nil {
		return h, err
	}
	if w.refused {
		return h, fmt.Errorf("%w: %s", ErrRefused, w.text)
	}
	return h, nil
}

// serveConn reads requests until the connection fails. A newer connection of the same peer for the same purpose
// replaces the older, which the peer has given up.
func (t *Transport) serveConn(c *conn) {
	older, ok := t.enlist(c)
	if older != nil {
		older.fail(fmt.Errorf("broker %s connected again", c.peer))
	}
	if !ok || !t.spawn(c.writeLoop) {
		c.fail(ErrClosed)
		return
	}
	t.connUp(c)
	c.readLoop()
}

func (t *Transport) enlist(c *conn) (older *conn, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false
	}
	key := inboundKey{c.peer, c.purpose}
	older = t.inbound[key]
	t.inbound[key] = c
	return older, true
}

// checkSender verifies that a request's header names the broker that the handshake named.
func checkSender(peer raft.ServerAddress, addr []byte) error {
	if len(addr) > 0 && string(addr) != string(peer) {
		return fmt.Errorf("%w: request in the name of broker %q on a connection of broker %s", errMalformed, addr, peer)
	}
	return nil
}
