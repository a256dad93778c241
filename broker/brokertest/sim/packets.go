package sim

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Port is a memberlist.Transport on the network: packets that may be lost, and streams.
type Port struct {
	n       *Network
	at      addr
	packets chan *memberlist.Packet
	streams chan net.Conn
	ln      *Listener
	wg      sync.WaitGroup
}

var _ memberlist.Transport = (*Port)(nil)

// Gossip listens for packets and streams.
func (n *Network) Gossip(hostport string) (*Port, error) {
	ln, err := n.Listen(hostport)
	if err != nil {
		return nil, err
	}
	p := &Port{n: n, at: ln.addr, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn), ln: ln}
	n.mu.Lock()
	n.host(p.at.ip).packets[p.at.port] = p
	n.mu.Unlock()
	p.wg.Go(p.accept)
	return p, nil
}

func (p *Port) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		select {
		case p.streams <- c:
		case <-p.ln.done:
			_ = c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (p *Port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	port, err := strconv.Atoi(p.at.port)
	return net.ParseIP(p.at.ip), port, err
}

// WriteTo implements memberlist.Transport.
func (p *Port) WriteTo(b []byte, to string) (time.Time, error) {
	a, err := parseAddr(to)
	if err != nil {
		return time.Time{}, err
	}
	data := append([]byte(nil), b...)
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	l := link{p.at.ip, a.ip}
	s := p.n.links[l]
	copies := 1
	if p.n.rng.Float64() < s.twice {
		copies = 2
	}
	for range copies {
		if s.cut || p.n.rng.Float64() < s.loss || p.n.host(p.at.ip).packets[p.at.port] != p {
			continue
		}
		time.AfterFunc(p.n.latency(l), func() { p.n.deliver(a, p.at, data) })
	}
	return time.Now(), nil
}

func (n *Network) deliver(to, from addr, data []byte) {
	n.mu.Lock()
	port := n.host(to.ip).packets[to.port]
	n.mu.Unlock()
	if port == nil {
		return
	}
	select {
	case port.packets <- &memberlist.Packet{Buf: data, From: from, Timestamp: time.Now()}:
	default: // its buffer is full, as a socket's would be
	}
}

// PacketCh implements memberlist.Transport.
func (p *Port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// DialTimeout implements memberlist.Transport.
func (p *Port) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.n.Dial(ctx, p.at.ip, to)
}

// StreamCh implements memberlist.Transport.
func (p *Port) StreamCh() <-chan net.Conn { return p.streams }

// Shutdown implements memberlist.Transport.
func (p *Port) Shutdown() error {
	p.n.mu.Lock()
	if h := p.n.host(p.at.ip); h.packets[p.at.port] == p {
		delete(h.packets, p.at.port)
	}
	p.n.mu.Unlock()
	_ = p.ln.Close()
	p.wg.Wait()
	return nil
}

func (p *Port) shut() { p.ln.shut() }
