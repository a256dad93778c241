package group

import (
	"context"
	"sync"

	"github.com/flotilla-log/flotilla/broker/api"
)

// batchBytes is up to where events are combined into one proposal; a single one may be larger.
const batchBytes = 1 << 20

// queue combines what waits into one proposal after the other. While one is on its way the next collects, so nothing waits when it is
// idle, and under load a proposal carries the commits of many groups. Events keep their order, since one proposal is
// under way at a time.
type queue struct {
	t    *term
	kick chan struct{}

	mu     sync.Mutex
	events []*proposal
	bytes  int
	closed bool
}

// proposal is one event on its way. done is called once, on the proposer's goroutine, and must not block.
type proposal struct {
	event []byte
	done  func(Result, *api.Error)
}

func newQueue(t *term) *queue { return &queue{t: t, kick: make(chan struct{}, 1)} }

// propose replicates an event and waits for its outcome. The error says that there is none (yet); Result.Err that it was refused.
// After a timeout the event may still happen.
func (t *term) propose(ctx context.Context, ev Event) (Result, error) {
	type outcome struct {
		res Result
		err *api.Error
	}
	ch := make(chan outcome, 1)
	if err := t.queue.add(ev, func(res Result, err *api.Error) { ch <- outcome{res, err} }); err != nil {
		return Result{}, err
	}
	select {
	case o := <-ch:
		if o.err != nil {
			return Result{}, o.err
		}
		return o.res, nil
	case <-ctx.Done():
		return Result{}, timedOut(ctx)
	}
}

// add queues an event. Unless it returns an error, done will be called.
func (q *queue) add(ev Event, done func(Result, *api.Error)) error {
	p := &proposal{event: encodeEvent(ev), done: done}
	s := q.t.c.settings
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return q.t.c.notCoordinator()
	case len(p.event) > s.CommandBytesMax-commandOverhead:
		return api.Errorf(api.CodeMessageTooLarge, "group %q: a request of %d bytes exceeds the limit of %d", ev.groupID(), len(p.event), s.CommandBytesMax-commandOverhead)
	case q.bytes+len(p.event) > s.QueueBytesMax:
		return api.Errorf(api.CodeThrottled, "group %q: its coordinator has %d bytes waiting; try again", ev.groupID(), q.bytes)
	}
	q.events = append(q.events, p)
	q.bytes += len(p.event)
	nudge(q.kick)
	return nil
}

// commandOverhead is what a command has beside its events, in bytes, at most.
const commandOverhead = 64

func (q *queue) run() {
	defer q.close()
	for {
		select {
		case <-q.t.ctx.Done():
			return
		case <-q.kick:
		}
		for batch := q.take(); len(batch) > 0; batch = q.take() {
			q.send(batch)
		}
	}
}

// take removes as many events as go into one proposal, at least one if there is any.
func (q *queue) take() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.events) && (n == 0 || size+len(q.events[n].event) <= batchBytes) {
		size += len(q.events[n].event)
		n++
	}
	batch := q.events[:n:n]
	q.events = q.events[n:]
	if len(q.events) == 0 {
		q.events = nil
	}
	q.bytes -= size
	return batch
}

func (q *queue) send(batch []*proposal) {
	events := make([][]byte, len(batch))
	for i, p := range batch {
		events[i] = p.event
	}
	results, err := q.propose(encodeCommand(q.t.c.limits, events), len(batch))
	for i, p := range batch {
		if err != nil {
			p.done(Result{}, err)
		} else {
			p.done(results[i], nil)
		}
	}
}

func (q *queue) propose(cmd []byte, n int) ([]Result, *api.Error) {
	if q.t.over() {
		return nil, q.t.c.notCoordinator()
	}
	ctx, cancel := context.WithTimeout(q.t.ctx, q.t.c.settings.ProposeTimeout)
	defer cancel()
	v, err := q.t.c.cfg.Propose(ctx, cmd)
	if err != nil {
		return nil, q.t.proposeError(err)
	}
	switch v := v.(type) {
	case []Result:
		if len(v) == n {
			return v, nil
		}
	case error:
		return nil, api.Errorf(api.CodeCoordinatorNotAvailable, "%s: %w", q.t.c.cfg.Name, v)
	}
	return nil, api.Errorf(api.CodeInternal, "%s: a group command came to a result of type %T", q.t.c.cfg.Name, v)
}

// close fails what still waits.
func (q *queue) close() {
	q.mu.Lock()
	rest := q.events
	q.events, q.closed = nil, true
	q.mu.Unlock()
	for _, p := range rest {
		p.done(Result{}, q.t.c.notCoordinator())
	}
}
