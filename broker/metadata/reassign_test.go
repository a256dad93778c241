package metadata

import (
	"slices"
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
			next = append(next, Replica{Broker: id})
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

// Cancelling leads back to where the partition was before the first of several reassignments in a row, whether the last of them has begun or still waits; and where none had begun, to what
// a repair made of it meanwhile.
func TestCancelledReassignmentGoesBack(t *testing.T) {
	m := newMachine(t)
	for id := range api.BrokerID(5) {
		m.must(&RegisterBroker{Broker: Broker{ID: id + 1, Incarnation: "x"}})
	}
	m.must(&CreateTopic{Name: "t", ID: [16]byte{1}, ReplicationFactor: 2, Assignment: [][]api.BrokerID{{1, 2}}})
	tp := api.TopicPartition{Topic: "t"}
	part := func() *Partition { return m.state.Load().Find(tp) }
	ask := func(target ...api.BrokerID) {
		t.Helper()
		m.must(&Reassign{Changes: []TargetChange{{Group: part().Group, TP: tp, Target: target}}})
	}
	move := func(to ...api.BrokerID) {
		t.Helper()
		p := part()
		var next []Replica
		for _, id := range to {
			next = append(next, Replica{Broker: id})
		}
		m.must(&SetReplicas{Changes: []ReplicaChange{{Group: p.Group, TP: tp, Revision: p.Revision, Replicas: next}}})
	}
	is := func(what string, want ...api.BrokerID) {
		t.Helper()
		if p := part(); p.Reassignment != nil || !slices.Equal(BrokerIDs(p.Replicas), want) {
			t.Errorf("%s: on %v, wanted %v; %+v", what, BrokerIDs(p.Replicas), want, p.Reassignment)
		}
	}
	ask(3, 4)
	move(3, 4)
	ask()
	is("begun", 1, 2)
	ask(3, 4)
	move(3, 4)
	ask(4, 5)
	ask()
	is("the second waits", 1, 2)
	ask(3, 4)
	move(1, 5)
	ask()
	is("repaired before it began", 1, 5)
}
