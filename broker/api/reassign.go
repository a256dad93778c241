package api

import "context"

// Reassignments moves replicas to the brokers that operators name. Any broker answers. Moves go on whoever controls the cluster, and are throttled as all
// moves of replicas are.
type Reassignments interface {
	// Reassign sets the targets of partitions, or cancels; each for itself, so the errors are in the order of the request, nil where the target was taken.
	// CodeUnknownTopicOrPartition, CodeInvalidReplicaAssignment, CodeInvalidReplicationFactor, CodeNoReassignmentInProgress.
	Reassign(ctx context.Context, req ReassignRequest) []error
	// Reassignments lists those under way, in order; tps nil means all.
	Reassignments(ctx context.Context, tps []TopicPartition) ([]Reassignment, error)
}

// ReassignRequest names brokers for partitions.
type ReassignRequest struct {
	Partitions []ReassignPartition
	// KeepFactor refuses targets with another number of replicas than the partition has (CodeInvalidReplicationFactor).
	KeepFactor bool
}

// ReassignPartition is a partition's target: Replicas[0] is to be the preferred leader. Cancel goes back to where the replicas were.
type ReassignPartition struct {
	TopicPartition
	Replicas []BrokerID
	Cancel   bool
}

// Reassignment is one under way.
type Reassignment struct {
	TopicPartition
	Replicas []BrokerID // the target, and then those that are to go
	Adding   []BrokerID
	Removing []BrokerID
}
