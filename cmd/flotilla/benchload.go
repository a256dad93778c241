package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// benchHeaderBytes is the beginning of a value: the run's number, and the time the record was meant for in Unix nanoseconds.
const benchHeaderBytes = 16

const benchTopic = "flotilla-bench"

// benchPayloads is how many different values are made in advance; values differ in their first bytes anyway.
const benchPayloads = 64

func (a *app) benchProduceCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "produce [TOPIC]",
		Short: "Measure producing",
		Long: `Produce records and measure throughput and the latency of acknowledgements.

With --rate, records are sent by a schedule that does not wait for the cluster, and latencies are measured from the time a record was meant to be
sent: a stall shows in every record that should have been sent during it (no coordinated omission). Without --rate it sends as fast as
the cluster accepts; latencies then tell how long the queue was, not how fast the cluster is.

TOPIC, by default flotilla-bench, is created if it does not exist, and then deleted at the end unless --keep is given.`,
		Example: `  flotilla bench produce --duration 10s --broker-pids auto
  flotilla bench produce --rate 20000 --record-bytes 200 --batch-bytes 64KiB -o json
  flotilla bench produce orders --records 1000000 --compression lz4 --cpuprofile produce.prof`,
		Args: optionalTopic,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runBenchProduce(cmd.Context(), topicOr(args, benchTopic), &o)
		},
	}
	fs := cmd.Flags()
	o.registerLoad(fs)
	fs.Float64Var(&o.rate, "rate", 0, "records per second; 0: as many as the cluster accepts")
	o.registerTopic(fs)
	o.registerCommon(fs)
	return cmd
}

func (a *app) benchLatencyCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "latency [TOPIC]",
		Short: "Measure latencies from the producer to the acknowledgement and to a consumer",
		Long: `Produce at a steady --rate, consume at the same time, and measure two latencies of every record: until it is acknowledged, and until the consumer
has it. Both are measured from the time the record was meant to be sent, so that a stall shows in every record that should have been sent
during it (no coordinated omission).

TOPIC, by default flotilla-bench, is created if it does not exist, and then deleted at the end unless --keep is given.`,
		Example: "  flotilla bench latency --rate 2000 --duration 10s\n  flotilla bench latency --linger 0 --record-bytes 100 -o json",
		Args:    optionalTopic,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.rate <= 0 {
				return usageErrorf("--rate is %g: it must be more than 0", o.rate)
			}
			return a.runBenchLatency(cmd.Context(), topicOr(args, benchTopic), &o)
		},
	}
	fs := cmd.Flags()
	o.registerLoad(fs)
	fs.Float64Var(&o.rate, "rate", 1000, "records per second")
	o.registerTopic(fs)
	o.registerCommon(fs)
	return cmd
}

func (a *app) benchConsumeCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Measure consuming",
		Long:  "Consume a topic from its beginning to its end as it is at the start, and measure throughput.",
		Example: `  flotilla bench produce orders --duration 10s --keep
  flotilla bench consume orders --broker-pids auto`,
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runBenchConsume(cmd.Context(), args[0], &o)
		},
	}
	cmd.Flags().Int64Var(&o.records, "records", 0, "stop after so many records; 0: at the end")
	o.registerCommon(cmd.Flags())
	return cmd
}

func optionalTopic(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageErrorf("%s takes one topic, got %q too many", cmd.CommandPath(), args[1])
	}
	return nil
}

func topicOr(args []string, topic string) string {
	if len(args) > 0 {
		return args[0]
	}
	return topic
}

// load sends records by a schedule and measures their acknowledgements.
type load struct {
	topic    string
	producer benchProducer
	options  *benchOptions
	run      uint64 // tells this run's records from older ones
	payloads [][]byte
	acks     *latencies

	records, bytes, failed atomic.Int64
	mu                     sync.Mutex
	firstFailure           error
}

func newLoad(ctx context.Context, c *client.Client, topic string, o *benchOptions) (*load, error) {
	p, err := o.newProducer(ctx, c)
	if err != nil {
		return nil, err
	}
	l := &load{topic: topic, producer: p, options: o, run: rand.Uint64(), acks: newLatencies()}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for range benchPayloads {
		b := make([]byte, o.recordBytes)
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		l.payloads = append(l.payloads, b)
	}
	return l, nil
}

