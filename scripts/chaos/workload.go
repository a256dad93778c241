package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

const (
	eventsTopic      = "events"
	eventsPartitions = 6
	condTopic        = "conditional"
	condPartitions   = 2
	steadyName       = "steady"
	steadyPause      = 4 * time.Millisecond
	plainPause       = 15 * time.Millisecond
	keyedPause       = 5 * time.Millisecond
	appendPause      = 20 * time.Millisecond
	probePause       = 40 * time.Millisecond
	impatience       = 700 * time.Millisecond
	// deliveryTimeout is shorter than the default so that a run ends.
	deliveryTimeout = 45 * time.Second
)

// workload is what works on the cluster during a run. Its goroutines end when stop is called.
type workload struct {
	rec    *history.Recorder
	client *client.Client
	addrs  []string
	// settings of the topics.
	settings map[string]string
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex
	trouble  map[string]int // errors of clients that are no anomalies, by who and code
	lastAck  [eventsPartitions]atomic.Int64
	group    *groupWork
	closers  []func()
	produced []*client.Producer
}

func (w *workload) note(who string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := client.CodeOf(err).String()
	switch {
	case errors.Is(err, client.ErrDeliveryTimeout):
		text = "delivery timeout"
	case errors.Is(err, context.DeadlineExceeded):
		text = "deadline exceeded"
	case client.CodeOf(err) == client.CodeInternal:
		text = err.Error()
	}
	w.trouble[who+": "+text]++
}

// start runs the workload; ctx ends it hard, stop in order.
func (w *workload) start(ctx context.Context) error {
	w.trouble = map[string]int{}
	ctx, w.cancel = context.WithCancel(ctx)
	if err := w.createTopics(ctx); err != nil {
		return err
	}
	if err := w.startSteady(ctx); err != nil {
		return err
	}
	if err := w.startKeyed(ctx, "keyed", client.WithCompression(record.Zstd)); err != nil {
		return err
	}
	// One that is quick to try another broker, so that there are acknowledgements by a new leader while the old one is frozen.
	if err := w.startKeyed(ctx, "impatient", client.WithProduceTimeout(impatience)); err != nil {
		return err
	}
	if err := w.startPlain(ctx); err != nil {
		return err
	}
	for i := range 2 {
		if err := w.startAppender(ctx, fmt.Sprint("appender", i)); err != nil {
			return err
		}
	}
	w.wg.Go(func() { w.tail(ctx) })
	for _, addr := range w.addrs {
		if err := w.startProbe(ctx, addr); err != nil {
			return err
		}
	}
	return w.startGroup(ctx)
}

func (w *workload) createTopics(ctx context.Context) error {
	for topic, partitions := range map[string]int32{eventsTopic: eventsPartitions, condTopic: condPartitions} {
		spec := client.TopicSpec{Name: topic, Partitions: partitions, ReplicationFactor: 3, Settings: w.settings}
		if _, err := w.client.Admin().CreateTopic(ctx, spec); err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	return nil
}

func (w *workload) producer(opts ...client.ProducerOption) (*client.Producer, error) {
	p, err := w.client.NewProducer(append([]client.ProducerOption{client.WithDeliveryTimeout(deliveryTimeout)}, opts...)...)
	if err == nil {
		w.produced = append(w.produced, p)
	}
	return p, err
}

// startSteady writes to each partition one record after the other, so that the time between two acknowledgements shows how long it was not served.
func (w *workload) startSteady(ctx context.Context) error {
	p, err := w.producer(client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err != nil {
		return err
	}
	for i := range int32(eventsPartitions) {
		w.wg.Go(func() {
			for seq := int64(1); ctx.Err() == nil; seq++ {
				w.steady(p, i, seq)
				_ = measure.Pause(ctx, steadyPause)
			}
		})
	}
	return nil
}

func (w *workload) steady(p *client.Producer, partition int32, seq int64) {
	op := history.Produce{
		Producer: steadyName, Seq: seq, Partition: history.Partition{Topic: eventsTopic, ID: partition},
		Value: fmt.Sprintf("steady-%d-%d", partition, seq), Expected: history.Unassigned,
	}
	r := &client.Record{Topic: eventsTopic, Partition: partition, Value: []byte(op.Value)}
	start := w.rec.Now()
	done := make(chan error, 1)
	// Not cancelled by the end of the run: the delivery timeout bounds it.
	p.ProduceAsync(context.Background(), r, func(_ *client.Record, err error) { done <- err })
	err := <-done
	w.produceDone(op, start, r.Offset, err)
	if err == nil {
		w.lastAck[partition].Store(int64(w.rec.Now()))
	}
}

// givenUp counts the writes of each producer that ended without an acknowledgement: failed, or with an unknown outcome. All retry, as clients do by default; what is not counted is a
// conditional append that came second.
func givenUp(h *history.History) map[string]int {
	lost := map[string]int{}
	for _, p := range h.Produces {
		if p.Outcome != history.OK && !p.Outbid {
			lost[p.Producer]++
		}
	}
	return lost
}

// produceDone adds what became of a record to the history.
func (w *workload) produceDone(op history.Produce, start time.Duration, offset int64, err error) {
	op.Span, op.Offset = w.rec.Since(start), history.Unassigned
	switch {
	case err == nil:
		op.Outcome, op.Offset = history.OK, offset
	case errors.Is(err, client.ErrOutcomeUnknown):
		op.Outcome = history.Unknown
	default:
		op.Outcome, op.Outbid = history.Failed, errors.Is(err, client.CodeExpectedOffsetMismatch)
	}
	if err != nil && !op.Outbid {
		w.note("produce by "+op.Producer, err)
	}
	w.rec.Produce(op)
}

// startKeyed produces keyed records with many under way.
func (w *workload) startKeyed(ctx context.Context, name string, opts ...client.ProducerOption) error {
	p, err := w.producer(opts...)
	if err != nil {
		return err
	}
	w.wg.Go(func() {
		var seqs [eventsPartitions]int64
		for i := 0; ctx.Err() == nil; i++ {
			key := fmt.Appendf(nil, "key-%d", i%97)
			partition := record.PartitionForKey(key, eventsPartitions)
			seqs[partition]++
			op := history.Produce{
				Producer: name, Seq: seqs[partition], Partition: history.Partition{Topic: eventsTopic, ID: partition},
				Value: fmt.Sprintf("%s-%d", name, i), Expected: history.Unassigned,
			}
			start := w.rec.Now()
			p.ProduceAsync(ctx, &client.Record{Topic: eventsTopic, Key: key, Value: []byte(op.Value)}, func(r *client.Record, err error) {
				w.produceDone(op, start, r.Offset, err)
			})
			_ = measure.Pause(ctx, keyedPause)
		}
	})
	return nil
}

// startAppender competes with others for the next offset of a partition.
func (w *workload) startAppender(ctx context.Context, name string) error {
	p, err := w.producer()
	if err != nil {
		return err
	}
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.conditional(ctx, p, name, i)
			_ = measure.Pause(ctx, appendPause)
		}
	})
	return nil
}

