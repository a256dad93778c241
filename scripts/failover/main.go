// Command failover measures what a client sees of a broker's death: the longest time without an acknowledgement, for each partition
// that the broker led.
//
// It runs three brokers as processes, writes one record after another to each of 12 partitions with three replicas, kills the brokers in
// turn with SIGKILL (or stops them with SIGSTOP: -signal STOP), and starts them again. All settings are the defaults, except that leaderships go back to the
// returned broker after a second instead of five, so that a run does not take long.
//
//	go build -o bin/flotilla ./cmd/flotilla && go run ./scripts/failover -flotilla bin/flotilla
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/measure"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

const (
	topic  = "gaps"
	nobody = -1
	// writePause is between an acknowledgement and the next record of a partition.
	writePause = time.Millisecond
	// settleAfter a fault the partitions must have been served without a gap for so long.
	settleAfter = 3 * time.Second
)

type options struct {
	binary     string
	partitions int
	rounds     int
	signal     string
	level      string
}

func main() {
	var o options
	flag.StringVar(&o.binary, "flotilla", "bin/flotilla", "the flotilla binary")
	flag.IntVar(&o.partitions, "partitions", 12, "partitions, all written to")
	flag.IntVar(&o.rounds, "rounds", 10, "how many brokers to kill, one after the other")
	flag.StringVar(&o.signal, "signal", "KILL", "KILL, or STOP: then the broker goes on after the measurement")
	flag.StringVar(&o.level, "log-level", "info", "of the brokers; KEEP=1 in the environment keeps their logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	cluster, c, err := procs.Serve(ctx, procs.Config{Binary: o.binary, Brokers: 3, Extra: []string{"--preferred-after", "1s", "--log-level", o.level}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	defer func() { _ = c.Close() }()
	start := time.Now()
	spec := client.TopicSpec{Name: topic, Partitions: int32(o.partitions), ReplicationFactor: 3}
	if _, err := c.Admin().CreateTopic(ctx, spec); err != nil {
		return err
	}
	fmt.Fprintf(out, "topic with %d partitions created in %d ms\n", o.partitions, time.Since(start).Milliseconds())
	m := &measurement{o: o, out: out, cluster: cluster, client: c, last: make([]atomic.Int64, o.partitions), longest: make([]atomic.Int64, o.partitions), began: time.Now()}
	return m.run(ctx)
}

// measurement is one run. The producers' goroutines write last and longest, in ns since began.
type measurement struct {
	o       options
	out     io.Writer
	cluster *procs.Cluster
	client  *client.Client
	began   time.Time
	last    []atomic.Int64 // when the last acknowledgement came
	longest []atomic.Int64 // longest time between two
}

func (m *measurement) run(ctx context.Context) error {
	p, err := m.client.NewProducer(client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	for i := range m.o.partitions {
		wg.Go(func() {
			if err := m.write(ctx, p, int32(i)); err != nil {
				cancel(err)
			}
		})
	}
	err = m.rounds(ctx)
	cancel(nil)
	wg.Wait()
	closing, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	return errors.Join(err, p.Close(closing))
}

func (m *measurement) write(ctx context.Context, p *client.Producer, partition int32) error {
	value := make([]byte, 100)
	for ctx.Err() == nil {
		if err := p.Produce(ctx, &client.Record{Topic: topic, Partition: partition, Value: value}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("partition %d: %w", partition, err)
		}
		now := int64(time.Since(m.began))
		gap := now - m.last[partition].Swap(now)
		if gap > m.longest[partition].Load() {
			m.longest[partition].Store(gap)
		}
		time.Sleep(writePause)
	}
	return nil
}

func (m *measurement) rounds(ctx context.Context) error {
	var led, others, returns []time.Duration
	if err := m.balanced(ctx); err != nil {
		return err
	}
	for round := range m.o.rounds {
		victim := round % 3
		a, b, err := m.round(ctx, round, victim)
		if err != nil {
			return err
		}
		led, others = append(led, a...), append(others, b...)
		m.reset()
		if err := m.revive(ctx, victim); err != nil {
			return err
		}
		if err := m.balanced(ctx); err != nil {
			return err
		}
		returns = append(returns, m.worst())
	}
	fmt.Fprintf(m.out, "longest gap without an acknowledgement\n  partitions led by the victim:       %s\n  the others:                         %s\n  worst partition when it comes back: %s\n",
		measure.SpreadOf(led), measure.SpreadOf(others), measure.SpreadOf(returns))
	return nil
}

// balanced waits until every broker leads as many partitions as the others, which needs all of them to be there, and all partitions have been served for a second.
func (m *measurement) balanced(ctx context.Context) error {
	for since := time.Now(); time.Since(since) < time.Second; {
		leads, err := m.leaders(ctx)
		count := map[int32]int{}
		for _, l := range leads {
			count[l]++
		}
		if err != nil || count[nobody] > 0 || min(count[1], count[2], count[3]) < m.o.partitions/3 || m.silence() > 300*time.Millisecond {
			since = time.Now()
		}
		if err := measure.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// silence is how long the partition that waits longest has waited for an acknowledgement.
func (m *measurement) silence() time.Duration {
	longest, now := int64(0), int64(time.Since(m.began))
	for i := range m.last {
		longest = max(longest, now-m.last[i].Load())
	}
	return time.Duration(longest)
}

// worst returns the longest gap of all partitions since the last call to reset.
func (m *measurement) worst() (gap time.Duration) {
	for i := range m.longest {
		gap = max(gap, time.Duration(m.longest[i].Load()))
	}
	return gap
}

func (m *measurement) reset() {
	for i := range m.longest {
		m.longest[i].Store(0)
	}
}

func (m *measurement) leaders(ctx context.Context) ([]int32, error) {
	t, err := m.client.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return nil, err
	}
	leads := make([]int32, m.o.partitions)
	for _, p := range t.Partitions {
		leads[p.Partition] = p.Leader
	}
	return leads, nil
}

func (m *measurement) round(ctx context.Context, round, victim int) (led, others []time.Duration, err error) {
	leads, err := m.leaders(ctx)
	if err != nil {
		return nil, nil, err
	}
	m.reset()
	at := time.Now()
	killed := int64(time.Since(m.began))
	if err := m.strike(victim); err != nil {
		return nil, nil, err
	}
	if err := m.served(ctx, killed); err != nil {
		return nil, nil, err
	}
	for i, leader := range leads {
		gap := time.Duration(m.longest[i].Load())
		if leader == int32(victim+1) {
			led = append(led, gap)
		} else {
			others = append(others, gap)
		}
	}
	fmt.Fprintf(m.out, "%s %2d. broker %d: the partitions that it led: %s; others: %s\n", at.UTC().Format("15:04:05.000"), round+1, victim+1, measure.SpreadOf(led), measure.SpreadOf(others))
	return led, others, nil
}

func (m *measurement) strike(victim int) error {
	if m.o.signal == "STOP" {
		return m.cluster.Signal(victim, syscall.SIGSTOP)
	}
	m.cluster.Kill(victim)
	return nil
}

func (m *measurement) revive(ctx context.Context, victim int) error {
	if m.o.signal == "STOP" {
		return m.cluster.Signal(victim, syscall.SIGCONT)
	}
	return m.cluster.Start(ctx, victim)
}

// served waits until every partition has been acknowledged after the fault, and a while longer.
func (m *measurement) served(ctx context.Context, since int64) error {
	limit := time.Now().Add(time.Minute)
	for i := range m.last {
		for m.last[i].Load() <= since+int64(50*time.Millisecond) {
			if time.Now().After(limit) {
				return fmt.Errorf("partition %d was not served again within a minute", i)
			}
			if err := measure.Pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return measure.Pause(ctx, settleAfter)
}
