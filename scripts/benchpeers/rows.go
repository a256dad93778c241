package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	kib = 1 << 10
	// many is how many partitions or streams the rows with several have.
	many = 8
	// e2eRate is how many records per second the end-to-end row sends.
	e2eRate = 1000
	// gapWatch is how long writes go on after a leader was killed.
	gapWatch = 12 * time.Second
	// storedForRestart is what is stored before all servers are killed.
	storedForRestart = 1 << 30
)

// run is one candidate's turn.
type run struct {
	cfg    *config
	name   string
	sys    system
	report *report
	made   map[string]int64 // topics with records in them, and how many
}

// row is a measurement. They use a cluster in common, in the order in which they stand here, but for those that want one alone.
type row struct {
	name       string
	throughput bool // also for a candidate's fast producer
	measure    func(ctx context.Context, r *run) error
	// alone says that the row has a cluster of its own, in which nothing was stored before.
	alone bool
}

// rows in the order in which they are measured on one cluster. The first is part of the start.
func rows() []row {
	return []row{
		{name: "produce-1k", throughput: true, measure: func(ctx context.Context, r *run) error { return r.produce(ctx, kib, 1) }},
		{name: "produce-1k-many", throughput: true, measure: func(ctx context.Context, r *run) error { return r.produce(ctx, kib, many) }},
		{name: "consume-1k", measure: func(ctx context.Context, r *run) error { return r.consume(ctx, kib, 1) }},
		{name: "consume-1k-many", measure: func(ctx context.Context, r *run) error { return r.consume(ctx, kib, many) }},
		{name: "produce-100", throughput: true, measure: func(ctx context.Context, r *run) error { return r.produce(ctx, 100, 1) }},
		{name: "produce-100-many", throughput: true, measure: func(ctx context.Context, r *run) error { return r.produce(ctx, 100, many) }},
		{name: "one-at-a-time", measure: func(ctx context.Context, r *run) error { return r.oneAtATime(ctx) }},
		{name: "end-to-end", measure: func(ctx context.Context, r *run) error { return r.endToEnd(ctx) }},
		{name: "failover", measure: func(ctx context.Context, r *run) error { return r.failover(ctx) }},
		{name: "restart", measure: func(ctx context.Context, r *run) error { return r.restart(ctx) }, alone: true},
	}
}

func topicOf(bytes, shards int) string { return fmt.Sprintf("b%d-%d-", bytes, shards) }

// values are random letters, as many different ones as it takes that nothing finds them again.
func values(bytes int) [][]byte {
	rng := rand.New(rand.NewPCG(1, uint64(bytes)))
	list := make([][]byte, 64)
	for i := range list {
		v := make([]byte, bytes)
		for j := range v {
			v[j] = byte('a' + rng.IntN(26))
		}
		list[i] = v
	}
	return list
}

