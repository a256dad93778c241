package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// View is all that the planner looks at.
type View struct {
	State *metadata.State
	Alive map[api.BrokerID]bool // by gossip
	Now   time.Time
}

// Limits bound what a plan does.
type Limits struct {
	// MaxMoving is the number of partitions that may move at once. A partition is moving while its voters are not those desired.
	MaxMoving int
	// MaxBuilding is the number of replicas that may be built on one broker at once, of all that move; 0: as many as MaxMoving. Where several replicas come to one broker, that is
	// the broker which their traffic may slow down.
	MaxBuilding int
	// ReplaceAfter is how long a broker may be away before its replicas are rebuilt elsewhere; negative: never.
	ReplaceAfter time.Duration
}

// Plan is what the controller does next. Applying it and planning again, on and on, ends in an empty plan.
type Plan struct {
	Changes []metadata.ReplicaChange
	// Reasons says why, a line for each of Changes.
	Reasons []string
	// Blocked says, in plain words, what ought to be done and cannot be.
	Blocked []api.PartitionProblem
	// Balanced: State.Rebalance is set and nothing is left to do for it.
	Balanced bool
}

// MakePlan plans the next steps, the most urgent first: leadership off draining brokers; replicas whose files are lost or damaged; replicas on
// brokers that stayed away; replicas on draining brokers; reassignments that operators asked for; and, if it is asked for, the rebalance.
// Nothing is planned while fewer than a majority of the registered brokers is alive: then it is more likely this broker that is cut off.
func MakePlan(v View, lim Limits) Plan {
	p := planner{View: v, lim: lim, load: loadOf(v.State.SortedTopics()), building: map[api.BrokerID]int{}, changed: map[api.TopicPartition]bool{}}
	if !v.majority() {
		return p.plan
	}
	p.slots = lim.MaxMoving
	for _, t := range v.State.SortedTopics() {
		for _, part := range t.Partitions {
			if part.Moving() && p.hasQuorum(part) { // others do not move, and nobody need wait for them
				p.slots--
				p.countBuilds(part)
			}
			p.inspect(part)
		}
	}
	p.repairAll()
	p.reassignAll()
	p.rebalance()
	return p.plan
}

// countBuilds counts the replicas of a moving partition that have no vote yet, but for those that are to be replaced themselves.
func (p *planner) countBuilds(part *metadata.Partition) {
	for _, r := range part.Replicas {
		if _, _, bad := p.fault(part, r); !bad && !slices.Contains(part.Voters, r) {
			p.building[r.Broker]++
		}
	}
}

// mayBuild says whether a broker may begin to build one more replica.
func (p *planner) mayBuild(id api.BrokerID) bool {
	return p.lim.MaxBuilding <= 0 || p.building[id] < p.lim.MaxBuilding
}

func (v View) majority() bool {
	alive := 0
	for id := range v.State.Brokers {
		if v.Alive[id] {
			alive++
		}
	}
	return 2*alive > len(v.State.Brokers)
}

// planner makes one plan.
type planner struct {
	View
	lim      Limits
	load     load
	slots    int                  // how many more partitions may begin to move
	building map[api.BrokerID]int // replicas that brokers are building
	broken   []repair
	changed  map[api.TopicPartition]bool // partitions that the plan has a change for
	plan     Plan
}

// urgency orders repairs.
type urgency int

const (
	lostFiles urgency = iota
	stayedAway
	draining
	urgencies
)

// repair is a partition of which some desired replicas must be replaced.
type repair struct {
	p       *metadata.Partition
	urgency urgency
	why     map[string]string // by server ID
}

// fault says what is wrong with a desired replica, if anything.
func (p *planner) fault(part *metadata.Partition, r metadata.Replica) (urgency, string, bool) {
	b := p.State.Brokers[r.Broker]
	switch {
	case b == nil:
		return stayedAway, fmt.Sprintf("broker %d is not known", r.Broker), true
	case p.gone(b):
		return stayedAway, fmt.Sprintf("broker %d stayed away", b.ID), true
	case !p.Alive[b.ID] && b.Draining && b.AwaySinceMs != 0: // it is not to come back, so there is nothing to wait for
		return stayedAway, fmt.Sprintf("broker %d is decommissioned, and away", b.ID), true
	case !p.Alive[b.ID]:
		return 0, "", false // wait
	case part.IsQuarantined(r.ServerID):
		return lostFiles, fmt.Sprintf("replica %s is damaged", r.ServerID), true
	case incarnation(r) != b.Incarnation:
		return lostFiles, fmt.Sprintf("broker %d lost its disk", b.ID), true
	case b.Draining:
		return draining, fmt.Sprintf("broker %d is draining", b.ID), true
	}
	return 0, "", false
}

