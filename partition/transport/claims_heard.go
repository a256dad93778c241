package transport

import "github.com/hashicorp/raft"

// What becomes of claims (see claims.go) where they arrive: a follower's broker judges each, and the leader's takes in the answers.

// roundsOf counts the complete rounds that have come from a peer.
func (t *Transport) roundsOf(peer raft.ServerAddress) uint64 {
	t.endedMu.Lock()
	defer t.endedMu.Unlock()
	return t.heardRounds[peer]
}

// serveClaims judges a frame of claims and answers it.
func (c *conn) serveClaims(payload []byte) error {
	d := &decoder{b: payload}
	round, more := d.u64(), d.u8()
	e, pooled := newEncoder(64)
	e.u64(round)
	e.u8(more)
	at := len(e.b)
	e.u32(0)
	refused := uint32(0)
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		id, target, term, commit := GroupID(d.u64()), d.u64(), d.u64(), d.u64()
		if d.err != nil {
			break
		}
		if why, theirs := c.t.judgeClaim(c.peer, id, target, term, commit); why != 0 {
			e.u64(uint64(id))
			e.u8(uint8(why))
			e.u64(theirs)
			refused++
		}
	}
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		if id, term := GroupID(d.u64()), d.u64(); d.err == nil {
			c.t.claimEnded(c.peer, id, term)
		}
	}
	if err := d.end(); err != nil {
		return err
	}
	if more == 0 {
		c.t.countRound(c.peer)
	}
	le.PutUint32(e.b[at:], refused)
	c.post(seal(header{kind: kindClaimsReply}, e, pooled))
	return nil
}

func (t *Transport) countRound(peer raft.ServerAddress) {
	t.endedMu.Lock()
	defer t.endedMu.Unlock()
	if _, known := t.heardRounds[peer]; known || len(t.heardRounds) < maxPeers {
		t.heardRounds[peer]++
	}
}

// judgeClaim returns 0 if the group's replica follows that leader in that term; else why not, and its term.
func (t *Transport) judgeClaim(peer raft.ServerAddress, id GroupID, target, term, commit uint64) (refusal, uint64) {
	g := t.group(id)
	if g == nil || !g.meant(target) {
		return refusedUnknown, 0
	}
	fn := g.claimant.Load()
	if fn == nil {
		return refusedUnknown, 0
	}
	ours, leader, leaderID, committed := (*fn).Following()
	switch {
	case ours > term:
		return refusedStale, ours
	case ours < term || leader != peer:
		return refusedUnaware, ours
	}
	round := t.roundsOf(peer)
	s := &g.claims
	s.mu.Lock()
	s.leader, s.leaderTerm, s.round, s.at, s.ended = peer, term, round, t.now(), 0
	s.mu.Unlock()
	if commit > committed {
		g.committed(peer, leaderID, term, commit)
	}
	return 0, 0
}

// committed tells raft what its leader has committed, as an append without entries would. The leader named only what this server has acknowledged to it in the same term, so the
// log here agrees with the leader's up to there.
func (g *Group) committed(leader raft.ServerAddress, id raft.ServerID, term, commit uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || len(g.consumer) > 0 || len(g.inflight) > 0 {
		return // what waits may tell, or the next round does
	}
	addr := g.EncodePeer(id, leader)
	g.tellSelf(&raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: addr},
		Term:      term, Leader: addr, LeaderCommitIndex: commit,
	})
}

// claimEnded is a peer's word that it no longer leads a group in a term.
func (t *Transport) claimEnded(peer raft.ServerAddress, id GroupID, term uint64) {
	g := t.group(id)
	if g == nil {
		return
	}
	fn := g.claimant.Load()
	if fn == nil {
		return
	}
	ours, leader, _, _ := (*fn).Following()
	if ours != term || leader != peer {
		return
	}
	s := &g.claims
	s.mu.Lock()
	if s.leader != leader || s.leaderTerm != term {
		s.leader, s.leaderTerm, s.round, s.at = leader, term, 0, t.now()
	}
	s.ended = term
	s.mu.Unlock()
	(*fn).LeaderEnded()
}

// claimsReply takes in the answer to a round's frame.
func (c *conn) claimsReply(payload []byte) error {
	d := &decoder{b: payload}
	round, more := d.u64(), d.u8()
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		id, why, term := GroupID(d.u64()), refusal(d.u8()), d.u64()
		if d.err == nil {
			c.t.claimRefused(c.peer, round, id, why, term)
		}
	}
	if err := d.end(); err != nil {
		return err
	}
	if more == 0 {
		c.t.peer(c.peer).claims.answered(c, round)
	}
	return nil
}

// claimRefused: a follower does not agree. One that does not know its leader is told by a heartbeat in raft's name.
func (t *Transport) claimRefused(peer raft.ServerAddress, round uint64, id GroupID, why refusal, theirs uint64) {
	g := t.group(id)
	if g == nil {
		return
	}
	s := &g.claims
	s.mu.Lock()
	term, server := s.term, raft.ServerID("")
	for i := range s.peers {
		if p := &s.peers[i]; p.addr == peer {
			p.look() // what counted until now
			p.refused = max(p.refused, round)
			server = p.id
		}
	}
	s.mu.Unlock()
	fn := g.claimant.Load()
	if term == 0 || server == "" || fn == nil {
		return
	}
	switch {
	case why == refusedUnaware:
		g.introduce(server, peer, term)
	case why == refusedStale && theirs > term:
		(*fn).Overtaken(theirs)
	}
}

// introduce sends a heartbeat to a follower without waiting for the answer, which the next round gives.
func (g *Group) introduce(server raft.ServerID, target raft.ServerAddress, term uint64) {
	c, _, _ := g.t.peer(target).line(purposeControl)
	if c == nil {
		return
	}
	h := g.header()
	c.beats.add(g.opts.Prompt, func(e *encoder) {
		e.u64(0) // no request has this number
		e.u64(uint64(g.id))
		e.u64(serverHash(server))
		e.u64(term)
		e.names(h, h.Addr)
	})
}
