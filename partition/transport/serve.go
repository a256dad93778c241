package transport

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// replier is where a reply goes.
type replier interface{ post(*frame) }

// served is one request from a peer, from its arrival to raft's answer.
type served struct {
	rpc   raft.RPC
	reply chan raft.RPCResponse // raft sends exactly once; buffered, so that raft never waits
	h     header
	size  int64
	to    replier
}

var servedPool = sync.Pool{New: func() any { return &served{reply: make(chan raft.RPCResponse, 1)} }}

func newServed(h header, command any, size int, to replier) *served {
	s := servedPool.Get().(*served)
	s.rpc = raft.RPC{Command: command, RespChan: s.reply}
	s.h, s.size, s.to = h, int64(size), to
	return s
}

// free gives back a request that raft has answered, so that nobody will send on reply again.
func (s *served) free() {
	s.rpc, s.to = raft.RPC{}, nil
	servedPool.Put(s)
}

func (s *served) refuse(code uint16, err error) {
	s.to.post(errorFrame(s.h, code, 0, err.Error()))
}

// serveAppend decodes a replication request and queues it for its group.
func (c *conn) serveAppend(h header, payload []byte) error {
	req, err := decodeAppend(payload)
	if err == nil {
		err = checkSender(c.peer, req.Addr)
	}
	if err != nil {
		return fmt.Errorf("append entries of raft group %d: %w", h.group, err)
	}
	c.t.deliver(newServed(h, req, len(payload), c))
	return nil
}

// serveControl decodes a small request and queues it for its group.
func (c *conn) serveControl(h header, payload []byte) error {
	command, addr, err := decodeControl(h.kind, payload)
	if err == nil {
		err = checkSender(c.peer, addr)
	}
	if err != nil {
		return err
	}
	switch r := command.(type) {
	case *raft.RequestPreVoteRequest:
		if c.t.answerPreVote(h, r, c) {
			return nil
		}
	case *raft.RequestVoteRequest:
		c.t.admit(h, r)
	case *raft.TimeoutNowRequest:
		c.t.unstick(h.group)
	}
	c.t.deliver(newServed(h, command, len(payload), c))
	return nil
}

func decodeControl(k kind, payload []byte) (command any, addr []byte, err error) {
	d := &decoder{b: payload}
	switch k {
	case kindVote:
		r := d.voteRequest()
		command, addr = r, r.Addr
	case kindPreVote:
		r := d.preVoteRequest()
		command, addr = r, r.Addr
	case kindTimeoutNow:
		r := &raft.TimeoutNowRequest{}
		r.RPCHeader, _ = d.names()
		command, addr = r, r.Addr
	default:
		d.fail("frame of kind %d on a control connection", k)
	}
	return command, addr, d.end()
}

// deliver queues a request for its group, or refuses it. It never waits.
func (t *Transport) deliver(s *served) {
	code, err := t.tryDeliver(s)
	if code == codeOK {
		return
	}
	t.stats.Refused.Add(1)
	s.refuse(code, err)
	s.free()
}

func (t *Transport) tryDeliver(s *served) (uint16, error) {
	g := t.group(s.h.group)
	if g == nil {
		return codeUnknownGroup, ErrUnknownGroup
	}
	if !g.meant(s.h.target) {
		return codeWrongServer, ErrWrongServer
	}
	if t.queued.tryEnter(s.size) != nil {
		return codeBusy, ErrBusy
	}
	code, err := g.enqueue(s)
	if code != codeOK {
		t.queued.leave(1, s.size)
	}
	return code, err
}

// meant tells whether a request is meant for this replica. Addresses in configurations are broker IDs, so after a
// broker lost a replica and got a new one, others may still address the old. If the new one, empty, answered, it would vote and
// acknowledge in the name of a server that knew more.
func (g *Group) meant(target uint64) bool {
	return target == 0 || g.server == 0 || target == g.server
}

// enqueue puts a request into both queues. The lock keeps their order the same; room is checked before, and only
// enqueue fills them, so that neither send waits.
func (g *Group) enqueue(s *served) (uint16, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.ended:
		return codeGroupClosed, ErrGroupClosed
	case len(g.consumer) == cap(g.consumer) || len(g.inflight) == cap(g.inflight):
		return codeBusy, ErrBusy
	}
	g.hand(s)
	return codeOK, nil
}

// hand puts a request into both queues. There is room; mu is held.
func (g *Group) hand(s *served) {
	g.inflight <- s
	g.consumer <- s.rpc
	g.start()
}

// start has run look, which exists only while there is something to do: most of a broker's thousands of groups are idle. mu is held, and the group has not ended.
func (g *Group) start() {
	if !g.running {
		g.running = true
		g.wg.Add(1)
		go g.run()
	}
}

// rest tells run to return, if nothing waits.
func (g *Group) rest() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || len(g.inflight) > 0 || len(g.beats) > 0 {
		return false
	}
	g.running = false
	return true
}

