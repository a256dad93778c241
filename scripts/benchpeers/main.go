// Command benchpeers measures Flotilla beside NATS JetStream: the same record sizes, three servers each with three replicas, as processes on
// this machine, in turn, several times over; and what the machine allows by itself. README.md says how and shows a result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type config struct {
	binary, nats string
	rows         string
	only         string
	reps         int
	load         time.Duration
	idleShards   int
	idleOwn      int
	settle       time.Duration
	idleFor      time.Duration
	quick        bool
	out          string
	brokerFlags  string
}

func main() {
	var c config
	flag.StringVar(&c.binary, "flotilla", "../../bin/flotilla", "the flotilla binary")
	flag.StringVar(&c.nats, "nats", "../../bin/nats-server", "the nats-server binary")
	flag.StringVar(&c.rows, "rows", "", "only these rows, separated by commas: first, idle, floor, or "+rowNames())
	flag.StringVar(&c.only, "only", "", "only the systems whose names contain this")
	flag.IntVar(&c.reps, "reps", 3, "repetitions, in each of which every system has its turn")
	flag.DurationVar(&c.load, "load", 5*time.Second, "how long each load lasts")
	flag.IntVar(&c.idleShards, "idle", 500, "partitions or streams of the idle row")
	flag.IntVar(&c.idleOwn, "idle-own", 1000, "partitions of the second idle row, which is Flotilla's alone; 0: there is none")
	flag.DurationVar(&c.settle, "settle", time.Minute, "how long idle servers settle before they are measured")
	flag.DurationVar(&c.idleFor, "idle-time", 30*time.Second, "how long they are measured")
	flag.BoolVar(&c.quick, "quick", false, "one repetition with short loads and 100 idle partitions that settle for 10 s")
	flag.StringVar(&c.out, "out", "", "also write the table to this file")
	flag.StringVar(&c.brokerFlags, "broker-flags", "", "more flags for our brokers, separated by spaces; a result with any is not one of the defaults")
	holdTo := flag.String("hold", "", "for the program itself: be the process that one of the machine's rows kills")
	flag.Parse()
	if *holdTo != "" {
		_ = hold(*holdTo)
		return
	}
	if c.quick {
		c.reps, c.load, c.idleShards, c.idleOwn, c.settle, c.idleFor = 1, 2*time.Second, 100, 0, 10*time.Second, 10*time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := compare(ctx, &c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpeers:", err)
		os.Exit(1)
	}
}

func rowNames() string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return strings.Join(names, ", ")
}

func (c *config) candidates() []candidate {
	jet := func(sync string, fast bool) func(string, io.Writer) (system, error) {
		return func(dir string, log io.Writer) (system, error) { return newJetStream(c.nats, dir, sync, fast, log) }
	}
	all := []candidate{
		{"Flotilla", "fsync on a quorum before the acknowledgement (default)", false, true, func(string, io.Writer) (system, error) {
			return newFlotilla(c.binary, strings.Fields(c.brokerFlags)...)
		}},
		{"JetStream", "not synced before the acknowledgement (default: every 2 minutes)", false, false, jet("", false)},
		{"JetStream, fast ingest", "not synced before the acknowledgement (default: every 2 minutes)", true, false, jet("", true)},
		{"JetStream, sync always", "synced before the acknowledgement (sync_interval: always)", false, false, jet("always", false)},
	}
	var kept []candidate
	for _, a := range all {
		if strings.Contains(strings.ToLower(a.name), strings.ToLower(c.only)) {
			kept = append(kept, a)
		}
	}
	return kept
}

func compare(ctx context.Context, c *config) error {
	chosen, err := selected(rows(), c.rows)
	if err != nil {
		return err
	}
	candidates := c.candidates()
	if len(candidates) == 0 {
		return fmt.Errorf("no system's name contains %q", c.only)
	}
	dir, err := os.MkdirTemp("", "benchpeers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	results, machine := newReport(), newReport()
	var errs []error
	for rep := range c.reps {
		if c.wants("floor") {
			errs = append(errs, floor(machine, dir))
		}
		for _, k := range candidates {
			errs = append(errs, c.turn(ctx, k, chosen, rep, dir, results))
			if ctx.Err() != nil {
				return errors.Join(append(errs, c.print(results, machine, candidates))...)
			}
		}
	}
	return errors.Join(append(errs, c.print(results, machine, candidates))...)
}

func (c *config) wants(name string) bool {
	return c.rows == "" || strings.Contains(","+c.rows+",", ","+name+",")
}

// turn measures all rows of a candidate. A row that fails is reported and ends the turn, since those after it need its cluster.
func (c *config) turn(ctx context.Context, k candidate, chosen []row, rep int, dir string, results *report) error {
	err := c.withSystem(k, dir, results, func(r *run) error {
		if err := r.first(ctx); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		for _, row := range chosen {
			if k.fast && !row.throughput || row.alone {
				continue
			}
			if err := c.measure(ctx, row, r, rep); err != nil {
				return err
			}
		}
		return nil
	})
	for _, row := range chosen {
		if err == nil && row.alone && !k.fast {
			err = c.withSystem(k, dir, results, func(r *run) error {
				if err := r.sys.boot(ctx); err != nil {
					return fmt.Errorf("start: %w", err)
				}
				return c.measure(ctx, row, r, rep)
			})
		}
	}
	if err != nil || !c.wants("idle") || k.fast || rep > 0 {
		return err
	}
	for _, shards := range c.idleSizes(k) {
		fmt.Fprintf(os.Stderr, "%s: idle, %d\n", k.name, shards)
		err = errors.Join(err, c.withSystem(k, dir, results, func(r *run) error { return r.idle(ctx, shards) }))
	}
	return err
}

func (c *config) measure(ctx context.Context, row row, r *run, rep int) error {
	fmt.Fprintf(os.Stderr, "%s: repetition %d of %d: %s\n", r.name, rep+1, c.reps, row.name)
	if err := row.measure(ctx, r); err != nil {
		return fmt.Errorf("%s: %w", row.name, err)
	}
	return nil
}

// idleSizes are how many partitions or streams a candidate is idle with: as many for all, and ours with more besides.
func (c *config) idleSizes(k candidate) []int {
	if k.own && c.idleOwn > 0 {
		return []int{c.idleShards, c.idleOwn}
	}
	return []int{c.idleShards}
}

// withSystem gives f a system that has not been started, and ends it.
func (c *config) withSystem(k candidate, dir string, results *report, f func(*run) error) error {
	own, err := os.MkdirTemp(dir, "turn-")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "servers.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	sys, err := k.make(own, log)
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	err = f(&run{cfg: c, name: k.name, sys: sys, report: results, made: map[string]int64{}})
	if err != nil {
		err = fmt.Errorf("%s: %w", k.name, err)
	}
	return errors.Join(err, sys.close(), os.RemoveAll(own))
}

func (c *config) print(results, machine *report, candidates []candidate) error {
	var b strings.Builder
	var names []string
	for _, k := range candidates {
		names = append(names, k.name)
		fmt.Fprintf(&b, "- %s: %s\n", k.name, k.durability)
	}
	fmt.Fprintf(&b, "- %d repetitions, %s of each load, three servers and the client on one machine\n\n", c.reps, c.load)
	results.write(&b, names)
	if len(machine.order) > 0 {
		b.WriteString("\n")
		machine.write(&b, []string{floorName})
	}
	fmt.Print(b.String())
	if c.out == "" {
		return nil
	}
	return os.WriteFile(c.out, []byte(b.String()), 0o644)
}
