package election

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/partition/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is replicas of one group whose raft is a table of facts: a campaign wins if a quorum of them does not know better. On a virtual clock.
type world struct {
	mu       sync.Mutex
	began    time.Time
	replicas []*replica
	gone     map[raft.ServerAddress]map[raft.ServerAddress]bool // by observer
	log      []string
}

// replica is a broker with the Raft and Group of its Elector.
type replica struct {
	w       *world
	server  raft.Server
	elector *Elector
	dead    bool

	state    raft.RaftState
	term     uint64
	leader   raft.ServerAddress
	last     position
	watchers []func(raft.ServerAddress, bool)
	handler  func(*raft.RequestPreVoteRequest) (bool, bool)
	admit    func(*raft.RequestVoteRequest)
	unknown  raft.ServerID // is in no configuration that this replica has
	asked    int           // pre-votes that this replica was asked for
	lose     bool
	stands   bool     // who loses goes on as a candidate
	stuck    []uint64 // what Campaign was told
	yielded  []uint64 // what StepDown was told
	claimant transport.Claimant
	disowned map[raft.ServerAddress]bool
	silence  map[raft.ServerID]time.Duration
	match    map[raft.ServerID]uint64
}

// newWorld makes n replicas that follow number 0, which leads in term 1.
func newWorld(t *testing.T, n int) *world {
	w := &world{began: time.Now(), gone: map[raft.ServerAddress]map[raft.ServerAddress]bool{}}
	for i := range n {
		addr := raft.ServerAddress(strconv.Itoa(i))
		r := &replica{w: w, server: raft.Server{ID: raft.ServerID("r" + addr), Address: addr}, term: 1, leader: "0", last: position{10, 1}, state: raft.Follower}
		w.replicas = append(w.replicas, r)
		w.gone[addr] = map[raft.ServerAddress]bool{}
	}
	w.replicas[0].state = raft.Leader
	for _, r := range w.replicas {
		r.elector = New(r, r, r.server.ID, func() { w.note("%s sends again", r.server.Address) }, hclog.NewNullLogger())
	}
	t.Cleanup(func() {
		for _, r := range w.replicas {
			r.elector.Close()
		}
	})
	return w
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%4d ms %s", time.Since(w.began).Milliseconds(), fmt.Sprintf(format, args...)))
}

// kill ends a replica; the given others notice.
func (w *world) kill(dead int, noticedBy ...int) {
	w.mu.Lock()
	w.replicas[dead].dead = true
	w.mu.Unlock()
	for _, i := range noticedBy {
		w.lose(i, dead)
	}
}

// lose has one broker take another for gone.
func (w *world) lose(observer, peer int) {
	w.mu.Lock()
	o, addr := w.replicas[observer], w.replicas[peer].server.Address
	w.gone[o.server.Address][addr] = true
	fns := o.watchers
	w.mu.Unlock()
	for _, fn := range fns {
		fn(addr, true)
	}
}

func (w *world) leaders() (out []raft.ServerAddress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.replicas {
		out = append(out, r.leader)
	}
	return out
}

func (r *replica) lock() func() { r.w.mu.Lock(); return r.w.mu.Unlock }

func (r *replica) State() raft.RaftState { defer r.lock()(); return r.state }
func (r *replica) CurrentTerm() uint64   { defer r.lock()(); return r.term }
func (r *replica) LeaderWithID() (raft.ServerAddress, raft.ServerID) {
	defer r.lock()()
	return r.leader, raft.ServerID("r" + r.leader)
}

func (r *replica) LastIndex() uint64   { defer r.lock()(); return r.last.index }
func (r *replica) CommitIndex() uint64 { defer r.lock()(); return r.last.index }

func (r *replica) StepDown(term uint64) bool {
	defer r.lock()()
	r.w.note("%s steps down", r.server.Address)
	r.yielded = append(r.yielded, term)
	r.term, r.state, r.leader = term, raft.Follower, ""
	return true
}

func (r *replica) SetClaimant(c transport.Claimant) { r.claimant = c }
func (r *replica) TellClaims()                      {}

func (r *replica) Disowned(leader raft.ServerAddress, _ uint64) bool {
	defer r.lock()()
	return r.disowned[leader]
}

func (r *replica) Silence(id raft.ServerID, _ uint64) (time.Duration, bool) {
	defer r.lock()()
	return r.silence[id], true
}

