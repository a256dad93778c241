package grpcapi

import (
	"net"
	"sync"
)

// limitListener accepts at most n connections at a time; others wait in the listen queue of the operating system.
func limitListener(l net.Listener, n int, ended func(remote string)) *limitedListener {
	return &limitedListener{Listener: l, ended: ended, slots: make(chan struct{}, n), closed: make(chan struct{}), conns: map[string]*limitedConn{}}
}

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once

	ended func(remote string) // is told of connections that have ended
	mu    sync.Mutex
	conns map[string]*limitedConn // by the address of the client
}

func (l *limitedListener) connected(remote string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[remote] != nil
}

// hangUp closes the connection from an address.
func (l *limitedListener) hangUp(remote string) {
	l.mu.Lock()
	c := l.conns[remote]
	l.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	lc := &limitedConn{Conn: c, l: l}
	l.mu.Lock()
	l.conns[c.RemoteAddr().String()] = lc
	l.mu.Unlock()
	return lc, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	l    *limitedListener
	once sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.l.mu.Lock()
		if remote := c.RemoteAddr().String(); c.l.conns[remote] == c {
			delete(c.l.conns, remote)
		}
		c.l.mu.Unlock()
		c.l.ended(c.RemoteAddr().String())
		<-c.l.slots
	})
	return err
}
