package membership

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// memberlist v0.6.0 believes what comes over the network in some places: a member's list of protocol versions that is too short is a panic, which takes the
// broker with it; a few bytes that say that they are compressed, or how long a message is, make it allocate whatever they like. So everything passes a
// check here before memberlist sees it. What the check lets through is bounded in size and has the shape that memberlist itself sends.
//
// What cannot be guarded is what a member may say: whoever can reach the gossip port and knows the cluster's ID can tell of members that do not exist, or that
// others have failed. Nothing but who counts as alive follows from that: assignments are made by the controller from what Raft has agreed on. Keep the port
// from strangers all the same.

const (
	gossipNodesMax   = 4096    // in one exchange of everything
	gossipStreamMax  = 4 << 20 // bytes of it
	gossipStreamsMax = 256     // connections that others have opened, at a time
	gossipNestingMax = 4       // messages within messages
	gossipFieldsMax  = 32      // of a structure
	versionsLen      = 6       // lowest, highest and present version of protocol and delegate
	hasLabel         = byte(244)
)

// memberlist's types of messages that are looked at.
const (
	msgPing     = 0
	msgAck      = 2
	msgAlive    = 4
	msgPushPull = 6
	msgCompound = 7
	msgUser     = 8
	msgCompress = 9
	msgEncrypt  = 10
	msgCRC      = 12
	msgError    = 13
)

var errHostile = errors.New("gossip that memberlist would not survive, or that no broker sends")

// guard is a transport whose traffic is checked. Its goroutines, one for packets and one for connections, end with Shutdown. They take from the transport below until that
// has been shut down, which waits for them to take what it has; what comes once closing has begun is dropped.
type guard struct {
	memberlist.NodeAwareTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
	open    atomic.Int64
	refused func(from string, err error)
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

func newGuard(t memberlist.NodeAwareTransport, refused func(from string, err error)) *guard {
	g := &guard{
		NodeAwareTransport: t, refused: refused, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	g.wg.Go(g.passPackets)
	g.wg.Go(g.passStreams)
	return g
}

func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *guard) StreamCh() <-chan net.Conn           { return g.streams }

// Shutdown implements memberlist.Transport.
func (g *guard) Shutdown() (err error) {
	g.once.Do(func() {
		close(g.closing)
		err = g.NodeAwareTransport.Shutdown()
		close(g.done)
		g.wg.Wait()
	})
	return err
}

func (g *guard) passPackets() {
	for {
		select {
		case p := <-g.NodeAwareTransport.PacketCh():
			if err := checkPacket(p.Buf, gossipNestingMax); err != nil {
				g.refused(p.From.String(), err)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.closing:
			}
		case <-g.done:
			return
		}
	}
}

func (g *guard) passStreams() {
	for {
		select {
		case c := <-g.NodeAwareTransport.StreamCh():
			g.passStream(c)
		case <-g.done:
			return
		}
	}
}

func (g *guard) passStream(c net.Conn) {
	if g.open.Add(1) > gossipStreamsMax {
		g.open.Add(-1)
		_ = c.Close()
		return
	}
	guarded := &guardedConn{Conn: c, closed: func() { g.open.Add(-1) }}
	select {
	case g.streams <- guarded:
	case <-g.closing:
		_ = guarded.Close()
	}
}

// DialTimeout and DialAddressTimeout: answers are checked as well.
func (g *guard) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := g.NodeAwareTransport.DialAddressTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	return &guardedConn{Conn: c}, nil
}

func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// guardedConn gives its reader nothing before the first message was found good. Reads come from one goroutine.
type guardedConn struct {
	net.Conn
	closed  func() // nil: nobody counts
	once    sync.Once
	checked bool
	err     error
	buf     []byte // what the check has read and the reader has not
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if !c.checked {
		c.checked = true
		s := &skim{r: c.Conn, max: gossipStreamMax}
		c.err = checkStream(s)
		c.buf = s.buf
	}
	if c.err != nil {
		return 0, c.err
	}
	if len(c.buf) == 0 {
		c.buf = nil
		return c.Conn.Read(p)
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

func (c *guardedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		if c.closed != nil {
			c.closed()
		}
	})
	return err
}