func (w *workload) conditional(ctx context.Context, p *client.Producer, name string, i int) {
	tp := client.TopicPartition{Topic: condTopic, Partition: int32(i % condPartitions)}
	at := w.client.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.Latest()})[tp]
	if at.Err != nil {
		if ctx.Err() == nil {
			w.note("latest by "+name, at.Err)
		}
		return
	}
	op := history.Produce{Producer: name, Partition: partitionOf(tp), Value: fmt.Sprintf("%s-%d", name, i), Expected: at.Offset}
	start := w.rec.Now()
	res, err := p.Append(context.Background(), tp.Topic, tp.Partition, []*client.Record{{Value: []byte(op.Value)}}, client.ExpectOffset(at.Offset))
	w.produceDone(op, start, res.BaseOffset, err)
}

func partitionOf(tp client.TopicPartition) history.Partition {
	return history.Partition{Topic: tp.Topic, ID: tp.Partition}
}

func allPartitions() []client.TopicPartition {
	var all []client.TopicPartition
	for i := range int32(eventsPartitions) {
		all = append(all, client.TopicPartition{Topic: eventsTopic, Partition: i})
	}
	for i := range int32(condPartitions) {
		all = append(all, client.TopicPartition{Topic: condTopic, Partition: i})
	}
	return all
}

// startProbe asks for the ends of all partitions, with a client that learns of the cluster from one broker only: one that is cut off too.
func (w *workload) startProbe(ctx context.Context, addr string) error {
	c, err := client.New([]string{addr}, client.WithRequestTimeout(3*time.Second))
	if err != nil {
		return err
	}
	w.closers = append(w.closers, func() { _ = c.Close() })
	positions := map[client.TopicPartition]client.Position{}
	for _, tp := range allPartitions() {
		positions[tp] = client.Latest()
	}
	w.wg.Go(func() {
		for ctx.Err() == nil {
			start := w.rec.Now()
			for tp, at := range c.Admin().ListOffsets(ctx, positions) {
				if at.Err == nil {
					w.rec.Latest(history.Latest{Span: w.rec.Since(start), Partition: partitionOf(tp), Offset: at.Offset})
				}
			}
			_ = measure.Pause(ctx, probePause)
		}
	})
	return nil
}

// tail reads all partitions as they grow.
func (w *workload) tail(ctx context.Context) {
	k, err := w.client.NewConsumer(client.WithMaxWait(200 * time.Millisecond))
	if err != nil {
		w.note("tail", err)
		return
	}
	defer func() { _ = k.Close() }()
	for _, tp := range allPartitions() {
		if err := k.Assign(client.Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: client.Earliest()}); err != nil {
			w.note("tail", err)
			return
		}
	}
	for ctx.Err() == nil {
		start := w.rec.Now()
		records, err := k.Poll(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.note("tail", err)
				_ = measure.Pause(ctx, 20*time.Millisecond)
			}
			continue
		}
		recordPoll(w.rec, "", start, records, func(client.TopicPartition) string { return "tail" })
	}
}

// recordPoll adds what a poll returned, one operation for each partition.
func recordPoll(rec *history.Recorder, group string, start time.Duration, records []*client.Record, session func(client.TopicPartition) string) {
	span := rec.Since(start)
	polls := map[client.TopicPartition]*history.Poll{}
	for _, r := range records {
		tp := r.TopicPartition()
		if polls[tp] == nil {
			polls[tp] = &history.Poll{Span: span, Session: session(tp), Group: group, Partition: partitionOf(tp)}
		}
		polls[tp].Records = append(polls[tp].Records, history.Read{Offset: r.Offset, Value: string(r.Value)})
	}
	for _, p := range polls {
		rec.Poll(*p)
	}
}

// stop ends the workload. Records under way get some time to be acknowledged.
func (w *workload) stop(patience time.Duration) error {
	w.cancel()
	w.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for _, p := range w.produced {
		errs = append(errs, p.Close(ctx))
	}
	for _, c := range w.closers {
		c()
	}
	return errors.Join(errs...)
}
