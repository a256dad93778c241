package transport

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestFollowersAreOfOneTerm: what an earlier leadership knew may have been replaced since.
func TestFollowersAreOfOneTerm(t *testing.T) {
	g := &Group{}
	entries := func(n int) []*raft.Log {
		list := make([]*raft.Log, n)
		for i := range list {
			list[i] = &raft.Log{}
		}
		return list
	}
	at := time.Now()
	ask := func(term uint64) Follower {
		f, _ := g.Follower("b", term)
		return f
	}
	g.followers.accepted("b", &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 10, Entries: entries(5), LeaderCommitIndex: 20}, at)
	if f := ask(3); f.Match != 15 || !f.CaughtUp.IsZero() {
		t.Errorf("behind the commit index: %+v", f)
	}
	g.followers.accepted("b", &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 15, Entries: entries(5), LeaderCommitIndex: 20}, at)
	if f := ask(3); f.Match != 20 || !f.CaughtUp.Equal(at) {
		t.Errorf("caught up: %+v", f)
	}
	g.followers.accepted("b", &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 17, LeaderCommitIndex: 18}, at)
	if f := ask(5); f.Match != 17 || !f.CaughtUp.IsZero() {
		t.Errorf("in a new term: %+v", f)
	}
	g.followers.accepted("b", &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: 99}, at)
	if f := ask(5); f.Match != 17 {
		t.Errorf("a late answer of an earlier term changed it: %+v", f)
	}
	if _, ok := g.Follower("b", 3); ok {
		t.Error("an earlier term is still told")
	}
	g.heard("b", &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 30}, &raft.AppendEntriesResponse{Success: false})
	if f := ask(5); f.Match != 17 {
		t.Errorf("a refusal counted: %+v", f)
	}
}
