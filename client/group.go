package client

import "context"

// GroupConsumer reads the partitions that its group assigns to it.
type GroupConsumer struct {
	client *Client
	cfg    groupConfig
}

// Commit is an offset to commit: that of the next record to read, with a free text.
type Commit struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// NewGroupConsumer joins a group.
func (c *Client) NewGroupConsumer(group string, topics []string, opts ...GroupOption) (*GroupConsumer, error) {
	cfg := defaultGroupConfig()
	for _, o := range opts {
		o.applyGroup(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &GroupConsumer{client: c, cfg: cfg}, nil
}

// Poll waits for records.
func (g *GroupConsumer) Poll(ctx context.Context) ([]*Record, error) { return nil, ErrClosed }

// Commit commits the offsets after all records that Poll has returned.
func (g *GroupConsumer) Commit(ctx context.Context) error { return ErrClosed }

// CommitRecords commits the offsets after these records.
func (g *GroupConsumer) CommitRecords(ctx context.Context, records ...*Record) error {
	return ErrClosed
}

// CommitOffsets commits any offsets of partitions that are assigned.
func (g *GroupConsumer) CommitOffsets(ctx context.Context, offsets map[TopicPartition]Commit) error {
	return ErrClosed
}

// Assigned returns the partitions that the member has, in order.
func (g *GroupConsumer) Assigned() []TopicPartition { return nil }

// MemberID is the member's ID in the group.
func (g *GroupConsumer) MemberID() string { return "" }

// Generation is the group's generation that the member is in.
func (g *GroupConsumer) Generation() int32 { return -1 }

// Pause stops delivery.
func (g *GroupConsumer) Pause(tps ...TopicPartition) {}

// Resume ends a Pause.
func (g *GroupConsumer) Resume(tps ...TopicPartition) {}

// Seek moves a partition.
func (g *GroupConsumer) Seek(tp TopicPartition, p Position) error { return ErrClosed }

// Position returns the offset of the next record that Poll will return of a partition.
func (g *GroupConsumer) Position(tp TopicPartition) (int64, bool) { return 0, false }

// HighWatermark returns a partition's high watermark as of the last fetch.
func (g *GroupConsumer) HighWatermark(tp TopicPartition) (int64, bool) { return 0, false }

// Close leaves the group.
func (g *GroupConsumer) Close(ctx context.Context) error { return nil }
