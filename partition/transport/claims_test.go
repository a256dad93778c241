package transport

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// claimant is a replica that says what a test wants.
type claimant struct {
	mu        sync.Mutex
	claim     Claim
	term      uint64
	leader    raft.ServerAddress
	commit    uint64
	ended     int
	overtaken uint64
	rounds    int
	stuck     uint64
}

func (c *claimant) with(f func()) { c.mu.Lock(); defer c.mu.Unlock(); f() }

func (c *claimant) Round() Claim { c.mu.Lock(); defer c.mu.Unlock(); c.rounds++; return c.claim }
func (c *claimant) Following() (uint64, raft.ServerAddress, raft.ServerID, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term, c.leader, raft.ServerID(c.leader), c.commit
}
func (c *claimant) LeaderEnded()        { c.with(func() { c.ended++ }) }
func (c *claimant) Stuck() uint64       { c.mu.Lock(); defer c.mu.Unlock(); return c.stuck }
func (c *claimant) Overtaken(to uint64) { c.with(func() { c.overtaken = to }) }

func often(c *Config) { c.ClaimEvery = 10 * time.Millisecond }

// claiming is brokers 1 and 2, of which 1 leads group 1 in term 5 and 2 follows.
func claiming(t *testing.T, change ...func(*Config)) (a, b *Group, leads, follows *claimant) {
	f := newFleet(t)
	change = append([]func(*Config){often}, change...)
	a, b = answering(f, f.start("1", change...)), answering(f, f.start("2", change...))
	leads = &claimant{claim: Claim{Term: 5, Commit: 7, Servers: servers("1", "2")}, term: 5, leader: "1"}
	follows = &claimant{term: 5, leader: "1"}
	a.SetClaimant(leads)
	b.SetClaimant(follows)
	return a, b, leads, follows
}

// acked is the last round that a peer has answered.
func acked(g *Group, peer raft.ServerAddress) uint64 {
	out := &g.t.peer(peer).claims
	out.mu.Lock()
	defer out.mu.Unlock()
	return out.acked
}

func TestClaimsConfirmALeader(t *testing.T) {
	a, b, _, follows := claiming(t)
	if _, ok := a.Silence("2", 4); ok {
		t.Error("something is known of a term that was not claimed")
	}
	eventually(t, "the follower has agreed", func() bool {
		s, ok := a.Silence("2", 5)
		return ok && s < 200*time.Millisecond && acked(a, "2") > 3
	})
	if b.Disowned("1", 5) {
		t.Error("the leader is disowned")
	}
	// One that follows no longer does not count, whatever its broker says of other groups.
	follows.with(func() { follows.term, follows.leader = 6, "2" })
	eventually(t, "the leader hears nothing more, and of the later term", func() bool {
		s, _ := a.Silence("2", 5)
		return s > 100*time.Millisecond
	})
}

// A process that stood still for four days does not take that for the silence of others.
func TestStandingStillIsNotSilence(t *testing.T) {
	f := newFleet(t)
	rare := func(c *Config) { c.ClaimEvery = time.Hour } // the test makes the rounds
	a, b := answering(f, f.start("1", rare)), answering(f, f.start("2", rare))
	talk(t, a, "2")
	a.SetClaimant(&claimant{claim: Claim{Term: 5, Servers: servers("1", "2")}, term: 5, leader: "1"})
	b.SetClaimant(&claimant{term: 5, leader: "1"})
	a.t.claimRound(time.Second)
	eventually(t, "an answer", func() bool { return acked(a, "2") == 1 })
	a.t.claimRound(100 * time.Hour)
	if s, ok := a.Silence("2", 5); !ok || s > 90*time.Minute {
		t.Errorf("silent for %s, %t", s, ok)
	}
	eventually(t, "another answer", func() bool { return acked(a, "2") == 2 })
	if s, _ := a.Silence("2", 5); s > time.Minute {
		t.Errorf("silent for %s after an answer", s)
	}
}

func TestLaterTermIsTold(t *testing.T) {
	_, _, leads, follows := claiming(t)
	follows.with(func() { follows.term = 9 })
	eventually(t, "the leader is told", func() bool {
		leads.mu.Lock()
		defer leads.mu.Unlock()
		return leads.overtaken == 9
	})
}

