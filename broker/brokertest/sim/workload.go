package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

const (
	eventsTopic      = "events"
	eventsPartitions = 3
	condTopic        = "conditional" // conditional and plain appends
	trimTopic        = "trimmed"     // whose oldest records are deleted again and again
	probePause       = 150 * time.Millisecond
	impatience       = 700 * time.Millisecond
	deliveryTimeout  = 45 * time.Second
	// drainWithin bounds how long records under way may take at the end.
	drainWithin = deliveryTimeout + 10*time.Second
	padBytes    = 1500
)

// workload is what clients do to the cluster during a run. Its goroutines end when stop is called.
type workload struct {
	c      *Cluster
	rec    *history.Recorder
	client *client.Client
	pace   time.Duration // between two records of one producer
	flush  string
	absent Work        // who has the day off
	calm   atomic.Bool // the faults are over: a tenth of the load is enough
	pad    [padBytes]byte

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	trouble   map[string]int // errors of clients that are no anomalies, by who and code
	acked     map[history.Partition]time.Duration
	producers []*client.Producer
	clients   []*client.Client
	sessions  int
}

func newWorkload(c *Cluster, rec *history.Recorder, pace time.Duration) *workload {
	w := &workload{c: c, rec: rec, pace: pace, trouble: map[string]int{}, acked: map[history.Partition]time.Duration{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// rest is the pause of a producer.
func (w *workload) rest(times time.Duration) error {
	if w.calm.Load() {
		times *= 10
	}
	return sleep(w.ctx, times*w.pace)
}

// idle is the pause of who looks on.
func (w *workload) idle(d time.Duration) error {
	if w.calm.Load() {
		d *= 5
	}
	return sleep(w.ctx, d)
}

func (w *workload) note(who string, err error) {
	text := client.CodeOf(err).String()
	switch {
	case errors.Is(err, client.ErrDeliveryTimeout):
		text = "delivery timeout"
	case errors.Is(err, context.DeadlineExceeded):
		text = "deadline exceeded"
	case client.CodeOf(err) == client.CodeInternal:
		text = err.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble[who+": "+text]++
}

func (w *workload) newClient(only ...*Node) (*client.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.c.Client(fmt.Sprintf("10.0.1.%d", len(w.clients)+1), only...)
	if err == nil {
		w.clients = append(w.clients, c)
	}
	return c, err
}

// hosts are the addresses of all clients.
func (w *workload) hosts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for i := range w.clients {
		out = append(out, fmt.Sprintf("10.0.1.%d", i+1))
	}
	return out
}

func partitions() []client.TopicPartition {
	var all []client.TopicPartition
	for i := range int32(eventsPartitions) {
		all = append(all, client.TopicPartition{Topic: eventsTopic, Partition: i})
	}
	return append(all, client.TopicPartition{Topic: condTopic}, client.TopicPartition{Topic: trimTopic})
}

func partitionOf(tp client.TopicPartition) history.Partition {
	return history.Partition{Topic: tp.Topic, ID: tp.Partition}
}

// start makes the topics and lets everybody work.
func (w *workload) start(rng *rand.Rand) (err error) {
	if w.client, err = w.newClient(); err != nil {
		return err
	}
	for topic, n := range map[string]int32{eventsTopic: eventsPartitions, condTopic: 1, trimTopic: 1} {
		spec := client.TopicSpec{Name: topic, Partitions: n, ReplicationFactor: 3, Settings: map[string]string{"segment.bytes": "65536"}}
		if w.flush != "" {
			spec.Settings["flush"] = w.flush
		}
		if _, err := w.client.Admin().CreateTopic(w.ctx, spec); err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	for _, part := range []struct {
		work  Work
		start func(*rand.Rand) error
	}{{0, w.steadies}, {keyedWork, w.keyeds}, {appendWork, w.appenders}, {trimWork, w.trimmer}, {probeWork, w.probes}, {groupWork, w.group}} {
		mine := fork(rng)
		if w.absent&part.work != 0 {
			continue
		}
		if err := part.start(mine); err != nil {
			return err
		}
	}
	w.wg.Go(w.tail)
	return nil
}

func (w *workload) producer(c *client.Client, opts ...client.ProducerOption) (*client.Producer, error) {
	p, err := c.NewProducer(append([]client.ProducerOption{client.WithDeliveryTimeout(deliveryTimeout)}, opts...)...)
	if err == nil {
		w.producers = append(w.producers, p)
	}
	return p, err
}

// padding makes records of different sizes without making the history larger.
func (w *workload) padding(rng *rand.Rand) []client.Header {
	return []client.Header{{Key: "pad", Value: w.pad[:rng.IntN(padBytes)]}}
}

// steadies write to each partition one record after the other, so that the time between two acknowledgements shows how long it was not served.
func (w *workload) steadies(rng *rand.Rand) error {
	p, err := w.producer(w.client, client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err != nil {
		return err
	}
	for _, tp := range partitions() {
		if tp.Topic == condTopic {
			continue
		}
		rng := fork(rng)
		w.wg.Go(func() {
			for seq := int64(1); w.ctx.Err() == nil; seq++ {
				w.steady(p, tp, seq, rng)
				_ = w.rest(1)
			}
		})
	}
	return nil
}

func (w *workload) steady(p *client.Producer, tp client.TopicPartition, seq int64, rng *rand.Rand) {
	op := history.Produce{
		Producer: "steady", Seq: seq, Partition: partitionOf(tp), Value: fmt.Sprintf("steady-%s-%d-%d", tp.Topic, tp.Partition, seq),
		Expected: history.Unassigned,
	}
	r := &client.Record{Topic: tp.Topic, Partition: tp.Partition, Value: []byte(op.Value), Headers: w.padding(rng)}
	start := w.rec.Now()
	done := make(chan error, 1)
	// Not cancelled by the end of the run: the delivery timeout bounds it.
	p.ProduceAsync(context.Background(), r, func(_ *client.Record, err error) { done <- err })
	w.produced(op, start, r.Offset, <-done)
}

// produced adds what became of a record to the history.
func (w *workload) produced(op history.Produce, start time.Duration, offset int64, err error) {
	op.Span, op.Offset = w.rec.Since(start), history.Unassigned
	switch {
	case err == nil:
		op.Outcome, op.Offset = history.OK, offset
		w.mu.Lock()
		w.acked[op.Partition] = op.End
		w.mu.Unlock()
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

// keyeds produce keyed records with many under way; one of the two is quick to try another broker.
func (w *workload) keyeds(rng *rand.Rand) error {
	for name, opts := range map[string][]client.ProducerOption{
		"keyed": {client.WithCompression(record.LZ4)}, "impatient": {client.WithProduceTimeout(impatience)},
	} {
		c, err := w.newClient()
		if err != nil {
			return err
		}
		p, err := w.producer(c, opts...)
		if err != nil {
			return err
		}
		rng := fork(rng)
		w.wg.Go(func() { w.keyed(p, name, rng) })
	}
	return nil
}

func (w *workload) keyed(p *client.Producer, name string, rng *rand.Rand) {
	var seqs [eventsPartitions]int64
	for i := 0; w.ctx.Err() == nil; i++ {
		key := fmt.Appendf(nil, "key-%d", i%97)
		partition := record.PartitionForKey(key, eventsPartitions)
		seqs[partition]++
		op := history.Produce{
			Producer: name, Seq: seqs[partition], Partition: history.Partition{Topic: eventsTopic, ID: partition},
			Value: fmt.Sprintf("%s-%d", name, i), Expected: history.Unassigned,
		}
		start := w.rec.Now()
		r := &client.Record{Topic: eventsTopic, Key: key, Value: []byte(op.Value), Headers: w.padding(rng)}
		p.ProduceAsync(w.ctx, r, func(r *client.Record, err error) { w.produced(op, start, r.Offset, err) })
		_ = w.rest(1)
	}
}

// appenders compete for the next offset of a partition, and one writes to it without idempotence and without condition.
func (w *workload) appenders(*rand.Rand) error {
	for i := range 3 {
		c, err := w.newClient()
		if err != nil {
			return err
		}
		p, err := w.producer(c, client.WithIdempotence(i < 2), client.WithProduceTimeout(3*time.Second))
		if err != nil {
			return err
		}
		name := fmt.Sprint("appender", i)
		w.wg.Go(func() {
			for k := 0; w.ctx.Err() == nil; k++ {
				w.append(c, p, name, k, i < 2)
				_ = w.rest(5)
			}
		})
	}
	return nil
}

func (w *workload) append(c *client.Client, p *client.Producer, name string, k int, conditional bool) {
	tp := client.TopicPartition{Topic: condTopic}
	op := history.Produce{Producer: name, Partition: partitionOf(tp), Value: fmt.Sprintf("%s-%d", name, k), Expected: history.Unassigned}
	var opts []client.AppendOption
	if conditional {
		at := c.Admin().ListOffsets(w.ctx, map[client.TopicPartition]client.Position{tp: client.Latest()})[tp]
		if at.Err != nil {
			if w.ctx.Err() == nil {
				w.note("latest by "+name, at.Err)
			}
			return
		}
		op.Expected = at.Offset
		opts = append(opts, client.ExpectOffset(at.Offset))
	}
	start := w.rec.Now()
	res, err := p.Append(context.Background(), tp.Topic, tp.Partition, []*client.Record{{Value: []byte(op.Value)}}, opts...)
	w.produced(op, start, res.BaseOffset, err)
}

// trimmer deletes the older half of a partition's records every few seconds.
func (w *workload) trimmer(rng *rand.Rand) error {
	tp := client.TopicPartition{Topic: trimTopic}
	w.wg.Go(func() {
		for w.ctx.Err() == nil {
			_ = sleep(w.ctx, time.Second+time.Duration(rng.Int64N(int64(3*time.Second))))
			at := w.client.Admin().ListOffsets(w.ctx, map[client.TopicPartition]client.Position{tp: client.Latest()})[tp]
			if at.Err != nil {
				continue
			}
			if _, err := w.client.Admin().DeleteRecords(w.ctx, tp, at.Offset/2); err != nil && w.ctx.Err() == nil {
				w.note("delete records", err)
			}
		}
	})
	return nil
}

// probes ask for the ends of all partitions, each with a client that learns of the cluster from one broker only: one that is cut off too.
func (w *workload) probes(*rand.Rand) error {
	positions := map[client.TopicPartition]client.Position{}
	for _, tp := range partitions() {
		positions[tp] = client.Latest()
	}
	for _, n := range w.c.Nodes[:w.c.founders] {
		c, err := w.newClient(n)
		if err != nil {
			return err
		}
		w.wg.Go(func() {
			for w.ctx.Err() == nil {
				w.probe(c, positions)
				_ = w.idle(probePause)
			}
		})
	}
	return nil
}

func (w *workload) probe(c *client.Client, positions map[client.TopicPartition]client.Position) {
	ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
	defer cancel()
	start := w.rec.Now()
	for tp, at := range c.Admin().ListOffsets(ctx, positions) {
		if at.Err == nil {
			w.rec.Latest(history.Latest{Span: w.rec.Since(start), Partition: partitionOf(tp), Offset: at.Offset})
		}
	}
}

// tail reads partitions as they grow.
func (w *workload) tail() {
	k, err := w.client.NewConsumer(client.WithMaxWait(200 * time.Millisecond))
	if err != nil {
		w.note("tail", err)
		return
	}
	defer func() { _ = k.Close() }()
	for _, tp := range partitions() {
		if tp.Topic == trimTopic {
			continue // deletions make gaps that a session must not have
		}
		if err := k.Assign(client.Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: client.Earliest()}); err != nil {
			w.note("tail", err)
			return
		}
	}
	for w.ctx.Err() == nil {
		start := w.rec.Now()
		records, err := k.Poll(w.ctx)
		if err != nil {
			if w.ctx.Err() == nil {
				w.note("tail", err)
				_ = sleep(w.ctx, 20*time.Millisecond)
			}
			continue
		}
		w.polled("", start, records, func(client.TopicPartition) string { return "tail" })
	}
}

// polled adds what a poll returned, one operation for each partition.
func (w *workload) polled(group string, start time.Duration, records []*client.Record, session func(client.TopicPartition) string) {
	span := w.rec.Since(start)
	polls := map[client.TopicPartition]*history.Poll{}
	for _, r := range records {
		tp := r.TopicPartition()
		if polls[tp] == nil {
			polls[tp] = &history.Poll{Span: span, Session: session(tp), Group: group, Partition: partitionOf(tp)}
		}
		polls[tp].Records = append(polls[tp].Records, history.Read{Offset: r.Offset, Value: string(r.Value)})
	}
	for _, p := range polls {
		w.rec.Poll(*p)
	}
}

// stop ends the workload. Records under way get some time to be acknowledged.
func (w *workload) stop() error {
	w.cancel()
	w.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	var errs []error
	for _, p := range w.producers {
		errs = append(errs, p.Close(ctx))
	}
	return errors.Join(errs...)
}

// close ends the clients.
func (w *workload) close() {
	for _, c := range w.clients {
		_ = c.Close()
	}
}
