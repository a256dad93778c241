package transport

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pipelineIdle ends a pipeline that carries nothing: it costs two goroutines and two queues for each follower, and raft makes another one with the next entries.
const pipelineIdle = 10 * time.Second

// AppendEntriesPipeline implements raft.Transport. The pipeline lives on one connection and ends with it.
func (g *Group) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if g.opts.MaxInflight < 2 || g.isFar(id) || g.quiet() {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	c, err := g.t.connTo(target, purposeData, g.closed)
	if err != nil {
		return nil, g.failure("pipeline", target, err)
	}
	p := &pipeline{
		g: g, c: c, server: id, target: target,
		win:   window{maxCount: g.opts.MaxInflight, maxBytes: g.opts.MaxInflightBytes},
		order: make(chan *part, g.opts.MaxInflight),
		ready: make(chan raft.AppendFuture, g.opts.MaxInflight),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return nil, g.failure("pipeline", target, ErrGroupClosed)
	}
	g.wg.Add(1)
	go p.run()
	return p, nil
}

// pipeline keeps several AppendEntries requests under way to one follower and hands their futures to raft in the
// order of sending. Its goroutine ends with Close or with the group.
type pipeline struct {
	g      *Group
	c      *conn
	server raft.ServerID
	target raft.ServerAddress
	win    window     // the frames under way
	order  chan *part // the same, in order of sending; never full, because win lets in no more
	ready  chan raft.AppendFuture
	once   sync.Once
	stop   chan struct{}
	done   chan struct{}

	mu    sync.Mutex // orders a late AppendEntries and the end of run
	ended bool
}

// part is one frame of a request.
type part struct {
	f    *appendFuture
	call *call
	resp raft.AppendEntriesResponse
	size int64
	last bool
}

// AppendEntries implements raft.AppendPipeline. It waits while the window is full. args is not changed; when it is larger
// than MaxAppendBytes it travels in parts. It must not be called by two goroutines at a time; raft does not.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.g.grew(args)
	p.g.carries(args)
	if behind(args, pipelineSlack) {
		p.g.note(p.server, true)
		return nil, p.failure(errFar)
	}
	f := &appendFuture{start: time.Now(), args: args, resp: resp, done: make(chan struct{})}
	requests := split(args, p.g.t.cfg.MaxAppendBytes)
	for i, r := range requests {
		if err := p.send(f, r, i == len(requests)-1); err != nil {
			return nil, p.failure(err) // f is forgotten; nobody else has it
		}
	}
	return f, nil
}

// send sends one part. Without its last part a future is not run's to complete.
func (p *pipeline) send(f *appendFuture, r *raft.AppendEntriesRequest, last bool) error {
	pt := &part{f: f, size: entryBytes(r.Entries), last: last}
	if !p.win.enter(pt.size, p.stop, p.c.done) {
		return errStopped
	}
	// Without entries it is raft's periodic word about the commit index. Outside of a pipeline it is not: there a new leader finds out how far a follower is.
	lazy := len(r.Entries) == 0 && !p.g.opts.Prompt
	cl, err := p.g.sendAppend(p.c, p.server, r, &pt.resp, lazy, p.stop)
	if err != nil {
		p.win.leave(1, pt.size)
		return err
	}
	pt.call = cl
	if !p.enqueue(pt) {
		p.c.abandon(cl)
		cl.free()
		return errStopped
	}
	return nil
}

func (p *pipeline) enqueue(pt *part) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.order <- pt
	}
	return !p.ended
}

func (p *pipeline) failure(err error) error {
	select {
	case <-p.stop:
		return raft.ErrPipelineShutdown
	default:
	}
	if lost := p.c.failure(); err == errStopped && lost != nil {
		err = lost
	}
	return p.g.failure("append entries", p.target, err)
}

// carries notes a request that has entries.
func (g *Group) carries(args *raft.AppendEntriesRequest) {
	if len(args.Entries) > 0 {
		g.carried.Store(int64(g.t.now()))
	}
}

// quiet tells whether the group has sent no entries for a while.
func (g *Group) quiet() bool { return g.t.now()-time.Duration(g.carried.Load()) > pipelineIdle }

// retire makes raft leave a pipeline that is idle: it does, without a word, after an answer that refuses. There is nothing that it would send again.
func (p *pipeline) retire(f *appendFuture) {
	if len(f.args.Entries) == 0 && p.g.quiet() {
		f.resp.Success = false
	}
}

// split cuts a request into requests of at most limit bytes of entries, each following the one before.
func split(args *raft.AppendEntriesRequest, limit int) []*raft.AppendEntriesRequest {
	n := fitting(args.Entries, limit)
	if n == len(args.Entries) {
		return []*raft.AppendEntriesRequest{args}
	}
	var parts []*raft.AppendEntriesRequest
	for rest := *args; ; {
		part := rest
		part.Entries = rest.Entries[:n]
		parts = append(parts, &part)
		if n == len(rest.Entries) {
			return parts
		}
		last := rest.Entries[n-1]
		rest.PrevLogEntry, rest.PrevLogTerm, rest.Entries = last.Index, last.Term, rest.Entries[n:]
		n = fitting(rest.Entries, limit)
	}
}