// produce stores records of so many bytes as fast as the system takes them, until all are acknowledged.
func (r *run) produce(ctx context.Context, bytes, shards int) error {
	topic := topicOf(bytes, shards)
	if err := r.sys.create(ctx, topic, shards); err != nil {
		return err
	}
	p, err := r.sys.producer(ctx, topic, shards)
	if err != nil {
		return err
	}
	before, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	own, start, n := ownCPU(), time.Now(), 0
	for vs := values(bytes); time.Since(start) < r.cfg.load; n++ {
		if err := p.send(ctx, vs[n%len(vs)]); err != nil {
			return errors.Join(err, p.finish(ctx))
		}
	}
	if err := p.finish(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	r.made[topic] = int64(n)
	label := fmt.Sprintf("produce %s, %s", size(bytes), shardsText(shards))
	r.throughput(label, n, bytes, took)
	used, gb := after.minus(before), float64(n*bytes)/1e9
	r.report.add(r.name, label+": CPU of servers and client", "s/GB", fewer, (used.cpu+ownCPU()-own)/gb)
	r.report.add(r.name, label+": written to disk by all", "bytes/byte", fewer, used.written/float64(n*bytes))
	return nil
}

func (r *run) throughput(label string, n, bytes int, took time.Duration) {
	r.report.add(r.name, label, "records/s", more, float64(n)/took.Seconds())
	if bytes >= kib {
		r.report.add(r.name, label+": volume", "MB/s", more, float64(n*bytes)/1e6/took.Seconds())
	}
}

func size(bytes int) string {
	if bytes%kib == 0 {
		return fmt.Sprintf("%d KiB", bytes/kib)
	}
	return fmt.Sprintf("%d B", bytes)
}

func shardsText(n int) string {
	if n == 1 {
		return "one partition or stream"
	}
	return fmt.Sprintf("%d partitions or streams", n)
}

// consume reads what produce has stored, once, with one consumer.
func (r *run) consume(ctx context.Context, bytes, shards int) error {
	topic := topicOf(bytes, shards)
	want := r.made[topic]
	if want == 0 {
		return fmt.Errorf("nothing to consume: the row that produces it has to run first")
	}
	before, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	var n atomic.Int64
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	own, start := ownCPU(), time.Now()
	err = r.sys.consume(ctx, topic, shards, func() {}, func(v []byte) bool {
		if len(v) != bytes {
			return true // fast ingest ends with an empty message
		}
		return n.Add(1) < want
	})
	if err != nil {
		return fmt.Errorf("after %d of %d records: %w", n.Load(), want, err)
	}
	took := time.Since(start)
	after, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	label := fmt.Sprintf("consume %s stored, one consumer, %s", size(bytes), shardsText(shards))
	r.throughput(label, int(want), bytes, took)
	r.report.add(r.name, label+": CPU of servers and client", "s/GB", fewer, (after.minus(before).cpu+ownCPU()-own)/(float64(want*int64(bytes))/1e9))
	return nil
}

// oneAtATime stores one record of 100 bytes after another, each when the one before is acknowledged.
func (r *run) oneAtATime(ctx context.Context) error {
	if err := r.sys.create(ctx, "single", 1); err != nil {
		return err
	}
	value := values(100)[0]
	var took []time.Duration
	for start := time.Now(); time.Since(start) < r.cfg.load; {
		from := time.Now()
		if err := r.sys.publish(ctx, "single", value); err != nil {
			return err
		}
		if time.Since(start) > r.cfg.load/10 {
			took = append(took, time.Since(from))
		}
	}
	r.percentiles("one at a time, 100 B", took)
	return nil
}

func (r *run) percentiles(label string, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1000 }
	r.report.add(r.name, label+", p50", "ms", fewer, at(0.5))
	r.report.add(r.name, label+", p99", "ms", fewer, at(0.99))
}

// endToEnd sends records of 100 bytes by a schedule and takes the time from when each was due until a consumer has it.
func (r *run) endToEnd(ctx context.Context) error {
	if err := r.sys.create(ctx, "e2e", 1); err != nil {
		return err
	}
	p, err := r.sys.producer(ctx, "e2e", 1)
	if err != nil {
		return err
	}
	total := int(r.cfg.load.Seconds() * e2eRate)
	took := make([]time.Duration, 0, total)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ready, consumed := make(chan struct{}), make(chan error, 1)
	go func() {
		consumed <- r.sys.consume(ctx, "e2e", 1, func() { close(ready) }, func(v []byte) bool {
			took = append(took, time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(v)))))
			return len(took) < total
		})
	}()
	select {
	case <-ready:
	case err := <-consumed:
		return errors.Join(err, p.finish(ctx))
	}
	err = schedule(ctx, p, total)
	if err = errors.Join(err, <-consumed, p.finish(ctx)); err == nil {
		r.percentiles(fmt.Sprintf("end to end at %d records/s, 100 B", e2eRate), took[total/10:])
	}
	return err
}

func schedule(ctx context.Context, p producer, total int) error {
	start := time.Now()
	for i := range total {
		due := start.Add(time.Duration(i) * time.Second / e2eRate)
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			sleepPrecisely(wait)
		}
		value := make([]byte, 100)
		binary.BigEndian.PutUint64(value, uint64(due.UnixNano()))
		if err := p.send(ctx, value); err != nil {
			return err
		}
	}
	return nil
}

