package transport

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Claims: which groups a broker leads, told to each broker that follows it in some, twice a second, in one frame.
//
// They take the place of raft's heartbeats, which cost an idle group several messages a second for each follower, each of which wakes goroutines on both sides. A claim costs 32
// bytes of a frame and some table look-ups, for all groups together on one goroutine per broker. Raft's own heartbeats go on, ten times to twenty times rarer, as a fallback, and whenever a leader is to be
// confirmed (Group.Confirm). What claims give is what was made of those:
//
//   - A leader knows when each follower's broker last agreed with it, and gives up without a quorum of those (package election).
//   - A follower knows that its leader still leads. A leader that no longer does says so in the next frame, which leaves at once; and one that merely ceases to claim is not
//     believed in for longer than a few rounds.
//   - A follower that does not know its leader yet, or is in another term, is told, or tells.
//   - A follower learns what is committed, without an append.
//
// A frame lists all claims as of one moment, so that what is missing means something. Who learns of a leader by other ways than its frames (an append on another connection) may be told by a frame
// that was on its way already; so absence counts only after several rounds and the time that these take.

const (
	claimsPerFrame = 16 << 10 // 32 bytes each
	claimBytes     = 32
	endedPerFrame  = 16 << 10
	claimsMissed   = 3                      // so many rounds without a claim end a leadership in a follower's eyes
	claimsUnheard  = 8                      // so many rounds without an answer, and none is sent until one comes
	claimEndDelay  = 300 * time.Millisecond // before the end of a leadership is told: raft's state changes before its term, which has to be stored
	claimPause     = 10 * time.Millisecond  // between a notice and the round that it starts: others join
)

// refusal says why a follower's broker does not agree with a claim. The numbers are the protocol's.
type refusal uint8

const (
	refusedUnknown refusal = 1 // there is no such replica
	refusedUnaware refusal = 2 // it does not know this leader yet
	refusedStale   refusal = 3 // it is in a later term
)

// Claim is what a replica wants its followers told.
type Claim struct {
	Term    uint64 // in which it leads; 0: it does not lead
	Commit  uint64 // its commit index
	Servers []raft.Server
}

// Claimant is a replica as claims see it. Its methods are called on the transport's goroutines, several at a time, and must not block.
type Claimant interface {
	// Round is called in each round.
	Round() Claim
	// Following returns the replica's term, whom it takes for its leader, and its commit index.
	Following() (term uint64, leader raft.ServerAddress, id raft.ServerID, commit uint64)
	// LeaderEnded tells a follower that its leader says that it no longer leads.
	LeaderEnded()
	// Overtaken tells a leader that a follower is in a later term.
	Overtaken(term uint64)
	// Stuck returns, of a candidate, the term in which it may be made a follower in order to stand anew (see Group.Campaign); else 0.
	Stuck() uint64
}

// groupClaims is what a group knows of claims, its own and its leader's.
type groupClaims struct {
	mu    sync.Mutex
	term  uint64 // as leader: claimed in the last round, or 0
	peers []claimed
	last  ending // the leadership before, if its end is still to be told

	// As follower: the leader that is believed in, and when it last claimed.
	leader     raft.ServerAddress
	leaderTerm uint64
	round      uint64        // of the leader's broker
	at         time.Duration // of the transport's clock
	ended      uint64        // the term in which the leader said that it ended
}

// ending is a leadership that has ended.
type ending struct {
	term  uint64 // 0: none
	peers []claimed
	since time.Duration
}

// claimed is a follower as its leader sees it.
type claimed struct {
	id      raft.ServerID
	addr    raft.ServerAddress
	peer    *peer
	list    *claimList // of its broker; only the claim goroutine's
	hash    uint64
	first   uint64        // the first round that went to it in this term
	refused uint64        // the last round that it did not agree with
	contact time.Duration // when the last round was sent that it agreed with, as Transport.awake goes; 0: none
	since   time.Duration // when the first was
	told    uint64        // the commit index that it was told last
}

// claimList is what goes to one peer in a round.
type claimList struct {
	claims encoder
	count  int
	ended  []endedClaim
}

