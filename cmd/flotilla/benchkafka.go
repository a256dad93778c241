package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/client"
)

// The protocols that a benchmark may drive.
const (
	protocolGRPC  = "grpc"
	protocolKafka = "kafka"
)

// benchProducer is what a load needs of a producer.
type benchProducer interface {
	// produce sends one value; it waits while too much is under way. done is called once, on another goroutine, and must not block.
	produce(ctx context.Context, topic string, value []byte, done func(error))
	// close waits for all acknowledgements.
	close(ctx context.Context) error
}

func (o *benchOptions) newProducer(ctx context.Context, c *client.Client) (benchProducer, error) {
	if o.protocol == protocolKafka {
		return o.newKafkaProducer(ctx, c)
	}
	opts, err := o.producerOptions()
	if err != nil {
		return nil, err
	}
	p, err := c.NewProducer(opts...)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return nativeProducer{p}, nil
}

type nativeProducer struct{ p *client.Producer }

func (n nativeProducer) produce(ctx context.Context, topic string, value []byte, done func(error)) {
	n.p.ProduceAsync(ctx, &client.Record{Topic: topic, Value: value}, func(_ *client.Record, err error) { done(err) })
}

func (n nativeProducer) close(ctx context.Context) error { return n.p.Close(ctx) }

// kafkaProducer drives the Kafka listeners with franz-go: idempotent, acks=all, as the client of our own.
type kafkaProducer struct{ k *kgo.Client }

func (o *benchOptions) newKafkaProducer(ctx context.Context, c *client.Client) (benchProducer, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[o.compression]
	if !ok {
		return nil, usageErrorf("--compression: %q is none of none, gzip, snappy, lz4, zstd", o.compression)
	}
	seeds, err := kafkaSeeds(ctx, c)
	if err != nil {
		return nil, err
	}
	k, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ClientID("flotilla-bench"), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(int32(o.batchBytes)),
		kgo.ProducerLinger(o.linger), kgo.MaxBufferedBytes(int(o.buffer)), kgo.MaxBufferedRecords(int(o.buffer)), kgo.RecordDeliveryTimeout(30*time.Second))
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return kafkaProducer{k}, nil
}

func (p kafkaProducer) produce(ctx context.Context, topic string, value []byte, done func(error)) {
	p.k.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) { done(err) })
}

func (p kafkaProducer) close(ctx context.Context) error {
	err := p.k.Flush(ctx)
	p.k.Close()
	return err
}

// kafkaSeeds are the addresses of the brokers' plain Kafka listeners.
func kafkaSeeds(ctx context.Context, c *client.Client) ([]string, error) {
	s, err := c.Admin().Status(ctx)
	if err != nil {
		return nil, err
	}
	var seeds []string
	for _, b := range s.Brokers {
		for _, l := range b.KafkaListeners {
			if l.Name == api.DefaultKafkaListener && b.State == client.BrokerAlive {
				seeds = append(seeds, l.Address)
			}
		}
	}
	if len(seeds) == 0 {
		return nil, withCode(exitRefused, errors.New("no broker has a Kafka listener (--kafka-addr)"))
	}
	return seeds, nil
}

// kafkaSource reads partitions through the Kafka listeners, up to the ends in view if there are any.
type kafkaSource struct {
	k    *kgo.Client
	ends map[client.TopicPartition]int64 // what is still to come; nil: no end
}

// newKafkaSource begins at the given offsets.
func newKafkaSource(ctx context.Context, c *client.Client, from, ends map[client.TopicPartition]int64) (*kafkaSource, error) {
	seeds, err := kafkaSeeds(ctx, c)
	if err != nil {
		return nil, err
	}
	offsets := map[string]map[int32]kgo.Offset{}
	for tp, at := range from {
		if offsets[tp.Topic] == nil {
			offsets[tp.Topic] = map[int32]kgo.Offset{}
		}
		offsets[tp.Topic][tp.Partition] = kgo.NewOffset().At(at)
	}
	s := &kafkaSource{}
	if ends != nil {
		s.ends = map[client.TopicPartition]int64{}
		for tp, end := range ends {
			if end > from[tp] {
				s.ends[tp] = end
			}
		}
	}
	s.k, err = kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ClientID("flotilla-bench"), kgo.ConsumePartitions(offsets), kgo.FetchMaxWait(500*time.Millisecond))
	return s, err
}

func (s *kafkaSource) poll(ctx context.Context) ([]*client.Record, error) {
	return pollFor(ctx, true, pollInterval, func(ctx context.Context) ([]*client.Record, error) {
		fetches := s.k.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		var out []*client.Record
		fetches.EachRecord(func(r *kgo.Record) {
			out = append(out, &client.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value})
		})
		s.passed(fetches)
		return out, nil
	})
}

// passed notes which partitions have been read to their ends.
func (s *kafkaSource) passed(fetches kgo.Fetches) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		tp := client.TopicPartition{Topic: p.Topic, Partition: p.Partition}
		if n := len(p.Records); n > 0 && s.ends[tp] > 0 && p.Records[n-1].Offset+1 >= s.ends[tp] {
			delete(s.ends, tp)
		}
	})
}

func (s *kafkaSource) finished(context.Context) (bool, error) {
	return s.ends != nil && len(s.ends) == 0, nil
}

func (s *kafkaSource) close() error {
	s.k.Close()
	return nil
}

// newSource reads partitions from their beginnings to the ends.
func (o *benchOptions) newSource(ctx context.Context, c *client.Client, tps []client.TopicPartition, ends map[client.TopicPartition]int64) (recordSource, error) {
	if o.protocol != protocolKafka {
		return newPartitionSource(c, tps, ends, consumeOptions{start: startAt{kind: startEarliest}})
	}
	from, err := offsetsAt(ctx, c, tps, client.Earliest())
	if err != nil {
		return nil, err
	}
	return newKafkaSource(ctx, c, from, ends)
}

// endOfTopic reads what comes after the present end of a topic.
func endOfTopic(ctx context.Context, c *client.Client, topic string) (*kafkaSource, error) {
	n, err := requireTopic(ctx, c, topic)
	if err != nil {
		return nil, err
	}
	tps, err := choosePartitions(topic, n, nil)
	if err != nil {
		return nil, err
	}
	from, err := endOffsets(ctx, c, tps)
	if err != nil {
		return nil, err
	}
	return newKafkaSource(ctx, c, from, nil)
}

// printed implements recordSource: there is nothing to commit.
func (s *kafkaSource) printed(context.Context, []*client.Record) error { return nil }
