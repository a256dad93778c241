package client

import (
	"context"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// PartitionTarget names the brokers that a partition's replicas shall be on, the preferred leader first; or, with Cancel, asks to go back to where they were.
type PartitionTarget struct {
	TopicPartition
	Replicas []int32
	Cancel   bool
}

// Reassignment is one under way.
type Reassignment struct {
	TopicPartition
	Replicas []int32 // the target, and then the brokers whose replicas are to go
	Adding   []int32
	Removing []int32
}

// Reassign moves replicas. It returns when the cluster has taken note; the moves go on by themselves, see Reassignments. Each target is taken or refused for itself: the
// errors are in the order of targets, nil where it was taken.
func (a *Admin) Reassign(ctx context.Context, targets []PartitionTarget) ([]error, error) {
	q := &pb.ReassignRequest{}
	for _, t := range targets {
		q.Partitions = append(q.Partitions, &pb.PartitionTarget{Topic: t.Topic, Partition: t.Partition, Replicas: t.Replicas, Cancel: t.Cancel})
	}
	r, err := admin(ctx, a, "Reassign", q, func(cn *conn, ctx context.Context, q *pb.ReassignRequest) (*pb.ReassignResponse, error) {
		return cn.admin.Reassign(ctx, q)
	})
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(targets))
	for i, o := range r.GetOutcomes() {
		if d := o.GetError(); d != nil && i < len(errs) {
			errs[i] = fromDetail("Reassign", d, o.GetMessage(), nil)
		}
	}
	return errs, nil
}

// Reassignments lists those under way.
func (a *Admin) Reassignments(ctx context.Context) ([]Reassignment, error) {
	r, err := admin(ctx, a, "ListReassignments", &pb.ListReassignmentsRequest{}, func(cn *conn, ctx context.Context, q *pb.ListReassignmentsRequest) (*pb.ListReassignmentsResponse, error) {
		return cn.admin.ListReassignments(ctx, q)
	})
	out := make([]Reassignment, 0, len(r.GetReassignments()))
	for _, m := range r.GetReassignments() {
		out = append(out, Reassignment{TopicPartition: TopicPartition{Topic: m.Topic, Partition: m.Partition}, Replicas: m.Replicas, Adding: m.Adding, Removing: m.Removing})
	}
	return out, err
}
