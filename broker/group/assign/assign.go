// Package assign divides topics' partitions among the members of a consumer group, as Kafka's four assignors do, and speaks
// the format in which Kafka's consumers put their subscriptions and assignments.
//
// Everything here is a pure function of its arguments: the same members and topics give the same assignment.
package assign

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
)

// The strategies, by the names that Kafka's consumers give them on the wire.
const (
	Range             = "range"
	RoundRobin        = "roundrobin"
	Sticky            = "sticky"
	CooperativeSticky = "cooperative-sticky"
)

// Known says whether Assign knows a strategy.
func Known(strategy string) bool {
	switch strategy {
	case Range, RoundRobin, Sticky, CooperativeSticky:
		return true
	}
	return false
}

// Member is what an assignor knows of a member.
type Member struct {
	ID         string
	InstanceID string // empty: dynamic
	Rack       string // not used yet
	Topics     []string
	// Owned is what the member had when it joined, and Generation when that was assigned (-1: not known).
	Owned      []api.TopicPartition
	Generation int32
}

// Assignment is the partitions of each member, by its ID, in the order of topic and partition. All members are in it.
type Assignment map[string][]api.TopicPartition

// Assign divides the partitions of the topics that members subscribe to. partitions has the partition counts; topics that are not in
// it do not exist and are left out.
func Assign(strategy string, members []Member, partitions map[string]int32) (Assignment, error) {
	members = slices.Clone(members)
	for i := range members {
		topics := slices.Clone(members[i].Topics)
		slices.Sort(topics)
		members[i].Topics = slices.Compact(topics)
	}
	slices.SortFunc(members, compareMembers)
	var a Assignment
	switch strategy {
	case Range:
		a = rangeAssign(members, partitions)
	case RoundRobin:
		a = roundRobin(members, partitions)
	case Sticky:
		a = sticky(members, partitions)
	case CooperativeSticky:
		a = withhold(members, sticky(members, partitions))
	default:
		return nil, fmt.Errorf("assign: unknown strategy %q", strategy)
	}
	for _, tps := range a {
		slices.SortFunc(tps, comparePartitions)
	}
	return a, nil
}

// compareMembers is Kafka's order (AbstractPartitionAssignor.MemberInfo): static members first, by instance ID, so that a
// restart does not move them; then dynamic ones by member ID.
func compareMembers(a, b Member) int {
	switch {
	case a.InstanceID != "" && b.InstanceID != "":
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.ID, b.ID))
	case a.InstanceID != "":
		return -1
	case b.InstanceID != "":
		return 1
	}
	return cmp.Compare(a.ID, b.ID)
}

func comparePartitions(a, b api.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func (m *Member) subscribes(topic string) bool {
	_, ok := slices.BinarySearch(m.Topics, topic)
	return ok
}

func newAssignment(members []Member) Assignment {
	a := make(Assignment, len(members))
	for _, m := range members {
		a[m.ID] = nil
	}
	return a
}

// subscribedTopics returns the topics that exist and have subscribers, sorted.
func subscribedTopics(members []Member, partitions map[string]int32) []string {
	var topics []string
	for _, m := range members {
		for _, t := range m.Topics {
			if partitions[t] > 0 {
				topics = append(topics, t)
			}
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}
