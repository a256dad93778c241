package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

const (
	startWithin  = 30 * time.Second
	stopWithin   = 25 * time.Second
	healthWithin = 60 * time.Second
	nobody       = -1
)

// env is what a scenario acts on. Its methods are for the one goroutine that plays the scenario.
type env struct {
	cluster *procs.Cluster
	net     *network // nil: on loopback
	client  *client.Client
	rec     *history.Recorder
	rnd     *rand.Rand
	n       int // brokers that are members now
	end     time.Time
	rounds  int
	struck  int      // system calls of brokers that were struck, packets that were lost
	notes   []string // for the report
	work    *workload
	more    []client.TopicPartition // besides those of the workload, to be read back
	serving []time.Duration         // from the start of all brokers until all partitions acknowledged
}

func newEnv(s scenario, o options, rnd *rand.Rand) (e *env, err error) {
	e = &env{rnd: rnd, n: startingBrokers}
	cfg := procs.Config{Binary: o.binary, Brokers: s.brokers(), Expect: startingBrokers, Extra: s.brokerFlags()}
	if namespaced() {
		if e.net, err = newNetwork(cfg.Brokers); err != nil {
			return nil, err
		}
		cfg.Hosts, cfg.Wrap = e.net.hosts, e.net.wrap
	}
	if e.cluster, err = procs.NewCluster(cfg); err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.client, err = client.New(e.cluster.Addrs(), client.WithRequestTimeout(15*time.Second))
	return e, err
}

func (e *env) close() error {
	var err error
	if e.client != nil {
		err = e.client.Close()
	}
	if e.cluster != nil {
		err = errors.Join(err, e.cluster.Close())
	}
	if e.net != nil {
		e.net.close()
	}
	return err
}

// fault does something bad for a time; the history has it, so that the run can be told from one in which nothing happened.
func (e *env) fault(ctx context.Context, name string, victim int, do func() error) error {
	leaders := e.leaders(ctx)
	start := e.rec.Now()
	err := do()
	e.rec.Fault(history.Fault{Span: e.rec.Since(start), Name: name, Victim: victim + 1, Leaders: leaders})
	e.rounds++
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (e *env) leaders(ctx context.Context) map[history.Partition]int {
	leaders := map[history.Partition]int{}
	if d, err := e.client.Admin().DescribeTopic(ctx, eventsTopic); err == nil {
		for _, p := range d.Partitions {
			leaders[history.Partition{Topic: eventsTopic, ID: p.Partition}] = int(p.Leader)
		}
	}
	return leaders
}

// again tells whether the time allows one more round.
func (e *env) again(ctx context.Context) bool { return ctx.Err() == nil && time.Now().Before(e.end) }

func (e *env) start(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return e.cluster.Start(ctx, i)
}

func (e *env) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return e.cluster.StartAll(ctx)
}

// victim is a broker that leads a partition of events, or any.
func (e *env) victim(ctx context.Context) int {
	if d, err := e.client.Admin().DescribeTopic(ctx, eventsTopic); err == nil {
		if l := d.Partitions[e.rnd.IntN(len(d.Partitions))].Leader; l > 0 {
			return int(l) - 1
		}
	}
	return e.rnd.IntN(startingBrokers)
}

func (e *env) controller(ctx context.Context) int {
	if s, err := e.client.Admin().Status(ctx); err == nil && s.Controller > 0 {
		return int(s.Controller) - 1
	}
	return e.rnd.IntN(startingBrokers)
}

func (e *env) coordinator(ctx context.Context) int {
	if d, err := e.client.Admin().DescribeGroup(ctx, groupName); err == nil && d.Coordinator.ID > 0 {
		return int(d.Coordinator.ID) - 1
	}
	return e.rnd.IntN(startingBrokers)
}

// healthy waits until all members are alive and no partition has a problem.
func (e *env) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	for {
		problem := e.problem(ctx)
		if problem == "" {
			return nil
		}
		if measure.Pause(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("not healthy again within %s: %s", healthWithin, problem)
		}
	}
}

func (e *env) problem(ctx context.Context) string {
	s, err := e.client.Admin().Status(ctx)
	if err != nil {
		return err.Error()
	}
	var problems []string
	for _, p := range s.Problems {
		problems = append(problems, p.TopicPartition.String()+": "+p.Problem)
	}
	alive := 0
	for _, b := range s.Brokers {
		if b.State == client.BrokerAlive {
			alive++
		}
	}
	if alive < e.n {
		problems = append(problems, fmt.Sprintf("%d of %d brokers alive", alive, e.n))
	}
	return strings.Join(problems[:min(len(problems), 5)], "; ")
}

// isolate cuts a broker off from all others, both ways or one.
func (e *env) isolate(i int, out, in bool) error {
	return e.links(i, out, in, e.net.cut)
}

func (e *env) heal(i int, out, in bool) error {
	return e.links(i, out, in, e.net.mend)
}

func (e *env) links(i int, out, in bool, do func(from, to int) error) error {
	var errs []error
	for j := range len(e.cluster.Addrs()) {
		if j == i {
			continue
		}
		if out {
			errs = append(errs, do(i, j))
		}
		if in {
			errs = append(errs, do(j, i))
		}
	}
	return errors.Join(errs...)
}

// running lists the brokers that run.
func (e *env) running() []int {
	var ids []int
	for i := range len(e.cluster.Addrs()) {
		if e.cluster.Running(i) {
			ids = append(ids, i)
		}
	}
	return ids
}

// crashed says which brokers ended by themselves.
func (e *env) crashed() error {
	var errs []error
	for _, i := range e.running() {
		select {
		case <-e.cluster.Ended(i):
			errs = append(errs, fmt.Errorf("broker %d ended by itself; its log ends with:\n%s", i+1, e.cluster.LogTail(i)))
		default:
		}
	}
	return errors.Join(errs...)
}

// panics looks for panics and data races in the brokers' logs, also of runs that were killed later.
func (e *env) panics() error {
	var errs []error
	for i := range len(e.cluster.Addrs()) {
		data, err := os.ReadFile(e.cluster.LogFile(i))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if slices.ContainsFunc([]string{"panic:", "fatal error:", "DATA RACE"}, func(s string) bool { return strings.Contains(line, s) }) {
				errs = append(errs, fmt.Errorf("broker %d said: %s", i+1, strings.TrimSpace(line)))
			}
		}
	}
	return errors.Join(errs...)
}
