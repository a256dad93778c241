package client

import (
	"context"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// ListOffsets looks positions up: Earliest, Latest, AtTime; AtOffset is answered without asking, FromEnd with both bounds in mind. The error of one
// partition is in its ListedOffset.
func (a *Admin) ListOffsets(ctx context.Context, positions map[TopicPartition]Position) map[TopicPartition]ListedOffset {
	out := make(map[TopicPartition]ListedOffset, len(positions))
	for tp, p := range positions {
		o, err := a.client.listOffset(ctx, tp, p)
		o.TopicPartition, o.Err = tp, err
		out[tp] = o
	}
	return out
}

// listOffset resolves one position. With AtTime and no record that young, the offset is -1.
func (c *Client) listOffset(ctx context.Context, tp TopicPartition, p Position) (ListedOffset, error) {
	switch p.kind {
	case posOffset:
		if err := p.check(tp); err != nil {
			return ListedOffset{Offset: -1, LeaderEpoch: -1}, err
		}
		return ListedOffset{Offset: p.value, LeaderEpoch: -1}, nil
	case posFromEnd:
		return c.listFromEnd(ctx, tp, p.value)
	}
	q := &pb.ListOffsetsPartition{Topic: tp.Topic, Partition: tp.Partition}
	switch p.kind {
	case posLatest:
		q.Position = &pb.ListOffsetsPartition_Latest{Latest: true}
	case posTime:
		q.Position = &pb.ListOffsetsPartition_TimestampMs{TimestampMs: p.value}
	default:
		q.Position = &pb.ListOffsetsPartition_Earliest{Earliest: true}
	}
	return c.listOne(ctx, tp, q)
}

func (c *Client) listFromEnd(ctx context.Context, tp TopicPartition, n int64) (ListedOffset, error) {
	end, err := c.listOffset(ctx, tp, Latest())
	if err != nil {
		return end, err
	}
	start, err := c.listOffset(ctx, tp, Earliest())
	if err != nil {
		return start, err
	}
	end.Offset = max(end.Offset-max(n, 0), start.Offset)
	return end, nil
}

// position resolves a Position to an offset to read from: one that always exists.
func (c *Client) position(ctx context.Context, tp TopicPartition, p Position) (int64, error) {
	o, err := c.listOffset(ctx, tp, p)
	if err == nil && o.Offset < 0 && p.kind == posTime {
		o, err = c.listOffset(ctx, tp, Latest())
	}
	return o.Offset, err
}

func (c *Client) listOne(ctx context.Context, tp TopicPartition, q *pb.ListOffsetsPartition) (ListedOffset, error) {
	var out ListedOffset
	err := c.callLeader(ctx, "ListOffsets", tp, func(ctx context.Context, cn *conn) error {
		r, err := cn.log.ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsPartition{q}})
		if err != nil {
			return err
		}
		if len(r.Offsets) != 1 {
			return &Error{Op: "ListOffsets", Code: CodeInternal, Message: "the broker answered for another partition", Topic: tp.Topic, Partition: tp.Partition}
		}
		o := r.Offsets[0]
		if o.Error != nil {
			return fromDetail("ListOffsets", o.Error, o.ErrorMessage, nil)
		}
		out = ListedOffset{Offset: o.Offset, Timestamp: timeFrom(o.TimestampMs), LeaderEpoch: o.LeaderEpoch}
		return nil
	})
	return out, err
}
