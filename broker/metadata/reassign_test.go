package metadata

import (
	"testing"

	"github.com/flotilla-log/flotilla/broker/api"
)

// A reassignment that changes the number of replicas changes the topic's replication factor when it ends.
func TestReassignmentChangesTheFactor(t *testing.T) {
	m := newMachine(t)
	for id := range api.BrokerID(4) {
		m.must(&RegisterBroker{Broker: Broker{ID: id + 1, Incarnation: "x"}})
	}
	m.must(&CreateTopic{Name: "t", ID: [16]byte{1}, ReplicationFactor: 2, Assignment: [][]api.BrokerID{{1, 2}}})
	tp := api.TopicPartition{Topic: "t"}
	part := func() *Partition { return m.state.Load().Find(tp) }
	for _, target := range [][]api.BrokerID{{1, 2, 3, 4}, {4}} {
		p := part()
		m.must(&Reassign{Changes: []TargetChange{{Group: p.Group, TP: tp, Target: target}}})
		p = part()
		var next []Replica
		for _, id := range target {
			r, _ := p.replicaOn(id)
			next = append(next, r)
		}
		m.must(&SetReplicas{Changes: []ReplicaChange{{Group: p.Group, TP: tp, Revision: p.Revision, Replicas: next}}})
		if p = part(); !p.Begun() || !p.Moving() {
			t.Fatalf("to %v: %+v", target, p)
		}
		m.must(&Report{Partitions: []PartitionReport{{TP: tp, Group: p.Group, Leader: 4, Epoch: p.LeaderEpoch + 1, Voters: p.Replicas, Revision: p.Revision}}})
		if p = part(); p.Reassignment != nil || p.Moving() {
			t.Fatalf("to %v: not over: %+v", target, p)
		}
		if rf := m.state.Load().Topics["t"].ReplicationFactor; int(rf) != len(target) {
			t.Errorf("to %v: the replication factor is %d", target, rf)
		}
	}
}
