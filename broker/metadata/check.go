package metadata

import (
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Limits of what this release proposes.
const (
	maxPartitionsPerTopic = 10_000
	maxPartitions         = 200_000
	maxReplicas           = 15
	maxReasonBytes        = 512
	maxProducerBlock      = 1 << 20
)

func (c *MarkAway) check(*State) error     { return nil }
func (c *SetDraining) check(*State) error  { return nil }
func (c *RemoveBroker) check(*State) error { return nil }
func (c *SetRebalance) check(*State) error { return nil }
func (c *DeleteTopic) check(*State) error  { return nil }
func (c *Report) check(*State) error       { return nil }

func (c *InitCluster) check(*State) error {
	if c.ClusterID == "" {
		return api.Errorf(api.CodeInvalidRequest, "the cluster ID is empty")
	}
	return nil
}

func (c *RegisterBroker) check(*State) error {
	if b := c.Broker; b.ID < 0 || b.Incarnation == "" || strings.Contains(b.Incarnation, "-") {
		return api.Errorf(api.CodeInvalidRequest, "broker %d with incarnation %q cannot be registered", b.ID, b.Incarnation)
	}
	return nil
}

func (c *AllocateProducerIDs) check(*State) error {
	if c.Count < 1 || c.Count > maxProducerBlock {
		return api.Errorf(api.CodeInvalidRequest, "%d producer IDs cannot be allocated at once, only 1 to %d", c.Count, maxProducerBlock)
	}
	return nil
}

func (c *CreateTopic) check(s *State) error {
	if err := ValidateTopicName(c.Name); err != nil {
		return err
	}
	if err := ValidateSettings(c.Settings); err != nil {
		return err
	}
	if c.ReplicationFactor < 1 || c.ReplicationFactor > maxReplicas {
		return api.Errorf(api.CodeInvalidReplicationFactor, "a replication factor of %d is not possible, only 1 to %d", c.ReplicationFactor, maxReplicas)
	}
	return checkCount(s, c.Name, 0, len(c.Assignment))
}

func (c *GrowTopic) check(s *State) error {
	return checkCount(s, c.Name, int(c.From), len(c.Assignment))
}

// checkCount checks the number of partitions when more are added to the have that the topic has.
func checkCount(s *State, topic string, have, more int) error {
	if more == 0 || have+more > maxPartitionsPerTopic {
		return api.Errorf(api.CodeInvalidPartitions, "topic %q cannot go from %d to %d partitions: it must be more than before, and %d at most", topic, have, have+more, maxPartitionsPerTopic)
	}
	if total := s.PartitionCount() + more; total > maxPartitions {
		return api.Errorf(api.CodeInvalidPartitions, "the cluster would have %d partitions, at most %d are allowed", total, maxPartitions)
	}
	return nil
}

func (c *AlterTopic) check(s *State) error {
	if err := ValidateSettings(c.Set); err != nil {
		return err
	}
	for _, key := range c.Unset {
		known := slices.ContainsFunc(settings, func(s setting) bool { return s.key == key })
		// A key that is set can be unset even if this release does not know it.
		if t := s.Topics[c.Name]; !known && (t == nil || t.Settings[key] == "") {
			return unknownSetting(key)
		}
	}
	return nil
}

func (c *SetReplicas) check(*State) error {
	for _, r := range c.Changes {
		if len(r.Replicas) == 0 || len(r.Replicas) > maxReplicas {
			return api.Errorf(api.CodeInvalidReplicationFactor, "%s/%d cannot have %d replicas", r.TP.Topic, r.TP.Partition, len(r.Replicas))
		}
		for i, a := range r.Replicas {
			if hasBroker(r.Replicas[:i], a.Broker) {
				return api.Errorf(api.CodeInvalidReplicationFactor, "%s/%d is assigned to broker %d twice", r.TP.Topic, r.TP.Partition, a.Broker)
			}
		}
	}
	return nil
}

// check cuts a reason that is too long.
func (c *QuarantineReplica) check(*State) error {
	if len(c.Reason) > maxReasonBytes {
		c.Reason = strings.ToValidUTF8(c.Reason[:maxReasonBytes-3], "") + "..."
	}
	return nil
}