// lingerFor is for how long run waits for the next request, if the last came as soon after the one before.
const lingerFor = time.Second

// run is the group's goroutine. raft takes requests one by one, so its answers come in the order of inflight.
//
// A heartbeat handler that cannot write its term ends its goroutine with runtime.Goexit (see package stable).
// Then run starts anew, so that the group can still be closed in order.
func (g *Group) run() {
	finished := false
	defer func() {
		if finished {
			g.wg.Done()
			return
		}
		go g.run()
	}()
	var linger *time.Timer
	var lingered <-chan time.Time
	for {
		next, answer := g.inflight, (chan raft.RPCResponse)(nil)
		switch {
		case g.current != nil:
			next, answer = nil, g.current.reply
		case !g.lively:
			if finished = g.rest(); finished {
				return
			}
		case linger == nil:
			linger = time.NewTimer(lingerFor)
			lingered = linger.C
			defer linger.Stop()
		}
		select {
		case b := <-g.beats:
			g.serveBeat(b, make(chan raft.RPCResponse, 1))
		case g.current = <-next:
			now := g.t.now()
			g.lively, g.latest = now-g.latest < lingerFor, now
		case r := <-answer:
			g.answer(g.current, r)
			g.current = nil
		case <-lingered:
			g.lively = g.t.now()-g.latest < lingerFor
			linger.Reset(lingerFor)
		case <-g.closed:
			g.drain()
			finished = true
			return
		}
	}
}

// serveBeat runs raft's handler, which answers before it returns unless raft is shutting down.
func (g *Group) serveBeat(b beat, reply chan raft.RPCResponse) {
	h := g.handler.Load()
	if h == nil || *h == nil {
		b.c.refuseBeat(b.id, codeBusy, ErrBusy)
		return
	}
	(*h)(raft.RPC{Command: &b.req, RespChan: reply})
	select {
	case r := <-reply:
		g.answerBeat(b, r)
	default:
		b.c.refuseBeat(b.id, codeGroupClosed, ErrGroupClosed)
	}
}

func (g *Group) answerBeat(b beat, r raft.RPCResponse) {
	resp, ok := r.Response.(*raft.AppendEntriesResponse)
	switch {
	case r.Error != nil:
		b.c.refuseBeat(b.id, codeRaft, r.Error)
	case !ok:
		b.c.refuseBeat(b.id, codeRaft, fmt.Errorf("unexpected response %T", r.Response))
	default:
		b.c.answerBeat(b.id, resp, b.prompt || g.opts.Prompt)
	}
}

// answer sends raft's answer.
func (g *Group) answer(s *served, r raft.RPCResponse) {
	if err := g.check(s, r); err != nil {
		s.refuse(codeRaft, err)
	} else {
		f := encodeReply(s.h, r.Response)
		f.lazy = s.h.flags&flagLazy != 0
		s.to.post(f)
	}
	g.t.queued.leave(1, s.size)
	s.free()
}

// check returns the error to send instead of the response.
func (g *Group) check(s *served, r raft.RPCResponse) error {
	if r.Error != nil {
		return r.Error
	}
	req, isAppend := s.rpc.Command.(*raft.AppendEntriesRequest)
	resp, ok := r.Response.(*raft.AppendEntriesResponse)
	if g.opts.CheckResponse == nil || !isAppend || !ok || resp.Term > req.Term {
		return nil
	}
	return g.opts.CheckResponse(req, resp)
}

func encodeReply(h header, response any) *frame {
	e, pooled := newEncoder(128)
	switch r := response.(type) {
	case *raft.AppendEntriesResponse:
		h.kind = kindAppendReply
		e.appendReply(r)
	case *raft.RequestVoteResponse:
		h.kind = kindVoteReply
		e.voteReply(r.RPCHeader, r.Term, r.Granted)
	case *raft.RequestPreVoteResponse:
		h.kind = kindPreVoteReply
		e.voteReply(r.RPCHeader, r.Term, r.Granted)
	case *raft.TimeoutNowResponse:
		h.kind = kindTimeoutNowReply
		e.names(r.RPCHeader, r.Addr)
	case *raft.InstallSnapshotResponse:
		h.kind = kindSnapshotReply
		e.voteReply(r.RPCHeader, r.Term, r.Success)
	default:
		return errorFrame(h, codeRaft, 0, fmt.Sprintf("unexpected response %T", response))
	}
	h.code, h.flags = 0, 0
	return seal(h, e, pooled)
}

// drain answers everything that still waits when the group closes. What raft may still hold is not pooled: raft could
// answer it yet.
func (g *Group) drain() {
	for {
		s := g.current
		g.current = nil
		if s == nil {
			select {
			case s = <-g.inflight:
			case b := <-g.beats:
				b.c.refuseBeat(b.id, codeGroupClosed, ErrGroupClosed)
				continue
			default:
				return
			}
		}
		s.refuse(codeGroupClosed, ErrGroupClosed)
		g.t.queued.leave(1, s.size)
	}
}
