// Package procs runs a cluster of brokers as processes on loopback, for the demo, measurements and chaos runs.
package procs

import (
	"bufio"
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
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// Cluster is brokers with IDs from 1, in a directory of its own. Ports are chosen once, so that a broker comes back under its old addresses.
// Its methods are for one goroutine.
type Cluster struct {
	cfg   Config
	dir   string
	addrs []Addresses
	procs []*process
}

// Config describes a cluster that differs from the one that New makes.
type Config struct {
	Binary  string
	Brokers int
	// Expect is how many brokers begin the cluster (--bootstrap-expect); 0: all. The others join it when they are started.
	Expect int
	Extra  []string // flags for each broker
	// Kafka gives each broker a Kafka listener on a free port; where Hosts is set, Hosts decides.
	Kafka bool
	// Metrics gives each broker an HTTP listener for metrics and profiles on a free port; where Hosts is set, Hosts decides.
	Metrics bool
	// Hosts are the addresses of broker i; nil: free ports on loopback.
	Hosts func(i int) Addresses
	// Wrap makes the command line that runs broker i's, for instance in a network namespace. It must end up as the same process. nil: as it is.
	Wrap func(i int, argv []string) []string
}

// Addresses are where a broker listens, as host:port. Without Kafka or Metrics it has no such listener.
type Addresses struct{ GRPC, Peer, Gossip, Kafka, Metrics string }

type process struct {
	cmd   *exec.Cmd
	ready chan error    // one value: the ready line came (nil), or did not
	ended chan struct{} // closed when the process has ended
}

// New prepares n brokers; extra flags are given to each. Close removes what they leave behind.
func New(binary string, n int, extra ...string) (*Cluster, error) {
	return NewCluster(Config{Binary: binary, Brokers: n, Extra: extra})
}

// NewCluster prepares the brokers that cfg describes. Close removes what they leave behind.
func NewCluster(cfg Config) (*Cluster, error) {
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, err
	}
	cfg.Binary = binary
	if cfg.Expect == 0 {
		cfg.Expect = cfg.Brokers
	}
	addrs, err := addresses(cfg)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "flotilla-procs-")
	if err != nil {
		return nil, err
	}
	return &Cluster{cfg: cfg, dir: dir, addrs: addrs, procs: make([]*process, cfg.Brokers)}, nil
}

func addresses(cfg Config) ([]Addresses, error) {
	addrs := make([]Addresses, cfg.Brokers)
	if cfg.Hosts != nil {
		for i := range addrs {
			addrs[i] = cfg.Hosts(i)
		}
		return addrs, nil
	}
	ports, err := freePorts(cfg.Brokers)
	for i, p := range ports {
		addrs[i] = Addresses{GRPC: loopback(p[0]), Peer: loopback(p[1]), Gossip: loopback(p[2])}
		if cfg.Kafka {
			addrs[i].Kafka = loopback(p[3])
		}
		if cfg.Metrics {
			addrs[i].Metrics = loopback(p[4])
		}
	}
	return addrs, err
}

// freePorts finds five ports for each of n brokers, all held until the last one is found.
func freePorts(n int) ([][5]int, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	found := make([][5]int, n)
	for i := range found {
		for j := range found[i] {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			held = append(held, l)
			found[i][j] = l.Addr().(*net.TCPAddr).Port
		}
	}
	return found, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Serve makes a cluster, starts all of it, and has a client of it. The caller closes both.
func Serve(ctx context.Context, cfg Config) (*Cluster, *client.Client, error) {
	c, err := NewCluster(cfg)
	if err != nil {
		return nil, nil, err
	}
	err = c.StartAll(ctx)
	var cl *client.Client
	if err == nil {
		cl, err = client.New(c.Addrs())
	}
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, cl, nil
}

// Addrs are where clients connect.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, a := range c.addrs {
		addrs = append(addrs, a.GRPC)
	}
	return addrs
}

// MetricsAddr is where broker i serves metrics and profiles, if Config.Metrics asked for that.
func (c *Cluster) MetricsAddr(i int) string { return c.addrs[i].Metrics }

// KafkaAddrs are where Kafka clients connect, of the brokers that have such a listener.
func (c *Cluster) KafkaAddrs() []string {
	var addrs []string
	for _, a := range c.addrs {
		if a.Kafka != "" {
			addrs = append(addrs, a.Kafka)
		}
	}
	return addrs
}

