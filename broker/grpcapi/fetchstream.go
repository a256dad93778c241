package grpcapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

type fetchServer = grpc.BidiStreamingServer[pb.FetchRequest, pb.FetchResponse]

// fetchStream is one Fetch call. The handler's goroutine fetches and sends; one other goroutine reads the client's messages into the
// session and interrupts a long poll that a message has made stale.
type fetchStream struct {
	svc     *logService
	stream  fetchServer
	session fetchSession
}

// streamMessageBytes bounds one message of a stream, but for a single batch that is larger: gRPC holds two for a client that does not read.
const streamMessageBytes = 1 << 20

// maxCredit keeps sums of credit far from overflowing. No client has use for more.
const maxCredit = int64(1) << 40

// fetchSession is what the client has asked for so far.
type fetchSession struct {
	mu         sync.Mutex
	partitions map[api.TopicPartition]*fetchCursor
	order      []*fetchCursor // those served last come last
	credit     int64
	minBytes   int
	maxWait    time.Duration
	decode     bool
	started    bool
	ended      bool // the client sends no more
	changed    chan struct{}
	interrupt  context.CancelFunc // of the long poll under way; nil: none
}

// fetchCursor is where the stream is in one partition.
type fetchCursor struct {
	tp       api.TopicPartition
	offset   record.Offset
	maxBytes int
	session  uint64
	// What the client was told last; a change is sent even without data. told is false until the first message.
	told                    bool
	highWatermark, logStart record.Offset
}

func (s *logService) Fetch(stream fetchServer) error {
	f := &fetchStream{svc: s, stream: stream}
	f.session.partitions = map[api.TopicPartition]*fetchCursor{}
	f.session.changed = make(chan struct{}, 1)
	ctx, cancel := joinStop(stream.Context(), s.stopping)
	defer cancel()
	return toStatus(s.orStopping(f.run(ctx)))
}

