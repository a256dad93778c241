// Command bench measures three brokers on this machine with 'flotilla bench', and profiles them and the client meanwhile: produce, consume
// what was produced, and latency. scripts/benchpeers compares with another system.
//
//	go build -o bin/flotilla ./cmd/flotilla && go run ./scripts/bench -flotilla bin/flotilla -profiles bin/profiles
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

const brokers = 3

type options struct {
	binary   string
	time     time.Duration
	profiles string
	extra    string
}

func main() {
	var o options
	flag.StringVar(&o.binary, "flotilla", "bin/flotilla", "the flotilla binary")
	flag.DurationVar(&o.time, "time", 10*time.Second, "how long to produce, and to measure latencies")
	flag.StringVar(&o.profiles, "profiles", "", "directory for CPU profiles of the brokers and the client; empty: none are taken")
	flag.StringVar(&o.extra, "flags", "", "more flags for each 'flotilla bench produce' and 'latency', separated by spaces")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
	}
	cluster, err := procs.NewCluster(procs.Config{Binary: o.binary, Brokers: brokers, Metrics: o.profiles != ""})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.StartAll(ctx); err != nil {
		return err
	}
	b := &bench{options: o, cluster: cluster, out: out}
	load := append([]string{"--duration", o.time.String()}, strings.Fields(o.extra)...)
	for _, step := range []struct {
		name string
		args []string
	}{
		{"produce", append([]string{"produce", "records", "--keep"}, load...)},
		{"consume", []string{"consume", "records"}},
		{"latency", append([]string{"latency", "times"}, load...)},
	} {
		if err := b.step(ctx, step.name, step.args); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

type bench struct {
	options
	cluster *procs.Cluster
	out     io.Writer
}

// step runs one benchmark while the brokers are profiled. The profiles end with the benchmark, or after --time if that is earlier.
func (b *bench) step(ctx context.Context, name string, args []string) error {
	var pids []string
	for i := range brokers {
		pids = append(pids, strconv.Itoa(b.cluster.Pid(i)))
	}
	argv := append([]string{"bench"}, args...)
	argv = append(argv, "--brokers", strings.Join(b.cluster.Addrs(), ","), "--broker-pids", strings.Join(pids, ","))
	if b.profiles != "" {
		argv = append(argv, "--cpuprofile", filepath.Join(b.profiles, name+"-client.prof"))
	}
	cmd := exec.CommandContext(ctx, b.binary, argv...)
	cmd.Stdout, cmd.Stderr = b.out, os.Stderr
	if b.profiles == "" {
		return cmd.Run()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	profiled := b.profile(ctx, name)
	return errors.Join(cmd.Wait(), profiled)
}

// profile takes a profile of each broker, of as many seconds as fit into the benchmark.
func (b *bench) profile(ctx context.Context, name string) error {
	seconds := max(1, int(b.time.Seconds())-1)
	if name == "consume" {
		seconds = 2
	}
	errs := make([]error, brokers)
	var wg sync.WaitGroup
	for i := range errs {
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", b.cluster.MetricsAddr(i), seconds)
		wg.Go(func() {
			errs[i] = download(ctx, url, filepath.Join(b.profiles, fmt.Sprintf("%s-broker-%d.prof", name, i+1)))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
