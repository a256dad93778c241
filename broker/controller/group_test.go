package controller

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// groupWorld carries the group planner's steps out.
type groupWorld struct {
	*world
	self    api.BrokerID
	servers []metadata.Server
	behind  map[api.BrokerID]bool
}

func (g *groupWorld) view() GroupView {
	return GroupView{View: g.world.view(), Self: g.self, Servers: g.servers, Limits: g.limits,
		CaughtUp: func(b *metadata.Broker) bool { return !g.behind[b.ID] }}
}

// run takes all steps and describes them.
func (g *groupWorld) run() string {
	g.t.Helper()
	var out []string
	for range 50 {
		step, ok := PlanGroup(g.view())
		if !ok {
			return strings.Join(out, "; ")
		}
		out = append(out, fmt.Sprintf("%s %d", step.Action, step.Server.Broker))
		g.take(step)
	}
	g.t.Fatalf("the steps never end: %v", out)
	return ""
}

func (g *groupWorld) take(step GroupStep) {
	if step.Action == AddMember {
		g.servers = append(g.servers, step.Server)
		return
	}
	for i, s := range g.servers {
		switch {
		case step.Action == HandOver && s.Voter && s.Broker != g.self && g.alive[s.Broker] && !g.s.Brokers[s.Broker].Draining:
			g.self = s.Broker
			return
		case s.ServerID != step.Server.ServerID:
		case step.Action == RemoveMember:
			g.servers = append(g.servers[:i:i], g.servers[i+1:]...)
			return
		case step.Action != HandOver:
			g.servers[i].Voter = step.Action == PromoteMember
			return
		}
	}
}

func (g *groupWorld) String() string {
	var b bytes.Buffer
	for _, s := range g.servers {
		mark := ""
		if !s.Voter {
			mark = "-"
		}
		fmt.Fprintf(&b, "%s%d ", mark, s.Broker)
	}
	return strings.TrimSpace(b.String())
}

func TestGroupStories(t *testing.T) {
	g := &groupWorld{world: newWorld(t), self: 1, behind: map[api.BrokerID]bool{}}
	expect := func(what, steps, servers string) {
		t.Helper()
		if got := g.run(); got != steps {
			t.Errorf("%s: steps %q, want %q", what, got, steps)
		}
		if got := g.String(); got != servers {
			t.Errorf("%s: servers %q, want %q", what, got, servers)
		}
	}
	// Founders are in the configuration before they are registered.
	for id := range api.BrokerID(3) {
		g.servers = append(g.servers, metadata.Server{Broker: id + 1, ServerID: metadata.MemberID(id+1, "i0"), Voter: true})
	}
	g.broker(1, "a")
	expect("two founders are not registered yet", "", "1 2 3")
	g.broker(2, "a")
	g.broker(3, "b")
	expect("three voters", "", "1 2 3")
	g.broker(4, "b")
	expect("four: three votes are enough", "add 4", "1 2 3 -4")
	g.behind[5] = true
	g.broker(5, "c")
	expect("a fifth that is not caught up; the fourth waits with it", "add 5; promote 4", "1 2 3 4 -5")
	g.behind[5] = false
	expect("now five vote", "promote 5", "1 2 3 4 5")
	g.broker(6, "a")
	expect("the sixth listens", "add 6", "1 2 3 4 5 -6")

	g.kill(2)
	expect("a voter fails: wait", "", "1 2 3 4 5 -6")
	g.now = g.now.Add(time.Hour)
	expect("it stayed away: another votes first", "promote 6; demote 2", "1 -2 3 4 5 6")
	g.revive(2, false)
	expect("it is back, and listens", "", "1 -2 3 4 5 6")
	g.revive(3, true)
	expect("3 lost its disk: out, and in as new", "remove 3; add 3; promote 3", "1 -2 4 5 6 3")

	g.do(&metadata.SetDraining{ID: 1, Draining: true})
	expect("the leader is decommissioned", "promote 2; hand over leadership 1; demote 1", "-1 2 4 5 6 3")
	g.kill(1)
	expect("it was stopped", "", "-1 2 4 5 6 3")
	g.now = g.now.Add(time.Hour)
	expect("and stayed away", "remove 1", "2 4 5 6 3")
	if got := Forget(g.world.view(), g.limits); len(got) != 1 || got[0] != 1 {
		t.Errorf("to forget: %v", got)
	}
}

func TestGroupSpreadsRacks(t *testing.T) {
	g := &groupWorld{world: newWorld(t), self: 1, behind: map[api.BrokerID]bool{}}
	for i, rack := range []string{"a", "a", "a", "b", "c"} {
		g.broker(api.BrokerID(i+1), rack)
	}
	g.do(&metadata.SetDraining{ID: 5, Draining: true})
	for i := range 5 {
		g.servers = append(g.servers, metadata.Server{Broker: api.BrokerID(i + 1), ServerID: metadata.MemberID(api.BrokerID(i+1), "i0"), Voter: i < 3})
	}
	if got := g.run(); got != "promote 4; demote 3" || g.String() != "1 2 -3 4 -5" {
		t.Errorf("steps %q, servers %q", got, g)
	}
	g.do(&metadata.SetDraining{ID: 4, Draining: true})
	if got := g.run(); got != "promote 3; demote 4" {
		t.Errorf("steps %q, servers %q", got, g)
	}
}

func TestGroupLeaderLeavesLast(t *testing.T) {
	g := &groupWorld{world: newWorld(t), self: 1, behind: map[api.BrokerID]bool{}}
	for id := range api.BrokerID(5) {
		g.broker(id+1, "")
		g.servers = append(g.servers, metadata.Server{Broker: id + 1, ServerID: metadata.MemberID(id+1, "i0"), Voter: true})
	}
	g.do(&metadata.SetDraining{ID: 1, Draining: true})
	g.do(&metadata.SetDraining{ID: 2, Draining: true})
	if got := g.run(); got != "demote 2; hand over leadership 1; demote 1" || g.self == 2 {
		t.Errorf("steps %q, leader %d", got, g.self)
	}
}

func TestGroupSmall(t *testing.T) {
	for n, want := range map[int]string{1: "1", 2: "1 2", 3: "1 2 3", 4: "1 2 3 -4"} {
		g := &groupWorld{world: newWorld(t), self: 1, behind: map[api.BrokerID]bool{}}
		for i := range n {
			g.broker(api.BrokerID(i+1), "")
		}
		g.servers = []metadata.Server{{Broker: 1, ServerID: metadata.MemberID(1, "i0"), Voter: true}}
		if g.run(); g.String() != want {
			t.Errorf("%d brokers: %s, want %s", n, g, want)
		}
	}
}