type endedClaim struct {
	group GroupID
	term  uint64
}

// claimsOut is what is known of the rounds sent to one peer. It is the claim goroutine's and its connections' readers'.
type claimsOut struct {
	mu      sync.Mutex
	conn    *conn
	sent    []sentRound // without an answer, oldest first
	acked   uint64      // the newest round answered
	ackedAt time.Duration
}

type sentRound struct {
	round     uint64
	at, awake time.Duration
}

// SetClaimant starts claims for the group. Until then, none are made, and those of others are refused.
func (g *Group) SetClaimant(c Claimant) { g.claimant.Store(&c) }

// TellClaims has a round made at once: leadership has changed.
func (g *Group) TellClaims() { g.t.tellClaims() }

func (t *Transport) tellClaims() {
	select {
	case t.claimKick <- struct{}{}:
	default:
	}
}

// Disowned tells whether the leader of a term, as this replica takes it, has said, or shown by not claiming it for some rounds, that it does not lead. Its broker is heard meanwhile: that one which is not is
// Gone is another matter.
func (g *Group) Disowned(leader raft.ServerAddress, term uint64) bool {
	now, round := g.t.now(), g.t.roundsOf(leader)
	s := &g.claims
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leader != leader || s.leaderTerm != term {
		s.leader, s.leaderTerm, s.round, s.at, s.ended = leader, term, round, now, 0
	}
	return s.ended == term || round >= s.round+claimsMissed && now-s.at >= claimsMissed*g.t.cfg.ClaimEvery
}

// Silence returns for how long a server has not agreed that this replica leads, not counting what this process stood still or was not given a processor: a round that comes late counts as if it had come half
// a ClaimEvery late at most. ok is false if no claim of the term went to the server yet.
func (g *Group) Silence(id raft.ServerID, term uint64) (silence time.Duration, ok bool) {
	s := &g.claims
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != term {
		return 0, false
	}
	for i := range s.peers {
		if p := &s.peers[i]; p.id == id {
			p.look()
			return time.Duration(g.t.awake.Load()) - max(p.contact, p.since), true
		}
	}
	return 0, false
}

// look takes in what the peer's broker has answered.
func (p *claimed) look() {
	out := &p.peer.claims
	out.mu.Lock()
	defer out.mu.Unlock()
	if acked := out.acked; acked >= p.first && acked > p.refused {
		p.contact = max(p.contact, out.ackedAt)
	}
}

// claimLoop makes a round every ClaimEvery, when somebody has news, and when the end of a leadership is due to be told.
func (t *Transport) claimLoop() {
	tick := time.NewTicker(t.cfg.ClaimEvery)
	defer tick.Stop()
	pause := time.NewTimer(claimPause)
	defer pause.Stop()
	end := time.NewTimer(t.cfg.ClaimEvery)
	defer end.Stop()
	for {
		select {
		case <-tick.C:
		case <-end.C:
		case <-t.claimKick:
			pause.Reset(claimPause)
			select {
			case <-pause.C:
			case <-t.ctx.Done():
				return
			}
		case <-t.ctx.Done():
			return
		}
		now := t.now()
		t.claimRound(now)
		if t.claimEnd > 0 {
			end.Reset(t.claimEnd - now)
		}
	}
}

// claimRound asks all groups and tells the peers.
func (t *Transport) claimRound(now time.Duration) {
	passed := now - t.claimedAt
	late := passed > max(4*t.cfg.ClaimEvery, t.cfg.SilentAfter)
	t.claimedAt = now
	t.awake.Add(int64(min(passed, t.cfg.ClaimEvery*3/2)))
	t.claimNo++
	t.claimEnd = 0
	for _, g := range t.allGroups() {
		g.claimIn(now, time.Duration(t.awake.Load()))
	}
	for _, e := range t.takeEnded() {
		t.listFor(e.to).end(e.endedClaim)
	}
	t.listInbound()
	for addr, l := range t.claimLists {
		t.sendClaims(addr, l, now, late)
	}
}

func (t *Transport) allGroups() []*Group {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := t.claimGroups[:0]
	for _, g := range t.groups {
		all = append(all, g)
	}
	clear(all[len(all):cap(all)])
	t.claimGroups = all
	return all
}

