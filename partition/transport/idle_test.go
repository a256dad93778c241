package transport

import (
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

func (g *Group) isRunning() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// A group's goroutine exists while there is something to do, or requests come in quick succession.
func TestIdleGroupHasNoGoroutine(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{})
	rests := func(after string) {
		t.Helper()
		eventually(t, "rest after "+after, func() bool { return !follower.isRunning() && !leader.isRunning() })
	}
	rests("the start")
	follower.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(success, nil) })
	if err := leader.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	rests("a heartbeat")
	for _, n := range []int{1, 50} {
		go func() {
			for range n {
				respond(<-follower.Consumer(), success, nil)
			}
		}()
		for range n {
			if err := leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		rests("requests")
	}
	done := make(chan error, 1)
	go func() { done <- leader.AppendEntries("2", "2", entry(1, 1), &raft.AppendEntriesResponse{}) }()
	rpc := <-follower.Consumer()
	if !follower.isRunning() {
		t.Error("nobody waits for raft's answer")
	}
	rpc.Respond(success, nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// No request is forgotten that comes just as the goroutine ends.
func TestRequestsAsTheGoroutineEnds(t *testing.T) {
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) { c.HeartbeatWindow = 1 })
	follower.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(success, nil) })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range 300 {
				if err := leader.AppendEntries("2", "2", beatRequest(), &raft.AppendEntriesResponse{}); err != nil {
					t.Errorf("heartbeat %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
