package broker

import (
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// reassignBatch bounds the partitions in one command.
const reassignBatch = 500

// Reassign implements api.Reassignments. What does not depend on the order of commands is checked here, the rest where it is applied.
func (b *Broker) Reassign(ctx context.Context, req api.ReassignRequest) []error {
	b.syncMetadata(ctx)
	errs := make([]error, len(req.Partitions))
	var changes []metadata.TargetChange
	var places []int // in req.Partitions
	seen := map[api.TopicPartition]bool{}
	for i, p := range req.Partitions {
		if seen[p.TopicPartition] {
			errs[i] = api.Errorf(api.CodeInvalidRequest, "%s/%d is in the request more than once", p.Topic, p.Partition)
			continue
		}
		seen[p.TopicPartition] = true
		var c metadata.TargetChange
		if c, errs[i] = b.targetChange(p); errs[i] == nil {
			changes, places = append(changes, c), append(places, i)
		}
	}
	for from := 0; from < len(changes); from += reassignBatch {
		to := min(from+reassignBatch, len(changes))
		b.proposeTargets(ctx, changes[from:to], places[from:to], req.KeepFactor, errs)
	}
	return errs
}

// targetChange checks what one partition is to become.
func (b *Broker) targetChange(p api.ReassignPartition) (metadata.TargetChange, error) {
	found := b.node.State().Find(p.TopicPartition)
	if found == nil {
		return metadata.TargetChange{}, unknownPartition(p.TopicPartition)
	}
	c := metadata.TargetChange{Group: found.Group, TP: p.TopicPartition}
	if p.Cancel {
		return c, nil
	}
	if len(p.Replicas) == 0 {
		return c, api.Errorf(api.CodeInvalidReplicaAssignment, "%s: the list of brokers is empty", found)
	}
	if err := b.checkBrokers(found.String(), p.Replicas); err != nil {
		return c, err
	}
	c.Target = slices.Clone(p.Replicas)
	return c, nil
}

// checkBrokers refuses brokers that no replica can be put on now: CodeInvalidReplicaAssignment.
func (b *Broker) checkBrokers(partition string, brokers []api.BrokerID) error {
	s := b.node.State()
	for i, id := range brokers {
		r := s.Brokers[id]
		switch {
		case r == nil:
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: there is no broker %d", partition, id)
		case slices.Contains(brokers[:i], id):
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: broker %d is named twice", partition, id)
		case r.Draining:
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: broker %d is being decommissioned", partition, id)
		case !b.isAlive(id):
			return api.Errorf(api.CodeInvalidReplicaAssignment, "%s: broker %d is away", partition, id)
		}
	}
	return nil
}

func (b *Broker) proposeTargets(ctx context.Context, changes []metadata.TargetChange, places []int, keepFactor bool, errs []error) {
	res, err := b.node.Propose(ctx, &metadata.Reassign{Changes: changes, KeepFactor: keepFactor})
	if err != nil {
		for _, i := range places {
			errs[i] = b.apiError(err, nil)
		}
	}
	for _, f := range res.Failures {
		if f.Part >= 0 && f.Part < len(places) {
			errs[places[f.Part]] = f.Err()
		}
	}
}

// Reassignments implements api.Reassignments.
func (b *Broker) Reassignments(ctx context.Context, tps []api.TopicPartition) ([]api.Reassignment, error) {
	b.syncMetadata(ctx)
	s := b.node.State()
	var out []api.Reassignment
	if tps != nil {
		for _, tp := range tps {
			if p := s.Find(tp); p != nil && p.Reassignment != nil {
				out = append(out, describeReassignment(p))
			}
		}
		return out, nil
	}
	for _, t := range s.SortedTopics() {
		for _, p := range t.Partitions {
			if p.Reassignment != nil {
				out = append(out, describeReassignment(p))
			}
		}
	}
	return out, nil
}

func describeReassignment(p *metadata.Partition) api.Reassignment {
	r := api.Reassignment{TopicPartition: p.TP()}
	target, original := p.Reassignment.Target, p.Reassignment.Original
	r.Adding, r.Removing = without(target, original), without(original, target)
	r.Replicas = slices.Concat(target, r.Removing)
	return r
}

func without(list, gone []api.BrokerID) []api.BrokerID {
	var out []api.BrokerID
	for _, id := range list {
		if !slices.Contains(gone, id) {
			out = append(out, id)
		}
	}
	return out
}
