package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// Method names one kind of broker-to-broker call. Numbers are part of the protocol and never reused.
type Method uint16

// Handler answers one call. ctx ends when the caller's time is up, when it gives up, when the connection is lost or
// when the transport closes; a handler must return soon after, as Close waits for it. An error reaches the caller as
// a *RemoteError; a handler that returns one, wrapped or not, chooses its code. The handler owns payload; what it
// returns must not be changed afterwards.
type Handler func(ctx context.Context, from raft.ServerAddress, payload []byte) ([]byte, error)

// Handle registers the handler of a method, once, before peers call it; nil removes it.
func (t *Transport) Handle(m Method, h Handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h == nil {
		delete(t.handlers, m)
		return
	}
	t.handlers[m] = h
}

func (t *Transport) handler(m Method) Handler {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.handlers[m]
}

// Call runs a method on a broker and waits for its result. A call to this broker itself runs the handler here, in
// the caller's goroutine, and fails in the same ways.
//
// Errors: ErrUnreachable (ErrRefused), ErrBusy, ErrNoHandler and ErrTooLarge say that nothing was executed;
// ErrConnLost and the context's error, that it may have been; a *RemoteError is the handler's own.
func (t *Transport) Call(ctx context.Context, to raft.ServerAddress, m Method, payload []byte) ([]byte, error) {
	result, err := t.call(ctx, to, m, payload)
	var remote *RemoteError
	if err == nil || errors.As(err, &remote) {
		return result, err
	}
	if err == errStopped {
		err = context.Cause(ctx)
		if err == nil {
			err = ErrClosed
		}
	}
	return nil, fmt.Errorf("call of method %d on broker %s: %w", m, to, err)
}

func (t *Transport) call(ctx context.Context, to raft.ServerAddress, m Method, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(payload) > t.cfg.MaxFrameBytes {
		return nil, fmt.Errorf("%d bytes: %w", len(payload), ErrTooLarge)
	}
	if to == t.cfg.Local {
		return t.callLocal(ctx, m, payload)
	}
	c, err := t.connTo(to, purposeCall, ctx.Done())
	if err != nil {
		return nil, err
	}
	return c.call(ctx, m, payload)
}

func (t *Transport) callLocal(ctx context.Context, m Method, payload []byte) ([]byte, error) {
	if t.ctx.Err() != nil {
		return nil, ErrClosed
	}
	h := t.handler(m)
	if h == nil {
		return nil, ErrNoHandler
	}
	result, err := h(ctx, t.cfg.Local, payload)
	if err != nil {
		return nil, asRemote(err)
	}
	return result, nil
}

func (c *conn) call(ctx context.Context, m Method, payload []byte) ([]byte, error) {
	var result []byte
	cl := newCall(kindCallReply, &result)
	if err := c.register(cl, 0); err != nil {
		cl.free()
		return nil, err
	}
	id := cl.id
	f := bytesFrame(header{kind: kindCall, code: uint16(m), budgetMs: budget(ctx), id: id}, payload)
	if err := c.send(f, ctx.Done()); err != nil {
		c.abandon(cl)
		cl.free()
		return nil, err
	}
	err := c.wait(cl, ctx.Done(), errStopped)
	if err == errStopped {
		c.post(emptyFrame(header{kind: kindCancel, id: id}))
	}
	return result, err
}

// budget is what is left of the caller's time, in ms; 0 means no limit.
func budget(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := time.Until(deadline).Milliseconds()
	return uint32(min(max(left, 1), math.MaxUint32))
}

// serveCall starts a call's handler, or refuses it when too many are running.
func (c *conn) serveCall(h header, payload []byte) {
	handler := c.t.handler(Method(h.code))
	if handler == nil {
		c.refuseCall(h, codeNoHandler, ErrNoHandler)
		return
	}
	select {
	case c.t.calls <- struct{}{}:
	default:
		c.refuseCall(h, codeBusy, ErrBusy)
		return
	}
	ctx, cancel := c.callContext(h)
	started := c.t.spawn(func() {
		defer func() { <-c.t.calls }()
		defer c.cancelServing(h.id)
		defer cancel()
		c.reply(ctx, h, func() ([]byte, error) { return handler(ctx, c.peer, payload) })
	})
	if !started {
		<-c.t.calls
		c.cancelServing(h.id)
	}
}

// callContext makes the context of a call being handled and enters it among those that a cancel frame, or the
// connection's end, cancels.
func (c *conn) callContext(h header) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.t.ctx)
	if h.budgetMs > 0 {
		cancel()
		ctx, cancel = context.WithTimeout(c.t.ctx, time.Duration(h.budgetMs)*time.Millisecond)
	}
	c.mu.Lock()
	lost := c.err != nil
	if !lost {
		c.serving[h.id] = cancel
	}
	c.mu.Unlock()
	if lost {
		cancel()
	}
	return ctx, cancel
}

func (c *conn) cancelServing(id uint64) {
	c.mu.Lock()
	cancel := c.serving[id]
	delete(c.serving, id)
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (c *conn) refuseCall(h header, code uint16, err error) {
	c.t.stats.Refused.Add(1)
	c.post(errorFrame(h, code, 0, err.Error()))
}

// reply runs the handler and sends its result, waiting for room in the send queue: results may be large.
func (c *conn) reply(ctx context.Context, h header, run func() ([]byte, error)) {
	result, err := run()
	var f *frame
	switch {
	case err != nil:
		re := asRemote(err)
		f = errorFrame(h, codeHandler, re.Code, re.Text)
	case len(result) > c.t.cfg.MaxFrameBytes:
		f = errorFrame(h, codeTooLarge, 0, "")
	default:
		f = bytesFrame(header{kind: kindCallReply, id: h.id}, result)
	}
	_ = c.send(f, ctx.Done()) // a lost connection or a caller that gave up has nobody to tell
}
