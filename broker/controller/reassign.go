package controller

import (
	"fmt"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// Reassignments are asked for by operators and persisted with the partition (metadata.Reassignment). The planner begins one when there is a slot for it, as for
// all other moves, and prefers it to a repair that it would choose the brokers of; the rest is the same as with every move.

// reassignAll begins the reassignments that wait, and gives up those that cannot be carried out any more.
func (p *planner) reassignAll() {
	for _, t := range p.State.SortedTopics() {
		for _, part := range t.Partitions {
			if part.Reassignment != nil && !part.Begun() && !p.changed[part.TP()] {
				p.reassign(part)
			}
		}
	}
}

// reassign begins the reassignment of a partition, if that is possible now. It says whether the plan has a change for the partition then.
func (p *planner) reassign(part *metadata.Partition) bool {
	if id, lost := p.lostTarget(part); lost {
		p.change(part, part.Replicas, fmt.Sprintf("the reassignment to brokers %v ends: broker %d is not to have replicas", part.Reassignment.Target, id))
		p.plan.Changes[len(p.plan.Changes)-1].EndReassignment = true
		return true
	}
	if !p.hasQuorum(part) {
		p.block(part, "no quorum of its replicas is alive and undamaged, so it cannot be reassigned")
		return false
	}
	next, fresh := p.targetReplicas(part)
	for _, id := range fresh {
		if !p.Alive[id] {
			p.block(part, fmt.Sprintf("its reassignment waits for broker %d, which is away", id))
			return false
		}
		if !p.mayBuild(id) {
			return false
		}
	}
	if !part.Moving() {
		if p.slots <= 0 {
			return false
		}
		p.slots--
	}
	for _, id := range fresh {
		p.building[id]++
	}
	p.change(part, next, fmt.Sprintf("reassignment from brokers %v", metadata.BrokerIDs(part.Replicas)))
	return true
}

// lostTarget finds a broker of the target that will not take a replica any more.
func (p *planner) lostTarget(part *metadata.Partition) (api.BrokerID, bool) {
	for _, id := range part.Reassignment.Target {
		if b := p.State.Brokers[id]; b == nil || b.Draining {
			return id, true
		}
	}
	return api.NoBroker, false
}

// targetReplicas are the replicas of the target: those that are there already and well, and fresh ones on the brokers that it returns besides.
func (p *planner) targetReplicas(part *metadata.Partition) (next []metadata.Replica, fresh []api.BrokerID) {
	for _, id := range part.Reassignment.Target {
		r, ok := p.present(part, id)
		if !ok {
			fresh = append(fresh, id)
		}
		next = append(next, r)
	}
	return next, fresh
}

// present is the partition's replica that a broker has already; false and one that is to be made if it has none.
func (p *planner) present(part *metadata.Partition, id api.BrokerID) (metadata.Replica, bool) {
	b := p.State.Brokers[id]
	if b != nil {
		if r, ok := part.Usable(id, b.Incarnation); ok {
			return r, true
		}
	}
	return metadata.Replica{Broker: id}, false
}
