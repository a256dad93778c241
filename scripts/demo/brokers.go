package main

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
	"syscall"
	"time"
)

const brokerCount = 3

// brokers are the processes of the cluster. Ports are chosen once, so that a broker comes back under its old addresses.
type brokers struct {
	binary string
	dir    string
	ports  [brokerCount]ports
	procs  [brokerCount]*process
}

type ports struct{ grpc, peer, gossip int }

// process is one run of a broker.
type process struct {
	cmd   *exec.Cmd
	ready chan error // the ready line came, or the process ended before
	ended chan struct{}
}

func newBrokers(binary, dir string) (*brokers, error) {
	b := &brokers{binary: binary, dir: dir}
	free, err := freePorts(3 * brokerCount)
	if err != nil {
		return nil, err
	}
	for i := range b.ports {
		b.ports[i] = ports{grpc: free[3*i], peer: free[3*i+1], gossip: free[3*i+2]}
	}
	return b, nil
}

// freePorts finds n ports that are free now, all held until the last one is found.
func freePorts(n int) ([]int, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	var found []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		found = append(found, l.Addr().(*net.TCPAddr).Port)
	}
	return found, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// addresses are where clients connect.
func (b *brokers) addresses() []string {
	var addrs []string
	for _, p := range b.ports {
		addrs = append(addrs, loopback(p.grpc))
	}
	return addrs
}

// start runs broker i (from 0; its ID is i+1) and waits until it serves. Starting all needs calls at the same time, since the first
// brokers of a cluster wait for one another.
func (b *brokers) start(ctx context.Context, i int) error {
	p, err := b.launch(i)
	if err != nil {
		return err
	}
	select {
	case err := <-p.ready:
		if err != nil {
			return fmt.Errorf("broker %d: %w; its log ends with:\n%s", i+1, err, b.logTail(i))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("broker %d did not become ready: %w; its log ends with:\n%s", i+1, context.Cause(ctx), b.logTail(i))
	}
}

func (b *brokers) launch(i int) (*process, error) {
	var join []string
	for _, p := range b.ports {
		join = append(join, loopback(p.gossip))
	}
	cmd := exec.Command(b.binary, "broker",
		"--id", strconv.Itoa(i+1), "--data-dir", filepath.Join(b.dir, fmt.Sprintf("broker-%d", i+1)),
		"--grpc-addr", loopback(b.ports[i].grpc), "--peer-addr", loopback(b.ports[i].peer), "--gossip-addr", loopback(b.ports[i].gossip),
		"--kafka-addr", "",
		"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(brokerCount), "--fast-gossip")
	cmd.Env = withoutSettings(os.Environ())
	cmd.SysProcAttr = ownGroup()
	log, err := os.OpenFile(b.logFile(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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
	p := &process{cmd: cmd, ready: make(chan error, 1), ended: make(chan struct{})}
	b.procs[i] = p
	go p.watch(stdout)
	return p, nil
}

// watch reports the ready line and then waits for the end of the process. stop waits for it.
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

// kill ends broker i with SIGKILL, as a crash would, and waits until it is gone.
func (b *brokers) kill(i int) {
	p := b.procs[i]
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	b.procs[i] = nil
}

// stop ends all brokers: in order where that works within patience, else by force. It says which had to be forced or failed.
func (b *brokers) stop(patience time.Duration) error {
	for _, p := range b.procs {
		if p != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	timeout := time.After(patience)
	var errs []error
	for i, p := range b.procs {
		if p == nil {
			continue
		}
		select {
		case <-p.ended:
			if state := p.cmd.ProcessState; !state.Success() {
				errs = append(errs, fmt.Errorf("broker %d ended with %s; its log ends with:\n%s", i+1, state, b.logTail(i)))
			}
			b.procs[i] = nil
		case <-timeout:
			b.killAll()
			return errors.Join(append(errs, fmt.Errorf("broker %d and later ones did not stop within %s", i+1, patience))...)
		}
	}
	return errors.Join(errs...)
}

func (b *brokers) killAll() {
	for i := range b.procs {
		b.kill(i)
	}
}

func (b *brokers) logFile(i int) string {
	return filepath.Join(b.dir, fmt.Sprintf("broker-%d.log", i+1))
}

// logTail returns the end of a broker's log.
func (b *brokers) logTail(i int) string {
	const lines = 15
	data, err := os.ReadFile(b.logFile(i))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// withoutSettings keeps the caller's FLOTILLA_* variables away from the demo's brokers.
func withoutSettings(environ []string) []string {
	var kept []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "FLOTILLA_") {
			kept = append(kept, kv)
		}
	}
	return kept
}
