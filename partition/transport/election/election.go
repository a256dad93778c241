// Package election makes a Raft group elect a leader as soon as it is evident that it has none, instead of after a timeout.
//
// hashicorp/raft stands for election when it has heard nothing for HeartbeatTimeout, up to three times that for want of an earlier look, and then waits until a quorum has found
// out for itself, as nobody grants a pre-vote while he believes in a leader. Timeouts short enough for a quick failover make elections of every pause on a busy
// machine. An Elector acts on evidence instead: the leader's broker is gone (transport.Gone: its connections are closed and it refuses
// new ones, or it has fallen silent as a whole), or it says or shows that it does not lead (transport.Group.Disowned), or there is no leader: the group is new, or just opened, or a leader stepped down.
// On a leader it finds out whether a quorum still agrees (round.go).
//
// # What it does
//
// With evidence, the group's voters take turns by their place in the configuration: the first tries at once, each other Stagger later than the one before it. A try is a
// round of pre-votes (Raft dissertation, section 9.6), asked and counted here. A voter grants one if it knows of no leader or has evidence of its own against that leader's broker; if its log
// is not ahead of the candidate's; and if it is not in a try itself with the better claim. Who grants holds back for a while, at the longest until there is a leader. With a quorum of grants the Elector has
// raft stand for election (transport.Group.Campaign), which takes the votes and all that is binding from there.
//
// # Why it does no harm
//
//   - Safety does not rest on it: terms, votes and logs are raft's, who votes at most once per term whatever made the candidate stand.
//   - False evidence of one broker, say a cut link to the leader, gets no quorum of pre-votes, since the others hear the leader. Evidence of a quorum that is false, or a leader that
//     comes back that moment, moves leadership once; the old leader learns of the new term and follows.
//   - Tries become ever rarer, down to one in five seconds, and a replica starts at most one election per CampaignPause. Raft's own timeouts remain for the rest.
//
// # Why not otherwise
//
// raft.ReloadConfig with a short HeartbeatTimeout would wake a follower, but raft requires LeaderLeaseTimeout <= HeartbeatTimeout, and the lease cannot be reloaded: the follower would still wait
// out the lease, and a short lease makes leaders step down at every pause. TimeoutNow alone would skip the pre-vote.
package election

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

const (
	// Stagger is between the first tries of a group's voters: longer than a round of pre-votes and the messages of an election take.
	Stagger = 40 * time.Millisecond
	// vacancy is how long a group without a known leader is left alone: most elections are through by then, and a restarted replica has
	// heard its leader.
	vacancy = 250 * time.Millisecond
	// holdBack is how long who granted a pre-vote leaves the field to the candidate: neither stands itself nor grants another one.
	holdBack = 300 * time.Millisecond
	// newGroupStagger takes Stagger's place in a group that was just made. Nothing is lost if its preferred leader opens its replica
	// a little later than the others, and leadership need not move right after.
	newGroupStagger = 150 * time.Millisecond
	// CampaignPause is the least time between two elections that one replica starts.
	CampaignPause = time.Second
	// slowly is between tries that have long been in vain.
	slowly = 5 * time.Second
)

// pauses are between the tries in one situation: short at first, since others may learn of it a moment later (a new group is not open everywhere yet), and about three seconds altogether.
// Then they are slowly.
var pauses = []time.Duration{
	15 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond,
}

// Raft is the part of *raft.Raft that is used.
type Raft interface {
	State() raft.RaftState
	CurrentTerm() uint64
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	GetConfiguration() raft.ConfigurationFuture
	LastIndex() uint64
	CommitIndex() uint64
	Stats() map[string]string
}

// Group is the part of *transport.Group that is used.
type Group interface {
	Gone(raft.ServerAddress) bool
	WatchGone(func(raft.ServerAddress, bool)) (cancel func())
	SetPreVoteHandler(func(*raft.RequestPreVoteRequest) (granted, answered bool))
	SetVoteHandler(func(*raft.RequestVoteRequest))
	RequestPreVote(raft.ServerID, raft.ServerAddress, *raft.RequestPreVoteRequest, *raft.RequestPreVoteResponse) error
	Campaign(stuck uint64) bool
	StepDown(term uint64) bool
	LocalAddr() raft.ServerAddress
	SetClaimant(transport.Claimant)
	TellClaims()
	Disowned(leader raft.ServerAddress, term uint64) bool
	Silence(id raft.ServerID, term uint64) (silence time.Duration, ok bool)
	Follower(id raft.ServerID, term uint64) (transport.Follower, bool)
}

