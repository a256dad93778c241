package controller

import (
	"fmt"
	"math"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// ReplicasOn counts the partitions of which a broker has a replica that is desired or may have a vote.
func ReplicasOn(s *metadata.State, id api.BrokerID) int {
	n := 0
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if p.On(id) {
				n++
			}
		}
	}
	return n
}

// BrokerState derives what Status shows. A broker that the registry does not know counts as left.
func BrokerState(v View, id api.BrokerID) api.BrokerState {
	b := v.State.Brokers[id]
	switch {
	case b == nil:
		return api.BrokerLeft
	case b.Draining && ReplicasOn(v.State, id) == 0:
		return api.BrokerDrained
	case v.Alive[id] && b.Draining:
		return api.BrokerDraining
	case v.Alive[id]:
		return api.BrokerAlive
	case b.Left:
		return api.BrokerLeft
	}
	return api.BrokerFailed
}

// maxProblems bounds the list: nobody reads more.
const maxProblems = 1000

// Problems lists in plain words what is wrong with partitions, in order (at most 1000), and then what the controller would do about it and cannot.
func Problems(v View) []api.PartitionProblem {
	var out []api.PartitionProblem
	for _, t := range v.State.SortedTopics() {
		for _, p := range t.Partitions {
			for _, text := range problems(v, p) {
				if len(out) == maxProblems {
					return out
				}
				out = append(out, api.PartitionProblem{TopicPartition: p.TP(), Problem: text})
			}
		}
	}
	plan := MakePlan(v, Limits{MaxMoving: math.MaxInt, ReplaceAfter: -1})
	return append(out, plan.Blocked[:min(len(plan.Blocked), maxProblems-len(out))]...)
}

func problems(v View, p *metadata.Partition) []string {
	var out []string
	if p.Leader == api.NoBroker || !v.Alive[p.Leader] {
		out = append(out, "no leader")
	}
	for _, r := range p.Replicas {
		switch b := v.State.Brokers[r.Broker]; {
		case b == nil || !v.Alive[r.Broker]:
			out = append(out, fmt.Sprintf("1 of %d replicas on %s broker %d", len(p.Replicas), goneWord(b), r.Broker))
		case incarnation(r) != b.Incarnation:
			// From when the broker is registered again until the planner asks for another replica, which is when this would show as moving.
			out = append(out, fmt.Sprintf("1 of %d replicas lost with the disk of broker %d", len(p.Replicas), r.Broker))
		}
	}
	for _, q := range p.Quarantined {
		out = append(out, fmt.Sprintf("replica on %d quarantined: %s", q.Broker, q.Reason))
	}
	if p.Reassignment != nil && !p.Begun() {
		out = append(out, fmt.Sprintf("to be reassigned to brokers %s", ids(p.Reassignment.Target)))
	}
	if p.Moving() {
		out = append(out, fmt.Sprintf("moving: voters are %s, wants %s", list(p.Voters), list(p.Replicas)))
	}
	return out
}

func goneWord(b *metadata.Broker) string {
	switch {
	case b == nil:
		return "unknown"
	case b.Left:
		return "stopped"
	}
	return "failed"
}

func list(replicas []metadata.Replica) string {
	s := make([]string, len(replicas))
	for i, r := range replicas {
		s[i] = fmt.Sprint(r.Broker)
	}
	return strings.Join(s, ",")
}

func ids(brokers []api.BrokerID) string {
	s := make([]string, len(brokers))
	for i, id := range brokers {
		s[i] = fmt.Sprint(id)
	}
	return strings.Join(s, ",")
}
