package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

// insideEnv tells the program, started again, that it is in namespaces of its own.
const insideEnv = "CHAOS_INSIDE"

func namespaced() bool { return os.Getenv(insideEnv) != "" }

// enterNamespaces starts the program again as the same process, in a network and a mount namespace of its own: whatever it sets up there is
// gone when it ends, however it ends. An error says that this is not possible here.
func enterNamespaces() error {
	if namespaced() {
		return command("ip", "link", "set", "lo", "up")
	}
	for _, tool := range []string{"unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	if err := command("unshare", "--net", "--mount", "--", "true"); err != nil {
		return err
	}
	path, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{"unshare", "--net", "--mount", "--", self}, os.Args[1:]...)
	return syscall.Exec(path, argv, append(os.Environ(), insideEnv+"=1"))
}

func command(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// network gives each broker a network namespace with two links: one to clients, one to the other brokers, each on a bridge. So a broker can be
// cut off from its peers while clients still reach it.
type network struct {
	holders []*exec.Cmd // a process in each namespace, which keeps it
}

const (
	clientNet = "10.91.0."
	peerNet   = "10.91.1."
	nowhere   = "02:00:00:00:00:fe" // an Ethernet address that nobody has
)

func newNetwork(brokers int) (n *network, err error) {
	n = &network{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := setUpBridges(); err != nil {
		return n, err
	}
	for i := range brokers {
		if err := n.add(i); err != nil {
			return n, err
		}
	}
	return n, nil
}

func setUpBridges() error {
	return errors.Join(
		command("ip", "link", "add", "clients", "type", "bridge"), command("ip", "addr", "add", clientNet+"254/24", "dev", "clients"),
		command("ip", "link", "set", "clients", "up"),
		command("ip", "link", "add", "peers", "type", "bridge"), command("ip", "link", "set", "peers", "up"))
}

func (n *network) add(i int) error {
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		return err
	}
	n.holders = append(n.holders, holder)
	return errors.Join(n.link(i, "clients", clientNet), n.link(i, "peers", peerNet), n.inside(i, "ip", "link", "set", "lo", "up"))
}

// link connects a broker's namespace to a bridge; the link has the bridge's name inside.
func (n *network) link(i int, bridge, net string) error {
	outer := fmt.Sprintf("%s%d", bridge, i+1)
	pid := fmt.Sprint(n.holders[i].Process.Pid)
	return errors.Join(
		command("ip", "link", "add", outer, "type", "veth", "peer", "name", bridge, "netns", pid),
		command("ip", "link", "set", outer, "master", bridge, "up"),
		n.inside(i, "ip", "addr", "add", fmt.Sprint(net, i+1, "/24"), "dev", bridge),
		n.inside(i, "ip", "link", "set", bridge, "up"))
}

// wrap makes a command run in a broker's namespace, as the same process.
func (n *network) wrap(i int, argv []string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", n.holders[i].Process.Pid), "--"}, argv...)
}

func (n *network) inside(i int, argv ...string) error { return command(n.wrap(i, argv)...) }

func (n *network) hosts(i int) procs.Addresses {
	return procs.Addresses{GRPC: fmt.Sprint(clientNet, i+1, ":7070"), Peer: fmt.Sprint(peerNet, i+1, ":7071"), Gossip: fmt.Sprint(peerNet, i+1, ":7072")}
}

// cut loses whatever one broker sends to another, in this direction alone: it goes to an Ethernet address that nobody has.
func (n *network) cut(from, to int) error {
	return n.inside(from, "ip", "neigh", "replace", fmt.Sprint(peerNet, to+1), "lladdr", nowhere, "nud", "permanent", "dev", "peers")
}

func (n *network) mend(from, to int) error {
	return n.inside(from, "ip", "neigh", "del", fmt.Sprint(peerNet, to+1), "dev", "peers")
}

// lose makes a share of the packets that one broker sends to another get lost, in this direction alone. It needs no netem: a filter of classic
// BPF drops them at random.
func (n *network) lose(from, to, percent int) error {
	if err := n.inside(from, "tc", "qdisc", "replace", "dev", "peers", "clsact"); err != nil {
		return err
	}
	return n.inside(from, "tc", "filter", "add", "dev", "peers", "egress", "bpf", "da", "bytecode", dropRandomly(peerAddress(to), percent))
}

func peerAddress(i int) [4]byte {
	return netip.MustParseAddr(fmt.Sprint(peerNet, i+1)).As4()
}

// dropRandomly is a program that drops a share of the IPv4 packets to an address, in tc's notation: opcode, jump if true, jump if false, operand.
func dropRandomly(to [4]byte, percent int) string {
	const (
		randomWord = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
		drop, pass = 2, math.MaxUint32
	)
	return fmt.Sprintf("8,40 0 0 12,21 0 5 2048,32 0 0 30,21 0 3 %d,32 0 0 %d,37 1 0 %d,6 0 0 %d,6 0 0 %d",
		binary.BigEndian.Uint32(to[:]), uint32(randomWord), uint64(math.MaxUint32)*uint64(percent)/100, drop, uint32(pass))
}

// loseNothing ends what lose began, everywhere, and tells how many packets were lost.
func (n *network) loseNothing() (lost int, err error) {
	var errs []error
	for i := range n.holders {
		argv := n.wrap(i, []string{"tc", "-s", "qdisc", "show", "dev", "peers", "clsact"})
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil || !strings.Contains(string(out), "clsact") {
			errs = append(errs, err)
			continue
		}
		var dropped int
		if _, after, ok := strings.Cut(string(out), "(dropped "); ok {
			_, err = fmt.Sscan(strings.TrimRight(strings.Fields(after)[0], ","), &dropped)
		}
		lost += dropped
		errs = append(errs, err, n.inside(i, "tc", "qdisc", "del", "dev", "peers", "clsact"))
	}
	return lost, errors.Join(errs...)
}

// slow limits what a broker sends to its peers to a rate, as tc has it, with a queue of half a second.
func (n *network) slow(i int, rate string) error {
	return n.inside(i, "tc", "qdisc", "replace", "dev", "peers", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "500ms")
}

func (n *network) fast(i int) error { return n.inside(i, "tc", "qdisc", "del", "dev", "peers", "root") }

func (n *network) close() {
	for _, h := range n.holders {
		_ = h.Process.Kill()
		_ = h.Wait()
	}
	for _, bridge := range []string{"clients", "peers"} {
		_ = command("ip", "link", "del", bridge)
	}
}

// mountSmall puts a file system of so many bytes in memory at dir, in the mount namespace of this process and its children.
func mountSmall(dir string, bytes int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
}

func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

const (
	signalStop     = syscall.SIGSTOP
	signalContinue = syscall.SIGCONT
)
