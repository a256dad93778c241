// Command memory shows that brokers' memory stays bounded and flat: under producers that outrun the disk, with a thousand connections, and with
// 50 consumers that are gigabytes behind, and while a broker that was away catches up on a hundred partitions with records of a megabyte. It runs three brokers as processes, samples their resident memory during each phase, and fails if
// it grows on when it should have settled.
//
//	go build -o bin/flotilla ./cmd/flotilla && go run ./scripts/memory -flotilla bin/flotilla
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

const (
	brokers    = 3
	partitions = 12
	topic      = "memory"
)

type options struct {
	binary      string
	phase       time.Duration
	producers   int
	connections int
	consumers   int
	only        string
}

func main() {
	var o options
	flag.StringVar(&o.binary, "flotilla", "bin/flotilla", "the flotilla binary")
	flag.DurationVar(&o.phase, "time", 30*time.Second, "how long each phase lasts")
	flag.IntVar(&o.producers, "producers", 8, "producers that send as fast as they are let")
	flag.IntVar(&o.connections, "connections", 1000, "connections by gRPC and as many by the Kafka protocol")
	flag.IntVar(&o.consumers, "consumers", 50, "consumers that lag behind")
	flag.StringVar(&o.only, "only", "", "run only the phases whose names contain this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "memory:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	cluster, c, err := procs.Serve(ctx, procs.Config{Binary: o.binary, Brokers: brokers, Kafka: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	defer func() { _ = c.Close() }()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: partitions, ReplicationFactor: brokers}); err != nil {
		return err
	}
	r := &rig{options: o, cluster: cluster, out: out}
	fmt.Fprintf(out, "%-44s %10s %10s %10s %10s\n", "resident memory of the largest broker (MB)", "first", "2nd third", "last third", "max")
	var errs []error
	for _, p := range []struct {
		name string
		load func(ctx context.Context) error
	}{
		{"idle", func(ctx context.Context) error { <-ctx.Done(); return nil }},
		{fmt.Sprintf("%d connections", 2*o.connections), r.connect},
		{fmt.Sprintf("%d producers that outrun the disk", o.producers), r.produce},
		{fmt.Sprintf("%d consumers from the beginning", o.consumers), r.consume},
		{fmt.Sprintf("%d slow consumers, and producers", o.consumers), r.both},
		{fmt.Sprintf("a broker is away, and catches up on %d", wide), r.away},
	} {
		if !strings.Contains(p.name, o.only) {
			continue
		}
		if err := r.phase(ctx, p.name, p.load); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// rig is the cluster and what the phases do to it.
type rig struct {
	options
	cluster *procs.Cluster
	out     io.Writer
	stored  atomic.Int64 // bytes of values
	gone    atomic.Int64 // the broker that does not run, counted from 1; 0: all do
}

// phase runs a load and samples memory four times a second.
func (r *rig) phase(ctx context.Context, name string, load func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.phase)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- load(ctx) }()
	var samples []float64
	for tick := time.NewTicker(250 * time.Millisecond); ; {
		select {
		case <-tick.C:
			rss, err := r.largest()
			if err != nil {
				return err
			}
			samples = append(samples, rss)
			continue
		case err := <-done:
			tick.Stop()
			if err != nil {
				return err
			}
		}
		return r.judge(name, samples)
	}
}

func (r *rig) largest() (float64, error) {
	var rss int64
	for i := range brokers {
		if r.gone.Load() == int64(i)+1 {
			continue
		}
		u, err := r.cluster.Usage(i)
		if err != nil {
			return 0, err
		}
		rss = max(rss, u.RSS)
	}
	return float64(rss) / 1e6, nil
}

// connect opens connections that each ask for something, and holds them.
func (r *rig) connect(ctx context.Context) error {
	var clients []*client.Client
	var conns []net.Conn
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	addrs, kafka := r.cluster.Addrs(), r.cluster.KafkaAddrs()
	for i := range r.connections {
		c, err := client.New([]string{addrs[i%brokers]})
		if err != nil {
			return err
		}
		clients = append(clients, c)
		if err := c.Ping(ctx); err != nil {
			return fmt.Errorf("connection %d of gRPC: %w", i, err)
		}
		k, err := net.DialTimeout("tcp", kafka[i%brokers], 5*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d of the Kafka protocol: %w", i, err)
		}
		conns = append(conns, k)
		if err := apiVersions(k); err != nil {
			return fmt.Errorf("connection %d of the Kafka protocol: %w", i, err)
		}
	}
	fmt.Fprintf(r.out, "  %d connections are open\n", len(clients)+len(conns))
	<-ctx.Done()
	return nil
}

// apiVersions asks a broker what it speaks, as clients do first: ApiVersions, version 0, correlation 7, no client ID.
func apiVersions(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff}); err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	rest := int64(head[2])<<8 + int64(head[3]) - 4
	_, err := io.CopyN(io.Discard, c, rest)
	return err
}
