package controller

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// maxVoters is the most voters of the metadata group: two of five may fail.
const maxVoters = 5

// GroupView is what the planner of the metadata group's membership looks at.
type GroupView struct {
	View
	Self    api.BrokerID // the leader
	Servers []metadata.Server
	// CaughtUp asks whether a member has nearly all that is committed. It is asked only for brokers that may be promoted.
	CaughtUp func(*metadata.Broker) bool
	Limits   Limits
}

// GroupAction is a kind of GroupStep.
type GroupAction string

// The steps by which the metadata group's membership changes, one at a time.
const (
	AddMember     GroupAction = "add"
	PromoteMember GroupAction = "promote"
	DemoteMember  GroupAction = "demote"
	RemoveMember  GroupAction = "remove"
	HandOver      GroupAction = "hand over leadership"
)

// GroupStep is one change of the metadata group's membership.
type GroupStep struct {
	Action GroupAction
	Server metadata.Server // Voter as it is before the step
	Why    string
}

// groupPlanner sorts the members.
type groupPlanner struct {
	GroupView
	good, bad, waiting []metadata.Server // voters that are to stay, voters that are to go, nonvoters that could be promoted
}

// PlanGroup returns the next step: every broker takes part, up to five vote, spread over racks. A voter that is to go loses its vote only after
// another has got one, where there is another.
func PlanGroup(v GroupView) (GroupStep, bool) {
	g := groupPlanner{GroupView: v}
	for _, find := range []func() (GroupStep, bool){g.stale, g.missing, g.forgotten, g.sortMembers, g.promotion, g.demotion} {
		if step, ok := find(); ok {
			return step, true
		}
	}
	return GroupStep{}, false
}

// stale finds members whose data directory was replaced: they will never answer again.
func (g *groupPlanner) stale() (GroupStep, bool) {
	for _, s := range g.Servers {
		b := g.State.Brokers[s.Broker]
		if b != nil && metadata.MemberID(b.ID, b.Incarnation) != s.ServerID {
			return GroupStep{RemoveMember, s, fmt.Sprintf("broker %d lost its disk", b.ID)}, true
		}
	}
	return GroupStep{}, false
}

func (g *groupPlanner) missing() (GroupStep, bool) {
	for _, b := range g.State.SortedBrokers() {
		if g.Alive[b.ID] && !slices.ContainsFunc(g.Servers, func(s metadata.Server) bool { return s.Broker == b.ID }) {
			return GroupStep{AddMember, metadata.Server{Broker: b.ID, ServerID: metadata.MemberID(b.ID, b.Incarnation)}, fmt.Sprintf("broker %d is new", b.ID)}, true
		}
	}
	return GroupStep{}, false
}

// Forget lists the brokers whose record can go: decommissioned, without replicas, and stopped for as long as it takes to count as gone.
func Forget(v View, lim Limits) []api.BrokerID {
	var out []api.BrokerID
	for _, b := range v.State.SortedBrokers() {
		if b.Draining && goneFor(v, b, lim.ReplaceAfter) && ReplicasOn(v.State, b.ID) == 0 {
			out = append(out, b.ID)
		}
	}
	return out
}

func (g *groupPlanner) forgotten() (GroupStep, bool) {
	for _, id := range Forget(g.View, g.Limits) {
		for _, s := range g.Servers {
			if s.Broker == id {
				return GroupStep{RemoveMember, s, fmt.Sprintf("broker %d is decommissioned and stopped", id)}, true
			}
		}
	}
	return GroupStep{}, false
}

// sortMembers finds no step; it prepares the last two.
func (g *groupPlanner) sortMembers() (GroupStep, bool) {
	for _, s := range g.Servers {
		b := g.State.Brokers[s.Broker]
		// A founder may be down since before it could be registered; that is a reason to wait.
		stays := b == nil || !b.Draining && !goneFor(g.View, b, g.Limits.ReplaceAfter)
		switch {
		case s.Voter && stays:
			g.good = append(g.good, s)
		case s.Voter:
			g.bad = append(g.bad, s)
		case stays && g.Alive[s.Broker] && b != nil:
			g.waiting = append(g.waiting, s)
		}
	}
	return GroupStep{}, false
}

// target is how many should vote: an odd number, except that two are safer than one.
func (g *groupPlanner) target() int {
	n := len(g.good) + len(g.waiting)
	if n > 2 && n%2 == 0 {
		n--
	}
	return min(n, maxVoters)
}

func (g *groupPlanner) rack(s metadata.Server) string {
	if b := g.State.Brokers[s.Broker]; b != nil {
		return b.Rack
	}
	return ""
}

// crowd counts the good voters of a rack.
func (g *groupPlanner) crowd(rack string) int {
	n := 0
	for _, s := range g.good {
		if g.rack(s) == rack {
			n++
		}
	}
	return n
}

func (g *groupPlanner) promotion() (GroupStep, bool) {
	slices.SortStableFunc(g.waiting, func(a, b metadata.Server) int {
		return cmp.Compare(g.crowd(g.rack(a)), g.crowd(g.rack(b)))
	})
	for _, s := range g.waiting {
		why := ""
		switch {
		case len(g.good) < g.target():
			why = fmt.Sprintf("%d of %d voters", len(g.good), g.target())
		case len(g.good) == g.target() && g.crowd(g.rack(s)) == 0 && g.crowded() != "":
			why = fmt.Sprintf("no voter in rack %q, several in rack %q", g.rack(s), g.crowded())
		default:
			continue
		}
		if g.CaughtUp(g.State.Brokers[s.Broker]) {
			return GroupStep{PromoteMember, s, why}, true
		}
	}
	return GroupStep{}, false
}

// crowded names a rack with more than one good voter, if there is one.
func (g *groupPlanner) crowded() string {
	for _, s := range g.good {
		if rack := g.rack(s); rack != "" && g.crowd(rack) > 1 {
			return rack
		}
	}
	return ""
}

// demotion takes votes that are not wanted any more. While voters are missing that could still be promoted, all others keep theirs.
func (g *groupPlanner) demotion() (GroupStep, bool) {
	var s metadata.Server
	var why string
	switch {
	case len(g.good) < g.target() || len(g.good) == 0:
		return GroupStep{}, false
	case len(g.bad) > 0:
		// The leader last, so that it hands over to one that stays.
		s = slices.MinFunc(g.bad, func(a, b metadata.Server) int { return leads(a, g.Self) - leads(b, g.Self) })
		why = fmt.Sprintf("broker %d is leaving", s.Broker)
	case len(g.good) > g.target():
		s, why = g.surplus(), fmt.Sprintf("%d voters are enough", g.target())
	default:
		return GroupStep{}, false
	}
	if s.Broker == g.Self {
		return GroupStep{HandOver, s, why}, true
	}
	return GroupStep{DemoteMember, s, why}, true
}

// surplus picks from the most crowded rack the highest ID that does not lead.
func (g *groupPlanner) surplus() metadata.Server {
	return slices.MaxFunc(g.good, func(a, b metadata.Server) int {
		return cmp.Or(cmp.Compare(g.crowd(g.rack(a)), g.crowd(g.rack(b))), leads(b, g.Self)-leads(a, g.Self), cmp.Compare(a.Broker, b.Broker))
	})
}

func leads(s metadata.Server, self api.BrokerID) int {
	if s.Broker == self {
		return 1
	}
	return 0
}