func entryBytes(entries []*raft.Log) int64 {
	n := int64(0)
	for _, l := range entries {
		n += int64(logBytes(l))
	}
	return n
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.ready }

// Close implements raft.AppendPipeline. Requests in flight are given up; their futures fail.
func (p *pipeline) Close() error {
	p.once.Do(func() {
		close(p.stop)
		<-p.done
		p.dismiss()
	})
	return nil
}

// dismiss has raft's decoder of this pipeline end, with a refusal, if it still waits. raft ends it before it closes the pipeline, unless the goroutine that does so found damage in the log and
// ended in the middle (see package partition): then nobody else does, and the replica could not be closed.
func (p *pipeline) dismiss() {
	refusal := emptyFuture()
	refusal.finish(raft.ErrPipelineShutdown)
	for {
		select {
		case p.ready <- refusal:
			return
		case <-p.ready: // full; run has ended, so there is room now
		}
	}
}

func (p *pipeline) run() {
	defer p.g.wg.Done()
	defer close(p.done)
	defer p.drain()
	lost := (<-chan struct{})(p.c.done)
	for {
		select {
		case pt := <-p.order:
			if !p.await(pt) {
				return
			}
		case <-lost:
			if lost = nil; len(p.order) == 0 && !p.leave() {
				return
			}
		case <-p.stop:
			return
		case <-p.g.closed:
			return
		}
	}
}

// emptyFuture is one that belongs to no request.
func emptyFuture() *appendFuture {
	return &appendFuture{start: time.Now(), args: &raft.AppendEntriesRequest{}, resp: &raft.AppendEntriesResponse{}, done: make(chan struct{})}
}

// leave makes raft leave a pipeline whose connection ended while nothing was under way. It would find out with the next entries otherwise, and not send those again before
// something else makes it send.
func (p *pipeline) leave() bool {
	f := emptyFuture()
	f.err = p.g.failure("pipeline", p.target, p.c.failure())
	return p.hand(f)
}

// await waits for a part's answer and, with the last, hands the future to raft. It returns false when the pipeline ends.
func (p *pipeline) await(pt *part) bool {
	select {
	case <-pt.call.done:
	case <-p.stop:
		p.giveUp(pt)
		return false
	case <-p.g.closed:
		p.giveUp(pt)
		return false
	}
	err := pt.call.err
	pt.call.free()
	p.win.leave(1, pt.size)
	pt.f.merge(pt, err)
	return !pt.last || p.hand(pt.f)
}

// hand gives a completed future to raft, failed ones too: raft then leaves the pipeline.
func (p *pipeline) hand(f *appendFuture) bool {
	f.complete()
	if f.err == nil {
		p.g.heard(p.server, f.args, f.resp)
		p.retire(f)
	}
	select {
	case p.ready <- f:
		return true
	case <-p.stop:
	case <-p.g.closed:
	}
	return false
}

func (p *pipeline) giveUp(pt *part) {
	p.c.abandon(pt.call)
	pt.call.free()
	p.win.leave(1, pt.size)
	if pt.last {
		pt.f.finish(raft.ErrPipelineShutdown)
	}
}

// drain gives up what is still in order. Nothing is put there afterwards.
func (p *pipeline) drain() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	for {
		select {
		case pt := <-p.order:
			p.giveUp(pt)
		default:
			return
		}
	}
}

// appendFuture implements raft.AppendFuture. Until done is closed only the pipeline's goroutine changes it.
type appendFuture struct {
	start  time.Time
	args   *raft.AppendEntriesRequest
	resp   *raft.AppendEntriesResponse
	answer raft.AppendEntriesResponse // of the first part that was refused, else of the latest
	failed bool                       // a part was refused or failed
	err    error
	done   chan struct{}
}

// Start implements raft.AppendFuture.
func (f *appendFuture) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *appendFuture) Request() *raft.AppendEntriesRequest { return f.args }

// Response implements raft.AppendFuture. raft reads it without asking for the error first, so it stays zero, which is
// a refusal, unless the request was answered.
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

// Error implements raft.Future.
func (f *appendFuture) Error() error {
	<-f.done
	return f.err
}

// merge takes a part's outcome in. After one part was refused those behind it are refused for want of it, so the
// first refusal is the one that says something.
func (f *appendFuture) merge(pt *part, err error) {
	if f.failed {
		return
	}
	f.failed = err != nil || !pt.resp.Success
	f.answer, f.err = pt.resp, err
}

func (f *appendFuture) complete() {
	if f.err == nil {
		*f.resp = f.answer
	}
	close(f.done)
}

func (f *appendFuture) finish(err error) {
	f.err = err
	close(f.done)
}