func (r *replica) Follower(id raft.ServerID, _ uint64) (transport.Follower, bool) {
	defer r.lock()()
	match, ok := r.match[id]
	if !ok {
		match = r.last.index
	}
	return transport.Follower{Match: match}, true
}

type configuration []raft.Server

func (c configuration) Error() error                      { return nil }
func (c configuration) Index() uint64                     { return 1 }
func (c configuration) Configuration() raft.Configuration { return raft.Configuration{Servers: c} }

func (r *replica) GetConfiguration() raft.ConfigurationFuture {
	var c configuration
	defer r.lock()()
	if r.last == (position{}) {
		return c // it has got nothing yet
	}
	for _, o := range r.w.replicas {
		if o.server.ID != r.unknown {
			c = append(c, o.server)
		}
	}
	return c
}

func (r *replica) Stats() map[string]string {
	defer r.lock()()
	snapshot := min(r.last.index, 3)
	return map[string]string{
		"last_log_index": fmt.Sprint(r.last.index), "last_log_term": fmt.Sprint(r.last.term),
		"last_snapshot_index": fmt.Sprint(snapshot), "last_snapshot_term": fmt.Sprint(min(snapshot, 1)),
	}
}

func (r *replica) Gone(a raft.ServerAddress) bool {
	defer r.lock()()
	return r.w.gone[r.server.Address][a]
}

func (r *replica) WatchGone(fn func(raft.ServerAddress, bool)) func() {
	defer r.lock()()
	r.watchers = append(r.watchers, fn)
	return func() {}
}

func (r *replica) SetPreVoteHandler(fn func(*raft.RequestPreVoteRequest) (bool, bool)) {
	r.handler = fn
}
func (r *replica) SetVoteHandler(fn func(*raft.RequestVoteRequest)) { r.admit = fn }
func (r *replica) LocalAddr() raft.ServerAddress                    { return r.server.Address }

// RequestPreVote asks the other replica's Elector, and then does what raft would.
func (r *replica) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	n, _ := strconv.Atoi(string(to))
	o := r.w.replicas[n]
	time.Sleep(time.Millisecond) // on the virtual clock
	unlock := r.lock()
	o.asked++
	dead := o.dead
	unlock()
	if dead {
		return errors.New("connection refused")
	}
	granted, answered := o.handler(req)
	defer r.lock()()
	if !answered {
		granted = o.leader == "" && req.Term >= o.term && !o.last.ahead(position{req.LastLogIndex, req.LastLogTerm}) && (o.unknown != raft.ServerID(req.ID) || o.last == position{})
	}
	r.w.note("%s asks %s: %t", r.server.Address, to, granted)
	resp.Granted, resp.Term = granted, req.Term
	if !answered {
		resp.Term = max(req.Term, o.term)
	}
	return nil
}

// Campaign wins at once, unless the replica is made to lose.
func (r *replica) Campaign(stuck uint64) bool {
	defer r.lock()()
	r.w.note("%s stands for election", r.server.Address)
	r.term = max(r.term, stuck) + 1
	r.stuck = append(r.stuck, stuck)
	if r.lose {
		if r.stands {
			r.state, r.leader = raft.Candidate, ""
		}
		return true
	}
	for _, o := range r.w.replicas {
		if !o.dead {
			o.term, o.leader, o.state = r.term, r.server.Address, raft.Follower
		}
	}
	r.state = raft.Leader
	return true
}

func (w *world) campaigns() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		if len(l) > 20 && l[len(l)-len("stands for election"):] == "stands for election" {
			n++
		}
	}
	return n
}

func (w *world) story(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		t.Log(l)
	}
}

func wantLeaders(t *testing.T, w *world, want ...raft.ServerAddress) {
	t.Helper()
	if got := w.leaders(); fmt.Sprint(got) != fmt.Sprint(want) {
		w.story(t)
		t.Fatalf("leaders as known by each replica: %v, not %v", got, want)
	}
}

// run runs f on a virtual clock.
func run(t *testing.T, n int, f func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, n)
		time.Sleep(time.Second)
		f(t, w)
	})
}

// within waits, on the virtual clock and no longer than d, until ok.
func (w *world) within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	const step = 5 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	for left := d; !ok(); left -= step {
		if left <= 0 {
			w.story(t)
			t.Fatalf("not within %s: %s; the leaders are %v", d, what, w.leaders())
		}
		<-tick.C
	}
}

