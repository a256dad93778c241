package assign

import "github.com/flotilla-log/flotilla/broker/api"

// rangeAssign is Kafka's RangeAssignor without racks: topic by topic, each subscriber in order gets a run of consecutive
// partitions, the first ones one more where it does not divide evenly.
func rangeAssign(members []Member, partitions map[string]int32) Assignment {
	a := newAssignment(members)
	for _, topic := range subscribedTopics(members, partitions) {
		var subs []string
		for i := range members {
			if members[i].subscribes(topic) {
				subs = append(subs, members[i].ID)
			}
		}
		each, extra := partitions[topic]/int32(len(subs)), partitions[topic]%int32(len(subs))
		next := int32(0)
		for i, id := range subs {
			n := each
			if int32(i) < extra {
				n++
			}
			for ; n > 0; n-- {
				a[id] = append(a[id], api.TopicPartition{Topic: topic, Partition: next})
				next++
			}
		}
	}
	return a
}

// roundRobin is Kafka's RoundRobinAssignor: all partitions in the order of topic and number are dealt to the members in order, those
// who do not subscribe to the topic being passed over.
func roundRobin(members []Member, partitions map[string]int32) Assignment {
	a := newAssignment(members)
	turn := 0
	for _, topic := range subscribedTopics(members, partitions) {
		for p := range partitions[topic] {
			for !members[turn].subscribes(topic) { // ends: the topic has a subscriber
				turn = (turn + 1) % len(members)
			}
			id := members[turn].ID
			a[id] = append(a[id], api.TopicPartition{Topic: topic, Partition: p})
			turn = (turn + 1) % len(members)
		}
	}
	return a
}
