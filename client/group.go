package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// GroupConsumer reads the partitions that its group assigns to it, beginning where the group has committed.
//
// Rebalances take effect inside Poll: it calls the callbacks and drops partitions there, so records that an earlier Poll returned have been
// dealt with by then. A program must therefore call Poll again within the rebalance timeout; heartbeats go on by themselves. With the cooperative
// strategy, partitions that stay are read on during a rebalance.
//
// With automatic commits, records count as dealt with when Poll is called again, or Close. So a record is dealt with at least once: after a crash, what was not
// yet committed comes again.
//
// It owns a goroutine (run), which ends in Close, and a Consumer. Poll is for one goroutine at a time (others wait); all else is safe for concurrent
// use, but Poll and Close must not be called from a callback. Locks: pollMu before mu.
type GroupConsumer struct {
	client   *Client
	cfg      groupConfig
	group    string
	topics   []string
	consumer *Consumer
	co       coordinator

	ctx       context.Context // ends at Close
	cancel    context.CancelFunc
	closing   sync.Once
	abort     chan struct{} // closed when Close waits no longer for a first join
	wg        sync.WaitGroup
	interrupt chan struct{} // capacity 1: Poll has something other than records to look at
	beat      chan struct{} // capacity 1: send a heartbeat now

	pollMu sync.Mutex // held by Poll and Close

	mu         sync.Mutex
	memberID   string
	generation int32 // -1: not a member
	changed    chan struct{}
	task       *safeTask // waits for Poll
	inTask     bool
	fatal      error
	owned      map[TopicPartition]bool
	ownedIn    int32                     // generation in which owned was assigned; -1
	delivered  map[TopicPartition]Commit // after what Poll has returned
	processed  map[TopicPartition]Commit // after what it had returned when it was called again
	committed  map[TopicPartition]int64
}

// Commit is an offset to commit: that of the next record to read, with a free text.
type Commit struct {
	Offset      int64  `json:"offset"`
	LeaderEpoch int32  `json:"leader_epoch"` // -1: unknown
	Metadata    string `json:"metadata,omitempty"`
}

// safeTask is something that must run inside Poll, between two batches of records.
type safeTask struct {
	run  func(context.Context)
	late bool // Close runs it too, if Poll has not
	done chan struct{}
}

// joinPatience is how long Close waits for the answer to a first join, without which the member does not know the ID under which to leave.
const joinPatience = 10 * time.Second

// NewGroupConsumer joins a group to read topics. It does not wait for that; Poll does. Close it to leave the group.
func (c *Client) NewGroupConsumer(group string, topics []string, opts ...GroupOption) (*GroupConsumer, error) {
	cfg := defaultGroupConfig()
	for _, o := range opts {
		o.applyGroup(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if group == "" || len(topics) == 0 {
		return nil, errors.New("client: a group consumer needs a group and topics")
	}
	g := &GroupConsumer{
		client: c, cfg: cfg, group: group, topics: slices.Clone(topics), consumer: c.newConsumer(cfg.consumer),
		abort: make(chan struct{}), interrupt: make(chan struct{}, 1), beat: make(chan struct{}, 1), generation: -1, ownedIn: -1, changed: make(chan struct{}),
		owned: make(map[TopicPartition]bool), delivered: make(map[TopicPartition]Commit), processed: make(map[TopicPartition]Commit),
		committed: make(map[TopicPartition]int64),
	}
	g.ctx, g.cancel = context.WithCancel(c.ctx)
	g.wg.Go(g.run)
	return g, nil
}

// Poll waits until there is something to read, ctx ends or the consumer is closed, and returns records, in order within each partition, at most as
// many as WithMaxPollRecords says. Callbacks run inside it.
//
// An error with a Topic concerns that partition, as with Consumer.Poll. Errors of the membership that no retry will mend (CodeFencedInstance,
// CodeInconsistentProtocol) are returned from every Poll.
func (g *GroupConsumer) Poll(ctx context.Context) ([]*Record, error) {
	g.pollMu.Lock()
	defer g.pollMu.Unlock()
	g.settle()
	for {
		g.runTask(ctx)
		if g.ctx.Err() != nil {
			return nil, ErrClosed
		}
		if err := g.failure(); err != nil {
			return nil, err
		}
		rs, err := g.consumer.poll(ctx, g.interrupt)
		if rs = g.note(rs); len(rs) > 0 || err != nil {
			return rs, err
		}
	}
}

// settle counts all that was returned as dealt with.
func (g *GroupConsumer) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp, c := range g.delivered {
		g.processed[tp] = c
	}
}

// note remembers what Poll returns, and drops records of partitions that were lost a moment ago.
func (g *GroupConsumer) note(rs []*Record) []*Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	rs = slices.DeleteFunc(rs, func(r *Record) bool { return !g.owned[r.TopicPartition()] })
	for _, r := range rs {
		g.delivered[r.TopicPartition()] = Commit{Offset: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
	}
	return rs
}

func (g *GroupConsumer) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fatal
}

