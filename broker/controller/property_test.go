package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// rng prints its seed, so that a failure can be repeated by putting it here.
func rng(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// randomWorld has 3 to 9 brokers in racks racks (0: none) and some topics.
func randomWorld(t *testing.T, r *rand.Rand, racks int) *world {
	w := newWorld(t)
	brokers := 3 + r.IntN(7)
	for i := range brokers {
		rack := ""
		if racks > 0 {
			rack = fmt.Sprint("r", i%racks)
		}
		w.broker(api.BrokerID(i), rack)
	}
	for i := range 1 + r.IntN(6) {
		if err := w.create(fmt.Sprint("t", i), int32(1+r.IntN(30)), int16(1+r.IntN(min(brokers, 4)))); err != nil {
			t.Fatal(err)
		}
	}
	w.run()
	return w
}

func spreadOf(counts map[api.BrokerID]int, brokers []api.BrokerID) int {
	least, most := 1<<30, 0
	for _, id := range brokers {
		least, most = min(least, counts[id]), max(most, counts[id])
	}
	return most - least
}

func (w *world) brokerIDs() []api.BrokerID {
	var out []api.BrokerID
	for _, b := range w.view().eligible() {
		out = append(out, b.ID)
	}
	return out
}

// byRack groups the eligible brokers.
func (w *world) byRack() map[string][]api.BrokerID {
	out := map[string][]api.BrokerID{}
	for _, b := range w.view().eligible() {
		out[b.Rack] = append(out[b.Rack], b.ID)
	}
	return out
}

// checkRacks makes sure that partitions are in as many racks as there can be.
func (w *world) checkRacks() {
	w.t.Helper()
	m := newModel(w.view(), false)
	w.each(func(p *metadata.Partition) {
		if got, want := m.spread(metadata.BrokerIDs(p.Replicas)), min(len(p.Replicas), m.racks); got < want {
			w.t.Fatalf("%s is in %d racks of %d possible", p, got, want)
		}
	})
}

func (w *world) snapshot() map[string][]api.BrokerID {
	out := map[string][]api.BrokerID{}
	w.each(func(p *metadata.Partition) { out[p.String()] = metadata.BrokerIDs(p.Replicas) })
	return out
}

// movedReplicas counts what is new against before, by broker.
func (w *world) movedReplicas(before map[string][]api.BrokerID) map[api.BrokerID]int {
	out := map[api.BrokerID]int{}
	for name, brokers := range w.snapshot() {
		for _, id := range brokers {
			if !slices.Contains(before[name], id) {
				out[id]++
			}
		}
	}
	return out
}

// checkLeaders makes sure that the busiest leader could not lead less, whatever the order within replica lists: by trying to assign
// all partitions with one less as everybody's limit (Kuhn's algorithm).
func (w *world) checkLeaders() {
	w.t.Helper()
	l := w.loads()
	limit := 0
	for _, n := range l.leaders {
		limit = max(limit, n)
	}
	limit--
	led := map[api.BrokerID][]*metadata.Partition{}
	var assign func(p *metadata.Partition, seen map[api.BrokerID]bool) bool
	assign = func(p *metadata.Partition, seen map[api.BrokerID]bool) bool {
		for _, id := range metadata.BrokerIDs(p.Replicas) {
			if seen[id] {
				continue
			}
			seen[id] = true
			if len(led[id]) < limit {
				led[id] = append(led[id], p)
				return true
			}
			for i, q := range led[id] {
				if assign(q, seen) {
					led[id][i] = p
					return true
				}
			}
		}
		return false
	}
	possible := true
	w.each(func(p *metadata.Partition) { possible = possible && assign(p, map[api.BrokerID]bool{}) })
	if possible && len(led) > 0 {
		w.t.Fatalf("leaders %v; at most %d each would be possible", l.leaders, limit)
	}
}

// Placement alone keeps every topic within one, over brokers without racks; a rebalance brings all replicas within one.
func TestPlacementIsEven(t *testing.T) {
	r := rng(t)
	for range 200 {
		w := newWorld(t)
		brokers := 1 + r.IntN(8)
		for i := range brokers {
			w.broker(api.BrokerID(i), "")
		}
		for i := range 1 + r.IntN(4) {
			name := fmt.Sprint("t", i)
			if err := w.create(name, int32(1+r.IntN(20)), int16(1+r.IntN(brokers))); err != nil {
				t.Fatal(err)
			}
			l := loadOf([]*metadata.Topic{w.s.Topics[name]})
			if spreadOf(l.replicas, w.brokerIDs()) > 1 {
				t.Fatalf("%s: replicas %v", name, l.replicas)
			}
			if spreadOf(l.leaders, w.brokerIDs()) > 1 {
				t.Fatalf("%s: leaders %v over %d brokers", name, l.leaders, brokers)
			}
		}
		if l := w.loads(); spreadOf(l.replicas, w.brokerIDs()) > 1 {
			t.Fatalf("all: replicas %v", l.replicas)
		}
		w.check()
	}
}

// A topic that grows stays even.
func TestGrowthIsEven(t *testing.T) {
	r := rng(t)
	for range 100 {
		w := newWorld(t)
		for i := range 5 {
			w.broker(api.BrokerID(i), "")
		}
		if err := w.create("t", int32(1+r.IntN(7)), 3); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			topic := w.s.Topics["t"]
			a, err := Place(w.view(), topic, int32(1+r.IntN(5)), topic.ReplicationFactor)
			if err != nil {
				t.Fatal(err)
			}
			w.do(&metadata.GrowTopic{Name: "t", From: int32(len(topic.Partitions)), Assignment: a})
		}
		// The leaders of the partitions that were there are not touched before a rebalance.
		if l := w.loads(); spreadOf(l.replicas, w.brokerIDs()) > 1 || spreadOf(l.leaders, w.brokerIDs()) > 3 {
			t.Fatalf("replicas %v, leaders %v", l.replicas, l.leaders)
		}
		before := w.snapshot()
		w.do(&metadata.SetRebalance{On: true})
		w.run()
		if l := w.loads(); spreadOf(l.leaders, w.brokerIDs()) > 1 {
			t.Fatalf("after a rebalance: leaders %v", l.leaders)
		}
		if moved := w.movedReplicas(before); len(moved) > 0 {
			t.Fatalf("replicas that were even moved: %v", moved)
		}
		w.check()
	}
}

