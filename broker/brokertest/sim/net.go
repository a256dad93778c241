package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Links are between hosts, in one direction.
type link struct{ from, to string }

// linkState is what a link does to what passes. The zero value is a good link.
type linkState struct {
	cut   bool          // nothing arrives; what streams sent arrives after the cut has ended, as TCP would send it again
	delay time.Duration // on top of the network's own
	loss  float64       // share of packets that vanish; streams see it as delay
	twice float64       // share of packets that arrive twice
}

// Network is a network in memory between hosts that are named by IP addresses. Streams have a latency, links that can be cut in one direction, and
// ends that can vanish; packets can be lost, doubled and overtake one another. Everything waits on channels and timers only, so that it runs in a bubble of synctest.
//
// Locks: mu first, then a half's.
type Network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	min   time.Duration // latency of each message: from min to min+vary
	vary  time.Duration
	hosts map[string]*host
	links map[link]linkState
	// echo is the share of new connections to port echoPort whose first bytes come a second time, on another connection: an old SYN, or a proxy that tries again.
	echo     float64
	echoPort string
	echoes   int

	version atomic.Uint64 // grows with each change of links
}

type host struct {
	ip        string
	off       bool // no power: it answers nothing, not even with a refusal
	listeners map[string]*Listener
	packets   map[string]*Port
	ends      map[*Conn]bool
}

// NewNetwork returns a network whose latencies come from rng.
func NewNetwork(rng *rand.Rand) *Network {
	return &Network{rng: rng, min: 150 * time.Microsecond, vary: 350 * time.Microsecond, hosts: map[string]*host{}, links: map[link]linkState{}}
}

func (n *Network) host(ip string) *host {
	h := n.hosts[ip]
	if h == nil {
		h = &host{ip: ip, listeners: map[string]*Listener{}, packets: map[string]*Port{}, ends: map[*Conn]bool{}}
		n.hosts[ip] = h
	}
	return h
}

// Change sets what the link from one host to another does.
func (n *Network) Change(from, to string, f func(*linkState)) {
	n.mu.Lock()
	l := link{from, to}
	s := n.links[l]
	f(&s)
	n.links[l] = s
	n.version.Add(1)
	n.mu.Unlock()
	n.wakeAll()
}

// Heal makes all links good, and ends the echo.
func (n *Network) Heal() {
	n.mu.Lock()
	clear(n.links)
	n.echo = 0
	n.version.Add(1)
	n.mu.Unlock()
	n.wakeAll()
}

// SetEcho makes a share of the new connections to a port come twice.
func (n *Network) SetEcho(share float64, port string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.echo, n.echoPort = share, port
}

func (n *Network) wakeAll() {
	n.mu.Lock()
	var ends []*Conn
	for _, h := range n.hosts {
		for c := range h.ends {
			ends = append(ends, c)
		}
	}
	n.mu.Unlock()
	for _, c := range ends {
		c.in.wake()
		c.out.wake()
	}
}

// latency of one message over a link. The caller has mu.
func (n *Network) latency(l link) time.Duration {
	d := n.min + time.Duration(n.rng.Int64N(int64(n.vary)))
	s := n.links[l]
	if s.delay > 0 {
		d += s.delay/2 + time.Duration(n.rng.Int64N(int64(s.delay)))
	}
	if s.loss > 0 && n.rng.Float64() < s.loss {
		d += 200*time.Millisecond + time.Duration(n.rng.Int64N(int64(200*time.Millisecond))) // a retransmission
	}
	return d
}

func (n *Network) isCut(l link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[l].cut
}

// Crash takes a host's ends of all connections away. With its power, nobody is told; without (the process alone was killed), the other ends are reset.
func (n *Network) Crash(ip string, power bool) {
	n.mu.Lock()
	h := n.host(ip)
	h.off = power
	ends, listeners, ports := h.ends, h.listeners, h.packets
	h.ends, h.listeners, h.packets = map[*Conn]bool{}, map[string]*Listener{}, map[string]*Port{}
	n.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	for _, p := range ports {
		p.shut()
	}
	for c := range ends {
		c.vanish(!power)
	}
}

