package transport

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Catching up.
//
// A follower that is far behind (a new replica, or a broker that comes back) is sent what others have long had. Nobody waits for
// it, and there is much of it; on the data connection it would stand before the entries that producers do wait for, and it would take the disks and
// processors that those need. So requests to a follower that is far behind go the slow lane:
//
//   - on a connection of their own (purposeCatchUp), so that what is queued there delays no live append;
//   - in frames of catchUpFrame bytes, of which at most catchUpFrames are under way to one peer, over all groups;
//   - after each frame the sender pauses for as long as the frame took: where disks or processors are short, frames take longer, and catching up yields;
//   - no faster, over all groups and peers, than Config.CatchUpBytesPerSecond, but at least at twice the rate at which the groups led here
//     grow, since a follower that gains nothing on a busy group would never arrive;
//   - never in a pipeline, until the follower is near.
//
// A group that cannot commit because a quorum needs this follower (GroupOptions.Stalled) is not slowed down: then somebody waits after all.

const (
	catchUpFrame                 = 1 << 20                // entry bytes in one frame
	catchUpFrames                = 2                      // frames under way to one peer
	catchUpTurn                  = 500 * time.Millisecond // after this long the rest of a request is left to the next one, so that raft sees that it should stop
	defaultCatchUpBytesPerSecond = 32 << 20

	catchUpPauseMax = 100 * time.Millisecond // the longest pause after a frame
)

// How far behind is far: committed entries that the follower lacks, and about how many bytes they are. A pipeline is given up only when it is much farther,
// so that a group does not go to and fro.
const (
	farEntries     = 64
	farEntriesMany = 4096 // this many are far whatever their size
	farBytes       = 4 << 20
	pipelineSlack  = 4
)

// behind tells whether a follower that has all of args' entries is still far behind the commit index, by slack times what is called far. Sizes are
// estimated by those of the entries at hand. A request that carries entries not yet committed never is: a quorum may need them.
func behind(args *raft.AppendEntriesRequest, slack uint64) bool {
	n := uint64(len(args.Entries))
	last := args.PrevLogEntry + n
	if n == 0 || args.LeaderCommitIndex <= last {
		return false
	}
	lag := args.LeaderCommitIndex - last
	bytes := lag * (uint64(entryBytes(args.Entries))/n + 1)
	return lag > slack*farEntries && bytes > slack*farBytes || lag > slack*farEntriesMany
}

// errFar ends a pipeline; raft goes on request by request.
var errFar = errors.New("the follower has fallen far behind and catches up apart from live appends")

// note remembers whether a server is far behind, as of a request to it.
func (g *Group) note(server raft.ServerID, far bool) {
	g.farMu.Lock()
	defer g.farMu.Unlock()
	if far {
		g.far[server] = true
	} else {
		delete(g.far, server)
	}
}

func (g *Group) isFar(server raft.ServerID) bool {
	g.farMu.Lock()
	defer g.farMu.Unlock()
	return g.far[server]
}

// catchUp sends args' entries in frames, one after the other. It stops early, and shortens args.Entries to what the follower has taken, when that took
// long or a later frame failed; raft then goes on from there.
func (g *Group) catchUp(server raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	began, done := g.t.now(), 0
	for _, part := range split(args, min(catchUpFrame, g.t.cfg.MaxAppendBytes)) {
		var answer raft.AppendEntriesResponse
		err := g.catchUpOnce(server, target, part, &answer)
		if done > 0 && (err != nil || !answer.Success && answer.Term <= args.Term) {
			break
		}
		if err != nil {
			return err
		}
		*resp = answer
		done += len(part.Entries)
		if !answer.Success || g.t.now()-began > catchUpTurn {
			break
		}
	}
	args.Entries = args.Entries[:done]
	return nil
}

// catchUpOnce sends one frame when it is its turn, and waits for the answer.
func (g *Group) catchUpOnce(server raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	c, err := g.t.connTo(target, purposeCatchUp, g.closed)
	if err != nil {
		return err
	}
	leave, err := g.enterSlowLane(c)
	if err != nil {
		return err
	}
	defer leave()
	if !g.unhurried(g.t.slowLane.reserve(g.t.now(), entryBytes(args.Entries))) {
		return errStopped
	}
	began := g.t.now()
	cl, err := g.sendAppend(c, server, args, resp, false, g.closed)
	if err == nil {
		err = c.wait(cl, g.closed, errStopped)
	}
	if err == nil && !g.unhurried(min(g.t.now()-began, catchUpPauseMax)) {
		err = errStopped
	}
	return err
}

// enterSlowLane waits for a place among the frames under way to a peer. leave gives it back.
func (g *Group) enterSlowLane(c *conn) (leave func(), err error) {
	if g.stalled() {
		return func() {}, nil
	}
	slots := g.t.peer(c.peer).catchUps
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-c.done:
		return nil, c.failure()
	case <-g.closed:
		return nil, errStopped
	}
}

func (g *Group) stalled() bool { return g.opts.Stalled != nil && g.opts.Stalled() }

// unhurried waits, but not while a quorum waits for this follower. It returns false when the group closes.
func (g *Group) unhurried(d time.Duration) bool {
	if d <= 0 || g.stalled() {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-g.closed:
		return false
	}
}

// grew notes how much the group has committed since the last request, estimated by the sizes of the entries at hand.
func (g *Group) grew(args *raft.AppendEntriesRequest) {
	for n := uint64(len(args.Entries)); n > 0; {
		before := g.commit.Load()
		if args.LeaderCommitIndex <= before {
			return
		}
		if g.commit.CompareAndSwap(before, args.LeaderCommitIndex) {
			if before > 0 {
				g.t.committed.Add((args.LeaderCommitIndex - before) * (uint64(entryBytes(args.Entries)) / n))
			}
			return
		}
	}
}

// SetCatchUpRate changes Config.CatchUpBytesPerSecond while the transport runs. 0 goes back to that.
func (t *Transport) SetCatchUpRate(bytesPerSecond int64) {
	t.catchUpSet.Store(bytesPerSecond)
	t.slowLane.setRate(t.now(), t.catchUpLimit())
}

func (t *Transport) catchUpLimit() int64 {
	if n := t.catchUpSet.Load(); n != 0 {
		return n
	}
	return t.cfg.CatchUpBytesPerSecond
}

// adaptCatchUp keeps the slow lane's rate at what is configured, or at twice the rate at which groups grow where that is more. The sweeper calls it.
func (t *Transport) adaptCatchUp(now time.Duration) {
	limit := t.catchUpLimit()
	passed := now - t.rated
	if limit < 0 || passed < time.Second {
		return
	}
	committed := t.committed.Load()
	growth := float64(committed-t.ratedBytes) / passed.Seconds()
	t.rated, t.ratedBytes = now, committed
	t.slowLane.setRate(now, max(limit, int64(2*growth)))
}
