package transport

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// pair is two brokers with one group each, whose consumers the test serves itself.
func pair(t *testing.T, opts GroupOptions, change ...func(*Config)) (f *fleet, leader, follower *Group) {
	f = newFleet(t)
	a, b := f.start("1", change...), f.start("2", change...)
	return f, f.group(a, 1, GroupOptions{MaxInflight: opts.MaxInflight, MaxInflightBytes: opts.MaxInflightBytes}),
		f.group(b, 1, GroupOptions{CheckResponse: opts.CheckResponse, ServerID: opts.ServerID, HasEntry: opts.HasEntry})
}

func entry(prev uint64, size int) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 2, Leader: []byte("1"), PrevLogEntry: prev, PrevLogTerm: 1,
		Entries: []*raft.Log{{Index: prev + 1, Term: 2, Data: make([]byte, size)}}, LeaderCommitIndex: prev}
}

func beatRequest() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 2, Leader: []byte("1")}
}

var success = &raft.AppendEntriesResponse{Term: 2, Success: true}

func TestReplyWaitsForRaft(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	var resp raft.AppendEntriesResponse
	done := make(chan error, 1)
	go func() { done <- leader.AppendEntries("2", "2", entry(4, 10), &resp) }()
	rpc := <-follower.Consumer()
	// A whole exchange over the same connection: if a reply had been on its way, it would have overtaken it.
	other, err := follower.t.Group(2, GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { respond(<-other.Consumer(), success, nil) }()
	lg2, err := leader.t.Group(2, GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var resp2 raft.AppendEntriesResponse
	if err := lg2.AppendEntries("2", "2", entry(4, 10), &resp2); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("answered before raft did: %v", err)
	default:
	}
	rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: true, LastLog: 5}, nil)
	if err := <-done; err != nil || resp.LastLog != 5 {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestConnectionLossFailsAllInFlight(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{MaxInflight: 8})
	p, err := leader.AppendEntriesPipeline("2", "2")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var futures []raft.AppendFuture
	for i := range 8 {
		fut, err := p.AppendEntries(entry(uint64(i), 100), &raft.AppendEntriesResponse{})
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, fut)
	}
	<-follower.Consumer()
	follower.t.PeerDown("1") // the follower cuts the connection
	within(t, 5*time.Second, "failing", func() {
		for i, want := range futures {
			got := <-p.Consumer()
			if got != want || !errors.Is(got.Error(), ErrConnLost) || got.Response().Success {
				t.Errorf("future %d: %v", i, got.Error())
			}
		}
	})
	if _, err := p.AppendEntries(entry(9, 1), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrConnLost) {
		t.Errorf("using the pipeline afterwards: %v", err)
	}
	// A new one works, over a new connection.
	eventually(t, "a new pipeline", func() bool {
		p2, err := leader.AppendEntriesPipeline("2", "2")
		if err != nil {
			return false
		}
		p2.Close()
		return true
	})
}

// A pipeline whose connection ends while it carries nothing refuses, so that raft leaves it before it has entries to send.
func TestConnectionLossEndsIdlePipeline(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{MaxInflight: 8})
	p, err := leader.AppendEntriesPipeline("2", "2")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	eventually(t, "the connection at the follower, to be cut", func() bool {
		follower.t.PeerDown("1")
		return p.(*pipeline).c.failure() != nil
	})
	within(t, 5*time.Second, "a refusal", func() {
		got := <-p.Consumer()
		if !errors.Is(got.Error(), ErrConnLost) || got.Response().Success || len(got.Request().Entries) > 0 {
			t.Errorf("%+v, %v", got.Response(), got.Error())
		}
	})
}