// When a broker joins, replicas move to it alone, as many as it should have, and all is even afterwards.
func TestJoinMovesLittle(t *testing.T) {
	r := rng(t)
	for range 100 {
		w := randomWorld(t, r, 0)
		if l := w.loads(); spreadOf(l.replicas, w.brokerIDs()) > 1 {
			t.Fatalf("uneven before: replicas %v", l.replicas)
		}
		w.checkLeaders()
		before := w.snapshot()
		w.broker(100, "")
		plan := PlanRebalance(w.view())
		w.run()
		w.check()
		l := w.loads()
		if spreadOf(l.replicas, w.brokerIDs()) > 1 {
			t.Fatalf("uneven: replicas %v", l.replicas)
		}
		w.checkLeaders()
		moved := w.movedReplicas(before)
		if len(moved) > 1 || moved[100] != l.replicas[100] || len(plan.Moves) != moved[100] {
			t.Fatalf("moved to %v; the new broker has %d; the dry run said %d", moved, l.replicas[100], len(plan.Moves))
		}
	}
}

// When a broker is drained, exactly its replicas move, and it ends with none.
func TestDrainMovesOnlyWhatItMust(t *testing.T) {
	r := rng(t)
	for range 100 {
		w := randomWorld(t, r, 0)
		w.broker(100, "") // so that there is always somewhere to go
		w.broker(101, "")
		w.run()
		victim := w.brokerIDs()[r.IntN(len(w.brokerIDs()))]
		before, had := w.snapshot(), w.loads().replicas[victim]
		w.do(&metadata.SetDraining{ID: victim, Draining: true})
		w.run()
		w.check()
		moved := 0
		for _, n := range w.movedReplicas(before) {
			moved += n
		}
		if ReplicasOn(w.s, victim) != 0 || moved != had {
			t.Fatalf("broker %d had %d replicas, %d moved, %d are left", victim, had, moved, ReplicasOn(w.s, victim))
		}
		if BrokerState(w.view(), victim) != api.BrokerDrained {
			t.Fatal("not drained")
		}
	}
}

