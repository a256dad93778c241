package transport

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// talk makes a control connection from one broker to another, as a leader's heartbeats do.
func talk(t *testing.T, g *Group, to raft.ServerAddress) {
	t.Helper()
	if err := g.AppendEntries(raft.ServerID(to), to, beatRequest(), &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
}

func answering(f *fleet, tr *Transport) *Group {
	g := f.group(tr, 1, GroupOptions{})
	g.SetHeartbeatHandler(func(rpc raft.RPC) { respond(rpc, success, nil) })
	return g
}

func TestDeadBrokerIsGoneAtOnce(t *testing.T) {
	f := newFleet(t)
	deaf := func(c *Config) { c.SilentAfter = time.Hour } // silence tells nothing here
	a, b := f.start("1", deaf), f.start("2", deaf)
	answering(f, a)
	gb := answering(f, b)
	var gone, back atomic.Int32
	cancel := a.WatchGone(func(peer raft.ServerAddress, is bool) {
		switch {
		case peer != "2" || a.Gone(peer) != is:
			t.Errorf("told that %s is gone: %t, and it is: %t", peer, is, a.Gone(peer))
		case is:
			gone.Add(1)
		default:
			back.Add(1)
		}
	})
	talk(t, gb, "1")
	if a.Gone("2") {
		t.Fatal("gone while it is there")
	}
	b.Close()
	eventually(t, "broker 2 is gone", func() bool { return a.Gone("2") })
	talk(t, answering(f, f.start("2")), "1")
	eventually(t, "broker 2 is back", func() bool { return !a.Gone("2") && back.Load() == 1 })
	if gone.Load() != 1 {
		t.Errorf("told %d times that it is gone", gone.Load())
	}
	cancel()
}

// A connection that is lost while another can be made is no evidence.
func TestLostConnectionIsNoEvidence(t *testing.T) {
	f := newFleet(t)
	patient := func(c *Config) { c.SilentAfter = time.Minute } // a busy machine may be silent for longer
	a, b := f.start("1", patient), f.start("2", patient)
	answering(f, a)
	gb := answering(f, b)
	cancel := a.WatchGone(func(peer raft.ServerAddress, gone bool) {
		if gone {
			t.Errorf("broker %s was taken for gone", peer)
		}
	})
	defer cancel() // before the brokers close, one after the other
	for range 20 {
		eventually(t, "a heartbeat, which may have to notice first that its connection was lost", func() bool {
			return gb.AppendEntries("1", "1", beatRequest(), &raft.AppendEntriesResponse{}) == nil
		})
		a.PeerDown("2")
		eventually(t, "a new connection, made by the probe", func() bool { return len(a.conns("2")) > 0 })
	}
}

// mute is a connection on which nothing arrives while it is muted, as with a stopped process or a cut line.
type mute struct {
	net.Conn
	on *atomic.Bool
}

func (m mute) Write(b []byte) (int, error) {
	if m.on.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

func TestSilentBrokerIsGone(t *testing.T) {
	f := newFleet(t)
	var muted atomic.Bool
	quick := func(c *Config) { c.PingEvery, c.SilentAfter = 20*time.Millisecond, 150*time.Millisecond }
	a := f.start("1", quick)
	b := f.start("2", quick, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return mute{nc, &muted}, nil
		}
	})
	answering(f, a)
	talk(t, answering(f, b), "1")
	// Pings alone keep it alive for many times SilentAfter.
	start := b.Stats().FramesSent
	eventually(t, "pings", func() bool {
		if a.Gone("2") {
			t.Fatal("gone although it pings")
		}
		return b.Stats().FramesSent > start+30
	})
	muted.Store(true)
	eventually(t, "broker 2 is gone", func() bool { return a.Gone("2") })
	muted.Store(false)
	eventually(t, "broker 2 is heard again", func() bool { return !a.Gone("2") })
}