// Who reads a pipeline's answers is refused at its end, however many answers nobody has read.
func TestClosedPipelineDismissesItsReader(t *testing.T) {
	for _, answered := range []int{0, 1, 2} {
		_, leader, follower := pair(t, GroupOptions{MaxInflight: 2})
		p, err := leader.AppendEntriesPipeline("2", "2")
		if err != nil {
			t.Fatal(err)
		}
		for i := range answered {
			f, err := p.AppendEntries(entry(uint64(i), 10), &raft.AppendEntriesResponse{})
			if err != nil {
				t.Fatal(err)
			}
			respond(<-follower.Consumer(), success, nil)
			if err := f.Error(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all answers", func() bool { return len(p.Consumer()) == answered })
		p.Close()
		within(t, 5*time.Second, "a refusal", func() {
			for f := range p.Consumer() {
				if !f.Response().Success {
					return
				}
			}
		})
		p.Close()
	}
}

// The window makes the sender wait, and Close ends the waiting.
func TestPipelineWindowAndClose(t *testing.T) {
	for name, opts := range map[string]GroupOptions{"count": {MaxInflight: 3}, "bytes": {MaxInflight: 60, MaxInflightBytes: 3000}} {
		t.Run(name, func(t *testing.T) {
			_, leader, _ := pair(t, opts)
			p, err := leader.AppendEntriesPipeline("2", "2")
			if err != nil {
				t.Fatal(err)
			}
			var sent atomic.Int64
			ended := make(chan error, 1)
			go func() {
				for i := uint64(0); ; i++ {
					if _, err := p.AppendEntries(entry(i, 1000), &raft.AppendEntriesResponse{}); err != nil {
						ended <- err
						return
					}
					sent.Add(1)
				}
			}()
			eventually(t, "a full window", func() bool { return sent.Load() == 3 })
			within(t, 5*time.Second, "closing", func() { p.Close() })
			if err := <-ended; !errors.Is(err, raft.ErrPipelineShutdown) {
				t.Errorf("the waiting sender: %v", err)
			}
			if n := sent.Load(); n != 3 {
				t.Errorf("%d requests in a window of 3", n)
			}
		})
	}
}

func TestGroupCloseUnblocks(t *testing.T) {
	_, leader, _ := pair(t, GroupOptions{})
	var wg sync.WaitGroup
	started := make(chan struct{}, 2)
	wg.Go(func() {
		started <- struct{}{}
		if err := leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrGroupClosed) {
			t.Errorf("append: %v", err)
		}
	})
	wg.Go(func() {
		started <- struct{}{}
		if err := leader.RequestVote("2", "2", &raft.RequestVoteRequest{RPCHeader: testHeader("1")}, &raft.RequestVoteResponse{}); !errors.Is(err, ErrGroupClosed) {
			t.Errorf("vote: %v", err)
		}
	})
	<-started
	<-started
	within(t, 2*time.Second, "closing", func() { leader.Close(); wg.Wait() })
	if err := leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrGroupClosed) {
		t.Errorf("append after close: %v", err)
	}
}

// A follower's group that closes answers what waits in it.
func TestFollowerCloseAnswers(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	done := make(chan error, 1)
	go func() {
		done <- leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{})
	}()
	eventually(t, "the request's arrival", func() bool { return follower.t.Stats().QueuedBytes > 0 })
	follower.Close()
	if err := <-done; !errors.Is(err, ErrGroupClosed) {
		t.Errorf("%v", err)
	}
	if n := follower.t.Stats().QueuedBytes; n != 0 {
		t.Errorf("%d bytes still accounted for", n)
	}
	if err := leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrUnknownGroup) {
		t.Errorf("afterwards: %v", err)
	}
}

// A group that answers nothing fills its own queue, and delays nobody else.
func TestSlowGroupBlocksNobody(t *testing.T) {
	f, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.AppendTimeout = time.Minute })
	const n = defaultMaxInflight + groupQueue + 20
	errs := make(chan error, n)
	for range n {
		go func() { errs <- leader.AppendEntries("2", "2", entry(1, 50_000), &raft.AppendEntriesResponse{}) }()
	}
	for i := range 20 {
		if err := <-errs; !errors.Is(err, ErrBusy) {
			t.Fatalf("refusal %d: %v", i, err)
		}
	}
	quick, quick2 := f.group(follower.t, 2, GroupOptions{}), f.group(leader.t, 2, GroupOptions{})
	go func() {
		for range 100 {
			respond(<-quick.Consumer(), success, nil)
		}
	}()
	within(t, 5*time.Second, "another group's requests", func() {
		for range 100 {
			if err := quick2.AppendEntries("2", "2", entry(1, 1000), &raft.AppendEntriesResponse{}); err != nil {
				t.Error(err)
			}
		}
	})
	follower.Close()
	for range n - 20 {
		<-errs
	}
}

