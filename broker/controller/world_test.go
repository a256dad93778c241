package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// world is a cluster in which commands are applied directly and partitions move when told to.
type world struct {
	t       testing.TB
	s       *metadata.State
	alive   map[api.BrokerID]bool
	born    map[api.BrokerID]int
	now     time.Time
	index   uint64
	limits  Limits
	topicID byte
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, s: metadata.NewState(), alive: map[api.BrokerID]bool{}, born: map[api.BrokerID]int{}, now: time.Unix(1_000_000, 0),
		limits: Limits{MaxMoving: 8, ReplaceAfter: 10 * time.Minute}}
	w.do(&metadata.InitCluster{ClusterID: "test"})
	return w
}

func (w *world) try(c metadata.Command) (metadata.Result, error) {
	w.index++
	s, res, err := metadata.Apply(w.s, w.index, c)
	w.s = s
	return res, err
}

func (w *world) do(c metadata.Command) metadata.Result {
	w.t.Helper()
	res, err := w.try(c)
	if err != nil {
		w.t.Fatalf("%T: %v", c, err)
	}
	return res
}

func (w *world) view() View { return View{State: w.s, Alive: w.alive, Now: w.now} }

// broker brings a broker up, as its present incarnation.
func (w *world) broker(id api.BrokerID, rack string) {
	w.t.Helper()
	w.alive[id] = true
	w.do(&metadata.RegisterBroker{Broker: metadata.Broker{ID: id, Incarnation: fmt.Sprintf("i%d", w.born[id]), Rack: rack}, Rebalance: true})
}

func (w *world) kill(id api.BrokerID) {
	w.t.Helper()
	w.alive[id] = false
	w.do(&metadata.MarkAway{ID: id, SinceMs: w.now.UnixMilli()})
}

func (w *world) revive(id api.BrokerID, lost bool) {
	w.t.Helper()
	if lost {
		w.born[id]++
	}
	w.broker(id, w.s.Brokers[id].Rack)
}

func (w *world) create(name string, partitions int32, rf int16) error {
	a, err := Place(w.view(), nil, partitions, rf)
	if err != nil {
		return err
	}
	w.topicID++
	_, err = w.try(&metadata.CreateTopic{Name: name, ID: [16]byte{w.topicID}, ReplicationFactor: rf, Assignment: a})
	return err
}

// apply carries a plan out, as far as desired replicas go.
func (w *world) apply(p Plan) {
	w.t.Helper()
	if len(p.Changes) > 0 {
		if res := w.do(&metadata.SetReplicas{Changes: p.Changes}); res.Skipped > 0 {
			w.t.Fatalf("%d changes of a fresh plan were skipped", res.Skipped)
		}
	}
	if p.Balanced {
		w.do(&metadata.SetRebalance{On: false})
	}
}

// settle lets the leaders move the voters to where they should be.
func (w *world) settle() {
	w.t.Helper()
	var r metadata.Report
	w.each(func(p *metadata.Partition) {
		r.Partitions = append(r.Partitions, metadata.PartitionReport{TP: p.TP(), Group: p.Group, Leader: p.Replicas[0].Broker, Epoch: p.LeaderEpoch + 1, Voters: p.Replicas, Revision: p.Revision})
	})
	w.do(&r)
}

func (w *world) each(f func(*metadata.Partition)) {
	for _, t := range w.s.SortedTopics() {
		for _, p := range t.Partitions {
			f(p)
		}
	}
}

// run plans, applies and settles until nothing is left to do, and returns the plans.
func (w *world) run() []Plan {
	w.t.Helper()
	var plans []Plan
	for range 1000 {
		p := MakePlan(w.view(), w.limits)
		if len(p.Changes) == 0 && !p.Balanced {
			return plans
		}
		plans = append(plans, p)
		w.apply(p)
		w.settle()
	}
	w.t.Fatal("the plans never end")
	return nil
}

// loads counts desired replicas and preferred leaders.
func (w *world) loads() load { return loadOf(w.s.SortedTopics()) }

// check makes sure of what must hold of every assignment.
func (w *world) check() {
	w.t.Helper()
	w.each(func(p *metadata.Partition) {
		brokers := metadata.BrokerIDs(p.Replicas)
		if sorted := slices.Compact(slices.Sorted(slices.Values(brokers))); len(sorted) != len(brokers) {
			w.t.Fatalf("%s is on %v", p, brokers)
		}
		if rf := int(w.s.Topics[p.Topic].ReplicationFactor); len(brokers) != rf {
			w.t.Fatalf("%s is on %v, the replication factor is %d", p, brokers, rf)
		}
	})
}