// listInbound has every broker told that is connected with this one, though it may follow this one in nothing. It may believe that it does: of an earlier life of
// this broker, whose disk was lost; only rounds without a claim tell it otherwise.
func (t *Transport) listInbound() {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for key := range t.inbound {
		if key.purpose == purposeControl {
			t.listFor(key.peer)
		}
	}
}

// listFor returns the list for a peer. One that was told something once is told for ever, if only that there is nothing: what it believes has to end some time.
func (t *Transport) listFor(addr raft.ServerAddress) *claimList {
	l := t.claimLists[addr]
	if l == nil {
		l = &claimList{}
		t.claimLists[addr] = l
	}
	return l
}

func (l *claimList) end(e endedClaim) {
	if len(l.ended) < endedPerFrame { // else absence tells
		l.ended = append(l.ended, e)
	}
}

// claimIn adds the group's claims to the lists of its followers' brokers.
func (g *Group) claimIn(now, awake time.Duration) {
	fn := g.claimant.Load()
	if fn == nil {
		return
	}
	c := (*fn).Round() // before the lock: it calls back
	s := &g.claims
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != c.Term {
		if s.term != 0 {
			s.last = ending{s.term, s.peers, now}
		}
		s.term, s.peers = c.Term, nil
	}
	if s.last.term != 0 && now-s.last.since >= claimEndDelay {
		g.tellEnd(*fn)
	}
	if s.last.term != 0 {
		if due := s.last.since + claimEndDelay; g.t.claimEnd == 0 || due < g.t.claimEnd {
			g.t.claimEnd = due
		}
	}
	if c.Term == 0 {
		return
	}
	for _, server := range c.Servers {
		if server.Address == g.t.cfg.Local {
			continue
		}
		p := s.peer(server)
		if p == nil {
			p = s.add(claimed{id: server.ID, addr: server.Address, peer: g.t.peer(server.Address), list: g.t.listFor(server.Address),
				hash: serverHash(server.ID), first: g.t.claimNo, since: awake})
		}
		p.look()
		match, _ := g.Follower(server.ID, c.Term)
		p.told = min(c.Commit, match.Match)
		p.put(&p.list.claims, g.id, c.Term)
		p.list.count++
	}
}

func (p *claimed) put(e *encoder, id GroupID, term uint64) {
	e.u64(uint64(id))
	e.u64(p.hash)
	e.u64(term)
	e.u64(p.told)
}

// TellCommit tells followers of the commit index now, as far as they have the entries, instead of with the next round. It is for a group whose followers' users wait for what was committed.
func (g *Group) TellCommit() {
	fn := g.claimant.Load()
	if fn == nil {
		return
	}
	term, leader, _, commit := (*fn).Following()
	s := &g.claims
	s.mu.Lock()
	defer s.mu.Unlock()
	if leader != g.t.cfg.Local || s.term != term {
		return
	}
	for i := range s.peers {
		p := &s.peers[i]
		f, _ := g.Follower(p.id, term)
		if upTo := min(commit, f.Match); upTo > p.told {
			if c, _, _ := p.peer.line(purposeControl); c != nil {
				p.told = upTo
				c.post(g.oneClaim(p, term))
			}
		}
	}
}

// oneClaim is a frame that is no round: more of one is to come, as far as its receiver knows.
func (g *Group) oneClaim(p *claimed, term uint64) *frame {
	e, pooled := newEncoder(64)
	e.u64(0)
	e.u8(1)
	e.u32(1)
	p.put(e, g.id, term)
	e.u32(0)
	return seal(header{kind: kindClaims}, e, pooled)
}

// tellEnd tells followers that a leadership has ended, unless the replica has moved to a later term by now: then somebody stands for election, as after a transfer, and those who have not heard of it yet
// should not stand as well. claims.mu is held.
func (g *Group) tellEnd(c Claimant) {
	if term, _, _, _ := c.Following(); term == g.claims.last.term {
		for _, p := range g.claims.last.peers {
			p.list.end(endedClaim{g.id, term})
		}
	}
	g.claims.last = ending{}
}

