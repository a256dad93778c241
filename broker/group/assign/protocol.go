package assign

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// ProtocolType is what consumers put into JoinGroup: members of groups of this type use the format of this file.
const ProtocolType = "consumer"

// ErrMalformed comes for a subscription or an assignment that cannot be read.
var ErrMalformed = errors.New("assign: malformed consumer protocol bytes")

// subscriptionVersion is what is written: the generation came with 2, and racks (3) are not used here. Readers of all
// versions skip what they do not know at the end.
const subscriptionVersion = 2

// EncodeSubscription writes m's subscription for a strategy, as Kafka's consumers do (ConsumerProtocolSubscription), with
// what that strategy's Java implementation expects in the user data.
func EncodeSubscription(strategy string, m Member) []byte {
	k := kmsg.NewConsumerMemberMetadata()
	k.Version = subscriptionVersion
	k.Topics = slices.Clone(m.Topics)
	slices.Sort(k.Topics)
	k.Generation = m.Generation
	for topic, ps := range byTopic(m.Owned) {
		k.OwnedPartitions = append(k.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: topic, Partitions: ps})
	}
	switch strategy {
	case Sticky:
		k.UserData = stickyUserData(m)
	case CooperativeSticky:
		k.UserData = binary.BigEndian.AppendUint32(nil, uint32(m.Generation))
	}
	return k.AppendTo(nil)
}

func stickyUserData(m Member) []byte {
	k := kmsg.NewStickyMemberMetadata()
	k.Generation = m.Generation
	for topic, ps := range byTopic(m.Owned) {
		k.CurrentAssignment = append(k.CurrentAssignment, kmsg.StickyMemberMetadataCurrentAssignment{Topic: topic, Partitions: ps})
	}
	return k.AppendTo(nil)
}

// byTopic yields the topics in order, each with its partitions in order.
func byTopic(tps []api.TopicPartition) func(yield func(string, []int32) bool) {
	tps = slices.Clone(tps)
	slices.SortFunc(tps, comparePartitions)
	tps = slices.Compact(tps)
	return func(yield func(string, []int32) bool) {
		for len(tps) > 0 {
			topic := tps[0].Topic
			var ps []int32
			for len(tps) > 0 && tps[0].Topic == topic {
				ps = append(ps, tps[0].Partition)
				tps = tps[1:]
			}
			if !yield(topic, ps) {
				return
			}
		}
	}
}

// DecodeSubscription reads a member's subscription for a strategy; the IDs are the caller's to set. Topics are sorted and
// distinct. For sticky, the owned partitions come from the user data, where that assignor's members tell them.
func DecodeSubscription(strategy string, b []byte) (Member, error) {
	k := kmsg.NewConsumerMemberMetadata()
	if err := k.ReadFrom(b); err != nil || k.Version < 0 {
		return Member{}, fmt.Errorf("%w: subscription of %d bytes", ErrMalformed, len(b))
	}
	m := Member{Topics: slices.Clone(k.Topics), Generation: -1}
	slices.Sort(m.Topics)
	m.Topics = slices.Compact(m.Topics)
	if k.Version >= 3 && k.Rack != nil {
		m.Rack = *k.Rack
	}
	if k.Version >= 2 {
		m.Generation = k.Generation
	}
	for _, o := range k.OwnedPartitions {
		m.Owned = appendPartitions(m.Owned, o.Topic, o.Partitions)
	}
	m.readUserData(strategy, k.UserData)
	return m, nil
}

// readUserData takes what the sticky assignors add; data in another form is the application's own and means nothing here.
func (m *Member) readUserData(strategy string, b []byte) {
	switch {
	case strategy == Sticky && len(b) > 0:
		k := kmsg.NewStickyMemberMetadata()
		if err := k.ReadFrom(b); err != nil {
			return
		}
		m.Owned, m.Generation = nil, k.Generation
		for _, t := range k.CurrentAssignment {
			m.Owned = appendPartitions(m.Owned, t.Topic, t.Partitions)
		}
	case strategy == CooperativeSticky && len(b) == 4 && m.Generation < 0:
		m.Generation = int32(binary.BigEndian.Uint32(b))
	}
}

func appendPartitions(tps []api.TopicPartition, topic string, ps []int32) []api.TopicPartition {
	for _, p := range ps {
		tps = append(tps, api.TopicPartition{Topic: topic, Partition: p})
	}
	return tps
}

// Topics reads a subscription's topics, sorted and distinct.
func Topics(b []byte) ([]string, error) {
	m, err := DecodeSubscription("", b)
	return m.Topics, err
}

// EncodeAssignment writes an assignment, as Kafka's consumers do (ConsumerProtocolAssignment).
func EncodeAssignment(tps []api.TopicPartition) []byte {
	k := kmsg.NewConsumerMemberAssignment()
	for topic, ps := range byTopic(tps) {
		k.Topics = append(k.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: topic, Partitions: ps})
	}
	return k.AppendTo(nil)
}

// DecodeAssignment reads an assignment, sorted by topic and partition. No bytes are an empty assignment: a leader need not name
// members that get nothing.
func DecodeAssignment(b []byte) ([]api.TopicPartition, error) {
	if len(b) == 0 {
		return nil, nil
	}
	k := kmsg.NewConsumerMemberAssignment()
	if err := k.ReadFrom(b); err != nil || k.Version < 0 {
		return nil, fmt.Errorf("%w: assignment of %d bytes", ErrMalformed, len(b))
	}
	var tps []api.TopicPartition
	for _, t := range k.Topics {
		tps = appendPartitions(tps, t.Topic, t.Partitions)
	}
	slices.SortFunc(tps, func(a, b api.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return tps, nil
}