var (
	_ Raft  = (*raft.Raft)(nil)
	_ Group = (*transport.Group)(nil)
)

// Elector watches over one group's leadership on one replica. An idle Elector has no goroutine and no running timer.
type Elector struct {
	raft  Raft
	group Group
	id    raft.ServerID
	log   hclog.Logger
	now   func() time.Time
	nudge func()

	lags    map[raft.ServerID]*lag // this and the next two are only Round's
	term    uint64                 // of lags
	yielded time.Time              // when raft was last asked to step down

	unwatch func()
	wg      sync.WaitGroup // the try under way

	mu       sync.Mutex
	closed   bool
	timer    *time.Timer
	idle     bool      // without a vote: there is nothing to try
	pending  bool      // timer is set; when it fires is due
	due      time.Time //
	trying   bool
	tries    int       // in this situation
	unplaced bool      // the next try has yet to wait for this replica's turn
	claim    time.Time // until then this replica is in a try with pre-votes asked for
	held     held
	campaign time.Time // when raft was last made to stand
	later    uint64    // the latest term that a voter has answered with; only a try's
	standing uint64    // the term in which raft was seen to stand,
	stood    time.Time // and since when
	// overtaken is the later term that this leader was told of, and overtook when.
	overtaken uint64
	overtook  time.Time
}

// New starts an Elector. id is this replica's Raft ID. Tell it of what raft observes (Observe) and of a bootstrapped group (Consider). nudge has raft send to all followers again, which a proposal
// does, whatever it is; it must not block. Nil: raft's CommitTimeout is short enough.
func New(r Raft, g Group, id raft.ServerID, nudge func(), log hclog.Logger) *Elector {
	e := &Elector{raft: r, group: g, id: id, log: log, now: time.Now, nudge: nudge}
	e.timer = time.AfterFunc(time.Hour, e.fire)
	e.timer.Stop()
	g.SetPreVoteHandler(e.answer)
	g.SetVoteHandler(e.admit)
	e.unwatch = g.WatchGone(e.peerGone)
	g.SetClaimant(e)
	e.begin(e.look(), vacancy, Stagger)
	return e
}

// Close waits for a try under way, whose requests end when the group is closed: close that first.
func (e *Elector) Close() {
	e.unwatch()
	e.mu.Lock()
	e.closed = true
	e.timer.Stop()
	e.mu.Unlock()
	e.wg.Wait()
}

// Observe is for raft's observer: it takes note of a leadership that ended, and has the others told. It does not block.
func (e *Elector) Observe(o *raft.Observation) {
	switch o := o.Data.(type) {
	case raft.LeaderObservation:
		if o.LeaderAddr == "" {
			// The observer may be called from within raft; only the timer looks.
			e.begin(nil, vacancy, Stagger)
		}
	case raft.RaftState:
		e.group.TellClaims()
	case raft.RequestVoteRequest:
		if len(o.ID) > 0 { // else admit has
			e.leaveField(raft.ServerID(o.ID), o.Term, position{o.LastLogIndex, o.LastLogTerm})
		}
	}
}

// leaveField holds this replica back for a candidate that asks for votes: who stood now would do so in the same term, or depose the winner. It looks soon what came of it.
func (e *Elector) leaveField(candidate raft.ServerID, term uint64, last position) {
	e.mu.Lock()
	e.held = held{candidate: candidate, term: term, last: last, since: e.now()}
	e.mu.Unlock()
	e.begin(nil, Stagger, Stagger)
}

// held is a candidate that the field is left to.
type held struct {
	candidate raft.ServerID
	term      uint64 // that it stands in
	last      position
	since     time.Time
}

// until returns for how long. That ends early with its election: where a leader of that term or a later one was known, the election is over, and if that leader is gone already, it is the next
// one's turn. And a candidate that lacks entries that this replica has will most likely not be elected, which shows soon.
func (h *held) until(leader raft.ServerAddress, term uint64, last position) time.Time {
	switch {
	case h.candidate == "" || leader != "" && term >= h.term:
		return time.Time{}
	case last.ahead(h.last):
		return h.since.Add(Stagger)
	}
	return h.since.Add(holdBack)
}