// runTask runs what waits for Poll. pollMu is held.
func (g *GroupConsumer) runTask(ctx context.Context) {
	g.mu.Lock()
	t := g.task
	g.task = nil
	g.inTask = t != nil
	g.mu.Unlock()
	if t == nil {
		return
	}
	t.run(ctx)
	g.mu.Lock()
	g.inTask = false
	g.mu.Unlock()
	close(t.done)
}

// Assigned returns the partitions that the member has, in order.
func (g *GroupConsumer) Assigned() []TopicPartition {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ownedList()
}

// ownedList needs mu.
func (g *GroupConsumer) ownedList() []TopicPartition {
	tps := make([]TopicPartition, 0, len(g.owned))
	for tp := range g.owned {
		tps = append(tps, tp)
	}
	sortPartitions(tps)
	return tps
}

// MemberID is the member's ID in the group; empty before it has joined.
func (g *GroupConsumer) MemberID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.memberID
}

// Generation is the generation of the group that the member is in; -1 before it has joined.
func (g *GroupConsumer) Generation() int32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.generation
}

// Pause keeps Poll from returning records of partitions until Resume; they stay assigned.
func (g *GroupConsumer) Pause(tps ...TopicPartition) { g.consumer.Pause(tps...) }

// Resume ends a Pause.
func (g *GroupConsumer) Resume(tps ...TopicPartition) { g.consumer.Resume(tps...) }

// Seek goes on reading an assigned partition elsewhere. What is committed does not change by that.
func (g *GroupConsumer) Seek(tp TopicPartition, p Position) error { return g.consumer.Seek(tp, p) }

// Position returns the offset of the next record that Poll will return of a partition; see Consumer.Position.
func (g *GroupConsumer) Position(tp TopicPartition) (int64, bool) { return g.consumer.Position(tp) }

// HighWatermark returns a partition's high watermark as of the last fetch; see Consumer.HighWatermark.
func (g *GroupConsumer) HighWatermark(tp TopicPartition) (int64, bool) {
	return g.consumer.HighWatermark(tp)
}

// Close commits, if commits are automatic, what Poll has returned, calls OnRevoked and leaves the group; a static member only falls silent, and
// keeps its partitions until its session ends. A Poll under way returns ErrClosed. The error is that of the last commit.
func (g *GroupConsumer) Close(ctx context.Context) error {
	var err error
	g.closing.Do(func() { err = g.close(ctx) })
	return err
}

func (g *GroupConsumer) close(ctx context.Context) error {
	g.cancel()
	signal(g.interrupt)
	patience, cancel := context.WithTimeout(ctx, joinPatience)
	stop := context.AfterFunc(patience, func() { close(g.abort) })
	g.wg.Wait()
	stop()
	cancel()
	g.pollMu.Lock()
	defer g.pollMu.Unlock()
	if g.dueLate() {
		g.runTask(ctx)
	}
	g.mu.Lock()
	g.task, g.inTask = nil, true // commits in the callback must not wait for a rebalance
	tps := g.ownedList()
	g.mu.Unlock()
	g.settle()
	err := g.giveUp(ctx, tps)
	_ = g.consumer.Close()
	g.leave(ctx)
	return err
}

func (g *GroupConsumer) dueLate() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.task != nil && g.task.late
}

func (g *GroupConsumer) leave(ctx context.Context) {
	id := g.MemberID()
	if id == "" || g.cfg.instanceID != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(g.client.cfg.requestTimeout, 5*time.Second))
	defer cancel()
	if err := g.sendLeave(ctx, id); err != nil {
		g.client.cfg.logger.Warn("cannot leave the group; its session will have to run out", "group", g.group, "error", err)
	}
}

func (g *GroupConsumer) String() string {
	return fmt.Sprintf("member %q of group %q", g.MemberID(), g.group)
}