// checkPacket looks at a UDP packet and at the messages within it.
func checkPacket(b []byte, nesting int) error {
	if nesting == 0 || len(b) == 0 {
		return fmt.Errorf("%w: empty, or messages within messages within messages", errHostile)
	}
	if b[0] == hasLabel {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return fmt.Errorf("%w: a label cut short", errHostile)
		}
		return checkPacket(b[2+int(b[1]):], nesting-1)
	}
	switch b[0] {
	case msgCompress, msgEncrypt:
		return fmt.Errorf("%w: compressed or encrypted, which no broker's is", errHostile)
	case msgCRC:
		if len(b) < 5 {
			return fmt.Errorf("%w: a checksum cut short", errHostile)
		}
		return checkPacket(b[5:], nesting-1)
	case msgCompound:
		return checkCompound(b[1:], nesting-1)
	case msgAlive:
		return checkMember(&skim{buf: b[1:], max: len(b) - 1})
	}
	return nil
}

func checkCompound(b []byte, nesting int) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return fmt.Errorf("%w: several messages cut short", errHostile)
	}
	lengths, rest := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for i := 0; i < len(lengths); i += 2 {
		n := int(lengths[i])<<8 | int(lengths[i+1])
		if n > len(rest) {
			return nil // memberlist leaves it out
		}
		if n > 0 {
			if err := checkPacket(rest[:n], nesting); err != nil {
				return err
			}
		}
		rest = rest[n:]
	}
	return nil
}

// checkStream looks at the first message of a connection, the only one that memberlist reads.
func checkStream(s *skim) error {
	t, err := s.byte()
	if err == nil && t == hasLabel {
		n, err := s.byte()
		if err != nil {
			return err
		}
		if err := s.skip(int(n)); err != nil {
			return err
		}
		t, err = s.byte()
		if err != nil {
			return err
		}
		return checkMessage(s, t)
	}
	if err != nil {
		return err
	}
	return checkMessage(s, t)
}

func checkMessage(s *skim, t byte) error {
	switch t {
	case msgPing, msgAck, msgError:
		return nil
	case msgPushPull:
		return checkPushPull(s)
	}
	return fmt.Errorf("%w: a connection for messages of type %d", errHostile, t)
}

// checkPushPull looks at an exchange of everything that is known: a header, so many members, and a state of which brokers have none.
func checkPushPull(s *skim) error {
	nodes, state := uint64(0), uint64(0)
	err := s.fields(func(key string) (err error) {
		switch key {
		case "Nodes":
			nodes, err = s.uint()
		case "UserStateLen":
			state, err = s.uint()
		default:
			err = s.value(gossipNestingMax)
		}
		return err
	})
	if err != nil {
		return err
	}
	if nodes > gossipNodesMax || state > 0 {
		return fmt.Errorf("%w: %d members and %d bytes of state", errHostile, nodes, state)
	}
	for range nodes {
		if err := checkMember(s); err != nil {
			return err
		}
	}
	return nil
}

// checkMember makes sure that a member comes with all of its versions.
func checkMember(s *skim) error {
	versions := -1
	err := s.fields(func(key string) (err error) {
		if key != "Vsn" {
			return s.value(gossipNestingMax)
		}
		if versions, err = s.bytes(); err == nil && versions != versionsLen {
			err = fmt.Errorf("%w: a member with %d versions", errHostile, versions)
		}
		return err
	})
	if err == nil && versions != versionsLen {
		err = fmt.Errorf("%w: a member without versions", errHostile)
	}
	return err
}

// skim reads MessagePack without keeping what it says. With r it takes more bytes from there, up to max in all.
type skim struct {
	r   io.Reader
	buf []byte
	at  int
	max int
}

// need makes sure that n more bytes are there.
func (s *skim) need(n int) error {
	if n < 0 || s.at+n > s.max {
		return fmt.Errorf("%w: more than %d bytes", errHostile, s.max)
	}
	for len(s.buf) < s.at+n {
		if s.r == nil {
			return io.ErrUnexpectedEOF
		}
		var chunk [4096]byte
		got, err := s.r.Read(chunk[:])
		s.buf = append(s.buf, chunk[:got]...)
		if got == 0 && err != nil {
			return err
		}
	}
	return nil
}

