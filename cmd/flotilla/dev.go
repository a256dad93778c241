package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
)

const devBrokers = 3

// devPortStep is the distance between the ports of neighbouring brokers.
const devPortStep = 10

// devStopTimeout bounds the polite part of stopping: the brokers all stop at the same time, so there is nobody to be polite to.
const devStopTimeout = 2 * time.Second

type devOptions struct {
	dir      string
	portBase int
	pprof    bool
	log      logOptions
}

const devLong = `Run three brokers in this process, as a cluster to develop against.

The brokers talk over real sockets on the loopback interface and keep their data in --dir: stop it, start it again on the same directory,
and everything is still there. Broker n (from 0) uses five ports from --port-base + 10n: clients, replication, gossip, Kafka clients, metrics. With the default
of 7070, 'flotilla' commands find it without further options.

When all three serve it prints one line on standard output, to which later versions may add further names:

  ready grpc=127.0.0.1:7070,127.0.0.1:7080,127.0.0.1:7090 kafka=127.0.0.1:7073,127.0.0.1:7083,127.0.0.1:7093

The log goes to standard error.`

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:     "dev",
		Short:   "Run a three-broker cluster in one process, for development",
		Long:    devLong,
		Example: "  flotilla dev\n  flotilla dev --dir /tmp/flotilla --port-base 17070 2>dev.log",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runDev(cmd.Context(), o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.dir, "dir", "flotilla-dev", "directory for the data of all three brokers")
	fs.IntVar(&o.portBase, "port-base", broker.DefaultGRPCPort, "first port; 0: free ports, other ones at each start")
	fs.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof beside the metrics")
	o.log.register(fs)
	return cmd
}

// devAddrs are the listening addresses of one broker.
type devAddrs struct{ grpc, peer, gossip, kafka, metrics string }

func (a *app) runDev(ctx context.Context, o devOptions) error {
	configs, err := a.devConfigs(o)
	if err != nil {
		return err
	}
	var brokers []*broker.Broker
	for _, cfg := range configs {
		b, err := broker.New(cfg)
		if err == nil {
			err = b.Start(ctx)
		}
		if err != nil {
			return errors.Join(err, shutdownAll(brokers, time.Second))
		}
		brokers = append(brokers, b)
	}
	return a.serve(ctx, brokers, devStopTimeout)
}

func (a *app) devConfigs(o devOptions) ([]broker.Config, error) {
	if o.dir == "" {
		return nil, usageErrorf("--dir is empty")
	}
	addrs, err := devAddresses(o.portBase)
	if err != nil {
		return nil, err
	}
	logger, err := a.newLogger(o.log)
	if err != nil {
		return nil, err
	}
	var join []string
	for _, ad := range addrs {
		join = append(join, ad.gossip)
	}
	var configs []broker.Config
	for i, ad := range addrs {
		cfg := broker.DefaultConfig()
		cfg.ID = api.BrokerID(i + 1)
		cfg.DataDir = filepath.Join(o.dir, fmt.Sprintf("broker-%d", cfg.ID))
		cfg.GRPCAddr, cfg.PeerAddr, cfg.GossipAddr, cfg.KafkaAddr = ad.grpc, ad.peer, ad.gossip, ad.kafka
		cfg.MetricsAddr, cfg.Profiles = ad.metrics, o.pprof
		cfg.Join, cfg.BootstrapExpect = join, devBrokers
		cfg.Version = buildVersion().Version
		cfg.Timing.FastGossip = true
		// All three stop together, so there is nobody to hand over to for long.
		cfg.Timing.HandOver = 500 * time.Millisecond
		cfg.Logger = logger.Named(fmt.Sprintf("broker-%d", cfg.ID))
		configs = append(configs, cfg)
	}
	return configs, nil
}

func devAddresses(base int) ([]devAddrs, error) {
	if base == 0 {
		return freeAddresses()
	}
	if last := base + devPortStep*(devBrokers-1) + 4; base < 1 || last > 65535 {
		return nil, usageErrorf("--port-base %d: the ports %d to %d are needed", base, base, last)
	}
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	var addrs []devAddrs
	for i := range devBrokers {
		p := base + devPortStep*i
		addrs = append(addrs, devAddrs{grpc: at(p), peer: at(p + 1), gossip: at(p + 2), kafka: at(p + 3), metrics: at(p + 4)})
	}
	return addrs, nil
}

// freeAddresses finds ports that are free for TCP, all of them held until the last one is found. Another process could take one before
// the broker does; the broker then fails to start and says so.
func freeAddresses() ([]devAddrs, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	free := func() (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		held = append(held, l)
		return l.Addr().String(), nil
	}
	addrs := make([]devAddrs, devBrokers)
	for i := range addrs {
		for _, p := range []*string{&addrs[i].grpc, &addrs[i].peer, &addrs[i].gossip, &addrs[i].kafka, &addrs[i].metrics} {
			var err error
			if *p, err = free(); err != nil {
				return nil, err
			}
		}
	}
	return addrs, nil
}

// serve waits until all brokers are ready, says so, and then waits for the end: ctx, or a broker that failed. The brokers are
// shut down when it returns.
func (a *app) serve(ctx context.Context, brokers []*broker.Broker, orderly time.Duration) error {
	failed := make(chan error, len(brokers))
	stop := make(chan struct{})
	var watchers errgroup.Group
	for _, b := range brokers {
		watchers.Go(func() error {
			select {
			case err := <-b.Failed():
				failed <- err
			case <-stop:
			}
			return nil
		})
	}
	err := a.announce(ctx, brokers, failed)
	if err == nil {
		select {
		case err = <-failed:
		case <-ctx.Done():
		}
	}
	close(stop)
	_ = watchers.Wait()
	return errors.Join(err, shutdownAll(brokers, orderly))
}

// announce prints the ready line once all brokers serve. Being told to stop before is not an error.
func (a *app) announce(ctx context.Context, brokers []*broker.Broker, failed <-chan error) error {
	var addrs, kafka []string
	for _, b := range brokers {
		select {
		case <-b.Ready():
			addrs = append(addrs, b.GRPCAddr())
			if a := b.KafkaAddr(); a != "" {
				kafka = append(kafka, a)
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
	line := "ready grpc=" + strings.Join(addrs, ",")
	if len(kafka) > 0 {
		line += " kafka=" + strings.Join(kafka, ",")
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

// shutdownAll stops the brokers at the same time; orderly bounds the polite part.
func shutdownAll(brokers []*broker.Broker, orderly time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), orderly)
	defer cancel()
	var all errgroup.Group
	for _, b := range brokers {
		all.Go(func() error { return b.Shutdown(ctx) })
	}
	return all.Wait()
}
