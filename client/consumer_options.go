package client

import (
	"errors"
	"time"
)

// ConsumerOption configures a Consumer or a GroupConsumer.
type ConsumerOption interface {
	GroupOption
	applyConsumer(*consumerConfig)
}

// GroupOption configures a GroupConsumer. All ConsumerOptions are GroupOptions too.
type GroupOption interface {
	applyGroup(*groupConfig)
}

type consumerOption func(*consumerConfig)

func (f consumerOption) applyConsumer(c *consumerConfig) { f(c) }
func (f consumerOption) applyGroup(c *groupConfig)       { f(&c.consumer) }

type consumerConfig struct {
	prefetchBytes  int64
	partitionBytes int64
	minBytes       int64
	maxWait        time.Duration
	maxPoll        int
	decodeLimit    int
	reset          Position
}

func defaultConsumerConfig() consumerConfig {
	return consumerConfig{
		prefetchBytes: 8 << 20, partitionBytes: 1 << 20, minBytes: 1, maxWait: 500 * time.Millisecond, maxPoll: 500, decodeLimit: 256 << 20,
	}
}

func (c *consumerConfig) validate() error {
	switch {
	case c.prefetchBytes <= 0 || c.partitionBytes <= 0 || c.minBytes < 0 || c.decodeLimit <= 0:
		return errors.New("client: a consumer's byte limits must be above 0")
	case c.maxPoll <= 0 || c.maxWait <= 0:
		return errors.New("client: a consumer's record limit and maximum wait must be above 0")
	}
	return c.reset.check(TopicPartition{Partition: -1})
}

// WithPrefetchBytes bounds how much is fetched ahead of Poll from each broker, in bytes as stored. Default 8 MiB. One batch may go beyond it.
func WithPrefetchBytes(n int64) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.prefetchBytes = n })
}

// WithPartitionBytes bounds what one partition contributes to one message of a broker. Default 1 MiB, Kafka's.
func WithPartitionBytes(n int64) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.partitionBytes = n })
}

// WithMinBytes lets a broker wait until it has so much to send, or for WithMaxWait. Default 1.
func WithMinBytes(n int64) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.minBytes = n })
}

// WithMaxWait bounds how long a broker waits for WithMinBytes. Default 500 ms, Kafka's.
func WithMaxWait(d time.Duration) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.maxWait = d })
}

// WithMaxPollRecords bounds how many records one Poll returns. Default 500, Kafka's.
func WithMaxPollRecords(n int) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.maxPoll = n })
}

// WithDecodeLimit bounds the decompressed size of one batch, in bytes. Default 256 MiB.
func WithDecodeLimit(n int) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.decodeLimit = n })
}

// WithReset is where to go on when a partition no longer, or not yet, has the offset that was asked for. Default: a Consumer returns the error
// (CodeOffsetOutOfRange) from Poll and leaves the partition until a Seek; a GroupConsumer takes what WithStart says.
func WithReset(p Position) ConsumerOption {
	return consumerOption(func(c *consumerConfig) { c.reset = p })
}