func TestQueuedBytesAreBounded(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.MaxQueuedBytes = 100_000 })
	errs := make(chan error, 10)
	for range 10 {
		go func() { errs <- leader.AppendEntries("2", "2", entry(1, 30_000), &raft.AppendEntriesResponse{}) }()
	}
	for range 7 {
		if err := <-errs; !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
	}
	if n := follower.t.Stats().QueuedBytes; n > 100_000 || n < 90_000 {
		t.Errorf("%d bytes queued", n)
	}
	for range 3 {
		respond(<-follower.Consumer(), success, nil)
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "an empty queue", func() bool { return follower.t.Stats().QueuedBytes == 0 })
}

// Heartbeats of many groups, and their replies, share frames, and raft's consumer sees none of them.
func TestHeartbeatsAreCoalesced(t *testing.T) {
	f := newFleet(t)
	window := func(c *Config) { c.HeartbeatWindow = 50 * time.Millisecond }
	a, b := f.start("1", window), f.start("2", window)
	const n = 200
	var handled atomic.Int64
	var leaders []*Group
	for id := GroupID(1); id <= n; id++ {
		leaders = append(leaders, f.group(a, id, GroupOptions{}))
		g := f.group(b, id, GroupOptions{})
		g.SetHeartbeatHandler(func(rpc raft.RPC) {
			handled.Add(1)
			rpc.Respond(&raft.AppendEntriesResponse{Term: rpc.Command.(*raft.AppendEntriesRequest).Term, LastLog: uint64(g.id), Success: true}, nil)
		})
	}
	beat := func(g *Group) error {
		var resp raft.AppendEntriesResponse
		if err := g.AppendEntries("2", "2", beatRequest(), &resp); err != nil {
			return err
		}
		if resp.LastLog != uint64(g.id) || !resp.Success || resp.Term != 2 {
			return fmt.Errorf("group %d: %+v", g.id, resp)
		}
		return nil
	}
	if err := beat(leaders[0]); err != nil { // makes the connection
		t.Fatal(err)
	}
	before, before2 := a.Stats(), b.Stats()
	var wg sync.WaitGroup
	for _, g := range leaders {
		wg.Go(func() {
			if err := beat(g); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	requests, replies := a.Stats().HeartbeatFrames-before.HeartbeatFrames, b.Stats().HeartbeatFrames-before2.HeartbeatFrames
	if requests > 5 || replies > 5 {
		t.Errorf("%d heartbeats took %d frames, the replies %d", n, requests, replies)
	}
	if handled.Load() != n+1 {
		t.Errorf("%d heartbeats handled", handled.Load())
	}
}

// A heartbeat handler that blocks (raft storing a new term) delays neither other groups nor votes.
func TestBlockedHeartbeatHandler(t *testing.T) {
	f, leader, follower := pair(t, GroupOptions{})
	release, entered := make(chan struct{}), make(chan struct{})
	follower.SetHeartbeatHandler(func(rpc raft.RPC) {
		close(entered)
		<-release
		rpc.Respond(success, nil)
	})
	done := make(chan error, 1)
	go func() { done <- leader.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}) }()
	<-entered
	g2, l2 := f.group(follower.t, 2, GroupOptions{}), f.group(leader.t, 2, GroupOptions{})
	g2.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(success, nil) })
	go func() { respond(<-g2.Consumer(), &raft.RequestVoteResponse{Granted: true}, nil) }()
	if err := l2.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err != nil {
		t.Error(err)
	}
	var vote raft.RequestVoteResponse
	if err := l2.RequestVote("2", "2", &raft.RequestVoteRequest{RPCHeader: testHeader("1"), Term: 3}, &vote); err != nil || !vote.Granted {
		t.Errorf("%+v, %v", vote, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A handler whose goroutine ends, as package stable does it, leaves a group that still serves and closes.
func TestHeartbeatHandlerGoexit(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.ControlTimeout = 100 * time.Millisecond })
	follower.SetHeartbeatHandler(func(rpc raft.RPC) { runtime.Goexit() })
	if err := leader.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err == nil {
		t.Error("a heartbeat that nobody answered succeeded")
	}
	go func() { respond(<-follower.Consumer(), success, nil) }()
	eventually(t, "an answer to an append", func() bool {
		return leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}) == nil
	})
	within(t, 5*time.Second, "closing", func() { follower.Close() })
}

func TestHeartbeatBeforeRaftRuns(t *testing.T) {
	_, leader, _ := pair(t, GroupOptions{})
	if err := leader.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}

