package client

import "context"

// Producer appends records to topics. It is safe for concurrent use.
type Producer struct {
	client *Client
	cfg    producerConfig
}

// NewProducer returns a producer. Close it when done.
func (c *Client) NewProducer(opts ...ProducerOption) (*Producer, error) {
	cfg := defaultProducerConfig()
	for _, o := range opts {
		o(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Producer{client: c, cfg: cfg}, nil
}

// Produce stores records and returns when all are acknowledged or have failed; the error is that of the first that failed. Partition
// and Offset of the records are set.
func (p *Producer) Produce(ctx context.Context, records ...*Record) error { return ErrClosed }

// ProduceAsync hands a record to the producer and calls done, if it is not nil, exactly once when the record is acknowledged or has failed.
func (p *Producer) ProduceAsync(ctx context.Context, r *Record, done func(*Record, error)) {
	if done != nil {
		done(r, ErrClosed)
	}
}

// AppendOption changes one Append.
type AppendOption func(*appendConfig)

type appendConfig struct{ expected *int64 }

// ExpectOffset makes an Append conditional: it fails with CodeExpectedOffsetMismatch unless offset is the partition's next one.
func ExpectOffset(offset int64) AppendOption { return func(c *appendConfig) { c.expected = &offset } }

// AppendResult says where an Append went.
type AppendResult struct {
	BaseOffset int64
	Duplicate  bool
}

// Append stores records as one batch in one partition.
func (p *Producer) Append(ctx context.Context, topic string, partition int32, records []*Record, opts ...AppendOption) (AppendResult, error) {
	return AppendResult{}, ErrClosed
}

// Flush returns when all records accepted before are acknowledged or have failed.
func (p *Producer) Flush(ctx context.Context) error { return nil }

// Close flushes and ends the producer.
func (p *Producer) Close(ctx context.Context) error { return nil }
