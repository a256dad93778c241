package partitiontest

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Network is a set of links between brokers, each of which can be cut in one direction. A cut link delivers nothing and
// says nothing, as when packets are dropped: what is written to it waits, and arrives after Heal if the connection still
// stands by then; a dial over it hangs until its context ends.
type Network struct {
	mu      sync.Mutex
	cut     map[link]bool
	changed chan struct{} // closed and replaced at each change
	names   map[string]raft.ServerAddress
	addrs   map[raft.ServerAddress]string
}

type link struct{ from, to raft.ServerAddress }

// NewNetwork returns a network without brokers.
func NewNetwork() *Network {
	return &Network{cut: map[link]bool{}, changed: make(chan struct{}), names: map[string]raft.ServerAddress{}, addrs: map[raft.ServerAddress]string{}}
}

// Place says where a broker listens.
func (n *Network) Place(broker raft.ServerAddress, hostport string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[hostport] = broker
	n.addrs[broker] = hostport
}

// Resolve is a transport's Config.Resolve.
func (n *Network) Resolve(broker raft.ServerAddress) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.addrs[broker]; ok {
		return a, nil
	}
	return "", &net.AddrError{Err: "unknown broker", Addr: string(broker)}
}

// Cut drops everything that one broker sends to another. The other direction stays.
func (n *Network) Cut(from, to raft.ServerAddress) {
	n.change(func() { n.cut[link{from, to}] = true })
}

// Mend undoes Cut.
func (n *Network) Mend(from, to raft.ServerAddress) {
	n.change(func() { delete(n.cut, link{from, to}) })
}

// Heal mends all links.
func (n *Network) Heal() { n.change(func() { clear(n.cut) }) }

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// blocked returns nil when none of the links is cut, or a channel that closes with the next change.
func (n *Network) blocked(links ...link) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		if n.cut[l] {
			return n.changed
		}
	}
	return nil
}

// Dial is a transport's Config.Dial, for the broker from.
func (n *Network) Dial(from raft.ServerAddress) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		to := n.names[addr]
		n.mu.Unlock()
		for {
			wait := n.blocked(link{from, to}, link{to, from})
			if wait == nil {
				break
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &simConn{Conn: nc, net: n, out: link{from, to}, in: link{to, from}, closed: make(chan struct{})}, nil
	}
}

// simConn is the dialler's end of a connection. It holds back what it sends and, by not handing it on, what it receives.
type simConn struct {
	net.Conn
	net     *Network
	out, in link
	once    sync.Once
	closed  chan struct{}

	mu          sync.Mutex
	readBefore  time.Time
	writeBefore time.Time
}

// pass waits until the link is whole, the connection closed or the deadline over.
func (c *simConn) pass(l link, deadline time.Time) error {
	for {
		wait := c.net.blocked(l)
		if wait == nil {
			return nil
		}
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-wait:
		case <-c.closed:
			return net.ErrClosed
		case <-timeout:
			return os.ErrDeadlineExceeded
		}
	}
}

// Write implements net.Conn.
func (c *simConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	deadline := c.writeBefore
	c.mu.Unlock()
	if err := c.pass(c.out, deadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *simConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	deadline := c.readBefore
	c.mu.Unlock()
	if perr := c.pass(c.in, deadline); perr != nil {
		return 0, perr // the connection is of no use any more: what was read is lost
	}
	return n, err
}

// SetDeadline implements net.Conn.
func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.readBefore, c.writeBefore = t, t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *simConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.readBefore = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *simConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.writeBefore = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (c *simConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