// Racks: partitions keep as many racks as possible through joins, failures and drains, and brokers of one rack are even after a rebalance.
func TestRacksAreKept(t *testing.T) {
	r := rng(t)
	for range 100 {
		w := randomWorld(t, r, 2+r.IntN(3))
		w.checkRacks()
		for range 4 {
			all := w.brokerIDs()
			if len(all) == 0 {
				break
			}
			id := all[r.IntN(len(all))]
			switch r.IntN(4) {
			case 0:
				w.broker(api.BrokerID(200+r.IntN(50)), fmt.Sprint("r", r.IntN(5)))
			case 1:
				w.do(&metadata.SetDraining{ID: id, Draining: true})
			case 2:
				w.kill(id)
				w.now = w.now.Add(time.Hour)
			case 3:
				w.revive(id, true)
			}
			w.run()
			w.do(&metadata.SetRebalance{On: true})
			w.run()
			w.check()
		}
		whole := true // nothing is stuck for want of brokers or quorum
		w.each(func(p *metadata.Partition) {
			for _, r := range p.Replicas {
				b := w.s.Brokers[r.Broker]
				whole = whole && w.alive[r.Broker] && !b.Draining && incarnation(r) == b.Incarnation
			}
		})
		if !whole || !w.view().majority() {
			continue
		}
		w.checkRacks()
		for rack, brokers := range w.byRack() {
			if l := w.loads(); spreadOf(l.replicas, brokers) > 1 {
				t.Fatalf("rack %s: replicas %v", rack, l.replicas)
			}
		}
	}
}

// However leaders and voters lag behind, no more than MaxMoving partitions move at once, no broker builds more than MaxBuilding replicas, and it ends.
func TestThrottle(t *testing.T) {
	r := rng(t)
	for range 30 {
		w := randomWorld(t, r, 0)
		w.limits.MaxMoving, w.limits.MaxBuilding = 1+r.IntN(5), 1+r.IntN(3)
		w.broker(100, "")
		w.do(&metadata.SetDraining{ID: 0, Draining: true})
		for range 2000 {
			w.apply(MakePlan(w.view(), w.limits))
			moving, building := 0, map[api.BrokerID]int{}
			w.each(func(p *metadata.Partition) {
				if !p.Moving() {
					return
				}
				for _, r := range p.Replicas {
					if !slices.Contains(p.Voters, r) {
						building[r.Broker]++
					}
				}
				if moving++; r.IntN(3) == 0 { // this one's leader is done
					w.do(&metadata.Report{Partitions: []metadata.PartitionReport{{TP: p.TP(), Group: p.Group, Leader: p.Leader, Epoch: p.LeaderEpoch, Voters: p.Replicas, Revision: p.Revision}}})
				}
			})
			if moving > w.limits.MaxMoving {
				t.Fatalf("%d partitions are moving", moving)
			}
			for id, n := range building {
				if n > w.limits.MaxBuilding {
					t.Fatalf("broker %d builds %d replicas", id, n)
				}
			}
			if moving == 0 && !w.s.Rebalance {
				break
			}
		}
		if w.s.Rebalance || ReplicasOn(w.s, 0) > 0 && len(w.brokerIDs()) > 4 {
			t.Fatalf("not done: rebalance %v, broker 0 has %d replicas", w.s.Rebalance, ReplicasOn(w.s, 0))
		}
		w.check()
	}
}

