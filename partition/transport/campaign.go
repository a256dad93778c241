package transport

import (
	"math"

	"github.com/hashicorp/raft"
)

// What package election needs of a group, besides RequestPreVote: to answer pre-votes in raft's place, and to have raft stand for election.

// Gone tells whether there is evidence that a broker is not running or cannot be reached.
func (g *Group) Gone(peer raft.ServerAddress) bool { return g.t.Gone(peer) }

// WatchGone is Transport.WatchGone.
func (g *Group) WatchGone(fn func(peer raft.ServerAddress, gone bool)) (cancel func()) {
	return g.t.WatchGone(fn)
}

// SetPreVoteHandler has fn look at the pre-vote requests of peers before raft does. Where it does not answer, raft does. A pre-vote binds nobody, so whatever
// fn says is safe. It runs on a connection's reader and must not block.
func (g *Group) SetPreVoteHandler(fn func(*raft.RequestPreVoteRequest) (granted, answered bool)) {
	g.preVote.Store(&fn)
}

// SetVoteHandler has fn look at the vote requests of peers before raft does. It may clear the candidate's ID: raft does not ask then whether it knows the candidate as a voter. It runs on a
// connection's reader and must not block.
func (g *Group) SetVoteHandler(fn func(*raft.RequestVoteRequest)) { g.vote.Store(&fn) }

// admit shows a vote request to the group's handler.
func (t *Transport) admit(h header, r *raft.RequestVoteRequest) {
	if g := t.group(h.group); g != nil && g.meant(h.target) {
		if fn := g.vote.Load(); fn != nil {
			(*fn)(r)
		}
	}
}

// answerPreVote answers a pre-vote request in raft's place, if the group's handler does.
func (t *Transport) answerPreVote(h header, r *raft.RequestPreVoteRequest, to replier) bool {
	g := t.group(h.group)
	if g == nil || !g.meant(h.target) {
		return false
	}
	fn := g.preVote.Load()
	if fn == nil {
		return false
	}
	granted, answered := (*fn)(r)
	if !answered {
		return false
	}
	// The candidate's own term: another would say something about ours, and a larger one make it step back.
	to.post(encodeReply(h, &raft.RequestPreVoteResponse{RPCHeader: g.header(), Term: r.Term, Granted: granted}))
	return true
}

func (g *Group) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.opts.ServerID), Addr: g.local}
}

// Campaign makes raft stand for election at once, in the next term, without asking for pre-votes, and its voters vote although they may have heard of a leader: what a leader
// that hands over tells its successor (TimeoutNow, Raft dissertation section 3.10) is told here by ourselves. The caller has to have made sure, by pre-votes of its own, that this
// disturbs nobody. It returns false, and does nothing, if raft has other requests to answer: among them may be a vote or a new leader's word.
//
// stuck is for raft that has stood and was not elected, and would wait for its election timeout before it does so again: it is made a follower first, in the next term, which is this one's if it is not
// 0. hashicorp/raft knows no other way out of a candidacy of this kind that does not wait.
func (g *Group) Campaign(stuck uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || len(g.consumer) > 0 || len(g.inflight) > 0 {
		return false
	}
	if stuck > 0 {
		g.tellSelf(yield(stuck))
	}
	g.tellSelf(&raft.TimeoutNowRequest{RPCHeader: g.header()})
	return true
}

// StepDown makes raft give up a leadership of the given term, as if another had appeared in it: raft answers all that it has in its queues, and stands for no election before its
// timeout. It is for a leader that is about to be closed without an orderly transfer. hashicorp/raft has no call for it; a leader follows whoever sends it an
// AppendEntries of its own term, which nobody else can, and refuses this one for its position.
func (g *Group) StepDown(term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || len(g.consumer) == cap(g.consumer) || len(g.inflight) == cap(g.inflight) {
		return false
	}
	g.tellSelf(yield(term))
	return true
}

// unstick prepares a group for a leader that hands over to it: hashicorp/raft does nothing about that while it is a candidate, which it remains after an election that
// another has won until its election timeout has passed.
func (t *Transport) unstick(id GroupID) {
	g := t.group(id)
	if g == nil {
		return
	}
	if fn := g.claimant.Load(); fn != nil {
		if term := (*fn).Stuck(); term > 0 {
			g.StepDown(term)
		}
	}
}

// yield makes raft a follower of nobody in a term.
func yield(term uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: term, PrevLogEntry: math.MaxUint64}
}

// tellSelf puts a request into raft's queue. There is room; mu is held.
func (g *Group) tellSelf(command any) {
	s := newServed(header{group: g.id}, command, 0, nobody{})
	g.t.queued.force(0)
	g.hand(s)
}

// nobody is where answers to ourselves go.
type nobody struct{}

func (nobody) post(f *frame) { f.release() }