// Consider has the Elector act at once if there is no leader: for a group that was bootstrapped this moment.
func (e *Elector) Consider() { e.begin(e.look(), 0, newGroupStagger) }

// peerGone: a leader that is gone is to be replaced, and a voter that is back may make up a quorum.
func (e *Elector) peerGone(peer raft.ServerAddress, gone bool) {
	leader, _ := e.known(e.raft.State())
	if gone && leader == peer || !gone && leader != e.group.LocalAddr() && e.lost(leader, e.raft.CurrentTerm()) {
		e.begin(e.look(), 0, Stagger)
	}
}

// begin starts over with the tries of a new situation, the first one after wait and this replica's turn, which comes later if s is nil. A try that is due sooner remains.
func (e *Elector) begin(s *situation, wait, stagger time.Duration) {
	if s != nil {
		if !s.vacant || s.rank < 0 {
			return
		}
		if s.quorum == 1 {
			wait = 0 // there is nobody to wait for
		}
		wait += time.Duration(s.rank) * stagger
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tries, e.unplaced, e.idle = 0, s == nil, false
	e.schedule(wait + rand.N(Stagger/8))
}

// schedule sets the timer if nothing is due sooner. mu is held.
func (e *Elector) schedule(wait time.Duration) {
	due := e.now().Add(wait)
	if e.closed || e.trying || e.pending && e.due.Before(due) {
		return
	}
	e.pending, e.due = true, due
	e.timer.Reset(wait)
}

// fire is the timer's.
func (e *Elector) fire() {
	if !e.start() {
		return
	}
	defer e.wg.Done()
	again := e.try()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trying = false
	if again > 0 {
		e.schedule(again)
	}
}

func (e *Elector) start() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.trying {
		return false
	}
	e.pending, e.trying = false, true
	e.wg.Add(1)
	return true
}

// try makes one attempt, if it is called for, and returns when to look again; 0: when something happens.
func (e *Elector) try() time.Duration {
	s := e.look()
	if !s.vacant || s.rank < 0 {
		e.mu.Lock()
		e.idle = s.vacant
		e.mu.Unlock()
		return 0
	}
	wait, attempt := e.turn(s)
	if wait > 0 {
		return wait
	}
	stuck := uint64(0)
	if s.state != raft.Follower {
		if !e.stands(s) {
			return pauseAfter(attempt) // raft is about it by itself
		}
		stuck = s.term + 1
	}
	if e.later > s.term {
		stuck = max(stuck, e.later) // in an earlier one nobody votes who has stood in it
	}
	won, later := e.preVotes(s, max(s.term, e.later)+1)
	if later > e.later {
		e.later = later
	}
	if won && e.still(s) && e.group.Campaign(stuck) {
		e.log.Debug("standing for election", "term", s.term+1, "leader-lost", s.leader, "try", attempt)
		e.mu.Lock()
		e.campaign = e.now()
		e.claim = e.campaign.Add(holdBack)
		e.standing, e.stood = max(s.term, stuck)+1, e.campaign
		e.mu.Unlock()
		return max(holdBack, pauseAfter(attempt))
	}
	e.mu.Lock()
	e.claim = time.Time{}
	e.mu.Unlock()
	return pauseAfter(attempt) + rand.N(Stagger/4)
}

// stands tells whether raft has stood for election for as long as one takes, so that it was not elected and would wait for its timeout before it stands again.
func (e *Elector) stands(s *situation) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.state != raft.Candidate || e.standing != s.term {
		e.standing, e.stood = s.term, e.now()
		return false
	}
	return e.now().Sub(e.stood) >= CampaignPause
}

// turn counts a try and claims the field for it, or says how long to wait.
func (e *Elector) turn(s *situation) (wait time.Duration, attempt int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unplaced {
		e.unplaced = false
		if s.rank > 0 {
			return time.Duration(s.rank) * Stagger, 0
		}
	}
	now := e.now()
	until := e.held.until(s.leader, s.term, s.last)
	if next := e.campaign.Add(CampaignPause); !e.campaign.IsZero() && next.After(until) {
		until = next
	}
	if wait = until.Sub(now); wait > 0 {
		return wait, 0
	}
	e.tries++
	e.claim = now.Add(holdBack)
	return 0, e.tries
}