func incarnation(r metadata.Replica) string {
	_, inc, _, _ := metadata.ParseServerID(r.ServerID)
	return inc
}

// gone says that a broker was away for so long that its replicas are rebuilt.
func (p *planner) gone(b *metadata.Broker) bool {
	return goneFor(p.View, b, p.lim.ReplaceAfter)
}

func goneFor(v View, b *metadata.Broker, limit time.Duration) bool {
	return !v.Alive[b.ID] && b.AwaySinceMs != 0 && limit >= 0 && v.Now.Sub(time.UnixMilli(b.AwaySinceMs)) >= limit
}

func (p *planner) inspect(part *metadata.Partition) {
	r := repair{p: part, urgency: urgencies, why: map[string]string{}}
	for _, replica := range part.Replicas {
		if u, why, bad := p.fault(part, replica); bad {
			r.urgency, r.why[replica.ServerID] = min(r.urgency, u), why
		}
	}
	if r.urgency < urgencies {
		p.broken = append(p.broken, r)
	}
}

func (p *planner) repairAll() {
	for u := lostFiles; u < urgencies; u++ {
		for _, r := range p.broken {
			if r.urgency == u {
				p.repair(r)
			}
		}
	}
}

// repair replaces the faulty replicas of one partition, if that is possible now.
func (p *planner) repair(r repair) {
	if !p.hasQuorum(r.p) {
		p.block(r.p, "no quorum of its replicas is alive and undamaged, so none can be replaced")
		return
	}
	if r.p.Reassignment != nil && !r.p.Begun() && p.reassign(r.p) {
		return // where the operator wants it, and not where the planner would
	}
	if p.slots <= 0 && !r.p.Moving() {
		p.leadElsewhere(r)
		return
	}
	next, why, ok := p.substitute(r)
	if !ok {
		p.leadElsewhere(r)
		return
	}
	p.choosePreferred(r.p, next)
	if !r.p.Moving() {
		p.slots--
	}
	p.change(r.p, next, why)
}

// hasQuorum says whether the partition's Raft group can change its configuration.
func (p *planner) hasQuorum(part *metadata.Partition) bool {
	good := 0
	for _, r := range part.Voters {
		b := p.State.Brokers[r.Broker]
		if b != nil && p.Alive[r.Broker] && b.Incarnation == incarnation(r) && !part.IsQuarantined(r.ServerID) {
			good++
		}
	}
	return 2*good > len(part.Voters)
}

