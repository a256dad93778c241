package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// ProducerOption configures a Producer.
type ProducerOption func(*producerConfig)

type producerConfig struct {
	linger          time.Duration
	batchBytes      int
	maxRecordBytes  int
	bufferBytes     int64
	maxBlock        time.Duration
	deliveryTimeout time.Duration
	produceTimeout  time.Duration
	maxInFlight     int
	idempotent      bool
	compression     record.Compression
	partitioner     Partitioner
}

// maxInFlightIdempotent is how many batches of a producer a broker remembers for each partition.
const maxInFlightIdempotent = 5

func defaultProducerConfig() producerConfig {
	return producerConfig{
		linger:          DefaultLinger,
		batchBytes:      256 << 10,
		maxRecordBytes:  1 << 20,
		bufferBytes:     64 << 20,
		maxBlock:        time.Minute,
		deliveryTimeout: 2 * time.Minute,
		produceTimeout:  30 * time.Second,
		maxInFlight:     maxInFlightIdempotent,
		idempotent:      true,
		partitioner:     ByKey(),
	}
}

func (c *producerConfig) validate() error {
	switch {
	case c.linger < 0 || c.maxBlock < 0 || c.deliveryTimeout <= 0 || c.produceTimeout <= 0:
		return errors.New("client: producer timeouts must be above 0")
	case c.batchBytes <= record.HeaderSize || c.maxRecordBytes <= record.HeaderSize:
		return fmt.Errorf("client: batches of %d bytes and records of %d bytes are too small", c.batchBytes, c.maxRecordBytes)
	case c.maxRecordBytes > maxMessageBytes-1<<20:
		return fmt.Errorf("client: records of %d bytes do not fit into a request", c.maxRecordBytes)
	case c.bufferBytes < int64(max(c.batchBytes, c.maxRecordBytes)):
		return fmt.Errorf("client: a buffer of %d bytes does not hold one batch", c.bufferBytes)
	case c.maxInFlight < 1 || c.idempotent && c.maxInFlight > maxInFlightIdempotent:
		return fmt.Errorf("client: %d batches in flight, want 1 to %d", c.maxInFlight, maxInFlightIdempotent)
	case c.partitioner == nil:
		return errors.New("client: no partitioner")
	}
	if !c.idempotent {
		c.maxInFlight = 1
	}
	return nil
}

// DefaultLinger is how long a batch waits at most for more records by default: Kafka's. With exactly this linger it goes at once while nothing of the producer is in
// flight, and otherwise with the answer to the last batch that is, up to 2,000 times a second: so a producer of few records does not wait in vain.
const DefaultLinger = 5 * time.Millisecond

// WithLinger is how long a batch waits for more records before it is sent, unless it is full or a Flush is under way. 0 never waits. The default,
// DefaultLinger, is an upper bound.
func WithLinger(d time.Duration) ProducerOption { return func(c *producerConfig) { c.linger = d } }

// WithBatchBytes is the size at which a batch is full, before compression. Default 256 KiB. A record larger than that gets a batch to itself.
func WithBatchBytes(n int) ProducerOption { return func(c *producerConfig) { c.batchBytes = n } }

// WithMaxRecordBytes refuses larger records, with what encoding adds (CodeMessageTooLarge), before they are sent. Default 1 MiB, which is
// also the brokers' default for max.message.bytes.
func WithMaxRecordBytes(n int) ProducerOption {
	return func(c *producerConfig) { c.maxRecordBytes = n }
}

// WithBufferBytes bounds the memory of records that are not yet acknowledged; a producer that reaches it blocks. Default 64 MiB.
func WithBufferBytes(n int64) ProducerOption { return func(c *producerConfig) { c.bufferBytes = n } }

// WithMaxBlock bounds how long a record may wait for room in the buffer, or for its topic to become known, before it fails with
// ErrBufferFull or what stood in the way. Default 1 min, Kafka's.
func WithMaxBlock(d time.Duration) ProducerOption { return func(c *producerConfig) { c.maxBlock = d } }

// WithDeliveryTimeout bounds the time from a record's acceptance to its acknowledgement, retries included (ErrDeliveryTimeout). Default
// 2 min, Kafka's.
func WithDeliveryTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.deliveryTimeout = d }
}

// WithProduceTimeout is how long a broker may wait for the quorum, and a third less than the client waits for the broker, before
// the batch is tried again. Default 30 s.
func WithProduceTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.produceTimeout = d }
}

// WithMaxInFlight is how many batches of one partition may be under way at once, 1 to 5. Order is kept with any number. Default 5.
func WithMaxInFlight(n int) ProducerOption { return func(c *producerConfig) { c.maxInFlight = n } }

// WithIdempotence says whether retries may store a record twice. Default true: they may not. Without it only one batch of a partition
// is in flight at a time, so that order is kept still.
func WithIdempotence(on bool) ProducerOption { return func(c *producerConfig) { c.idempotent = on } }

// WithCompression compresses batches: record.Zstd, record.LZ4, record.Snappy, record.Gzip. Default record.None.
func WithCompression(t record.Compression) ProducerOption {
	return func(c *producerConfig) { c.compression = t }
}

// WithPartitioner says how records are spread over partitions. Default ByKey.
func WithPartitioner(p Partitioner) ProducerOption {
	return func(c *producerConfig) { c.partitioner = p }
}

// PartitionSticky is what a Partitioner returns to leave the choice to the producer, which fills one batch after another.
const PartitionSticky int32 = -1

// Partitioner chooses the partition of a record among 0 to partitions-1, or returns PartitionSticky. It must be safe for
// concurrent use.
type Partitioner interface {
	Partition(r *Record, partitions int32) int32
}

// PartitionerFunc makes a function a Partitioner.
type PartitionerFunc func(r *Record, partitions int32) int32

// Partition calls f.
func (f PartitionerFunc) Partition(r *Record, partitions int32) int32 { return f(r, partitions) }

// ByKey chooses the partition by the key's murmur2 hash, as Kafka's Java producer does: the same key goes to the same
// partition, whichever client produced it, as long as the number of partitions stays. Records with a nil key go to any partition, a batch at a
// time.
func ByKey() Partitioner {
	return PartitionerFunc(func(r *Record, n int32) int32 {
		if r.Key == nil {
			return PartitionSticky
		}
		return record.PartitionForKey(r.Key, n)
	})
}

// Manual takes the partition that the record names.
func Manual() Partitioner {
	return PartitionerFunc(func(r *Record, _ int32) int32 { return r.Partition })
}

// Sticky spreads all records over the partitions a batch at a time, whatever their keys.
func Sticky() Partitioner {
	return PartitionerFunc(func(*Record, int32) int32 { return PartitionSticky })
}