// leadersWithin is wantLeaders as soon as it is so.
func leadersWithin(t *testing.T, w *world, d time.Duration, want ...raft.ServerAddress) {
	t.Helper()
	w.within(t, d, fmt.Sprintf("the leaders are %v", want), func() bool { return slices.Equal(w.leaders(), want) })
}

func TestFirstInLineWins(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.kill(0, 2, 1)
		time.Sleep(Stagger / 2)
		wantLeaders(t, w, "0", "1", "1")
		time.Sleep(10 * time.Second)
		if n := w.campaigns(); n != 1 {
			w.story(t)
			t.Errorf("%d elections", n)
		}
	})
}

func TestShorterLogLeavesTheFieldToTheNext(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.replicas[1].last = position{9, 1}
		w.kill(0, 1, 2)
		time.Sleep(3 * Stagger)
		wantLeaders(t, w, "0", "2", "2")
	})
}

// TestCandidateWithAShorterLogIsFarAhead: it has stood in several terms and cannot win; whoever could would never be voted for in an earlier term than it has.
func TestCandidateWithAShorterLogIsFarAhead(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		r := w.replicas[1]
		r.last, r.term, r.state, r.leader = position{9, 1}, 6, raft.Candidate, ""
		w.mu.Unlock()
		w.kill(0, 1, 2)
		leadersWithin(t, w, 3*time.Second, "0", "2", "2")
		w.mu.Lock()
		defer w.mu.Unlock()
		if term := w.replicas[2].term; term <= 6 {
			t.Errorf("elected in term %d, where another has stood in term 6", term)
		}
	})
}

// TestReplicaWithoutConfigurationVotes: a new replica has heard of its leader, got no entry of it, and then that leader is gone. Without its vote there is no quorum.
func TestReplicaWithoutConfigurationVotes(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		w.replicas[2].last = position{}
		w.mu.Unlock()
		w.kill(0, 1)
		w.within(t, time.Second, "it is asked several times", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.replicas[2].asked > 2 })
		wantLeaders(t, w, "0", "0", "0") // it has no evidence of its own
		w.lose(2, 0)
		leadersWithin(t, w, 2*time.Second, "0", "1", "1")
	})
}

// TestReplicaWithAnOlderConfigurationVotes: a voter that has not got the configuration yet in which another one has a vote. Without its own vote there is no quorum.
func TestReplicaWithAnOlderConfigurationVotes(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		r := w.replicas[2]
		r.unknown = w.replicas[1].server.ID
		r.last.index--
		w.mu.Unlock()
		w.kill(0, 1)
		w.within(t, time.Second, "it is asked several times", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return r.asked > 2 })
		wantLeaders(t, w, "0", "0", "0") // it has no evidence of its own
		w.lose(2, 0)
		leadersWithin(t, w, 2*time.Second, "0", "1", "1")
		for id, shown := range map[raft.ServerID]bool{r.unknown: false, w.replicas[0].server.ID: true} {
			req := &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(id)}, Term: 9}
			if r.admit(req); (len(req.ID) > 0) != shown {
				t.Errorf("a request for a vote for %s: raft is told that it is of %q", id, req.ID)
			}
		}
	})
}

// The others learn of it later: the first one tries again.
func TestEvidenceComesLater(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.kill(0, 1)
		time.Sleep(100 * time.Millisecond)
		wantLeaders(t, w, "0", "0", "0")
		w.lose(2, 0)
		time.Sleep(200 * time.Millisecond)
		got := w.leaders()
		if got[1] == "0" || got[1] != got[2] {
			w.story(t)
			t.Errorf("leaders %v", got)
		}
	})
}