// run returns nil when the client has ended its side and cannot be sent anything more.
func (f *fetchStream) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go f.readAll(ctx, cancel)
	for {
		req, cursors, wait := f.session.next(f.svc.opts)
		var err error
		switch {
		case len(cursors) > 0:
			err = f.fetchOnce(ctx, req, cursors)
		case !wait:
			return nil
		default:
			select {
			case <-f.session.changed:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// readAll takes the client's messages in until its last one. A malformed one ends the call.
func (f *fetchStream) readAll(ctx context.Context, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil {
		m, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			f.session.end()
			return
		}
		if err == nil {
			err = f.session.update(m, f.svc)
		}
		if err != nil {
			cancel(err)
			return
		}
	}
}

// update applies one message of the client.
func (s *fetchSession) update(m *pb.FetchRequest, svc *logService) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// More credit than none, or other partitions: what is under way is stale. Mere further credit is not worth an interruption.
	if s.credit <= 0 || len(m.GetAdd())+len(m.GetRemove()) > 0 {
		defer s.wake()
	}
	if !s.started {
		s.started = true
		s.minBytes = int(min(max(m.GetMinBytes(), 1), int64(svc.opts.MaxFetchBytes)))
		s.maxWait = 500 * time.Millisecond
		if m.GetMaxWaitMs() > 0 {
			s.maxWait = clampWait(m.GetMaxWaitMs())
		}
		s.decode = m.GetDecode()
	}
	if m.GetCreditBytes() < 0 {
		return invalid("credit of %d bytes: it cannot be taken back", m.GetCreditBytes())
	}
	s.credit = min(s.credit+min(m.GetCreditBytes(), maxCredit), maxCredit)
	for _, p := range m.GetRemove() {
		s.drop(api.TopicPartition{Topic: p.GetTopic(), Partition: p.GetPartition()})
	}
	for _, p := range m.GetAdd() {
		s.add(p, svc)
	}
	if len(s.partitions) > svc.opts.MaxFetchPartitions {
		s.order = nil // nothing is fetched for a call that is about to end
		return invalid("the stream has more than %d partitions", svc.opts.MaxFetchPartitions)
	}
	return nil
}

func (s *fetchSession) add(p *pb.FetchPartition, svc *logService) {
	tp := api.TopicPartition{Topic: p.GetTopic(), Partition: p.GetPartition()}
	s.drop(tp)
	c := &fetchCursor{tp: tp, offset: record.Offset(p.GetOffset()), maxBytes: svc.clampFetch(p.GetMaxBytes()), session: p.GetSession()}
	s.partitions[tp] = c
	s.order = append(s.order, c)
}

func (s *fetchSession) drop(tp api.TopicPartition) {
	c := s.partitions[tp]
	if c == nil {
		return
	}
	delete(s.partitions, tp)
	for i, o := range s.order {
		if o == c {
			s.order = append(s.order[:i], s.order[i+1:]...)
			return
		}
	}
}

// wake makes the handler look again. Held: mu.
func (s *fetchSession) wake() {
	if s.interrupt != nil {
		s.interrupt()
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *fetchSession) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

// next says what to fetch. Without credit or partitions there are no cursors, and wait says whether the client may still change that.
func (s *fetchSession) next(o Options) (req api.FetchRequest, cursors []*fetchCursor, wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit <= 0 || len(s.order) == 0 {
		return req, nil, !s.ended
	}
	req = api.FetchRequest{MinBytes: s.minBytes, MaxBytes: int(min(s.credit, int64(o.MaxFetchBytes), streamMessageBytes)), MaxWait: s.maxWait}
	req.MinBytes = min(req.MinBytes, req.MaxBytes)
	cursors = append(cursors, s.order...)
	for _, c := range cursors {
		if !c.told {
			req.MaxWait = 0 // the client hears at once where a new partition stands
		}
		req.Partitions = append(req.Partitions, api.FetchPartition{TopicPartition: c.tp, Offset: c.offset, MaxBytes: c.maxBytes})
	}
	return req, cursors, true
}

// poll derives the context of one long poll, which update ends early.
func (s *fetchSession) poll(ctx context.Context) (context.Context, context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pctx, cancel := context.WithCancel(ctx)
	select {
	case <-s.changed: // a message came between next and here: do not wait
		cancel()
	default:
	}
	s.interrupt = cancel
	return pctx, cancel
}

func (f *fetchStream) fetchOnce(ctx context.Context, req api.FetchRequest, cursors []*fetchCursor) error {
	pctx, cancel := f.session.poll(ctx)
	results, release, err := f.svc.fetch(pctx, req)
	release = sync.OnceFunc(release)
	defer release()
	interrupted := pctx.Err() != nil
	cancel()
	if err != nil {
		if interrupted && ctx.Err() == nil {
			return nil
		}
		return err
	}
	held, err := f.svc.holdResults(ctx, results, release)
	if err != nil || held == nil && bytesOf(results) > 0 {
		return err // later
	}
	m := f.session.take(results, cursors, f.svc.opts)
	m.held = held
	if len(m.resp.Partitions) == 0 {
		held.release()
		return nil
	}
	if f.session.decode {
		held.grow(int64(proto.Size(m.resp)))
	}
	// A client that does not read must not keep others from reading: it holds one message in memory, but no longer the budget.
	defer time.AfterFunc(sendPatience, release).Stop()
	if err := f.stream.SendMsg(m); err != nil {
		held.release()
		return err
	}
	return nil
}

// sendPatience is how long data on its way to a client counts against the budget for fetched data.
const sendPatience = time.Second

// take moves the cursors over what was read, charges the credit, and makes the message. Results of partitions that the client has
// removed or re-positioned meanwhile are dropped.
func (s *fetchSession) take(results []api.FetchResult, cursors []*fetchCursor, o Options) *fetchMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	byTP := make(map[api.TopicPartition]*fetchCursor, len(cursors))
	for _, c := range cursors {
		byTP[c.tp] = c
	}
	m := &fetchMessage{resp: &pb.FetchResponse{}}
	var dec *decoder
	if s.decode {
		dec = newDecoder(o)
	}
	for _, r := range results {
		c := byTP[r.TopicPartition]
		if c == nil || s.partitions[c.tp] != c {
			continue
		}
		if d := s.advance(c, &r, dec); d != nil {
			if dec != nil || d.Error != nil { // what was decoded refers to the batches
				r.Batches, r.Release = nil, nil
			}
			m.resp.Partitions = append(m.resp.Partitions, d)
			m.batches = append(m.batches, r.Batches)
			m.releases = append(m.releases, r.Release)
		}
	}
	return m
}

// advance returns nil if there is nothing that the client does not know.
func (s *fetchSession) advance(c *fetchCursor, r *api.FetchResult, dec *decoder) *pb.FetchPartitionData {
	if dec != nil && dec.left <= 0 && len(r.Batches) > 0 {
		return nil // the message is full: it comes with the next one
	}
	news := !c.told || r.Err != nil || len(r.Batches) > 0 || r.HighWatermark != c.highWatermark || r.LogStart != c.logStart
	if !news {
		c.offset = max(r.Next, c.offset)
		return nil
	}
	d := toPartitionData(r, c.offset, dec)
	if r.Err == nil {
		c.told, c.highWatermark, c.logStart = true, r.HighWatermark, r.LogStart
		c.offset = max(r.Next, c.offset)
	}
	d.Session = c.session
	s.credit -= int64(sizeOf(r.Batches))
	s.drop(c.tp)
	if d.Error == nil { // a failed partition leaves the stream; a served one goes to the end of the queue
		s.partitions[c.tp] = c
		s.order = append(s.order, c)
	}
	return d
}