func (s *skim) byte() (byte, error) {
	if err := s.need(1); err != nil {
		return 0, err
	}
	s.at++
	return s.buf[s.at-1], nil
}

func (s *skim) skip(n int) error {
	if err := s.need(n); err != nil {
		return err
	}
	s.at += n
	return nil
}

// number reads n bytes, big-endian.
func (s *skim) number(n int) (uint64, error) {
	if err := s.need(n); err != nil {
		return 0, err
	}
	v := uint64(0)
	for _, b := range s.buf[s.at : s.at+n] {
		v = v<<8 | uint64(b)
	}
	s.at += n
	return v, nil
}

// length reads a length of n bytes; one that cannot be is refused.
func (s *skim) length(n int) (int, error) {
	v, err := s.number(n)
	if err == nil && v > uint64(s.max) {
		err = fmt.Errorf("%w: a length of %d", errHostile, v)
	}
	return int(v), err
}

var errShape = fmt.Errorf("%w: not the shape of a message", errHostile)

// uint reads an integer that is not negative.
func (s *skim) uint() (uint64, error) {
	t, err := s.byte()
	if err != nil {
		return 0, err
	}
	switch {
	case t < 0x80:
		return uint64(t), nil
	case t >= 0xcc && t <= 0xcf:
		return s.number(1 << (t - 0xcc))
	case t >= 0xd0 && t <= 0xd3:
		n := 1 << (t - 0xd0)
		v, err := s.number(n)
		if err == nil && v>>(8*n-1) != 0 {
			err = errShape
		}
		return v, err
	}
	return 0, errShape
}

// bytes passes over text or bytes and returns their length.
func (s *skim) bytes() (int, error) {
	t, err := s.byte()
	if err != nil {
		return 0, err
	}
	n := 0
	switch {
	case t >= 0xa0 && t <= 0xbf:
		n = int(t & 0x1f)
	case t >= 0xc4 && t <= 0xc6:
		n, err = s.length(1 << (t - 0xc4))
	case t >= 0xd9 && t <= 0xdb:
		n, err = s.length(1 << (t - 0xd9))
	default:
		err = errShape
	}
	if err == nil {
		err = s.skip(n)
	}
	return n, err
}

// fields reads a structure; of consumes each value.
func (s *skim) fields(of func(key string) error) error {
	t, err := s.byte()
	if err != nil {
		return err
	}
	n := 0
	switch {
	case t >= 0x80 && t <= 0x8f:
		n = int(t & 0x0f)
	case t == 0xde || t == 0xdf:
		n, err = s.length(2 << (t - 0xde))
	default:
		err = errShape
	}
	if err != nil {
		return err
	}
	if n > gossipFieldsMax {
		return errShape
	}
	for range n {
		size, err := s.bytes()
		if err != nil {
			return err
		}
		if err := of(string(s.buf[s.at-size : s.at])); err != nil {
			return err
		}
	}
	return nil
}

// value passes over any value, of so many levels at most.
func (s *skim) value(levels int) error {
	if levels == 0 {
		return errShape
	}
	t, err := s.byte()
	if err != nil {
		return err
	}
	s.at--
	switch {
	case t >= 0xa0 && t <= 0xbf, t >= 0xc4 && t <= 0xc6, t >= 0xd9 && t <= 0xdb:
		_, err = s.bytes()
		return err
	}
	s.at++
	switch {
	case t < 0x80, t >= 0xe0, t == 0xc0, t == 0xc2, t == 0xc3:
		return nil
	case t >= 0x90 && t <= 0x9f:
		return s.values(int(t&0x0f), levels)
	case t >= 0xcc && t <= 0xcf:
		return s.skip(1 << (t - 0xcc))
	case t >= 0xd0 && t <= 0xd3:
		return s.skip(1 << (t - 0xd0))
	case t == 0xdc:
		n, err := s.length(2)
		if err != nil {
			return err
		}
		return s.values(n, levels)
	}
	return errShape
}

func (s *skim) values(n, levels int) error {
	for range n {
		if err := s.value(levels - 1); err != nil {
			return err
		}
	}
	return nil
}
