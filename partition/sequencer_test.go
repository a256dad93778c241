package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// fakeRaft is raft's queue of proposals without raft: a test decides what becomes of each.
type fakeRaft struct {
	state *state

	mu      sync.Mutex
	term    uint64 // that this replica leads, 0: none
	hint    raft.ServerAddress
	index   uint64
	pending []*fakeFuture
}

type fakeFuture struct {
	data    []byte
	barrier bool
	done    chan struct{}
	err     error
	res     any
}

func (f *fakeFuture) Error() error {
	<-f.done
	return f.err
}
func (f *fakeFuture) Response() any { return f.res }

func (f *fakeFuture) resolve(res any, err error) {
	f.res, f.err = res, err
	close(f.done)
}

func (r *fakeRaft) enqueue(f *fakeFuture) future {
	f.done = make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, f)
	return f
}

func (r *fakeRaft) propose(data []byte) future { return r.enqueue(&fakeFuture{data: data}) }
func (r *fakeRaft) barrier() future            { return r.enqueue(&fakeFuture{barrier: true}) }

func (r *fakeRaft) leads(term uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term != 0 && r.term == term
}

func (r *fakeRaft) leader() (raft.ServerAddress, raft.ServerID, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hint, "", r.term
}

func (r *fakeRaft) take() *fakeFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 {
		return nil
	}
	f := r.pending[0]
	r.pending = r.pending[1:]
	return f
}

// commit applies the oldest proposal at the given term.
func (r *fakeRaft) commit(term uint64) bool {
	f := r.take()
	if f == nil {
		return false
	}
	if f.barrier {
		f.resolve(nil, nil)
		return true
	}
	f.resolve(r.apply(term, f.data), nil)
	return true
}

func (r *fakeRaft) apply(term uint64, data []byte) any {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.index++
	res, err := r.state.apply(&raft.Log{Index: r.index, Term: term, Data: data, AppendedAt: time.Unix(1000, 0)})
	if err != nil {
		panic(err)
	}
	return res
}

// fakeDisk is a log's disk for the space guard.
type fakeDisk struct {
	free int64
	last error
}

func (d *fakeDisk) FreeSpace() (int64, error) { return d.free, nil }
func (d *fakeDisk) LastStoreError() error     { return d.last }

func newTestSequencer() (*sequencer, *fakeRaft, *fakeDisk) {
	st := &state{}
	r, d := &fakeRaft{state: st}, &fakeDisk{free: 1000}
	return &sequencer{
		name: "t/0", raft: r, state: st, space: &spaceGuard{log: d, reserve: 100},
		budget: NewBudget(1<<20, 10), least: 1 << 10, ready: 5 * time.Second, opened: func(uint64) {},
	}, r, d
}

// sequencerStory tells what an idempotent producer sees.
type sequencerStory struct {
	seq  *sequencer
	raft *fakeRaft
	disk *fakeDisk
	mu   sync.Mutex
	out  strings.Builder
}

func TestSequencerTraces(t *testing.T) {
	runTraces(t, "sequencer_*.txt", func(t *testing.T) func(traceCommand) string {
		seq, r, d := newTestSequencer()
		t.Cleanup(func() {
			seq.close(ErrClosed)
			for f := r.take(); f != nil; f = r.take() {
				f.resolve(nil, raft.ErrRaftShutdown)
			}
			seq.wg.Wait()
		})
		return (&sequencerStory{seq: seq, raft: r, disk: d}).do
	})
}

func (st *sequencerStory) say(format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	fmt.Fprintf(&st.out, format+"\n", args...)
}

func (st *sequencerStory) do(c traceCommand) string {
	st.run(c)
	synctest.Wait()
	st.mu.Lock()
	defer st.mu.Unlock()
	out := st.out.String()
	st.out.Reset()
	return out
}

func (st *sequencerStory) run(c traceCommand) {
	r := st.raft
	switch c.name {
	case "lead": // win an election
		r.mu.Lock()
		r.term, r.hint = uint64(c.num("term", 1)), "self"
		r.mu.Unlock()
		st.seq.lead(r.term)
	case "follow": // lose leadership; proposals get their outcome by "lose" or "refuse"
		r.mu.Lock()
		r.term, r.hint = 0, raft.ServerAddress(c.args["leader"])
		r.mu.Unlock()
		st.seq.follow()
	case "append":
		go st.append(c)
	case "commit":
		for range c.num("count", 1) {
			if !r.commit(uint64(c.num("term", int64(r.term)))) {
				st.say("nothing is in flight")
			}
			synctest.Wait()
		}
	case "refuse", "lose", "full":
		err := map[string]error{"refuse": raft.ErrLeadershipTransferInProgress, "lose": raft.ErrLeadershipLost, "full": raftlog.ErrNoSpace}[c.name]
		for range c.num("count", 1) {
			r.take().resolve(nil, err)
			synctest.Wait()
		}
	case "other": // another leader appends and commits
		b := batchOf(c)
		record.Stamp(b, st.seq.state.next, int32(c.num("term", 0)))
		r.apply(uint64(c.num("term", 0)), b)
	case "late": // a lost proposal was committed by the next leader after all
		st.say("committed after all: %v", r.apply(uint64(c.num("term", 0)), c.lateBatch()).(applyResult).accepted)
	case "depose": // raft no longer leads, which the replica has not noticed yet
		r.mu.Lock()
		r.term = 0
		r.mu.Unlock()
	case "queue":
		r.mu.Lock()
		st.say("in raft's queue: %d", len(r.pending))
		r.mu.Unlock()
	case "disk":
		st.disk.free = c.num("free", 0)
	case "wait":
		time.Sleep(time.Duration(c.num("ms", 0)) * time.Millisecond)
	case "pause":
		st.say("paused: %v", st.seq.pause())
	case "resume":
		st.seq.resume()
	default:
		st.say("no such command: %s", c.name)
	}
}

// lateBatch is the batch as it was stamped when it was proposed.
func (c traceCommand) lateBatch() []byte {
	b := batchOf(c)
	record.Stamp(b, record.Offset(c.num("base", 0)), int32(c.num("term", 0)))
	return b
}

func (st *sequencerStory) append(c traceCommand) {
	name := c.args["as"]
	b := batchOf(c)
	h, _ := record.ParseHeader(b)
	sub := submission{data: b, batch: true, header: h}
	if c.has("expect") {
		at := record.Offset(c.num("expect", 0))
		sub.expected = &at
	}
	sub.reply = func(res proposalResult) { st.say("%s: %s", name, describe(res)) }
	if err := st.seq.submit(context.Background(), sub); err != nil {
		st.say("%s: refused: %s", name, short(err))
	}
}

func describe(res proposalResult) string {
	switch {
	case res.err != nil:
		return "failed: " + short(res.err)
	case res.duplicate:
		return fmt.Sprintf("stored before at offset %d", res.header.BaseOffset)
	}
	return fmt.Sprintf("stored at offset %d, epoch %d", res.header.BaseOffset, res.header.LeaderEpoch)
}

func short(err error) string {
	if errors.Is(err, ErrOutcomeUnknown) {
		return "outcome unknown"
	}
	return strings.TrimPrefix(err.Error(), "t/0: ")
}
