package transport

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Follower is what a leader knows of another server from its answers.
type Follower struct {
	// Match is the last entry that it is known to have stored, and that the leader has.
	Match uint64
	// CaughtUp is when it last had all that was committed as the request was sent; zero: not in this term.
	CaughtUp time.Time
}

// followers are noted by the goroutines that send, one per server, and read by whoever asks. They are of one term: what an earlier leadership saw may
// have been replaced since.
type followers struct {
	mu   sync.Mutex
	term uint64
	list map[raft.ServerID]Follower
}

// accepted notes that a server has taken the entries of a request.
func (f *followers) accepted(id raft.ServerID, args *raft.AppendEntriesRequest, now time.Time) {
	match := args.PrevLogEntry + uint64(len(args.Entries))
	f.mu.Lock()
	defer f.mu.Unlock()
	if args.Term < f.term {
		return
	}
	if args.Term > f.term || f.list == nil {
		f.term, f.list = args.Term, map[raft.ServerID]Follower{}
	}
	s := f.list[id]
	s.Match = max(s.Match, match)
	if match >= args.LeaderCommitIndex {
		s.CaughtUp = now
	}
	f.list[id] = s
}

// Follower tells how far a server is, as far as the leader of the term has heard. It may be asked at any time.
func (g *Group) Follower(id raft.ServerID, term uint64) (Follower, bool) {
	g.followers.mu.Lock()
	defer g.followers.mu.Unlock()
	if g.followers.term != term {
		return Follower{}, false
	}
	f, ok := g.followers.list[id]
	return f, ok
}

// heard is called with each answer to entries.
func (g *Group) heard(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if resp.Success {
		g.followers.accepted(id, args, time.Now())
		if g.opts.Prompt {
			g.TellCommit() // an entry is committed before the slowest follower has it
		}
	}
}

// Connections is how many connections with other brokers are open, in both directions.
func (t *Transport) Connections() int { return len(t.conns("")) }
