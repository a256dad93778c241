package kafka

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn is one connection. Three goroutines serve it: read takes requests off the wire, one ahead; process answers them one after the
// other; write sends the answers in the same order. Only produce requests overlap: process hands their batches to the
// partitions, which keeps the order, and goes on to the next produce request. Any other request begins when all answers
// before it were sent, so a connection holds one large answer at most.
//
// bytes bounds what the connection's requests take until they are answered, inflight the number of those whose answers were not sent. ctx ends when the client has gone or the server stops;
// produce requests that were received whole are carried out all the same.
type conn struct {
	s        *Server
	listener string // its name
	nc       net.Conn
	in       *bufio.Reader
	log      hclog.Logger

	ctx      context.Context
	cancel   context.CancelFunc
	requests chan *request
	answers  chan *answer
	inflight *semaphore.Weighted
	bytes    *semaphore.Weighted

	mu    sync.Mutex
	about Client
}

// answer is a place in the order of responses. ready is closed when it is known what goes there.
type answer struct {
	ready chan struct{}
	reply reply // nil: none is sent
	// closing: the connection ends here.
	closing     bool
	key         int16
	correlation int32
	came        time.Time
}

// holder is a reply that holds memory which is to be given back when it was sent, or never will be.
type holder interface{ release() }

var errStopped = errors.New("the server stops")

func newConn(s *Server, listener string, nc net.Conn) *conn {
	c := &conn{
		s: s, listener: listener, nc: nc, in: bufio.NewReaderSize(nc, 4<<10), log: s.log.With("client", nc.RemoteAddr().String()),
		requests: make(chan *request), answers: make(chan *answer, s.opts.MaxInflight),
		inflight: semaphore.NewWeighted(int64(s.opts.MaxInflight)),
		bytes:    semaphore.NewWeighted(int64(max(s.opts.MaxMessageBytes+requestOverhead, groupRequestMax))),
		about:    Client{Addr: nc.RemoteAddr().String(), Listener: listener, Since: time.Now()},
	}
	c.ctx, c.cancel = context.WithCancel(s.stopping)
	return c
}

// run serves the connection until it ends.
func (c *conn) run() {
	defer c.close()
	var wg sync.WaitGroup
	wg.Go(c.write)
	wg.Go(c.process)
	err := c.read()
	close(c.requests)
	c.cancel()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errStopped) && !isReset(err) {
		c.log.Warn("closing a Kafka connection", "error", err)
	}
	wg.Wait()
}

// close ends the connection at once. Any goroutine may call it, any number of times.
func (c *conn) close() {
	c.cancel()
	_ = c.nc.Close()
}

// stopReading makes read end; what was received is still answered.
func (c *conn) stopReading() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func (c *conn) client() Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.about
}

// read takes in requests until the client has sent its last one or does something wrong.
func (c *conn) read() error {
	for {
		r, err := c.next()
		if err != nil {
			if c.s.stopping.Err() != nil {
				return errStopped
			}
			return err
		}
		c.requests <- r // process takes all
	}
}

// next reads one request, not allocating for it before its size is known to be within the limits.
func (c *conn) next() (*request, error) {
	size, err := c.awaitSize()
	if err != nil {
		return nil, err
	}
	var fixed [fixedHeader]byte
	if size < fixedHeader {
		return nil, fmt.Errorf("%w: a request of %d bytes", errMalformed, size)
	}
	c.deadline(c.s.opts.StallTimeout)
	if _, err := io.ReadFull(c.in, fixed[:]); err != nil {
		return nil, cut(err)
	}
	h, _, err := parseFixed(fixed[:])
	if err != nil {
		return nil, err
	}
	if limit := c.s.opts.requestMax(h.key); size > limit {
		return nil, fmt.Errorf("%w: a %s request of %d bytes; at most %d are taken", errMalformed, kmsg.NameForKey(h.key), size, limit)
	}
	if err := c.bytes.Acquire(c.ctx, int64(size)); err != nil {
		return nil, errStopped
	}
	body, err := c.readBody(size - fixedHeader)
	if err != nil {
		c.bytes.Release(int64(size))
		return nil, err
	}
	r := &request{header: h, conn: c, size: size, came: time.Now()}
	if err := c.parse(r, body); err != nil {
		c.release(r)
		return nil, err
	}
	return r, nil
}

// awaitSize waits for the next request. A connection with requests to be answered is not idle.
func (c *conn) awaitSize() (int, error) {
	var b [4]byte
	for {
		c.deadline(c.s.opts.IdleTimeout)
		_, err := c.in.Peek(1)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || c.s.stopping.Err() != nil {
			return 0, err
		}
		if all := int64(c.s.opts.MaxInflight); c.inflight.TryAcquire(all) {
			c.inflight.Release(all)
			return 0, io.EOF
		}
	}
	c.deadline(c.s.opts.StallTimeout)
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return 0, cut(err)
	}
	if b[0] == 0x16 && b[1] == 3 {
		return 0, fmt.Errorf("%w: this looks like TLS, which this listener does not speak", errMalformed)
	}
	size := int32(binary.BigEndian.Uint32(b[:]))
	if size < 0 {
		return 0, fmt.Errorf("%w: a request of %d bytes", errMalformed, size)
	}
	return int(size), nil
}