func TestTimeouts(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.ControlTimeout, c.AppendTimeout = 80*time.Millisecond, 80*time.Millisecond })
	if err := leader.RequestVote("2", "2", &raft.RequestVoteRequest{RPCHeader: testHeader("1")}, &raft.RequestVoteResponse{}); !errors.Is(err, ErrTimeout) {
		t.Errorf("vote: %v", err)
	}
	var resp raft.AppendEntriesResponse
	if err := leader.AppendEntries("2", "2", entry(1, 1), &resp); !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrConnLost) {
		t.Errorf("append: %v", err)
	}
	// The late answers go nowhere.
	respond(<-follower.Consumer(), &raft.RequestVoteResponse{}, nil)
	respond(<-follower.Consumer(), success, nil)
	go func() {
		for rpc := range follower.Consumer() {
			rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: true, LastLog: 77}, nil)
			return
		}
	}()
	eventually(t, "an answered append", func() bool {
		return leader.AppendEntries("2", "2", entry(1, 1), &resp) == nil
	})
	if resp.LastLog != 77 {
		t.Errorf("%+v", resp)
	}
}

func TestCheckResponse(t *testing.T) {
	full := errors.New("no space left")
	_, leader, follower := pair(t, GroupOptions{CheckResponse: func(_ *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
		if !r.Success {
			return full
		}
		return nil
	}})
	answers := []*raft.AppendEntriesResponse{{Term: 2, Success: true}, {Term: 2}, {Term: 9}}
	go func() {
		for _, a := range answers {
			respond(<-follower.Consumer(), a, nil)
		}
	}()
	var resp raft.AppendEntriesResponse
	if err := leader.AppendEntries("2", "2", entry(1, 1), &resp); err != nil || !resp.Success {
		t.Errorf("%+v, %v", resp, err)
	}
	if err := leader.AppendEntries("2", "2", entry(1, 1), &resp); err == nil || !strings.Contains(err.Error(), full.Error()) {
		t.Errorf("instead of a refusal: %v", err)
	}
	if err := leader.AppendEntries("2", "2", entry(1, 1), &resp); err != nil || resp.Term != 9 {
		t.Errorf("a newer term must get through: %+v, %v", resp, err)
	}
}

func TestServerID(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{ServerID: "2-new"})
	follower.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(success, nil) })
	all := map[string]func(id raft.ServerID) error{
		"append": func(id raft.ServerID) error {
			return leader.AppendEntries(id, "2", entry(1, 1), &raft.AppendEntriesResponse{})
		},
		"heartbeat": func(id raft.ServerID) error {
			return leader.AppendEntries(id, "2", beatRequest(), &raft.AppendEntriesResponse{})
		},
		"vote": func(id raft.ServerID) error {
			return leader.RequestVote(id, "2", &raft.RequestVoteRequest{RPCHeader: testHeader("1")}, &raft.RequestVoteResponse{})
		},
		"pre-vote": func(id raft.ServerID) error {
			return leader.RequestPreVote(id, "2", &raft.RequestPreVoteRequest{RPCHeader: testHeader("1")}, &raft.RequestPreVoteResponse{})
		},
		"timeout now": func(id raft.ServerID) error {
			return leader.TimeoutNow(id, "2", &raft.TimeoutNowRequest{RPCHeader: testHeader("1")}, &raft.TimeoutNowResponse{})
		},
		"snapshot": func(id raft.ServerID) error {
			return leader.InstallSnapshot(id, "2", snapshotRequest(3), &raft.InstallSnapshotResponse{}, strings.NewReader("abc"))
		},
	}
	for name, send := range all {
		if err := send("2-old"); !errors.Is(err, ErrWrongServer) {
			t.Errorf("%s to the old server: %v", name, err)
		}
	}
	go func() {
		for range len(all) - 1 {
			rpc := <-follower.Consumer()
			switch rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				rpc.Respond(success, nil)
			case *raft.RequestVoteRequest:
				rpc.Respond(&raft.RequestVoteResponse{}, nil)
			case *raft.RequestPreVoteRequest:
				rpc.Respond(&raft.RequestPreVoteResponse{}, nil)
			case *raft.TimeoutNowRequest:
				rpc.Respond(&raft.TimeoutNowResponse{}, nil)
			case *raft.InstallSnapshotRequest:
				_, _ = io.Copy(io.Discard, rpc.Reader)
				rpc.Respond(&raft.InstallSnapshotResponse{}, nil)
			}
		}
	}()
	for name, send := range all {
		if err := send("2-new"); err != nil {
			t.Errorf("%s to the new server: %v", name, err)
		}
	}
}