// A follower that knows of no leader gets a heartbeat in raft's name.
func TestUnawareFollowerIsTold(t *testing.T) {
	_, b, _, follows := claiming(t)
	told := make(chan *raft.AppendEntriesRequest, 100)
	b.SetHeartbeatHandler(func(rpc raft.RPC) {
		told <- rpc.Command.(*raft.AppendEntriesRequest)
		respond(rpc, success, nil)
	})
	follows.with(func() { follows.term, follows.leader = 4, "" })
	r := <-told
	if r.Term != 5 || string(r.Addr) != "1" || len(r.Entries) > 0 || r.PrevLogEntry != 0 || r.LeaderCommitIndex != 0 {
		t.Errorf("the follower was told %+v", r)
	}
}

// A follower learns what is committed, as far as it is known to have it.
func TestClaimsTellTheCommitIndex(t *testing.T) {
	a, b, _, _ := claiming(t)
	quiet := time.After(150 * time.Millisecond)
	select {
	case rpc := <-b.Consumer():
		t.Fatalf("told %+v before anything was acknowledged", rpc.Command)
	case <-quiet:
	}
	a.heard("2", &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 2, Entries: []*raft.Log{{Index: 3}}}, &raft.AppendEntriesResponse{Success: true})
	rpc := <-b.Consumer()
	r := rpc.Command.(*raft.AppendEntriesRequest)
	if r.Term != 5 || r.LeaderCommitIndex != 3 || string(r.Addr) != "1" || string(r.ID) != "1" || r.PrevLogEntry != 0 || len(r.Entries) > 0 {
		t.Errorf("the follower was told %+v", r)
	}
	respond(rpc, success, nil)
}

func TestEndedLeadershipIsTold(t *testing.T) {
	a, b, leads, follows := claiming(t, func(c *Config) { c.ClaimEvery = 10 * time.Millisecond })
	eventually(t, "the claim is known", func() bool { return acked(a, "2") > 0 })
	leads.with(func() { leads.claim = Claim{} })
	a.TellClaims()
	eventually(t, "the follower is told", func() bool {
		follows.mu.Lock()
		defer follows.mu.Unlock()
		return follows.ended > 0
	})
	if !b.Disowned("1", 5) {
		t.Error("the leader is not disowned")
	}
	if b.Disowned("1", 6) {
		t.Error("the next term's is")
	}
}

// The end is told when it is due, and does not wait for the next round.
func TestEndOfLeadershipDoesNotWaitForARound(t *testing.T) {
	a, _, leads, follows := claiming(t, func(c *Config) { c.ClaimEvery = time.Hour })
	eventually(t, "a round", func() bool {
		a.TellClaims()
		return acked(a, "2") > 0
	})
	leads.with(func() { leads.claim = Claim{} })
	a.TellClaims()
	eventually(t, "the follower is told", func() bool {
		follows.mu.Lock()
		defer follows.mu.Unlock()
		return follows.ended > 0
	})
}

// A leader that others have overtaken is no reason to hurry.
func TestSucceededLeadershipIsNotGivenOutAsEnded(t *testing.T) {
	a, _, leads, follows := claiming(t)
	eventually(t, "the claim is known", func() bool { return acked(a, "2") > 0 })
	leads.with(func() { leads.claim, leads.term, leads.leader = Claim{}, 6, "" })
	eventually(t, "the end would have been told", func() bool {
		a.claims.mu.Lock()
		defer a.claims.mu.Unlock()
		return a.claims.term == 0 && a.claims.last.term == 0
	})
	before := acked(a, "2")
	eventually(t, "some rounds", func() bool { return acked(a, "2") > before+3 })
	follows.mu.Lock()
	defer follows.mu.Unlock()
	if follows.ended > 0 {
		t.Error("the follower was told")
	}
}

func TestClosedGroupIsToldAtOnce(t *testing.T) {
	a, b, _, follows := claiming(t)
	eventually(t, "the claim is known", func() bool { return acked(a, "2") > 0 })
	a.Close()
	eventually(t, "the follower is told", func() bool {
		follows.mu.Lock()
		defer follows.mu.Unlock()
		return follows.ended > 0
	})
	if !b.Disowned("1", 5) {
		t.Error("the leader is not disowned")
	}
}