// PowerOn lets a host be reached again. Ends of connections that it has forgotten are reset.
func (n *Network) PowerOn(ip string) {
	n.mu.Lock()
	n.host(ip).off = false
	var orphans []*Conn
	for _, h := range n.hosts {
		for c := range h.ends {
			if c.remote.ip == ip && c.peer.gone() {
				orphans = append(orphans, c)
			}
		}
	}
	n.mu.Unlock()
	for _, c := range orphans {
		c.in.reset(300 * time.Millisecond)
	}
}

// Break resets all connections between two hosts.
func (n *Network) Break(a, b string) {
	n.mu.Lock()
	var ends []*Conn
	for c := range n.host(a).ends {
		if c.remote.ip == b {
			ends = append(ends, c)
		}
	}
	n.mu.Unlock()
	for _, c := range ends {
		c.in.reset(0)
		c.out.reset(0)
	}
}

// Listener is a net.Listener on one address of a host.
type Listener struct {
	n      *Network
	addr   addr
	accept chan net.Conn
	once   sync.Once
	done   chan struct{}
}

// Listen takes an address of a host that is on.
func (n *Network) Listen(hostport string) (*Listener, error) {
	a, err := parseAddr(hostport)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(a.ip)
	if h.listeners[a.port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: a, Err: syscall.EADDRINUSE}
	}
	l := &Listener{n: n, addr: a, accept: make(chan net.Conn, 256), done: make(chan struct{})}
	h.listeners[a.port] = l
	return l, nil
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.n.mu.Lock()
	if h := l.n.host(l.addr.ip); h.listeners[l.addr.port] == l {
		delete(h.listeners, l.addr.port)
	}
	l.n.mu.Unlock()
	l.shut()
	return nil
}

func (l *Listener) shut() {
	l.once.Do(func() {
		close(l.done)
		for {
			select {
			case c := <-l.accept:
				_ = c.Close()
			default:
				return
			}
		}
	})
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }

// Dial connects a host with an address. Over a cut link, or with a host without power, it hangs until ctx ends; without a listener it is refused.
func (n *Network) Dial(ctx context.Context, from, hostport string) (net.Conn, error) {
	a, err := parseAddr(hostport)
	if err != nil {
		return nil, err
	}
	for {
		n.mu.Lock()
		wait := n.latency(link{from, a.ip}) + n.latency(link{a.ip, from})
		n.mu.Unlock()
		if err := sleep(ctx, wait); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: a, Err: os.ErrDeadlineExceeded}
		}
		c, err := n.connect(from, a)
		if c != nil || err != nil {
			return c, err
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil { // the next SYN
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: a, Err: os.ErrDeadlineExceeded}
		}
	}
}

// connect tries once; neither a connection nor an error means silence.
func (n *Network) connect(from string, a addr) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(a.ip)
	if h.off || n.links[link{from, a.ip}].cut || n.links[link{a.ip, from}].cut {
		return nil, nil
	}
	l := h.listeners[a.port]
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: a, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := n.pair(addr{from, "0"}, a)
	select {
	case l.accept <- far:
	default:
		near.drop()
		far.drop()
		return nil, refused
	}
	if a.port == n.echoPort && n.rng.Float64() < n.echo {
		if ghost, mirror := n.pair(addr{from, "0"}, a); offer(l, mirror) {
			n.echoes++
			near.echo = ghost
		} else {
			ghost.drop()
			mirror.drop()
		}
	}
	return near, nil
}

func offer(l *Listener, c *Conn) bool {
	select {
	case l.accept <- c:
		return true
	default:
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// addr is an address of the network.
type addr struct{ ip, port string }

func parseAddr(hostport string) (addr, error) {
	ip, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return addr{}, fmt.Errorf("sim: address %q: %w", hostport, err)
	}
	return addr{ip, port}, nil
}

// Network implements net.Addr.
func (addr) Network() string { return "tcp" }

// String implements net.Addr.
func (a addr) String() string { return net.JoinHostPort(a.ip, a.port) }
