package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStreamWindow is how many messages are under way with plain asynchronous publishing. More did not make it faster where it was tried.
const jetStreamWindow = 4096

// jetStream is NATS JetStream: three servers of the unmodified release, streams with three replicas and file storage.
type jetStream struct {
	binary, dir string
	sync        string // sync_interval; empty: the default of two minutes
	fast        bool   // fast-ingest batches (ADR-50) instead of asynchronous publishing
	log         io.Writer

	clients, routes []string // host:port
	cmds            []*exec.Cmd
	ended           []chan struct{}
	nc              *nats.Conn
	js              jetstream.JetStream
}

func newJetStream(binary, dir, sync string, fast bool, log io.Writer) (*jetStream, error) {
	n := &jetStream{binary: binary, dir: dir, sync: sync, fast: fast, log: log, cmds: make([]*exec.Cmd, servers), ended: make([]chan struct{}, servers)}
	ports, err := freePorts(2 * servers)
	if err != nil {
		return nil, err
	}
	n.clients, n.routes = ports[:servers], ports[servers:]
	for i := range servers {
		if err := n.configure(i); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// freePorts finds n addresses on loopback, all held until the last one is found.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// configure writes a server's configuration: what a cluster needs, and sync_interval if it is asked for; all else is the default.
func (n *jetStream) configure(i int) error {
	var routes []string
	for _, r := range n.routes {
		routes = append(routes, "nats-route://"+r)
	}
	interval := ""
	if n.sync != "" {
		interval = "sync_interval: " + n.sync
	}
	conf := fmt.Sprintf("server_name: s%d\nlisten: %q\njetstream { store_dir: %q, max_file_store: 1TB, max_memory_store: 1GB\n%s }\n"+
		"cluster { name: bench, listen: %q, routes: [%s] }\n", i, n.clients[i], filepath.Join(n.dir, fmt.Sprint("s", i)), interval, n.routes[i], strings.Join(routes, ", "))
	return os.WriteFile(n.config(i), []byte(conf), 0o600)
}

func (n *jetStream) config(i int) string { return filepath.Join(n.dir, fmt.Sprintf("s%d.conf", i)) }

func (n *jetStream) launch(i int) error {
	cmd := exec.Command(n.binary, "-c", n.config(i))
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmds[i], n.ended[i] = cmd, ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return nil
}

func (n *jetStream) boot(ctx context.Context) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	err := until(ctx, 30*time.Second, func(context.Context) (err error) {
		n.nc, err = nats.Connect(strings.Join(n.clients, ","), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
			nats.RetryOnFailedConnect(false), nats.Timeout(time.Second))
		return err
	})
	if err != nil {
		return err
	}
	if n.js, err = jetstream.New(n.nc, jetstream.WithDefaultTimeout(2*time.Second)); err != nil {
		return err
	}
	return until(ctx, time.Minute, func(ctx context.Context) error {
		_, err := n.js.AccountInfo(ctx)
		return err
	})
}

func (n *jetStream) start(context.Context) error {
	for i := range servers {
		if n.cmds[i] == nil {
			if err := n.launch(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func shardName(topic string, i int) string { return topic + strconv.Itoa(i) }

func (n *jetStream) create(ctx context.Context, topic string, shards int) error {
	for i := range shards {
		name := shardName(topic, i)
		cfg := jetstream.StreamConfig{
			Name: name, Subjects: []string{name}, Replicas: servers, Storage: jetstream.FileStorage, AllowBatchPublish: n.fast,
		}
		err := until(ctx, time.Minute, func(ctx context.Context) error {
			_, err := n.js.CreateStream(ctx, cfg)
			return err
		})
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return nil
}

func (n *jetStream) idleShards(ctx context.Context, shards int) error {
	return n.create(ctx, "idle", shards)
}

func (n *jetStream) producer(ctx context.Context, topic string, shards int) (producer, error) {
	if n.fast {
		return n.newFastProducer(topic, shards)
	}
	p := &plainProducer{topic: topic, shards: shards}
	var err error
	p.js, err = jetstream.New(n.nc, jetstream.WithPublishAsyncMaxPending(jetStreamWindow),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { p.failed.CompareAndSwap(nil, &err) }))
	return p, err
}

// plainProducer publishes asynchronously; every message has its own acknowledgement.
type plainProducer struct {
	js     jetstream.JetStream
	topic  string
	shards int
	next   int
	failed atomic.Pointer[error]
}

func (p *plainProducer) send(_ context.Context, value []byte) error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	p.next = (p.next + 1) % p.shards
	_, err := p.js.PublishAsync(shardName(p.topic, p.next), value, jetstream.WithStallWait(30*time.Second))
	return err
}

func (p *plainProducer) finish(ctx context.Context) error {
	select {
	case <-p.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (n *jetStream) publish(ctx context.Context, topic string, value []byte) error {
	_, err := n.js.Publish(ctx, shardName(topic, 0), value)
	return err
}

// consume uses an ordered consumer for each stream, with more messages in flight than its default of 500.
func (n *jetStream) consume(ctx context.Context, topic string, shards int, ready func(), each func([]byte) bool) error {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	values := func(m jetstream.Msg) {
		if !each(m.Data()) {
			cancel(io.EOF)
		}
	}
	for i := range shards {
		c, err := n.js.OrderedConsumer(ctx, shardName(topic, i), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
		if err != nil {
			return err
		}
		run, err := c.Consume(values, jetstream.PullMaxMessages(10_000))
		if err != nil {
			return err
		}
		wg.Go(func() { <-run.Closed() })
		defer run.Stop()
	}
	ready()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (n *jetStream) leader(ctx context.Context, topic string) (int, error) {
	s, err := n.js.Stream(ctx, shardName(topic, 0))
	if err != nil {
		return 0, err
	}
	leader := s.CachedInfo().Cluster.Leader
	i, err := strconv.Atoi(strings.TrimPrefix(leader, "s"))
	if err != nil || i < 0 || i >= servers {
		return 0, fmt.Errorf("%w: stream %s has the leader %q", errNotYet, topic, leader)
	}
	return i, nil
}

func (n *jetStream) kill(i int) {
	if n.cmds[i] == nil {
		return
	}
	_ = n.cmds[i].Process.Kill()
	<-n.ended[i]
	n.cmds[i] = nil
}

func (n *jetStream) pids() []int {
	var pids []int
	for _, c := range n.cmds {
		if c != nil {
			pids = append(pids, c.Process.Pid)
		}
	}
	return pids
}

func (n *jetStream) close() error {
	if n.nc != nil {
		n.nc.Close()
	}
	for i := range servers {
		n.kill(i)
	}
	return os.RemoveAll(n.dir)
}