// send runs the schedule and waits for all acknowledgements.
func (l *load) send(ctx context.Context) error {
	start := time.Now()
	end := start.Add(l.options.duration)
	err := schedule{start: start, rate: l.options.rate, sleep: sleepPrecisely}.run(ctx, func(i int64, meant time.Time) bool {
		if l.options.records > 0 && i >= l.options.records || l.options.records == 0 && !meant.Before(end) || l.failed.Load() > 0 {
			return false
		}
		l.sendOne(ctx, i, meant)
		return true
	})
	closeErr := l.producer.close(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.firstFailure, err, closeErr)
}

func (l *load) sendOne(ctx context.Context, i int64, meant time.Time) {
	value := append([]byte(nil), l.payloads[i%benchPayloads]...)
	binary.BigEndian.PutUint64(value, l.run)
	binary.BigEndian.PutUint64(value[8:], uint64(meant.UnixNano()))
	l.producer.produce(ctx, l.topic, value, func(err error) {
		if err != nil {
			l.fail(err)
			return
		}
		l.acks.record(time.Since(meant))
		l.records.Add(1)
		l.bytes.Add(int64(len(value)))
	})
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.firstFailure == nil {
		l.firstFailure = err
	}
}

// meantFor returns when a record of this run was meant to be sent.
func (l *load) meantFor(value []byte) (time.Time, bool) {
	if len(value) < benchHeaderBytes || binary.BigEndian.Uint64(value) != l.run {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(value[8:]))), true
}

func (a *app) runBenchProduce(ctx context.Context, topic string, o *benchOptions) error {
	if err := o.validateLoad(); err != nil {
		return err
	}
	report := &benchReport{Benchmark: "produce", Protocol: o.protocol, Topic: topic, TargetRate: o.rate}
	err := a.withClient(func(c *client.Client) error {
		return withBenchTopic(ctx, c, topic, o, func() error { return a.benchLoad(ctx, c, o, report, nil) })
	})
	return a.printBench(report, err)
}

// printBench prints a report that came about.
func (a *app) printBench(report *benchReport, err error) error {
	if err != nil {
		return err
	}
	return a.emit(report, func(w io.Writer) { writeBenchReport(w, report) })
}

// benchLoad sends the load and fills in the report. during, if not nil, runs at the same time; its context ends when it is to give up.
func (a *app) benchLoad(ctx context.Context, c *client.Client, o *benchOptions, report *benchReport, during func(ctx context.Context, l *load, sent <-chan struct{}) error) error {
	l, err := newLoad(ctx, c, report.Topic, o)
	if err != nil {
		return err
	}
	replicas, before, err := logSize(ctx, c, report.Topic)
	if err != nil {
		return err
	}
	err = a.measured(o, report, func() error {
		sent := make(chan struct{})
		beside := make(chan error, 1)
		go func() {
			if during == nil {
				beside <- nil
				return
			}
			beside <- during(ctx, l, sent)
		}()
		err := l.send(ctx)
		close(sent)
		err = errors.Join(err, <-beside)
		report.Records, report.Bytes, report.Failed = l.records.Load(), l.bytes.Load(), l.failed.Load()
		return err
	})
	if err != nil {
		return err
	}
	_, after, err := logSize(ctx, c, report.Topic)
	report.Ack = l.acks.summary()
	report.finishCost(replicas, after-before)
	return err
}

func (a *app) runBenchLatency(ctx context.Context, topic string, o *benchOptions) error {
	if err := o.validateLoad(); err != nil {
		return err
	}
	report := &benchReport{Benchmark: "latency", Protocol: o.protocol, Topic: topic, TargetRate: o.rate}
	endToEnd := newLatencies()
	err := a.withClient(func(c *client.Client) error {
		return withBenchTopic(ctx, c, topic, o, func() error {
			poll, stop, err := a.benchConsumer(ctx, c, topic, o)
			if err != nil {
				return err
			}
			err = a.benchLoad(ctx, c, o, report, func(ctx context.Context, l *load, sent <-chan struct{}) error {
				return receive(ctx, poll, l, sent, endToEnd, a.timeout)
			})
			return errors.Join(err, stop())
		})
	})
	report.EndToEnd = endToEnd.summary()
	return a.printBench(report, err)
}