// failover kills the leader of a topic with SIGKILL while one record after another is stored, each tried until it is acknowledged.
func (r *run) failover(ctx context.Context) error {
	if err := r.sys.create(ctx, "gap", 1); err != nil {
		return err
	}
	value := values(100)[0]
	write := func(ctx context.Context) error { return r.sys.publish(ctx, "gap", value) }
	for range 200 {
		if err := until(ctx, 10*time.Second, write); err != nil {
			return err
		}
	}
	leader, err := r.sys.leader(ctx, "gap")
	if err != nil {
		return err
	}
	var longest time.Duration
	last := time.Now()
	r.sys.kill(leader)
	for end := time.Now().Add(gapWatch); time.Now().Before(end); {
		if err := until(ctx, time.Minute, write); err != nil {
			return err
		}
		longest = max(longest, time.Since(last))
		last = time.Now()
		time.Sleep(time.Millisecond)
	}
	r.report.add(r.name, "after SIGKILL of a leader, longest gap without an acknowledgement", "s", fewer, longest.Seconds())
	if err := r.sys.start(ctx); err != nil {
		return err
	}
	return until(ctx, time.Minute, write)
}

// restart kills all servers with SIGKILL once enough is stored and takes the time from their start to the first acknowledgement.
func (r *run) restart(ctx context.Context) error {
	if err := r.sys.create(ctx, "again", 1); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	for i := range servers {
		r.sys.kill(i)
	}
	value := values(100)[0]
	start := time.Now()
	started := make(chan error, 1)
	go func() { started <- r.sys.start(ctx) }()
	err := until(ctx, 2*time.Minute, func(ctx context.Context) error { return r.sys.publish(ctx, "again", value) })
	took := time.Since(start)
	if err = errors.Join(err, <-started); err == nil {
		r.report.add(r.name, "start of all after SIGKILL, 1 GiB stored, to first acknowledgement", "s", fewer, took.Seconds())
	}
	return err
}

// fill stores what the restart needs.
func (r *run) fill(ctx context.Context) error {
	p, err := r.sys.producer(ctx, "again", 1)
	if err != nil {
		return err
	}
	vs := values(kib)
	for n := range storedForRestart / kib {
		if err := p.send(ctx, vs[n%len(vs)]); err != nil {
			return errors.Join(err, p.finish(ctx))
		}
	}
	return p.finish(ctx)
}

// first is how long it takes from nothing to the first record in a replicated topic.
func (r *run) first(ctx context.Context) error {
	start := time.Now()
	if err := r.sys.boot(ctx); err != nil {
		return err
	}
	if err := r.sys.create(ctx, "first", 1); err != nil {
		return err
	}
	value := values(100)[0]
	err := until(ctx, time.Minute, func(ctx context.Context) error { return r.sys.publish(ctx, "first", value) })
	if err == nil {
		r.report.add(r.name, "empty machine to first record in a replicated topic", "s", fewer, time.Since(start).Seconds())
	}
	return err
}

// idle measures servers with many partitions or streams in which nothing happens, some time after these were made.
func (r *run) idle(ctx context.Context, shards int) error {
	if err := r.sys.boot(ctx); err != nil {
		return err
	}
	if err := r.sys.idleShards(ctx, shards); err != nil {
		return err
	}
	time.Sleep(r.cfg.settle)
	before, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	start := time.Now()
	time.Sleep(r.cfg.idleFor)
	took := time.Since(start)
	after, err := usageOf(r.sys.pids())
	if err != nil {
		return err
	}
	label := fmt.Sprintf("idle for %s, %d replicated partitions or streams", r.cfg.settle, shards)
	r.report.add(r.name, label+": three servers", "% of one core", fewer, 100*after.minus(before).cpu/took.Seconds())
	r.report.add(r.name, label+": largest server", "MB resident", fewer, after.rss/1e6)
	return nil
}

// selected keeps the rows that were asked for, all if none was.
func selected(all []row, names string) ([]row, error) {
	if names == "" {
		return all, nil
	}
	var kept []row
	known := map[string]bool{"first": true, "idle": true, "floor": true}
	wanted := strings.Split(names, ",")
	for _, r := range all {
		known[r.name] = true
		if slices.Contains(wanted, r.name) {
			kept = append(kept, r)
		}
	}
	for _, w := range wanted {
		if !known[w] {
			return nil, fmt.Errorf("there is no row %q", w)
		}
	}
	return kept, nil
}