// deadline bounds the next read. A stop that has begun must not be undone.
func (c *conn) deadline(d time.Duration) {
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	if c.s.stopping.Err() != nil {
		c.stopReading()
	}
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readChunk is what is read of a request before more room is made for it.
const readChunk = 1 << 20

// readBody reads n bytes. Room is made as they come, so that announcing a large request costs nothing to others. It is charged to the
// server's memory; release gives that back.
func (c *conn) readBody(n int) ([]byte, error) {
	charged := int64(fixedHeader)
	if err := c.charge(charged); err != nil {
		return nil, err
	}
	var body []byte
	for len(body) < n {
		grown := min(n, max(readChunk, 2*len(body)))
		if err := c.charge(int64(grown - len(body))); err != nil {
			c.s.memory.Release(charged)
			return nil, err
		}
		charged += int64(grown - len(body))
		next := make([]byte, grown)
		if err := c.fill(next[copy(next, body):]); err != nil {
			c.s.memory.Release(charged)
			return nil, err
		}
		body = next
	}
	return body, nil
}

// fill reads so many bytes. Each chunk has a deadline of its own: a large request over a slow line may take long.
func (c *conn) fill(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), readChunk)
		c.deadline(c.s.opts.StallTimeout)
		if _, err := io.ReadFull(c.in, b[:n]); err != nil {
			return cut(err)
		}
		b = b[n:]
	}
	return nil
}

// charge waits for memory, but not for long: others may wait for what this connection holds.
func (c *conn) charge(n int64) error {
	if c.s.memory.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.s.opts.StallTimeout)
	defer cancel()
	if err := c.s.memory.Acquire(ctx, n); err != nil {
		return fmt.Errorf("no memory for a request: %w", err)
	}
	return nil
}

// release gives back what a request has taken. The answer to it is known, or there is none; a client that does not take its answers holds no
// memory of requests.
func (c *conn) release(r *request) {
	r.msg = nil
	c.s.memory.Release(int64(r.size))
	c.bytes.Release(int64(r.size))
}

// parse makes the message. A version of ApiVersions that is not known is left to be answered; any other closes the connection, as in Kafka.
func (c *conn) parse(r *request, body []byte) error {
	e, ok := apis[r.key]
	if !ok {
		return fmt.Errorf("%w: API key %d (%s) is not served", errMalformed, r.key, kmsg.NameForKey(r.key))
	}
	if r.version < e.min || r.version > e.max {
		if r.key == keyAPIs && r.version > e.max {
			return nil
		}
		return fmt.Errorf("%w: %s version %d is not served, %d to %d are", errMalformed, kmsg.NameForKey(r.key), r.version, e.min, e.max)
	}
	msg := kmsg.RequestForKey(r.key)
	msg.SetVersion(r.version)
	body, err := r.parseClient(body, msg.IsFlexible())
	if err != nil {
		return err
	}
	if err := decode(msg, body); err != nil {
		return err
	}
	r.msg = msg
	c.mu.Lock()
	c.about.ID = r.clientID
	c.mu.Unlock()
	return nil
}

// process answers the requests in order.
func (c *conn) process() {
	defer close(c.answers)
	ended := false
	for r := range c.requests {
		if ended {
			c.release(r)
			continue
		}
		ended = !c.handle(r)
	}
	// Whoever is still to be answered holds a place.
	_ = c.inflight.Acquire(context.Background(), int64(c.s.opts.MaxInflight))
}

// handle answers one request; false ends the connection.
func (c *conn) handle(r *request) bool {
	if p, ok := r.msg.(*kmsg.ProduceRequest); ok {
		_ = c.inflight.Acquire(context.Background(), 1) // write frees places, whatever becomes of the client
		c.s.produce(r, p, c.place(r))
		return true
	}
	all := int64(c.s.opts.MaxInflight)
	_ = c.inflight.Acquire(context.Background(), all)
	c.inflight.Release(all - 1)
	a := c.newAnswer(r)
	if r.msg == nil {
		a.reply = unknownAPIVersions()
	} else {
		a.reply = c.call(r)
	}
	a.closing = a.reply == nil
	c.release(r)
	close(a.ready)
	c.answers <- a
	return !a.closing
}

func (c *conn) call(r *request) reply {
	e := apis[r.key]
	ctx := c.ctx
	if !e.waits {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(c.s.aborting, callTimeout)
		defer cancel()
	}
	return e.handle(c.s, ctx, r)
}

func (c *conn) newAnswer(r *request) *answer {
	return &answer{ready: make(chan struct{}), key: r.key, correlation: r.correlation, came: r.came}
}

// place takes the next place in the order of answers, and returns how to fill it. It is to be filled once.
func (c *conn) place(r *request) func(rep reply, closing bool) {
	a := c.newAnswer(r)
	c.answers <- a // there is room: inflight has as many places as answers
	return func(rep reply, closing bool) {
		a.reply, a.closing = rep, closing
		c.release(r)
		close(a.ready)
	}
}
