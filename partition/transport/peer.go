package transport

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	dialBackoffMin = 20 * time.Millisecond
	dialBackoffMax = 500 * time.Millisecond
)

// PeerEvent tells that a connection with a peer came up or was lost. A broker that dies closes all its
// connections, so that this is evidence long before a heartbeat times out; but a single lost connection proves nothing.
type PeerEvent struct {
	Peer    raft.ServerAddress
	Up      bool
	Inbound bool   // the peer had dialled us
	Purpose string // "control", "data", "call" or "catch-up"
	Err     error  // why it was lost
}

// Watch calls fn whenever a connection with a peer comes up or is lost, until cancel. fn runs on the transport's
// goroutines, perhaps several at a time, and must not block.
func (t *Transport) Watch(fn func(PeerEvent)) (cancel func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchID++
	id := t.watchID
	t.watchers[id] = fn
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watchers, id)
	}
}

func (t *Transport) notify(ev PeerEvent) {
	t.mu.RLock()
	fns := make([]func(PeerEvent), 0, len(t.watchers))
	for _, fn := range t.watchers {
		fns = append(fns, fn)
	}
	t.mu.RUnlock()
	for _, fn := range fns {
		fn(ev)
	}
}

// peer is what we know of one other broker: its connections, dialled when first used. Peers are never forgotten;
// there are as many as brokers ever seen.
type peer struct {
	t    *Transport
	addr raft.ServerAddress

	catchUps chan struct{} // a place for each catch-up frame under way
	claims   claimsOut

	mu    sync.Mutex
	lines map[purpose]*line
}

// line is the connection for one purpose. Between failed dials it refuses users at once, for a growing time.
type line struct {
	conn      *conn
	dialling  chan struct{} // closed when the dial under way ends; nil when there is none
	stale     bool          // the dial under way began before PeerDown: its result is dropped
	backoff   time.Duration
	notBefore time.Duration
	lastErr   error
}

func (t *Transport) peer(addr raft.ServerAddress) *peer {
	t.mu.RLock()
	p := t.peers[addr]
	t.mu.RUnlock()
	if p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[addr]; p != nil {
		return p
	}
	p = &peer{t: t, addr: addr, lines: map[purpose]*line{}, catchUps: make(chan struct{}, catchUpFrames)}
	t.peers[addr] = p
	return p
}

// connTo returns the live connection to a peer for a purpose, dialling when there is none. Users that come while a dial
// is under way wait for it, until stop closes (errStopped).
func (t *Transport) connTo(addr raft.ServerAddress, purpose purpose, stop <-chan struct{}) (*conn, error) {
	if addr == t.cfg.Local || addr == "" {
		return nil, fmt.Errorf("broker %q: %w: it is not another broker", addr, ErrUnreachable)
	}
	p := t.peer(addr)
	for {
		c, wait, err := p.line(purpose)
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-wait:
		case <-stop:
			return nil, errStopped
		}
	}
}

// line returns the connection, or a dial to wait for, or why there is neither.
func (p *peer) line(purpose purpose) (*conn, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[purpose]
	if l == nil {
		l = &line{}
		p.lines[purpose] = l
	}
	switch {
	case l.conn != nil:
		return l.conn, nil, nil
	case l.dialling != nil:
		return nil, l.dialling, nil
	case p.t.now() < l.notBefore:
		return nil, nil, l.lastErr
	}
	l.dialling = make(chan struct{})
	if !p.t.spawn(func() { p.dial(l, purpose) }) {
		l.dialling = nil
		return nil, nil, ErrClosed
	}
	return nil, l.dialling, nil
}

// dial makes the connection and then serves as its writer goroutine.
func (p *peer) dial(l *line, purpose purpose) {
	c, err := p.t.dial(p.addr, purpose)
	p.mu.Lock()
	close(l.dialling)
	l.dialling = nil
	if err == nil {
		err = p.accept(l, c)
	}
	l.stale = false
	if err != nil {
		l.failed(p.t.now(), err)
		p.mu.Unlock()
		p.t.log.Debug("dial failed", "peer", p.addr, "purpose", purpose, "error", err)
		return
	}
	l.conn, l.backoff, l.notBefore = c, 0, 0
	p.mu.Unlock()
	p.t.connUp(c)
	c.writeLoop()
}

// accept starts the reader of a connection just made, unless nobody wants it any more.
func (p *peer) accept(l *line, c *conn) error {
	err := errReportedDown
	if !l.stale {
		if p.t.spawn(c.readLoop) {
			return nil
		}
		err = ErrClosed
	}
	p.t.untrack(c.nc)
	return err
}