// pollFunc returns the next records, or none after a while.
type pollFunc func(ctx context.Context) ([]*client.Record, error)

// benchConsumer reads what is produced to the topic from now on.
func (a *app) benchConsumer(ctx context.Context, c *client.Client, topic string, o *benchOptions) (poll pollFunc, stop func() error, err error) {
	if o.protocol == protocolKafka {
		source, err := endOfTopic(ctx, c, topic)
		if err != nil {
			return nil, nil, err
		}
		return source.poll, source.close, nil
	}
	consumer, err := c.NewConsumer(client.WithMaxWait(time.Second))
	if err != nil {
		return nil, nil, err
	}
	if err = consumer.AssignTopic(ctx, topic, client.Latest()); err == nil {
		err = waitPositioned(ctx, consumer, a.timeout)
	}
	if err != nil {
		return nil, nil, errors.Join(err, consumer.Close())
	}
	poll = func(ctx context.Context) ([]*client.Record, error) {
		return pollFor(ctx, true, pollInterval, consumer.Poll)
	}
	return poll, consumer.Close, nil
}

// waitPositioned polls until the consumer knows where it stands in each partition, so that it misses nothing of what comes.
func waitPositioned(ctx context.Context, consumer *client.Consumer, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		missing := 0
		for _, tp := range consumer.Assigned() {
			if _, ok := consumer.Position(tp); !ok {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return withCode(exitUnavailable, fmt.Errorf("%s not ready within %s", count(missing, "partition"), timeout))
		}
		if _, err := pollFor(ctx, true, pollInterval, consumer.Poll); err != nil {
			return err
		}
	}
}

// receive polls until everything that was acknowledged has been received.
func receive(ctx context.Context, poll pollFunc, l *load, sent <-chan struct{}, into *latencies, patience time.Duration) error {
	var received int64
	var deadline time.Time
	for {
		records, err := poll(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, r := range records {
			if meant, ours := l.meantFor(r.Value); ours {
				into.record(now.Sub(meant))
				received++
			}
		}
		select {
		case <-sent:
		default:
			continue
		}
		if deadline.IsZero() {
			deadline = now.Add(patience)
		}
		switch missing := l.records.Load() - received; {
		case missing <= 0 || l.failed.Load() > 0:
			return nil
		case now.After(deadline):
			return fmt.Errorf("%s acknowledged but not received within %s", count64(missing, "record"), patience)
		}
	}
}

func (a *app) runBenchConsume(ctx context.Context, topic string, o *benchOptions) error {
	if err := o.validateCommon(); err != nil {
		return err
	}
	report := &benchReport{Benchmark: "consume", Protocol: o.protocol, Topic: topic}
	err := a.withClient(func(c *client.Client) error {
		n, err := requireTopic(ctx, c, topic)
		if err != nil {
			return err
		}
		wanted, err := choosePartitions(topic, n, nil)
		if err != nil {
			return err
		}
		ends, err := endOffsets(ctx, c, wanted)
		if err != nil {
			return err
		}
		source, err := o.newSource(ctx, c, wanted, ends)
		if err != nil {
			return err
		}
		err = a.measured(o, report, func() error { return drain(ctx, source, report, o.records) })
		report.finishCost(0, 0)
		return errors.Join(err, source.close())
	})
	return a.printBench(report, err)
}

// drain reads to the end in view, or until limit records (0: no limit).
func drain(ctx context.Context, source recordSource, report *benchReport, limit int64) error {
	for limit == 0 || report.Records < limit {
		done, err := source.finished(ctx)
		if err != nil || done {
			return err
		}
		records, err := source.poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			report.Records++
			report.Bytes += int64(len(r.Key) + len(r.Value))
		}
	}
	return nil
}