// pauseAfter is the pause after a try. They never end: nothing else is left, but for raft's very long timeouts.
func pauseAfter(attempt int) time.Duration {
	if attempt > len(pauses) {
		return slowly
	}
	return pauses[attempt-1]
}

// still says that nothing has changed since s: another candidate may have been quicker.
func (e *Elector) still(s *situation) bool {
	state := e.raft.State()
	leader, _ := e.known(state)
	e.mu.Lock()
	held := e.held.until(s.leader, s.term, s.last).After(e.now())
	e.mu.Unlock()
	return !held && leader == s.leader && e.raft.CurrentTerm() == s.term && state == s.state && e.lost(leader, s.term)
}

// preVotes asks the other voters and says whether a quorum would vote for this replica in a term. Who is in a later one already does not, and says so: a candidate with a
// shorter log, which is not elected, may have gone through several. later is the latest such term, or 0: a pre-vote does not make raft learn of it.
func (e *Elector) preVotes(s *situation, term uint64) (won bool, later uint64) {
	req := &raft.RequestPreVoteRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(e.id), Addr: []byte(e.group.LocalAddr())},
		Term:         term,
		LastLogIndex: s.last.index, LastLogTerm: s.last.term,
	}
	votes := make(chan raft.RequestPreVoteResponse, len(s.others))
	asked := 0
	for _, server := range s.others {
		if e.group.Gone(server.Address) {
			continue
		}
		asked++
		e.wg.Go(func() {
			var resp raft.RequestPreVoteResponse
			if e.group.RequestPreVote(server.ID, server.Address, req, &resp) != nil {
				resp = raft.RequestPreVoteResponse{}
			}
			votes <- resp
		})
	}
	granted := 1
	for ; granted < s.quorum && asked > 0; asked-- {
		switch v := <-votes; {
		case v.Term > term:
			later = max(later, v.Term)
		case v.Granted:
			granted++
		}
	}
	return granted >= s.quorum, later
}

// answer is asked before raft about a pre-vote request.
//
// The candidate need not be a voter as far as is known here (Raft dissertation, section 4.1): a configuration may be committed that this replica, whose vote it takes to elect somebody, has yet to get
// from whoever is elected. hashicorp/raft refuses such candidates, but for a replica without any configuration, so they are answered here; see admit. Who has the same log has the same
// configuration, and is no voter in it.
func (e *Elector) answer(req *raft.RequestPreVoteRequest) (granted, answered bool) {
	s := e.look()
	candidate := slices.IndexFunc(s.voters, func(v raft.Server) bool { return v.ID == raft.ServerID(req.ID) })
	theirs := position{index: req.LastLogIndex, term: req.LastLogTerm}
	known := candidate >= 0 || s.last == position{}
	if !s.vacant || !known && theirs == s.last || req.Term < s.term || s.last.ahead(theirs) {
		return false, false // raft will refuse, or knows better
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	better := theirs == s.last && s.rank >= 0 && candidate >= 0 && s.rank < s.rankOf(candidate)
	stands := !e.campaign.IsZero() && now.Sub(e.campaign) < holdBack && !theirs.ahead(s.last)
	if stands || e.claim.After(now) && better || e.held.until(s.leader, s.term, s.last).After(now) && e.held.candidate != raft.ServerID(req.ID) {
		return false, true
	}
	e.held = held{candidate: raft.ServerID(req.ID), term: req.Term, last: theirs, since: now}
	if known && s.leader == "" && !s.stale {
		return false, false // raft grants it
	}
	return true, true
}

// admit is shown a vote request before raft. Where the candidate is no voter as far as is known here, raft is not told who it is, only its broker, and decides by term and log alone. Whoever asks has a
// quorum of pre-votes behind it.
func (e *Elector) admit(req *raft.RequestVoteRequest) {
	servers := e.raft.GetConfiguration().Configuration().Servers
	votes := func(s raft.Server) bool { return s.Suffrage == raft.Voter && s.ID == raft.ServerID(req.ID) }
	if len(req.ID) == 0 || len(servers) == 0 || slices.ContainsFunc(servers, votes) {
		return
	}
	e.leaveField(raft.ServerID(req.ID), req.Term, position{req.LastLogIndex, req.LastLogTerm})
	req.ID = nil
}