// A leader that does not claim is not believed in for long, though nobody said that it ended; and one of whose broker nothing is heard is not this rule's.
func TestAbsentClaimCounts(t *testing.T) {
	f := newFleet(t)
	tr1, tr2 := f.start("1", often), f.start("2", often)
	b := answering(f, tr2)
	b.SetClaimant(&claimant{term: 5, leader: "1"})
	if b.Disowned("1", 5) {
		t.Fatal("disowned at once")
	}
	<-time.After(100 * time.Millisecond)
	if b.Disowned("1", 5) {
		t.Fatal("disowned though no round came")
	}
	other := f.group(tr1, 2, GroupOptions{})
	other.SetClaimant(&claimant{claim: Claim{Term: 1, Servers: servers("1", "2")}, term: 1, leader: "1"})
	eventually(t, "the leader is disowned", func() bool { return b.Disowned("1", 5) })
}

// A heartbeat to a broker that is gone leaves when it is back.
func TestHeartbeatWaitsForABrokerThatIsAway(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1", often), f.start("2", often)
	ga, gb := answering(f, a), answering(f, b)
	talk(t, gb, "1")
	talk(t, ga, "2")
	b.Close()
	eventually(t, "broker 2 is gone", func() bool { return a.Gone("2") })
	done := make(chan error, 1)
	go func() { done <- ga.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	back := answering(f, f.start("2", often))
	began := time.Now()
	talk(t, back, "1") // refutes the evidence
	if err := <-done; err != nil {
		t.Logf("it joined a dial that was under way before: %v", err)
	}
	if took := time.Since(began); took > a.cfg.AwayMax/2 {
		t.Errorf("it left %s after the broker was back", took)
	}
	// Nor does one wait for ever.
	a.cfg.AwayMax = time.Millisecond
	back.t.Close()
	eventually(t, "broker 2 is gone again", func() bool { return a.Gone("2") })
	if err := ga.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// A candidate is made ready for a leader that hands over to it.
func TestHandOverToAStuckCandidate(t *testing.T) {
	f := newFleet(t)
	a, b := f.start("1"), f.start("2")
	ga, gb := f.group(a, 1, GroupOptions{}), f.group(b, 1, GroupOptions{})
	c := &claimant{}
	gb.SetClaimant(c)
	hand := func() chan error {
		done := make(chan error, 1)
		go func() {
			done <- ga.TimeoutNow("2", "2", &raft.TimeoutNowRequest{RPCHeader: ga.header()}, &raft.TimeoutNowResponse{})
		}()
		return done
	}
	next := func() any {
		rpc := <-gb.Consumer()
		rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		return rpc.Command
	}
	done := hand()
	if r, ok := next().(*raft.TimeoutNowRequest); !ok {
		t.Errorf("a follower is given %+v", r)
	}
	<-done
	c.with(func() { c.stuck = 8 })
	done = hand()
	if r, ok := next().(*raft.AppendEntriesRequest); !ok || r.Term != 8 || len(r.Addr) > 0 {
		t.Errorf("a candidate is given %+v first", r)
	}
	if _, ok := next().(*raft.TimeoutNowRequest); !ok {
		t.Error("and then something else")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzClaims: whatever comes from the network closes the connection at worst.
func FuzzClaims(f *testing.F) {
	e := encoder{}
	e.u64(1)
	e.u8(0)
	e.u32(1)
	for range 4 {
		e.u64(1)
	}
	e.u32(1)
	e.u64(1)
	e.u64(1)
	f.Add(e.b, false)
	r := encoder{}
	r.u64(1)
	r.u8(0)
	r.u32(1)
	r.u64(1)
	r.u8(3)
	r.u64(9)
	f.Add(r.b, true)
	fl := newFleet(f)
	tr := fl.start("1")
	g := fl.group(tr, 1, GroupOptions{})
	g.SetClaimant(&claimant{term: 1, leader: "2"})
	f.Fuzz(func(t *testing.T, payload []byte, reply bool) {
		c := &conn{t: tr, peer: "2", done: make(chan struct{}), err: errStopped}
		if reply {
			_ = c.claimsReply(payload)
		} else {
			_ = c.serveClaims(payload)
		}
	})
}
