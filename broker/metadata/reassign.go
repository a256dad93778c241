package metadata

import (
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// A reassignment is an operator's word on which brokers a partition's replicas shall be. It is kept apart from the desired replicas until the controller
// begins with it, since only so many partitions move at once; from then on the desired replicas are the target, and it ends when they are the voters. What
// must be repaired meanwhile is: when that takes a replica to a broker that the operator did not name, the reassignment has ended.

// Reassignment is where an operator wants a partition's replicas. It is never changed, only replaced.
type Reassignment struct {
	// Target lists the brokers; [0] is to be the preferred leader.
	Target []api.BrokerID `json:"target"`
	// Original are the brokers from before the first of the reassignments that followed one another without an end, begun or not: where cancelling leads back.
	// While none has begun they follow what repairs make of the replicas.
	Original []api.BrokerID `json:"original"`
}

// Begun says that the desired replicas of the partition are those of its reassignment.
func (p *Partition) Begun() bool {
	return p.Reassignment != nil && slices.Equal(BrokerIDs(p.Replicas), p.Reassignment.Target)
}

// Reassign sets the targets of partitions, or takes them back. Each part applies or fails by itself, see Result.Failures:
// CodeUnknownTopicOrPartition, CodeInvalidReplicaAssignment, CodeInvalidReplicationFactor, CodeNoReassignmentInProgress.
type Reassign struct {
	Changes []TargetChange `json:"changes"`
	// KeepFactor refuses targets with another number of replicas than now.
	KeepFactor bool `json:"keep_factor,omitempty"`
}

// TargetChange is the part of Reassign about one partition. An empty Target cancels.
type TargetChange struct {
	Group  transport.GroupID  `json:"group"`
	TP     api.TopicPartition `json:"tp"`
	Target []api.BrokerID     `json:"target,omitempty"`
}

// PartFailure says why one part of a command was not applied.
type PartFailure struct {
	Part    int      `json:"part"`
	Code    api.Code `json:"code"`
	Message string   `json:"message"`
}

// Err is the failure as an error.
func (f PartFailure) Err() error { return &api.Error{Code: f.Code, Message: f.Message} }

func (*Reassign) kind() string { return "reassign" }

func (c *Reassign) check(*State) error {
	for _, t := range c.Changes {
		if len(t.Target) > maxReplicas {
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s/%d cannot have %d replicas, only up to %d", t.TP.Topic, t.TP.Partition, len(t.Target), maxReplicas)
		}
	}
	return nil
}

func (c *Reassign) apply(ch *change) (Result, error) {
	var res Result
	for i, t := range c.Changes {
		if err := ch.reassign(t, c.KeepFactor); err != nil {
			res.Failures = append(res.Failures, PartFailure{i, err.Code, err.Message})
		}
	}
	return res, nil
}

func (ch *change) reassign(t TargetChange, keepFactor bool) *api.Error {
	p := ch.s.Find(t.TP)
	if p == nil || p.Group != t.Group {
		return api.Errorf(api.CodeUnknownTopicOrPartition, "there is no partition %d of a topic %q", t.TP.Partition, t.TP.Topic)
	}
	if len(t.Target) == 0 {
		return ch.cancelReassignment(p)
	}
	if err := ch.checkTarget(p, t.Target); err != nil {
		return err
	}
	original := BrokerIDs(p.Replicas)
	if p.Reassignment != nil {
		original = p.Reassignment.Original
	}
	if keepFactor && len(t.Target) != len(original) {
		return api.Errorf(api.CodeInvalidReplicationFactor, "%s has %d replicas, and the target has %d, which the request does not allow", p, len(original), len(t.Target))
	}
	p = ch.ownPartition(p)
	p.Reassignment, p.ByHand = &Reassignment{Target: slices.Clone(t.Target), Original: original}, true
	p.Revision++ // what was planned on the state before no longer fits
	ch.settleReassignment(p)
	return nil
}

// checkTarget refuses brokers that cannot get, or keep, replicas.
func (ch *change) checkTarget(p *Partition, target []api.BrokerID) *api.Error {
	for i, id := range target {
		b := ch.s.Brokers[id]
		switch {
		case b == nil:
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: there is no broker %d", p, id)
		case b.Draining:
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: broker %d is being decommissioned", p, id)
		case slices.Contains(target[:i], id):
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: broker %d is named twice", p, id)
		}
	}
	return nil
}

// cancelReassignment goes back to the brokers from before. Replicas that are still there are kept (withUsable).
func (ch *change) cancelReassignment(p *Partition) *api.Error {
	if p.Reassignment == nil {
		return api.Errorf(api.CodeNoReassignmentInProgress, "%s is not being reassigned", p)
	}
	var back []Replica
	for _, id := range p.Reassignment.Original {
		if ch.s.Brokers[id] != nil {
			back = append(back, Replica{Broker: id})
		}
	}
	if len(back) == 0 {
		return api.Errorf(api.CodeInvalidReplicaAssignment, "%s cannot go back: none of the brokers that it was on is left", p)
	}
	p = ch.ownPartition(p)
	p.Reassignment = nil
	p.Revision++
	ch.setReplicas(p, back)
	return nil
}

// settleReassignment ends the reassignment of a partition that may be changed when the voters are those of the target; and it begins one that moves no data, as
// only the order of the replicas changes.
func (ch *change) settleReassignment(p *Partition) {
	if p.Reassignment == nil {
		return
	}
	if !p.Begun() && sameBrokers(BrokerIDs(p.Replicas), p.Reassignment.Target) {
		old := p.Replicas
		p.Replicas = nil
		for _, id := range p.Reassignment.Target {
			p.Replicas = append(p.Replicas, old[slices.IndexFunc(old, func(r Replica) bool { return r.Broker == id })])
		}
	}
	if !p.Begun() || p.Moving() {
		return
	}
	p.Reassignment = nil
	if t := ch.ownTopic(p.Topic); len(t.Partitions[0].Replicas) > 0 {
		t.ReplicationFactor = int16(len(t.Partitions[0].Replicas))
	}
}

func sameBrokers(a, b []api.BrokerID) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
