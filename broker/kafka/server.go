package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Server is the Kafka front end of one broker. Serve runs it, once for each listener; Stop, called once, ends it.
//
// Goroutines: those in Serve accept; each connection has three (see conn). wg counts all of the connections'.
type Server struct {
	broker api.Broker
	opts   Options
	log    hclog.Logger

	// memory is what requests of all connections may take.
	memory *semaphore.Weighted
	// responses is what the records in their responses may take.
	responses *semaphore.Weighted
	slots     chan struct{} // connections
	// sessions are those of Fetch, of all connections.
	sessions *sessionCache

	// stopping ends requests that wait for something to happen; aborting ends all others, once a graceful stop has run out of time.
	stopping, aborting context.Context
	stop, abort        context.CancelFunc

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[*conn]struct{}
	wg        sync.WaitGroup
}

// New makes the server.
func New(b api.Broker, opts Options) *Server {
	opts = opts.withDefaults()
	s := &Server{
		broker: b, opts: opts, log: opts.Logger, memory: semaphore.NewWeighted(opts.MaxRequestBytes),
		responses: semaphore.NewWeighted(opts.MaxResponseBytes),
		slots:     make(chan struct{}, opts.MaxConnections), conns: map[*conn]struct{}{},
		sessions: newSessionCache(opts.MaxFetchSessions, opts.MaxFetchSessionBytes),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.aborting, s.abort = context.WithCancel(context.Background())
	return s
}

// Serve accepts connections on the listener of that name until Stop. It may be called for several listeners. It returns nil after Stop.
func (s *Server) Serve(name string, l net.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	if s.stopping.Err() != nil {
		_ = l.Close()
	}
	s.mu.Unlock()
	for {
		nc, err := l.Accept()
		if s.stopping.Err() != nil {
			if err == nil {
				_ = nc.Close()
			}
			return nil
		}
		switch {
		case err == nil:
			s.admit(name, nc)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("kafka: accepting connections on listener %s: %w", name, err)
		default:
			s.log.Warn("a connection could not be accepted", "listener", name, "error", err) // out of descriptors, or it went away already
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.stopping.Done():
			}
		}
	}
}

// admit starts a connection, which holds a slot until it has ended. The one that waits for a slot is not read from, and others wait behind it, in the
// listen queue.
func (s *Server) admit(listener string, nc net.Conn) {
	select {
	case s.slots <- struct{}{}:
	case <-s.stopping.Done():
		_ = nc.Close()
		return
	}
	c := newConn(s, listener, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Err() != nil {
		_ = nc.Close()
		<-s.slots
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		<-s.slots
	})
}

// Stop accepts no more connections and requests, ends those that wait for something to happen, lets the others finish until ctx is done,
// and closes all connections. All goroutines have ended when it returns.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stop()
	for _, l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		c.stopReading()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.abort()
	s.mu.Lock()
	for c := range s.conns {
		c.close()
	}
	s.mu.Unlock()
	<-done
}

// Client is a connection as operators see it.
type Client struct {
	Addr string
	// Listener is the name of the listener that it came by.
	Listener string
	// ID is the client.id of its last request.
	ID string
	// Software and Version are what it said about itself (KIP-511); empty if it did not.
	Software, Version string
	Since             time.Time
}

// Clients lists the connections, by address.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Client, 0, len(s.conns))
	for c := range s.conns {
		out = append(out, c.client())
	}
	slices.SortFunc(out, func(a, b Client) int {
		if a.Addr < b.Addr {
			return -1
		}
		return 1
	})
	return out
}
