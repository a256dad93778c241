package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Evidence that a broker is gone.
//
// A process that dies closes all its connections at once, and its port refuses new ones. That is known within a millisecond, while a timeout that
// is safe on a busy machine takes a second. So when the last connection with a peer is lost, one attempt to connect is made; if it
// fails, the peer is gone, until a connection with it comes up.
//
// A broker that is stopped, cut off, or has lost its power closes nothing. For that, each side sends something on its control connections at least every
// PingEvery, and a peer whose control connection has been silent for SilentAfter is gone too, until it is heard again. One such
// clock for each pair of brokers serves all their groups. Where there is no control connection, because the peer was cut off before it made one or while it made
// another, its other connections have to do: once they have been silent for as long, one attempt to connect is made.
//
// Evidence may be wrong: one link may be down, or a peer refuse connections for a moment. It is one broker's view, and what is made of it (package election) must ask
// others before it does anything.

// maxPeers bounds the peers that evidence is kept of without ever having been dialled.
const maxPeers = 4096

// probesDropped bounds the probes that are made again because PeerDown came while they were under way.
const probesDropped = 5

// evidence is what is known about one peer. It is guarded by the transport's evidenceMu.
type evidence struct {
	probing bool
	refused bool          // no connection is left, and a new one could not be made
	silent  bool          // its control connection is open but nothing comes
	back    chan struct{} // closed when it is no longer gone; nil while nobody waits for that
}

func (e evidence) gone() bool { return e.refused || e.silent }

// Gone tells whether there is evidence that a broker is not running or cannot be reached.
func (t *Transport) Gone(peer raft.ServerAddress) bool {
	t.evidenceMu.Lock()
	defer t.evidenceMu.Unlock()
	e := t.evidence[peer]
	return e != nil && e.gone()
}

// back returns what is closed when a broker that is gone is no longer; nil for one that is not gone.
func (t *Transport) back(peer raft.ServerAddress) <-chan struct{} {
	t.evidenceMu.Lock()
	defer t.evidenceMu.Unlock()
	e := t.evidence[peer]
	if e == nil || !e.gone() {
		return nil
	}
	if e.back == nil {
		e.back = make(chan struct{})
	}
	return e.back
}

var errBack = errors.New("the broker is away")

// awaitBack waits for a broker for which there is evidence that it is gone, so that raft's heartbeat reaches it as soon as it is back; hashicorp/raft would wait ever longer between
// attempts that fail. It gives up after AwayMax.
func (g *Group) awaitBack(peer raft.ServerAddress) error {
	back := g.t.back(peer)
	if back == nil {
		return nil
	}
	timer := time.NewTimer(g.t.cfg.AwayMax)
	defer timer.Stop()
	select {
	case <-back:
		return nil
	case <-g.closed:
		return ErrGroupClosed
	case <-timer.C:
		return fmt.Errorf("broker %s: %w: %w", peer, ErrUnreachable, errBack)
	}
}

// WatchGone calls fn whenever evidence comes up that a broker is gone, and whenever it is refuted, until cancel. fn runs on the transport's goroutines and
// must not block. Gone is up to date when it is called.
func (t *Transport) WatchGone(fn func(peer raft.ServerAddress, gone bool)) (cancel func()) {
	t.evidenceMu.Lock()
	defer t.evidenceMu.Unlock()
	t.goneID++
	id := t.goneID
	t.goneWatchers[id] = fn
	return func() {
		t.evidenceMu.Lock()
		defer t.evidenceMu.Unlock()
		delete(t.goneWatchers, id)
	}
}

// change applies a change to a peer's evidence and tells those who watch if it makes a difference.
func (t *Transport) change(peer raft.ServerAddress, f func(*evidence)) {
	t.evidenceMu.Lock()
	e := t.evidence[peer]
	if e == nil {
		if len(t.evidence) >= maxPeers {
			t.evidenceMu.Unlock()
			return
		}
		e = &evidence{}
		t.evidence[peer] = e
	}
	before := e.gone()
	f(e)
	gone := e.gone()
	if !gone && e.back != nil {
		close(e.back)
		e.back = nil
	}
	var fns []func(raft.ServerAddress, bool)
	if gone != before {
		for _, fn := range t.goneWatchers {
			fns = append(fns, fn)
		}
	}
	t.evidenceMu.Unlock()
	if gone != before {
		t.log.Debug("evidence", "peer", peer, "gone", gone)
	}
	for _, fn := range fns {
		fn(peer, gone)
	}
}