func (l *line) failed(now time.Duration, err error) {
	l.backoff = min(max(2*l.backoff, dialBackoffMin), dialBackoffMax)
	l.notBefore = now + l.backoff/2 + rand.N(l.backoff/2)
	l.lastErr = err
}

// dial connects and shakes hands.
func (t *Transport) dial(addr raft.ServerAddress, purpose purpose) (*conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.DialTimeout)
	defer cancel()
	fail := func(err error) (*conn, error) {
		return nil, fmt.Errorf("broker %s: %w: %w", addr, ErrUnreachable, err)
	}
	hostport, err := t.cfg.Resolve(addr)
	if err != nil {
		return fail(err)
	}
	nc, err := t.cfg.Dial(ctx, "tcp", hostport)
	if err != nil {
		return fail(err)
	}
	if !t.track(nc) {
		nc.Close()
		return fail(ErrClosed)
	}
	noDelay(nc)
	_ = nc.SetDeadline(time.Now().Add(t.cfg.DialTimeout))
	br := bufio.NewReaderSize(nc, readBuffer)
	w, err := t.greet(readWriter{br, nc}, addr, purpose)
	if err != nil {
		t.untrack(nc)
		return fail(err)
	}
	_ = nc.SetDeadline(time.Time{})
	c := newConn(t, nc, br, addr, purpose, true)
	c.cluster = t.agreedOn(w)
	return c, nil
}

type readWriter struct {
	*bufio.Reader
	w net.Conn
}

func (rw readWriter) Write(b []byte) (int, error) { return rw.w.Write(b) }

func noDelay(nc net.Conn) {
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetNoDelay(true) // Go's default, stated because heartbeats rely on it
	}
}

// connUp announces a connection. One from a peer also ends the back-off towards it: it is alive.
func (t *Transport) connUp(c *conn) {
	t.log.Debug("connected", "peer", c.peer, "purpose", c.purpose, "inbound", !c.dialled)
	if !c.dialled {
		t.forgive(c.peer)
	}
	t.heard(c.peer)
	t.notify(PeerEvent{Peer: c.peer, Up: true, Inbound: !c.dialled, Purpose: c.purpose.String()})
}

// forgive lets the next use of a peer dial at once. It does not make a peer known: anyone may connect.
func (t *Transport) forgive(addr raft.ServerAddress) {
	t.mu.RLock()
	p := t.peers[addr]
	t.mu.RUnlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		l.backoff, l.notBefore = 0, 0
	}
}

// connLost forgets a failed connection. It is called once per connection, by fail.
func (t *Transport) connLost(c *conn, cause error) {
	if c.dialled {
		t.peer(c.peer).lost(c)
	}
	t.mu.Lock()
	delete(t.raw, c.nc)
	if key := (inboundKey{c.peer, c.purpose}); t.inbound[key] == c {
		delete(t.inbound, key)
	}
	closed := t.closed
	t.mu.Unlock()
	if !closed {
		t.log.Debug("connection lost", "peer", c.peer, "purpose", c.purpose, "inbound", !c.dialled, "error", cause)
	}
	t.notify(PeerEvent{Peer: c.peer, Inbound: !c.dialled, Purpose: c.purpose.String(), Err: cause})
	if !closed {
		t.suspect(c.peer)
	}
}

func (p *peer) lost(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lines[c.purpose]; l != nil && l.conn == c {
		l.conn = nil
	}
}

var errReportedDown = fmt.Errorf("%w: reported down", ErrUnreachable)

// PeerDown drops all connections with a peer, dials under way included: what is in flight fails at once, and the next use
// resolves and dials again. For a peer that is known to be gone or to have moved.
func (t *Transport) PeerDown(to raft.ServerAddress) {
	t.mu.RLock()
	p := t.peers[to]
	t.mu.RUnlock()
	if p != nil {
		p.dropDials()
	}
	for _, c := range t.conns(to) {
		c.fail(errReportedDown)
	}
}

func (p *peer) dropDials() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		l.stale = l.dialling != nil
	}
}

// conns lists the connections after their handshake, of one peer or ("") of all.
func (t *Transport) conns(of raft.ServerAddress) []*conn {
	t.mu.RLock()
	var out []*conn
	peers := make([]*peer, 0, len(t.peers))
	for addr, p := range t.peers {
		if of == "" || of == addr {
			peers = append(peers, p)
		}
	}
	for key, c := range t.inbound {
		if of == "" || of == key.peer {
			out = append(out, c)
		}
	}
	t.mu.RUnlock()
	for _, p := range peers {
		out = p.appendConns(out)
	}
	return out
}

func (p *peer) appendConns(out []*conn) []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if l.conn != nil {
			out = append(out, l.conn)
		}
	}
	return out
}