func (s *groupClaims) peer(server raft.Server) *claimed {
	for i := range s.peers {
		if p := &s.peers[i]; p.id == server.ID && p.addr == server.Address {
			return p
		}
	}
	return nil
}

func (s *groupClaims) add(p claimed) *claimed {
	s.peers = append(s.peers, p)
	return &s.peers[len(s.peers)-1]
}

// lastClaims has the followers of a group that closes told in the next round.
func (g *Group) lastClaims() {
	s := &g.claims
	s.mu.Lock()
	term, peers := s.term, s.peers
	if term == 0 {
		term, peers = s.last.term, s.last.peers
	}
	s.term, s.peers, s.last = 0, nil, ending{}
	s.mu.Unlock()
	if term == 0 {
		return
	}
	g.t.endedMu.Lock()
	for _, p := range peers {
		if len(g.t.ended) < endedPerFrame {
			g.t.ended = append(g.t.ended, endedFor{p.addr, endedClaim{g.id, term}})
		}
	}
	g.t.endedMu.Unlock()
	g.t.tellClaims()
}

type endedFor struct {
	to raft.ServerAddress
	endedClaim
}

func (t *Transport) takeEnded() []endedFor {
	t.endedMu.Lock()
	defer t.endedMu.Unlock()
	ended := t.ended
	t.ended = nil
	return ended
}

// sendClaims sends a list and empties it. A peer that cannot be reached now is dialled for the next round.
func (t *Transport) sendClaims(addr raft.ServerAddress, l *claimList, now time.Duration, late bool) {
	p := t.peer(addr)
	c, _, _ := p.line(purposeControl)
	if c == nil {
		l.reset(true)
		return
	}
	stuck, ok := p.claims.sending(c, sentRound{t.claimNo, now, time.Duration(t.awake.Load())}, t.cfg.ControlTimeout)
	if stuck && !late {
		t.stalled(addr, now) // as when a request waits in vain
	}
	if !ok {
		l.reset(true)
		return
	}
	for claims := l.claims.b; ; {
		n := min(len(claims)/claimBytes, claimsPerFrame)
		e, pooled := newEncoder(32 + n*claimBytes)
		more := uint8(0)
		if len(claims) > n*claimBytes {
			more = 1
		}
		e.u64(t.claimNo)
		e.u8(more)
		e.u32(uint32(n))
		e.b = append(e.b, claims[:n*claimBytes]...)
		claims = claims[n*claimBytes:]
		if more == 1 {
			e.u32(0)
		} else {
			e.u32(uint32(len(l.ended)))
			for _, x := range l.ended {
				e.u64(uint64(x.group))
				e.u64(x.term)
			}
		}
		c.post(seal(header{kind: kindClaims}, e, pooled))
		if more == 0 {
			break
		}
	}
	t.stats.Claims.Add(uint64(l.count))
	l.reset(false)
}

// reset empties a list; what has ended is kept if it could not be sent.
func (l *claimList) reset(keepEnded bool) {
	l.claims.b, l.count = l.claims.b[:0], 0
	if !keepEnded {
		l.ended = nil
	}
}

// sending notes a round that is about to be sent. It is not ok if too many are unanswered; stuck if one has been for as long as patience and the connection is silent.
func (o *claimsOut) sending(c *conn, round sentRound, patience time.Duration) (stuck, ok bool) {
	now := round.at
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn != c {
		o.conn, o.sent = c, nil
	}
	if len(o.sent) > 0 {
		stuck = now-o.sent[0].at >= patience && now-time.Duration(c.lastRead.Load()) >= patience
	}
	if len(o.sent) >= claimsUnheard {
		return stuck, false
	}
	o.sent = append(o.sent, round)
	return stuck, true
}

// answered notes the answer to a round, and returns false for one that was not sent, or was given up, on this connection.
func (o *claimsOut) answered(c *conn, round uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, s := range o.sent {
		if s.round == round && o.conn == c {
			o.acked, o.ackedAt = round, s.awake
			o.sent = append(o.sent[:0], o.sent[i+1:]...)
			return true
		}
	}
	return false
}
