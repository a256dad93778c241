package transport

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// batch gathers the heartbeats, or the replies to heartbeats, of all groups that go over one connection. They leave
// HeartbeatWindow after the first of them, or with the next frame of another kind, or when they fill a frame.
type batch struct {
	c     *conn
	kind  kind
	timer *time.Timer

	mu      sync.Mutex
	e       encoder
	count   int
	flags   uint8 // of the frame
	stopped bool
}

func newBatch(c *conn) *batch {
	b := &batch{c: c, kind: kindHeartbeatReplies}
	if c.dialled {
		b.kind = kindHeartbeats
	}
	b.timer = time.AfterFunc(time.Hour, c.signal)
	b.timer.Stop()
	return b
}

// add encodes one item with put. With prompt, all that has gathered leaves at once.
func (b *batch) add(prompt bool, put func(*encoder)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return
	}
	put(&b.e)
	b.count++
	if prompt {
		b.flags |= flagPrompt
	}
	switch {
	case len(b.e.b) >= beatsFrame:
		if f := b.sealLocked(); f != nil {
			b.c.post(f)
		}
	case prompt:
		b.c.signal()
	case b.count == 1:
		b.timer.Reset(b.c.t.cfg.HeartbeatWindow)
	}
}

// take returns what has gathered as a frame, nil when there is nothing.
func (b *batch) take() *frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sealLocked()
}

func (b *batch) sealLocked() *frame {
	if b.count == 0 {
		return nil
	}
	b.timer.Stop()
	e, pooled := newEncoder(4 + len(b.e.b))
	e.u32(uint32(b.count))
	e.b = append(e.b, b.e.b...)
	b.c.t.stats.HeartbeatFrames.Add(1)
	b.c.t.stats.Heartbeats.Add(uint64(b.count))
	h := header{kind: b.kind, flags: b.flags}
	b.e.b, b.count, b.flags = b.e.b[:0], 0, 0
	return seal(h, e, pooled)
}

func (b *batch) stop() {
	b.mu.Lock()
	b.stopped = true
	b.timer.Stop()
	b.mu.Unlock()
}

// heartbeat sends one group's heartbeat and waits for its reply; with prompt, both leave at once.
func (g *Group) heartbeat(server raft.ServerID, target raft.ServerAddress, r *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, prompt bool, stop <-chan struct{}) error {
	if err := checkNames(r.ID, r.Addr, r.Leader); err != nil {
		return err
	}
	c, err := g.t.connTo(target, purposeControl, stop)
	if err != nil {
		return err
	}
	cl := newCall(kindHeartbeatReplies, resp)
	if err := c.register(cl, g.t.cfg.ControlTimeout); err != nil {
		cl.free()
		return err
	}
	id := cl.id
	c.beats.add(prompt, func(e *encoder) {
		e.u64(id)
		e.u64(uint64(g.id))
		e.u64(serverHash(server))
		e.u64(r.Term)
		e.names(r.RPCHeader, r.Leader)
	})
	return c.wait(cl, stop, errStopped)
}

// beat is one heartbeat on its way to a group's raft.
type beat struct {
	c      *conn
	id     uint64
	target uint64
	prompt bool // the reply is to leave at once
	req    raft.AppendEntriesRequest
}

// serveHeartbeats hands the heartbeats of one frame to their groups, each of which runs raft's handler on its own
// goroutine: the handler may block on the stable store when the term changes, for as long as the disk is full.
func (c *conn) serveHeartbeats(flags uint8, payload []byte) error {
	d := &decoder{b: payload}
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		b := beat{c: c, id: d.u64(), prompt: flags&flagPrompt != 0}
		group := GroupID(d.u64())
		b.target = d.u64()
		b.req.Term = d.u64()
		b.req.RPCHeader, b.req.Leader = d.names()
		if d.err == nil && b.req.Term == 0 {
			d.fail("heartbeat of term 0")
		}
		if d.err != nil {
			break
		}
		if code, err := c.t.deliverBeat(group, b); code != codeOK {
			c.refuseBeat(b.id, code, err)
		}
	}
	return d.end()
}

func (t *Transport) deliverBeat(id GroupID, b beat) (uint16, error) {
	g := t.group(id)
	if g == nil {
		return codeUnknownGroup, ErrUnknownGroup
	}
	if !g.meant(b.target) {
		return codeWrongServer, ErrWrongServer
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.ended:
		return codeGroupClosed, ErrGroupClosed
	case len(g.beats) == cap(g.beats):
		return codeBusy, ErrBusy
	}
	g.beats <- b
	g.start()
	return codeOK, nil
}

func (c *conn) refuseBeat(id uint64, code uint16, err error) {
	c.t.stats.Refused.Add(1)
	c.beats.add(false, func(e *encoder) {
		e.u64(id)
		e.u16(code)
		e.str([]byte(cutText(err.Error())))
	})
}

func (c *conn) answerBeat(id uint64, r *raft.AppendEntriesResponse, prompt bool) {
	c.beats.add(prompt, func(e *encoder) {
		e.u64(id)
		e.u16(codeOK)
		e.appendReply(r)
	})
}

// heartbeatReplies completes the heartbeats that a frame of replies answers.
func (c *conn) heartbeatReplies(payload []byte) error {
	d := &decoder{b: payload}
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		id := d.u64()
		code := d.u16()
		var r raft.AppendEntriesResponse
		var failure error
		if code == codeOK {
			r = d.appendReply()
		} else {
			failure = remoteFailure(code, 0, string(d.str()))
		}
		if d.err == nil {
			c.heartbeatReply(id, r, failure)
		}
	}
	return d.end()
}

func (c *conn) heartbeatReply(id uint64, r raft.AppendEntriesResponse, failure error) {
	cl := c.claim(id)
	if cl == nil {
		return
	}
	resp, ok := cl.resp.(*raft.AppendEntriesResponse)
	switch {
	case !ok:
		failure = fmt.Errorf("%w: heartbeat reply to another request", errMalformed)
	case failure == nil:
		*resp = r
	}
	cl.finish(failure)
}
