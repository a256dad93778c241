package transport

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// call is one request in flight. Whoever takes it out of its connection's pending map, and nobody else, may
// touch resp and must either finish it or forget it; so the waiter's resp is never written after it returned.
type call struct {
	id       uint64
	want     kind
	deadline time.Duration // in the transport's clock; 0 for none
	resp     any           // where the reply goes
	err      error
	done     chan struct{} // receives once, from finish
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newCall(want kind, resp any) *call {
	cl := callPool.Get().(*call)
	cl.want, cl.resp, cl.err, cl.deadline = want, resp, nil, 0
	return cl
}

// free gives the call back. The caller owns it: done was received, or it was abandoned before.
func (cl *call) free() {
	cl.resp, cl.err = nil, nil
	callPool.Put(cl)
}

func (cl *call) finish(err error) {
	cl.err = err
	cl.done <- struct{}{}
}

// decode stores a reply, whole or not at all: raft's pipeline looks at a response without looking at its error.
func (cl *call) decode(payload []byte) error {
	d := &decoder{b: payload}
	switch resp := cl.resp.(type) {
	case *raft.AppendEntriesResponse:
		if r := d.appendReply(); d.end() == nil {
			*resp = r
		}
	case *raft.RequestVoteResponse:
		if h, term, granted := d.voteReply(); d.end() == nil {
			*resp = raft.RequestVoteResponse{RPCHeader: h, Term: term, Granted: granted}
		}
	case *raft.RequestPreVoteResponse:
		if h, term, granted := d.voteReply(); d.end() == nil {
			*resp = raft.RequestPreVoteResponse{RPCHeader: h, Term: term, Granted: granted}
		}
	case *raft.TimeoutNowResponse:
		if h, _ := d.names(); d.end() == nil {
			*resp = raft.TimeoutNowResponse{RPCHeader: h}
		}
	case *[]byte:
		*resp = payload
	default:
		return fmt.Errorf("no place for a reply of kind %d", cl.want)
	}
	return d.err
}

// register makes a call known to the connection, before its request is sent.
func (c *conn) register(cl *call, timeout time.Duration) error {
	if timeout > 0 {
		cl.deadline = c.t.now() + timeout
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.nextID++
	cl.id = c.nextID
	c.pending[cl.id] = cl
	return nil
}

// claim takes a call out of the pending ones, nil when it is not there.
func (c *conn) claim(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.pending[id]
	if cl != nil {
		delete(c.pending, id)
	}
	return cl
}

// wait waits for a registered call and frees it.
func (c *conn) wait(cl *call, stop <-chan struct{}, stopErr error) error {
	var err error
	select {
	case <-cl.done:
		err = cl.err
	case <-stop:
		err = stopErr
		c.abandon(cl)
	}
	cl.free()
	return err
}

// abandon gives up a registered call. Afterwards nobody else touches it: when its reply is being handled at this
// moment, abandon waits for that.
func (c *conn) abandon(cl *call) {
	if c.claim(cl.id) == nil {
		<-cl.done
	}
}

// expire fails the calls whose time is up. A connection that has been silent since a request on it was sent
// is not merely slow for one group: it is reported as stalled, and the caller closes it.
func (c *conn) expire(now time.Duration) (stalled bool) {
	var late []*call
	c.mu.Lock()
	for id, cl := range c.pending {
		if cl.deadline != 0 && now >= cl.deadline {
			late = append(late, cl)
			delete(c.pending, id)
		}
	}
	c.mu.Unlock()
	quiet := now - time.Duration(c.lastRead.Load())
	for _, cl := range late {
		cl.finish(fmt.Errorf("broker %s: %w", c.peer, ErrTimeout))
	}
	return len(late) > 0 && c.purpose == purposeControl && quiet >= c.t.cfg.ControlTimeout
}