// substitute returns the desired replicas with the faulty ones replaced: by a fresh one on the same broker where that is there to stay, else by one on
// another, which may still have one from before. false if nothing can be replaced, or not yet, for the brokers concerned build as many replicas as they may.
func (p *planner) substitute(r repair) (next []metadata.Replica, why string, ok bool) {
	next = slices.Clone(r.p.Replicas)
	for i, old := range r.p.Replicas {
		reason, bad := r.why[old.ServerID]
		if !bad {
			continue
		}
		if b := p.State.Brokers[old.Broker]; b != nil && p.Alive[b.ID] && !b.Draining {
			if p.mayBuild(b.ID) {
				p.building[b.ID]++
				next[i] = metadata.Replica{Broker: b.ID}
				why, ok = join(why, fmt.Sprintf("%s: fresh replica there", reason)), true
			}
			continue
		}
		to := p.bestFor(next, i)
		if to == nil {
			p.block(r.p, fmt.Sprintf("%s, and there is no other broker for its replica", reason))
			continue
		}
		r, there := p.present(r.p, to.ID)
		if !there {
			if !p.mayBuild(to.ID) {
				continue
			}
			p.building[to.ID]++
		}
		next[i] = r
		p.load.replicas[old.Broker]--
		p.load.replicas[to.ID]++
		why, ok = join(why, fmt.Sprintf("%s: to broker %d", reason, to.ID)), true
	}
	return next, why, ok
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// bestFor picks the broker for replica i of a partition: in a rack that the others do not use, with the fewest replicas.
func (p *planner) bestFor(replicas []metadata.Replica, i int) *metadata.Broker {
	var best *metadata.Broker
	var bestRank [2]int
	for _, b := range p.eligible() {
		if slices.ContainsFunc(replicas, func(r metadata.Replica) bool { return r.Broker == b.ID }) {
			continue
		}
		rank := [2]int{0, p.load.replicas[b.ID]}
		for j, r := range replicas {
			if o := p.State.Brokers[r.Broker]; j != i && o != nil && o.Rack == b.Rack {
				rank[0]++
			}
		}
		if best == nil || slices.Compare(rank[:], bestRank[:]) < 0 {
			best, bestRank = b, rank
		}
	}
	return best
}

// choosePreferred makes sure that the preferred leader is a replica that stays, or, if the preferred leader only gets a fresh
// replica, leaves it so.
func (p *planner) choosePreferred(part *metadata.Partition, next []metadata.Replica) {
	if next[0].Broker == part.Replicas[0].Broker && p.canLead(next[0].Broker) {
		return
	}
	best := -1
	for i, r := range next {
		if r.ServerID == "" || !p.canLead(r.Broker) {
			continue
		}
		if best < 0 || p.load.leaders[r.Broker] < p.load.leaders[next[best].Broker] {
			best = i
		}
	}
	if best <= 0 {
		return
	}
	p.load.leaders[part.Replicas[0].Broker]--
	p.load.leaders[next[best].Broker]++
	r := next[best]
	copy(next[1:best+1], next[:best])
	next[0] = r
}

func (p *planner) canLead(id api.BrokerID) bool {
	b := p.State.Brokers[id]
	return b != nil && p.Alive[id] && !b.Draining
}

// leadElsewhere takes at least the leadership from a draining broker while its replica has to wait. It moves no data.
func (p *planner) leadElsewhere(r repair) {
	first := r.p.Replicas[0]
	b := p.State.Brokers[first.Broker]
	if b == nil || !b.Draining || r.p.Moving() {
		return
	}
	next := slices.Clone(r.p.Replicas)
	p.choosePreferred(r.p, next)
	if next[0] != first {
		p.change(r.p, next, fmt.Sprintf("broker %d is draining: broker %d leads", first.Broker, next[0].Broker))
	}
}

func (p *planner) change(part *metadata.Partition, next []metadata.Replica, why string) {
	p.plan.Changes = append(p.plan.Changes, metadata.ReplicaChange{Group: part.Group, TP: part.TP(), Revision: part.Revision, Replicas: next})
	p.plan.Reasons = append(p.plan.Reasons, why)
	p.changed[part.TP()] = true
}

func (p *planner) block(part *metadata.Partition, problem string) {
	p.plan.Blocked = append(p.plan.Blocked, api.PartitionProblem{TopicPartition: part.TP(), Problem: problem})
}

// rebalance takes the next moves of a rebalance, if it is asked for and there is nothing more urgent. Leaders are evened out
// when no replica is left to move, so that they are chosen once.
func (p *planner) rebalance() {
	if !p.State.Rebalance || len(p.plan.Changes) > 0 || p.slots <= 0 {
		return
	}
	m := rebalanced(p.View, false)
	moving := p.slots < p.lim.MaxMoving
	for _, mp := range m.parts {
		if moves := mp.moves(); len(moves) > 0 && p.slots > 0 && p.begin(moves) {
			p.slots--
			p.change(mp.p, mp.change().Replicas, "balance: "+describeMoves(moves))
		}
	}
	if len(p.plan.Changes) > 0 || moving {
		return
	}
	for _, mp := range m.parts {
		if mp.brokers[0] != mp.p.Replicas[0].Broker {
			p.change(mp.p, mp.change().Replicas, fmt.Sprintf("balance: broker %d leads instead of %d", mp.brokers[0], mp.p.Replicas[0].Broker))
		}
	}
	p.plan.Balanced = len(p.plan.Changes) == 0
}

// begin counts the builds of moves, if all of them may begin.
func (p *planner) begin(moves []api.ReplicaMove) bool {
	for _, m := range moves {
		if !p.mayBuild(m.To) {
			return false
		}
	}
	for _, m := range moves {
		p.building[m.To]++
	}
	return true
}

func describeMoves(moves []api.ReplicaMove) string {
	slices.SortFunc(moves, func(a, b api.ReplicaMove) int { return cmp.Compare(a.From, b.From) })
	s := ""
	for _, m := range moves {
		s = join(s, fmt.Sprintf("broker %d to %d", m.From, m.To))
	}
	return s
}