// A cut link to the leader is no reason for an election, and soon no reason to ask often either.
func TestNoQuorumOfEvidence(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.lose(1, 0)
		time.Sleep(time.Hour)
		wantLeaders(t, w, "0", "0", "0")
		if n := w.replicas[2].asked; n < 2 || n > len(pauses)+int(time.Hour/slowly)+1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestFiveVotersNeedThree(t *testing.T) {
	run(t, 5, func(t *testing.T, w *world) {
		w.lose(1, 0)
		w.lose(2, 0)
		time.Sleep(10 * time.Second)
		wantLeaders(t, w, "0", "0", "0", "0", "0")
		w.kill(0, 1, 2, 3, 4)
		time.Sleep(time.Second)
		w.mu.Lock()
		w.replicas[4].leader = w.replicas[1].leader
		w.mu.Unlock()
		if got := w.leaders(); got[1] == "0" || got[1] != got[2] || got[2] != got[3] {
			w.story(t)
			t.Errorf("leaders %v", got)
		}
	})
}

// Elections that raft does not win are not repeated quickly.
func TestLostElectionsAreRare(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.replicas[1].lose, w.replicas[2].lose = true, true
		w.kill(0, 1, 2)
		time.Sleep(CampaignPause - 100*time.Millisecond)
		if n := w.campaigns(); n > 2 {
			w.story(t)
			t.Errorf("%d elections within a second", n)
		}
		time.Sleep(time.Hour)
		if n := w.campaigns(); n > 2*(len(pauses)+int(time.Hour/slowly)+1) {
			t.Errorf("%d elections", n)
		}
	})
}

// A group without any leader: nobody has a reason to refuse, and still only one stands.
func TestNewGroup(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		for _, r := range w.replicas {
			r.leader, r.state = "", raft.Follower
		}
		w.mu.Unlock()
		for i := range w.replicas {
			w.replicas[2-i].elector.Consider()
		}
		time.Sleep(Stagger / 2)
		wantLeaders(t, w, "0", "0", "0")
		time.Sleep(10 * time.Second)
		if n := w.campaigns(); n != 1 {
			w.story(t)
			t.Errorf("%d elections", n)
		}
	})
}

// Who has granted a pre-vote leaves the field to the candidate until there is a leader, and not longer: this one dies right after it was elected.
func TestLeaderDiesSoonAfterItsElection(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.kill(0, 1, 2)
		leadersWithin(t, w, Stagger/2, "0", "1", "1")
		w.mu.Lock()
		w.replicas[0].dead, w.replicas[0].leader, w.replicas[0].state = false, "1", raft.Follower
		w.gone["1"]["0"], w.gone["2"]["0"] = false, false
		w.mu.Unlock()
		w.kill(1, 0, 2)
		w.within(t, 2*Stagger, "the two that are left have a leader", func() bool {
			got := w.leaders()
			return got[0] != "1" && got[0] == got[2]
		})
	})
}

// A leader that steps down leaves a vacancy, which is filled without waiting for raft's timeout.
func TestVacancy(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		for _, r := range w.replicas {
			r.leader, r.state = "", raft.Follower
		}
		w.mu.Unlock()
		for _, r := range w.replicas {
			r.elector.Observe(&raft.Observation{Data: raft.LeaderObservation{}})
		}
		time.Sleep(vacancy / 2)
		wantLeaders(t, w, "", "", "")
		time.Sleep(vacancy)
		wantLeaders(t, w, "0", "0", "0")
	})
}

// While one asks for pre-votes, who has a lesser claim gets none, and who has a better one does.
func TestOneAtATime(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.mu.Lock()
		w.gone["1"]["0"], w.gone["2"]["0"] = true, true
		w.mu.Unlock()
		e := w.replicas[1].elector
		e.mu.Lock()
		e.claim = time.Now().Add(time.Second)
		e.mu.Unlock()
		ask := func(from string, last position) (bool, bool) {
			return e.answer(&raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("r" + from)}, Term: 2, LastLogIndex: last.index, LastLogTerm: last.term})
		}
		for _, c := range []struct {
			from              string
			last              position
			granted, answered bool
		}{
			{"2", position{10, 1}, false, true},
			{"2", position{9, 1}, false, false},  // raft refuses
			{"9", position{10, 1}, false, false}, // no voter, in no configuration
			{"2", position{11, 1}, true, true},
			{"2", position{1, 2}, true, true},
			{"0", position{11, 1}, false, true}, // so soon after number 2
			{"9", position{11, 1}, false, true},
		} {
			if granted, answered := ask(c.from, c.last); granted != c.granted || answered != c.answered {
				t.Errorf("%s with %v: granted %t, answered %t", c.from, c.last, granted, answered)
			}
		}
		if !e.held.until("0", 1, position{10, 1}).After(time.Now()) {
			t.Error("who grants must hold back")
		}
		e.mu.Lock()
		e.held, e.claim, e.campaign = held{}, time.Time{}, time.Now()
		e.mu.Unlock()
		if granted, answered := ask("0", position{10, 1}); granted || !answered {
			t.Error("who stands for election grants nobody the same")
		}
	})
}
