// Command idle measures what brokers cost while nothing happens: CPU time and resident memory of three of them as processes, with partitions
// of three replicas each.
//
//	go build -o bin/flotilla ./cmd/flotilla && go run ./scripts/idle -flotilla bin/flotilla -partitions 100
//
// With -profiles DIR it also writes each broker's profiles there: of the processor and of what was allocated over the time of the measurement, of the heap and the goroutines
// after it. Serving those costs a little itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/measure"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

const brokers = 3

type options struct {
	binary     string
	partitions int
	settle     time.Duration
	measure    time.Duration
	flags      string
	profiles   string
	alone      bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "flotilla", "bin/flotilla", "the flotilla binary")
	flag.IntVar(&o.partitions, "partitions", 100, "partitions, three replicas each")
	flag.DurationVar(&o.settle, "settle", 5*time.Second, "how long to wait before the measurement")
	flag.DurationVar(&o.measure, "time", 20*time.Second, "how long to measure")
	flag.StringVar(&o.flags, "broker-flags", "", "more flags for the brokers, separated by spaces")
	flag.StringVar(&o.profiles, "profiles", "", "directory to write profiles of the brokers to; empty: none")
	flag.BoolVar(&o.alone, "raft-alone", false, "measure hashicorp/raft by itself instead of brokers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.alone {
		return floor(ctx, o, out)
	}
	cluster, err := procs.NewCluster(procs.Config{Binary: o.binary, Brokers: brokers, Extra: strings.Fields(o.flags), Metrics: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.StartAll(ctx); err != nil {
		return err
	}
	if err := create(ctx, o, cluster, out); err != nil {
		return err
	}
	if err := measure.Pause(ctx, o.settle); err != nil {
		return err
	}
	return watch(ctx, o, cluster, out)
}

func create(ctx context.Context, o options, cluster *procs.Cluster, out io.Writer) error {
	c, err := client.New(cluster.Addrs(), client.WithRequestTimeout(time.Minute))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	start := time.Now()
	_, err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "idle", Partitions: int32(o.partitions), ReplicationFactor: brokers})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d partitions with %d replicas created in %d ms\n", o.partitions, brokers, time.Since(start).Milliseconds())
	return nil
}

func watch(ctx context.Context, o options, cluster *procs.Cluster, out io.Writer) error {
	var before [brokers]procs.Usage
	for i := range before {
		u, err := cluster.Usage(i)
		if err != nil {
			return err
		}
		before[i] = u
	}
	start := time.Now()
	if err := pass(ctx, o, cluster); err != nil {
		return err
	}
	took, total := time.Since(start), time.Duration(0)
	for i := range before {
		u, err := cluster.Usage(i)
		if err != nil {
			return err
		}
		used := u.CPU - before[i].CPU
		total += used
		fmt.Fprintf(out, "broker %d: %.1f %% of one core, %d MB resident", i+1, percent(used, took), u.RSS/1e6)
		m, err := runtimeMetrics(ctx, cluster.MetricsAddr(i))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "; %.0f goroutines, %.0f MB of stacks, %.0f MB of heap in use, %.0f MB held for it\n", m["go_goroutines"],
			m["go_memstats_stack_inuse_bytes"]/1e6, m["go_memstats_heap_inuse_bytes"]/1e6, (m["go_memstats_heap_idle_bytes"]-m["go_memstats_heap_released_bytes"])/1e6)
	}
	fmt.Fprintf(out, "together: %.1f %% of one core, over %.0f s\n", percent(total, took), took.Seconds())
	return heaps(ctx, o, cluster)
}

// pass lets the time of the measurement pass.
func pass(ctx context.Context, o options, cluster *procs.Cluster) error {
	if o.profiles == "" {
		return measure.Pause(ctx, o.measure)
	}
	if err := os.MkdirAll(o.profiles, 0o755); err != nil {
		return err
	}
	var g errgroup.Group
	for i := range brokers {
		for _, what := range []string{"profile", "allocs"} {
			g.Go(func() error {
				return profile(ctx, o, cluster, i, fmt.Sprintf("%s?seconds=%d", what, max(1, int(o.measure.Seconds()))))
			})
		}
	}
	return g.Wait()
}

func percent(used, took time.Duration) float64 { return 100 * used.Seconds() / took.Seconds() }
