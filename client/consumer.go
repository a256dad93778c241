package client

import "context"

// Consumer reads the partitions it is told to.
type Consumer struct {
	client *Client
	cfg    consumerConfig
}

// Assignment is a partition to read, and from where on.
type Assignment struct {
	Topic     string
	Partition int32
	Start     Position // zero: Earliest
}

// NewConsumer returns a consumer without partitions.
func (c *Client) NewConsumer(opts ...ConsumerOption) (*Consumer, error) {
	cfg := defaultConsumerConfig()
	for _, o := range opts {
		o.applyConsumer(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Consumer{client: c, cfg: cfg}, nil
}

// Assign adds partitions, or moves those that are assigned already to their Start.
func (k *Consumer) Assign(as ...Assignment) error { return ErrClosed }

// AssignTopic assigns all partitions of a topic.
func (k *Consumer) AssignTopic(ctx context.Context, topic string, start Position) error {
	return ErrClosed
}

// Unassign drops partitions.
func (k *Consumer) Unassign(tps ...TopicPartition) {}

// Assigned returns the partitions, in order.
func (k *Consumer) Assigned() []TopicPartition { return nil }

// Poll waits for records.
func (k *Consumer) Poll(ctx context.Context) ([]*Record, error) { return nil, ErrClosed }

// Pause stops delivery.
func (k *Consumer) Pause(tps ...TopicPartition) {}

// Resume ends a Pause.
func (k *Consumer) Resume(tps ...TopicPartition) {}

// Seek moves a partition.
func (k *Consumer) Seek(tp TopicPartition, p Position) error { return ErrClosed }

// Position returns the offset of the next record that Poll will return of a partition.
func (k *Consumer) Position(tp TopicPartition) (int64, bool) { return 0, false }

// HighWatermark returns a partition's high watermark as of the last fetch.
func (k *Consumer) HighWatermark(tp TopicPartition) (int64, bool) { return 0, false }

// Close ends the consumer.
func (k *Consumer) Close() error { return nil }