// suspect is called when a connection was lost: with the last one it finds out whether the peer is still there.
func (t *Transport) suspect(peer raft.ServerAddress) {
	if len(t.conns(peer)) > 0 || t.ctx.Err() != nil {
		return
	}
	t.findOut(peer, func(e *evidence) { e.silent = false }) // there is nothing left to be silent; the probe decides
}

// unheard is called while a connection is silent and the peer has none for control: it finds out whether the peer is still there.
func (t *Transport) unheard(c *conn) {
	c.silent.Store(true) // what arrives on it refutes the evidence
	t.findOut(c.peer, func(*evidence) {})
}

// findOut changes the evidence and makes a probe, unless there is one or the peer is known to be out of reach.
func (t *Transport) findOut(peer raft.ServerAddress, change func(*evidence)) {
	probe := false
	t.change(peer, func(e *evidence) {
		change(e)
		if !e.probing && !e.refused {
			e.probing, probe = true, true
		}
	})
	if probe && !t.spawn(func() { t.probe(peer) }) {
		t.change(peer, func(e *evidence) { e.probing = false })
	}
}

// hasControl tells whether there is a control connection with a peer, whoever has made it.
func (t *Transport) hasControl(peer raft.ServerAddress) bool {
	return slices.ContainsFunc(t.conns(peer), func(c *conn) bool { return c.purpose == purposeControl })
}

// probe connects once. The connection stays, for control. A dial whose result PeerDown had dropped tells nothing, so that there is another one then.
func (t *Transport) probe(peer raft.ServerAddress) {
	began := int64(t.now())
	_, err := t.connTo(peer, purposeControl, t.ctx.Done())
	for range probesDropped {
		if !errors.Is(err, errReportedDown) {
			break
		}
		t.forgive(peer)
		_, err = t.connTo(peer, purposeControl, t.ctx.Done())
	}
	alive := err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) || err == errStopped
	heard := slices.ContainsFunc(t.conns(peer), func(c *conn) bool { return c.lastRead.Load() >= began }) // it came back meanwhile by itself
	t.change(peer, func(e *evidence) {
		e.probing = false
		e.refused = !alive && !heard
	})
}

// heard refutes all evidence.
func (t *Transport) heard(peer raft.ServerAddress) {
	t.change(peer, func(e *evidence) { e.refused, e.silent = false, false })
}

// listen looks for silence, and sends where this side would be silent. The sweeper calls it.
//
// A process that was stopped itself finds everyone silent when it goes on. Then it has to listen anew first.
func (t *Transport) listen(now time.Duration) {
	if now-t.swept > t.cfg.SilentAfter/4 {
		t.listening = now
	}
	t.swept = now
	for _, c := range t.conns("") {
		if c.dialled {
			if c.purpose == purposeControl {
				c.ping(now)
			}
			continue
		}
		switch silent := now-max(time.Duration(c.lastRead.Load()), t.listening) > t.cfg.SilentAfter; {
		case !silent:
		case c.purpose != purposeControl:
			if !t.hasControl(c.peer) {
				t.unheard(c)
			}
		case c.silent.CompareAndSwap(false, true):
			t.change(c.peer, func(e *evidence) { e.silent = true })
		}
	}
}

// ping sends a frame of no heartbeats, if nothing else was sent for PingEvery.
func (c *conn) ping(now time.Duration) {
	if now-time.Duration(c.lastWrite.Load()) < c.t.cfg.PingEvery {
		return
	}
	c.lastWrite.Store(int64(now)) // also if the write has to wait for earlier ones
	e, pooled := newEncoder(4)
	e.u32(0)
	c.post(seal(header{kind: kindHeartbeats}, e, pooled))
}

// arrived notes that the peer was heard on this connection.
func (c *conn) arrived() {
	c.lastRead.Store(int64(c.t.now()))
	if c.silent.CompareAndSwap(true, false) {
		c.t.heard(c.peer)
	}
}
