package controller

import (
	"cmp"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// A rebalance is planned on a model of the desired replicas, move by move: always one replica from a broker with more to one with at least
// two fewer, never making a partition's spread over racks worse, until no such move is left. Each move brings the numbers closer, so there is
// none that a later one takes back. Within a rack the numbers end up within one of each other; over all brokers too, if there are no racks.

// model is the desired placement as it would be.
type model struct {
	brokers map[api.BrokerID]*metadata.Broker // eligible ones
	ids     []api.BrokerID                    // of brokers, sorted
	racks   int                               // different ones among brokers
	parts   []*modelPart
	on      map[api.BrokerID][]*modelPart
	count   map[api.BrokerID]int
	topics  map[string]map[api.BrokerID]int // replicas by topic and broker
}

type modelPart struct {
	p       *metadata.Partition
	brokers []api.BrokerID
	fixed   bool // moving, in need of repair, or placed by an operator: counts, but is left alone
}

// newModel makes the model. byHand includes the partitions that an operator has placed among those that may move.
func newModel(v View, byHand bool) *model {
	m := &model{brokers: map[api.BrokerID]*metadata.Broker{}, on: map[api.BrokerID][]*modelPart{}, count: map[api.BrokerID]int{}, topics: map[string]map[api.BrokerID]int{}}
	racks := map[string]bool{}
	for _, b := range v.eligible() {
		m.brokers[b.ID], m.ids, racks[b.Rack] = b, append(m.ids, b.ID), true
	}
	m.racks = len(racks)
	for _, t := range v.State.SortedTopics() {
		m.topics[t.Name] = map[api.BrokerID]int{}
		for _, p := range t.Partitions {
			mp := &modelPart{p: p, brokers: metadata.BrokerIDs(p.Replicas), fixed: p.Moving() || p.Reassignment != nil || p.ByHand && !byHand}
			m.parts = append(m.parts, mp)
			for _, id := range mp.brokers {
				m.on[id] = append(m.on[id], mp)
				m.count[id]++
				m.topics[t.Name][id]++
				mp.fixed = mp.fixed || m.brokers[id] == nil
			}
		}
	}
	return m
}

// spread counts the racks of brokers.
func (m *model) spread(brokers []api.BrokerID) int {
	racks := map[string]bool{}
	for _, id := range brokers {
		if b := m.brokers[id]; b != nil {
			racks[b.Rack] = true
		}
	}
	return len(racks)
}

func replaced(brokers []api.BrokerID, from, to api.BrokerID) []api.BrokerID {
	out := slices.Clone(brokers)
	out[slices.Index(out, from)] = to
	return out
}

func (m *model) move(mp *modelPart, from, to api.BrokerID) {
	mp.brokers = replaced(mp.brokers, from, to)
	m.on[from] = slices.DeleteFunc(m.on[from], func(o *modelPart) bool { return o == mp })
	m.on[to] = append(m.on[to], mp)
	m.count[from]--
	m.count[to]++
	m.topics[mp.p.Topic][from]--
	m.topics[mp.p.Topic][to]++
}

// spreadRacks moves replicas that share a rack without need.
func (m *model) spreadRacks() {
	for _, mp := range m.parts {
		for !mp.fixed && m.spread(mp.brokers) < min(len(mp.brokers), m.racks) {
			from, to, ok := m.betterRack(mp)
			if !ok {
				break
			}
			m.move(mp, from, to)
		}
	}
}

// betterRack finds the replica on the busiest broker and its new place on the idlest that widen the spread.
func (m *model) betterRack(mp *modelPart) (from, to api.BrokerID, ok bool) {
	have := m.spread(mp.brokers)
	best := 0
	for _, f := range mp.brokers {
		for _, t := range m.ids {
			if slices.Contains(mp.brokers, t) || m.spread(replaced(mp.brokers, f, t)) <= have {
				continue
			}
			if gain := m.count[f] - m.count[t]; !ok || gain > best {
				from, to, best, ok = f, t, gain, true
			}
		}
	}
	return from, to, ok
}

// even moves replicas until the brokers have equally many, as far as racks allow.
func (m *model) even() {
	for m.evenOnce() {
	}
}

func (m *model) evenOnce() bool {
	type pair struct{ from, to api.BrokerID }
	var pairs []pair
	for _, f := range m.ids {
		for _, t := range m.ids {
			if m.count[f]-m.count[t] >= 2 {
				pairs = append(pairs, pair{f, t})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int {
		return cmp.Compare(m.count[b.from]-m.count[b.to], m.count[a.from]-m.count[a.to])
	})
	for _, p := range pairs {
		if mp := m.movable(p.from, p.to); mp != nil {
			m.move(mp, p.from, p.to)
			return true
		}
	}
	return false
}

// movable picks the partition that can go from one broker to another, best of the topic that is spread most unevenly over the two, and
// best one that the broker does not lead.
func (m *model) movable(from, to api.BrokerID) *modelPart {
	var best *modelPart
	bestSkew := 0
	for _, mp := range m.on[from] {
		if mp.fixed || slices.Contains(mp.brokers, to) || m.spread(replaced(mp.brokers, from, to)) < m.spread(mp.brokers) {
			continue
		}
		skew := m.topics[mp.p.Topic][from] - m.topics[mp.p.Topic][to]
		if best == nil || skew > bestSkew || skew == bestSkew && best.brokers[0] == from && mp.brokers[0] != from {
			best, bestSkew = mp, skew
		}
	}
	return best
}

// evenLeaders chooses preferred leaders anew.
func (m *model) evenLeaders() {
	counts := map[api.BrokerID]int{}
	var lists [][]api.BrokerID
	for _, mp := range m.parts {
		counts[mp.brokers[0]]++
		if !mp.fixed {
			mp.brokers = slices.Clone(mp.brokers)
			lists = append(lists, mp.brokers)
		}
	}
	balanceLeaders(lists, counts, func(id api.BrokerID) bool { return m.brokers[id] != nil })
}

// rebalanced is the model after a whole rebalance.
func rebalanced(v View, byHand bool) *model {
	m := newModel(v, byHand)
	m.spreadRacks()
	m.even()
	m.evenLeaders()
	return m
}

// moves pairs the brokers that lose the partition with those that get it.
func (mp *modelPart) moves() []api.ReplicaMove {
	var out []api.ReplicaMove
	old := metadata.BrokerIDs(mp.p.Replicas)
	var gone []api.BrokerID
	for _, id := range old {
		if !slices.Contains(mp.brokers, id) {
			gone = append(gone, id)
		}
	}
	for _, id := range mp.brokers { // as many as are gone: every move replaces one by one that is not there yet
		if !slices.Contains(old, id) && len(out) < len(gone) {
			out = append(out, api.ReplicaMove{TopicPartition: mp.p.TP(), From: gone[len(out)], To: id})
		}
	}
	return out
}

// change is the assignment that the model has for the partition.
func (mp *modelPart) change() metadata.ReplicaChange {
	c := metadata.ReplicaChange{Group: mp.p.Group, TP: mp.p.TP(), Revision: mp.p.Revision}
	for _, id := range mp.brokers {
		c.Replicas = append(c.Replicas, keep(mp.p, id))
	}
	return c
}

// keep is the broker's present desired replica of the partition, or a fresh one.
func keep(p *metadata.Partition, id api.BrokerID) metadata.Replica {
	for _, r := range p.Replicas {
		if r.Broker == id {
			return r
		}
	}
	return metadata.Replica{Broker: id}
}

// PlanRebalance says what metadata.SetRebalance{On: true, Everything: true} would lead to.
func PlanRebalance(v View) api.RebalancePlan {
	var plan api.RebalancePlan
	for _, mp := range rebalanced(v, true).parts {
		plan.Moves = append(plan.Moves, mp.moves()...)
		if mp.brokers[0] != mp.p.Replicas[0].Broker {
			plan.LeaderTransfers++
		}
	}
	return plan
}