// The planner is a function: the same view gives the same plan.
func TestPlanIsDeterministic(t *testing.T) {
	w := randomWorld(t, rng(t), 2)
	w.broker(100, "r9")
	w.kill(1)
	w.now = w.now.Add(time.Hour)
	a := MakePlan(w.view(), w.limits)
	for range 20 {
		if b := MakePlan(w.view(), w.limits); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%v\n%v", a, b)
		}
	}
}

// Whatever operators ask for, and however long moves take: the slots are kept, and in the end the replicas are where they were last wanted, or, where that
// was taken back, where they were before; and no broker that comes makes them move from there by itself.
func TestReassignments(t *testing.T) {
	r := rng(t)
	for range 30 {
		w := randomWorld(t, r, r.IntN(3))
		w.limits.MaxMoving, w.limits.MaxBuilding = 1+r.IntN(5), 1+r.IntN(3)
		want := map[string][]api.BrokerID{}
		original := w.snapshot()
		for i := range 400 {
			if i < 100 {
				w.reassignRandomly(r, want, original)
			}
			w.apply(MakePlan(w.view(), w.limits))
			moving := 0
			w.each(func(p *metadata.Partition) {
				if !p.Moving() {
					return
				}
				if moving++; r.IntN(3) == 0 || i > 200 {
					w.do(&metadata.Report{Partitions: []metadata.PartitionReport{{TP: p.TP(), Group: p.Group, Leader: p.Leader, Epoch: p.LeaderEpoch, Voters: p.Replicas, Revision: p.Revision}}})
				}
			})
			if moving > w.limits.MaxMoving+len(want) { // what is cancelled or sent elsewhere goes on in its slot, and going back needs none
				t.Fatalf("%d partitions are moving", moving)
			}
		}
		w.broker(100, "r7")
		w.run()
		w.each(func(p *metadata.Partition) {
			if target, ok := want[p.String()]; ok && !slices.Equal(metadata.BrokerIDs(p.Replicas), target) {
				t.Errorf("%s is on %v, wanted %v", p, metadata.BrokerIDs(p.Replicas), target)
			}
			if p.Reassignment != nil || p.Moving() {
				t.Errorf("%s has not arrived: %+v", p, p)
			}
		})
	}
}

// reassignRandomly asks for one reassignment, or takes one back.
func (w *world) reassignRandomly(r *rand.Rand, want, original map[string][]api.BrokerID) {
	w.t.Helper()
	topics := w.s.SortedTopics()
	topic := topics[r.IntN(len(topics))]
	p := topic.Partitions[r.IntN(len(topic.Partitions))]
	c := metadata.TargetChange{Group: p.Group, TP: p.TP()}
	if r.IntN(4) > 0 {
		all := w.brokerIDs()
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		c.Target = all[:1+r.IntN(min(len(all), 4))]
	}
	busy := p.Reassignment != nil
	if busy {
		original[p.String()] = p.Reassignment.Original
	}
	res := w.do(&metadata.Reassign{Changes: []metadata.TargetChange{c}})
	switch {
	case len(c.Target) > 0:
		if len(res.Failures) > 0 {
			w.t.Fatalf("%s to %v: %v", p, c.Target, res.Failures)
		}
		want[p.String()] = c.Target
	case busy:
		if len(res.Failures) > 0 {
			w.t.Fatalf("%s: cancelling: %v", p, res.Failures)
		}
		want[p.String()] = original[p.String()]
	case len(res.Failures) != 1 || res.Failures[0].Code != api.CodeNoReassignmentInProgress:
		w.t.Fatalf("%s: nothing to cancel: %v", p, res.Failures)
	}
}