// StartAll starts the brokers that begin the cluster (all, unless Config.Expect says otherwise) at the same time and waits until they serve.
func (c *Cluster) StartAll(ctx context.Context) error {
	errs := make([]error, c.cfg.Expect)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = c.Start(ctx, i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Start runs broker i (from 0; its ID is i+1) and waits until it serves.
func (c *Cluster) Start(ctx context.Context, i int) error {
	p, err := c.launch(i)
	if err != nil {
		return err
	}
	c.procs[i] = p
	select {
	case err = <-p.ready:
	case <-ctx.Done():
		err = fmt.Errorf("it did not become ready: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("broker %d: %w; its log ends with:\n%s", i+1, err, c.LogTail(i))
	}
	return nil
}

// command is broker i's command line.
func (c *Cluster) command(i int) []string {
	var join []string
	for _, a := range c.addrs {
		join = append(join, a.Gossip)
	}
	a := c.addrs[i]
	argv := append([]string{c.cfg.Binary, "broker",
		"--id", strconv.Itoa(i + 1), "--data-dir", c.Dir(i),
		"--grpc-addr", a.GRPC, "--peer-addr", a.Peer, "--gossip-addr", a.Gossip, "--kafka-addr", a.Kafka,
		"--metrics-addr", a.Metrics, "--pprof=" + strconv.FormatBool(a.Metrics != ""),
		"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(c.cfg.Expect)}, c.cfg.Extra...)
	if c.cfg.Wrap != nil {
		return c.cfg.Wrap(i, argv)
	}
	return argv
}

// Dir is broker i's data directory, which the broker makes when it first starts.
func (c *Cluster) Dir(i int) string { return filepath.Join(c.dir, fmt.Sprintf("broker-%d", i+1)) }

// Running tells whether broker i was started and not ended by Kill or Stop.
func (c *Cluster) Running(i int) bool { return c.procs[i] != nil }

// Ended is closed when broker i, which must be running, has ended by itself or otherwise.
func (c *Cluster) Ended(i int) <-chan struct{} { return c.procs[i].ended }

func (c *Cluster) launch(i int) (*process, error) {
	argv := c.command(i)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = withoutSettings(os.Environ())
	cmd.SysProcAttr = attributes()
	log, err := os.OpenFile(c.LogFile(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has a descriptor of its own
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	proc := &process{cmd: cmd, ready: make(chan error, 1), ended: make(chan struct{})}
	go proc.watch(stdout)
	return proc, nil
}

// watch reports the ready line and then waits for the end of the process. Kill waits for it.
func (p *process) watch(stdout io.Reader) {
	defer close(p.ended)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	switch {
	case strings.HasPrefix(line, "ready "):
		p.ready <- nil
	case err != nil:
		p.ready <- errors.New("it ended before it was ready")
	default:
		p.ready <- fmt.Errorf("it said %q and not that it is ready", line)
	}
	_, _ = io.Copy(io.Discard, stdout)
	_ = p.cmd.Wait()
}

// Kill ends broker i with SIGKILL and waits until it is gone.
func (c *Cluster) Kill(i int) {
	p := c.procs[i]
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	c.procs[i] = nil
}

// Stop ends broker i in order, with SIGTERM; it is an error if that fails or takes longer than patience, after which it is killed.
func (c *Cluster) Stop(i int, patience time.Duration) error {
	p := c.procs[i]
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its log then ends with what it waits for
		select {
		case <-p.ended:
		case <-time.After(2 * time.Second):
		}
		c.Kill(i)
		return fmt.Errorf("broker %d did not stop within %s; the stacks of its goroutines are in its log", i+1, patience)
	}
	c.procs[i] = nil
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("broker %d ended with %s; its log ends with:\n%s", i+1, p.cmd.ProcessState, c.LogTail(i))
	}
	return nil
}

// StopAll ends all brokers in order, at the same time.
func (c *Cluster) StopAll(patience time.Duration) error {
	errs := make([]error, len(c.procs))
	var wg sync.WaitGroup
	for i := range c.procs {
		wg.Go(func() { errs[i] = c.Stop(i, patience) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Signal sends a signal to broker i.
func (c *Cluster) Signal(i int, s os.Signal) error { return c.procs[i].cmd.Process.Signal(s) }

// Pid is the process ID of broker i, which must be running.
func (c *Cluster) Pid(i int) int { return c.procs[i].cmd.Process.Pid }

// Close kills all brokers and removes their files, unless KEEP is set in the environment.
func (c *Cluster) Close() error {
	for i := range c.procs {
		c.Kill(i)
	}
	if os.Getenv("KEEP") != "" {
		fmt.Fprintln(os.Stderr, "files are kept in", c.dir)
		return nil
	}
	return os.RemoveAll(c.dir)
}

// LogFile is what broker i writes its log to, over all its runs.
func (c *Cluster) LogFile(i int) string {
	return filepath.Join(c.dir, fmt.Sprintf("broker-%d.log", i+1))
}

// LogTail returns the end of a broker's log.
func (c *Cluster) LogTail(i int) string {
	const lines = 15
	data, err := os.ReadFile(c.LogFile(i))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// Usage is what a process has used.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes, now
	// Written is the bytes that it has sent to the disk, also those that were not synced.
	Written int64
}

// withoutSettings keeps the caller's FLOTILLA_* variables away from the brokers.
func withoutSettings(environ []string) []string {
	var kept []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "FLOTILLA_") {
			kept = append(kept, kv)
		}
	}
	return kept
}