func snapshotRequest(size int64) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{RPCHeader: testHeader("1"), SnapshotVersion: 1, Term: 2, Leader: []byte("1"),
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers("1", "2")}), Size: size}
}

// A snapshot of an entry that the follower has is answered without raft, which would replace the log by it.
func TestSnapshotOfWhatIsThere(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{HasEntry: func(index, term uint64) bool { return index <= 7 && term == 1 }})
	for _, c := range []struct {
		index, term uint64
		there       bool
	}{{7, 1, true}, {8, 1, false}, {7, 2, false}} {
		asked := make(chan bool, 1)
		stop := make(chan struct{})
		go func() {
			select {
			case rpc := <-follower.Consumer():
				_, _ = io.Copy(io.Discard, rpc.Reader)
				rpc.Respond(&raft.InstallSnapshotResponse{Term: 2}, nil)
				asked <- true
			case <-stop:
				asked <- false
			}
		}()
		req, resp := snapshotRequest(3), raft.InstallSnapshotResponse{}
		req.LastLogIndex, req.LastLogTerm = c.index, c.term
		err := leader.InstallSnapshot("2", "2", req, &resp, strings.NewReader("abc"))
		close(stop)
		if byRaft := <-asked; err != nil || resp.Success != c.there || resp.Term != 2 || byRaft == c.there {
			t.Errorf("entry %d of term %d: %+v, %v, by raft: %t", c.index, c.term, resp, err, byRaft)
		}
	}
}

func TestSnapshotStream(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	data := strings.Repeat("0123456789", 200_000) // several chunks and a bit
	t.Run("whole", func(t *testing.T) {
		go func() {
			rpc := <-follower.Consumer()
			got, err := io.ReadAll(rpc.Reader)
			if err != nil || string(got) != data {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Term: 2, Success: true}, nil)
		}()
		var resp raft.InstallSnapshotResponse
		err := leader.InstallSnapshot("2", "2", snapshotRequest(int64(len(data))), &resp, strings.NewReader(data))
		if err != nil || !resp.Success || resp.Term != 2 {
			t.Errorf("%+v, %v", resp, err)
		}
	})
	t.Run("refused unread", func(t *testing.T) {
		go func() { respond(<-follower.Consumer(), nil, errors.New("not now")) }()
		err := leader.InstallSnapshot("2", "2", snapshotRequest(1000), &raft.InstallSnapshotResponse{}, strings.NewReader(data))
		if err == nil || !strings.Contains(err.Error(), "not now") {
			t.Errorf("%v", err)
		}
	})
	t.Run("source too short", func(t *testing.T) {
		read := make(chan error, 1)
		go func() {
			rpc := <-follower.Consumer()
			_, err := io.Copy(io.Discard, rpc.Reader)
			read <- err
			rpc.Respond(&raft.InstallSnapshotResponse{}, err)
		}()
		err := leader.InstallSnapshot("2", "2", snapshotRequest(100), &raft.InstallSnapshotResponse{}, strings.NewReader("short"))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("sender: %v", err)
		}
		if err := <-read; err == nil {
			t.Error("the receiver took a cut snapshot for a whole one")
		}
	})
	t.Run("too large", func(t *testing.T) {
		err := leader.InstallSnapshot("2", "2", snapshotRequest(1<<40), &raft.InstallSnapshotResponse{}, strings.NewReader("x"))
		if err == nil {
			t.Error("accepted")
		}
	})
	t.Run("leader closes", func(t *testing.T) {
		started := make(chan struct{})
		go func() {
			rpc := <-follower.Consumer()
			close(started)
			_, err := io.Copy(io.Discard, rpc.Reader)
			rpc.Respond(&raft.InstallSnapshotResponse{}, err)
		}()
		pr, pw := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- leader.InstallSnapshot("2", "2", snapshotRequest(1000), &raft.InstallSnapshotResponse{}, pr)
		}()
		<-started
		closed := make(chan struct{})
		go func() { leader.Close(); close(closed) }()
		eventually(t, "the leader's group closing", func() bool { return leader.t.group(1) == nil })
		pw.Write(make([]byte, 1000))
		within(t, 5*time.Second, "ending", func() {
			if err := <-done; err == nil {
				t.Error("a snapshot succeeded after its group closed")
			}
			<-closed
		})
	})
}

func respond(rpc raft.RPC, resp any, err error) { rpc.Respond(resp, err) }
