package membership

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// packed builds MessagePack by hand, as an attacker would.
type packed []byte

func (p packed) text(s string) packed { return append(append(p, 0xa0|byte(len(s))), s...) }
func (p packed) num(n byte) packed    { return append(p, n) }
func (p packed) fields(n byte) packed { return append(p, 0x80|n) }
func (p packed) raw(b []byte) packed {
	return append(binary.BigEndian.AppendUint16(append(p, 0xda), uint16(len(b))), b...)
}
func (p packed) large(n uint32) packed { return binary.BigEndian.AppendUint32(append(p, 0xce), n) }

// member is one as in messages, with as many versions as asked for; below 0: without that field.
func (p packed) member(name string, meta []byte, versions int) packed {
	fields := byte(6)
	if versions >= 0 {
		fields++
	}
	p = p.fields(fields).text("Name").text(name).text("Addr").raw([]byte{127, 0, 0, 1}).text("Port").num(99).
		text("Meta").raw(meta).text("Incarnation").num(1).text("State").num(0)
	if versions >= 0 {
		p = p.text("Vsn").raw([]byte{1, 5, 2, 2, 5, 4, 9, 9}[:versions])
	}
	return p
}

func labelled(b []byte) []byte {
	return append(append([]byte{hasLabel, byte(len(label))}, label...), b...)
}

// hostile are messages that memberlist v0.6.0 does not survive, or that cost it more than they may.
func hostile(meta []byte) (packets, streams map[string][]byte) {
	alive := func(versions int) []byte {
		p := packed{msgAlive}.fields(6).text("Incarnation").num(1).text("Node").text("9").text("Addr").raw([]byte{127, 0, 0, 1}).
			text("Port").num(99).text("Meta").raw(meta).text("Vsn").raw([]byte{1, 5, 2, 2, 5, 4, 9, 9}[:versions])
		return p
	}
	exchange := func(nodes byte, join byte) packed {
		return packed{msgPushPull}.fields(3).text("Nodes").num(nodes).text("UserStateLen").num(0).text("Join").num(join)
	}
	compound := append([]byte{msgCompound, 1, 0, byte(len(alive(1)))}, alive(1)...)
	packets = map[string][]byte{
		"alive with one version":     alive(1),
		"alive with five":            alive(5),
		"alive within others":        compound,
		"alive behind a checksum":    append([]byte{msgCRC, 0, 0, 0, 0}, alive(1)...),
		"compressed":                 append([]byte{msgCompress}, make([]byte, 500)...),
		"a member that is no struct": {msgAlive, 0x90},
	}
	streams = map[string][]byte{
		"a member with one version":    exchange(1, 0xc2).member("9", meta, 1),
		"a member with three":          exchange(1, 0xc2).member("9", meta, 3),
		"a joining one with none":      exchange(1, 0xc3).member("9", meta, 0),
		"a joining one without field":  exchange(1, 0xc3).member("9", meta, -1),
		"a million members":            packed{msgPushPull}.fields(3).text("Nodes").large(1 << 20).text("UserStateLen").num(0).text("Join").num(0xc3),
		"a long state":                 packed{msgPushPull}.fields(3).text("Nodes").num(0).text("UserStateLen").large(20 << 20).text("Join").num(0xc3),
		"a user message of 2 GiB":      packed{msgUser}.fields(1).text("UserMsgLen").large(1 << 31),
		"a compressed exchange":        append([]byte{msgCompress}, make([]byte, 100)...),
		"a member that is cut short":   exchange(1, 0xc3).member("9", meta, 6)[:60],
		"fields that never end":        {msgPushPull, 0xdf, 0xff, 0xff, 0xff, 0xff},
		"arrays within arrays":         append([]byte{msgPushPull, 0x81, 0xa1, 'x'}, []byte(strings.Repeat("\x91", 1000))...),
		"a state that is no structure": exchange(1, 0xc3).num(0xc0),
	}
	return packets, streams
}

// TestHostileGossip: no message that a stranger can send stops a broker, or makes it take memory; and it goes on to take members in.
func TestHostileGossip(t *testing.T) {
	a := start(t, Meta{ID: 1, ClusterID: "c"})
	m := wireMeta{Meta: Meta{ID: 9, ClusterID: "c", Incarnation: "inc9"}}
	meta, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	packets, streams := hostile(meta)
	for name, b := range packets {
		c, err := net.Dial("udp", a.LocalAddr())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write(labelled(b)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.Close()
	}
	for name, b := range streams {
		c, err := net.Dial("tcp", a.LocalAddr())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, _ = c.Write(labelled(b))
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, c) // until it has made up its mind
		_ = c.Close()
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d bytes were allocated for it", grown)
	}
	b := start(t, Meta{ID: 2, ClusterID: "c"}, a)
	eventually(t, "both see each other", func() bool { return a.saw("joined 2") && b.saw("joined 1") })
	if a.saw("joined 9") {
		t.Error("a member that does not exist was taken in")
	}
}

// TestGuardPassesWhatBrokersSend: one exchange as memberlist makes it, cut at every byte, passes only whole.
func TestGuardPassesWhatBrokersSend(t *testing.T) {
	whole := packed{msgPushPull}.fields(3).text("Nodes").num(2).text("UserStateLen").num(0).text("Join").num(0xc3).
		member("1", make([]byte, 300), 6).member("2", nil, 6)
	for n := range len(whole) {
		s := &skim{r: strings.NewReader(string(whole[:n])), max: gossipStreamMax}
		if checkStream(s) == nil {
			t.Fatalf("%d bytes of %d pass", n, len(whole))
		}
	}
	s := &skim{r: strings.NewReader(string(labelled(whole))), max: gossipStreamMax}
	if err := checkStream(s); err != nil {
		t.Fatal(err)
	}
}

// lateTransport has a packet and a connection under way when it is shut down, and ends only when somebody has taken them, as memberlist's does.
type lateTransport struct {
	memberlist.NodeAwareTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (l *lateTransport) PacketCh() <-chan *memberlist.Packet { return l.packets }
func (l *lateTransport) StreamCh() <-chan net.Conn           { return l.streams }

func (l *lateTransport) Shutdown() error {
	for range 3 {
		l.packets <- &memberlist.Packet{Buf: []byte{msgPing}, From: &net.UDPAddr{}}
		here, there := net.Pipe()
		_ = there.Close()
		l.streams <- here
	}
	return nil
}

// TestCloseUnderGossip: what comes in while a member closes, and nobody reads any more, does not keep it from closing.
func TestCloseUnderGossip(t *testing.T) {
	g := newGuard(&lateTransport{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}, func(string, error) {})
	closed := make(chan error, 1)
	go func() { closed <- g.Shutdown() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the guard does not take what is under way, and waits for it")
	}
	if n := g.open.Load(); n != 0 {
		t.Errorf("%d connections are still open", n)
	}
}

func FuzzGuard(f *testing.F) {
	packets, streams := hostile([]byte("meta"))
	for _, b := range packets {
		f.Add(b)
	}
	for _, b := range streams {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = checkPacket(b, gossipNestingMax)
		s := &skim{r: strings.NewReader(string(b)), max: 1 << 16}
		if checkStream(s) == nil && s.at > len(s.buf) {
			t.Errorf("read %d bytes of %d", s.at, len(s.buf))
		}
	})
}
