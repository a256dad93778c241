package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// blackBoxTimeout bounds the whole test of the real binaries, which takes some 20 s where nothing else runs; building them does not count.
const blackBoxTimeout = 5 * time.Minute

// blackBox is a cluster of real broker processes, and the real command line.
type blackBox struct {
	t      *testing.T
	ctx    context.Context
	binary string
	dir    string
	addrs  []devAddrs
	procs  []*brokerProcess
}

type brokerProcess struct {
	cmd    *exec.Cmd
	stderr *syncBuffer
	ready  chan string   // the line that it printed; closed if it ended before
	ended  chan struct{} // after Wait
}

// syncBuffer is written by a process's pipe and read by the test.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newBlackBox(t *testing.T) *blackBox {
	t.Helper()
	b := &blackBox{t: t, dir: t.TempDir(), procs: make([]*brokerProcess, devBrokers)}
	b.binary = filepath.Join(b.dir, "flotilla")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", b.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), blackBoxTimeout)
	t.Cleanup(cancel)
	b.ctx = ctx
	var err error
	if b.addrs, err = freeAddresses(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.killAll)
	return b
}

func (b *blackBox) killAll() {
	for i, p := range b.procs {
		if p == nil {
			continue
		}
		_ = p.cmd.Process.Kill()
		<-p.ended
		if b.t.Failed() {
			b.t.Logf("log of broker %d:\n%s", i+1, tail(p.stderr.String(), 40))
		}
	}
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (b *blackBox) dataDir(i int) string { return filepath.Join(b.dir, fmt.Sprintf("broker-%d", i+1)) }

func (b *blackBox) brokerArgs(i int) []string {
	var join []string
	for _, a := range b.addrs {
		join = append(join, a.gossip)
	}
	a := b.addrs[i]
	return []string{
		"broker", "--id", strconv.Itoa(i + 1), "--data-dir", b.dataDir(i), "--grpc-addr", a.grpc, "--peer-addr", a.peer, "--gossip-addr", a.gossip, "--kafka-addr", "127.0.0.1:0",
		"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(devBrokers), "--fast-gossip",
	}
}

// launch starts broker i and does not wait for it to be ready.
func (b *blackBox) launch(i int) {
	b.t.Helper()
	p := &brokerProcess{cmd: exec.Command(b.binary, b.brokerArgs(i)...), stderr: &syncBuffer{}, ready: make(chan string, 1), ended: make(chan struct{})}
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.procs[i] = p
	go func() {
		defer close(p.ended)
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err == nil {
			p.ready <- line
		}
		close(p.ready)
		_, _ = io.Copy(io.Discard, stdout)
		_ = p.cmd.Wait()
	}()
}

func (b *blackBox) waitReady(i int) {
	b.t.Helper()
	select {
	case line := <-b.procs[i].ready:
		if want := "ready grpc=" + b.addrs[i].grpc + " kafka=127.0.0.1:"; !strings.HasPrefix(line, want) {
			b.t.Fatalf("broker %d printed %q, want %q", i+1, line, want)
		}
	case <-b.ctx.Done():
		b.t.Fatalf("broker %d is not ready: %v", i+1, b.ctx.Err())
	}
}

func (b *blackBox) signal(i int, sig os.Signal) *os.ProcessState {
	b.t.Helper()
	p := b.procs[i]
	if err := p.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-b.ctx.Done():
		b.t.Fatalf("broker %d does not end: %v", i+1, b.ctx.Err())
	}
	b.procs[i] = nil
	return p.cmd.ProcessState
}

// command prepares a run of the command line against all brokers.
func (b *blackBox) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, b.binary, args...)
	var grpc []string
	for _, a := range b.addrs {
		grpc = append(grpc, a.grpc)
	}
	cmd.Env = append(os.Environ(), "FLOTILLA_BROKERS="+strings.Join(grpc, ","))
	return cmd
}

// cli runs a command and wants this exit code.
func (b *blackBox) cli(code int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	cmd := b.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		b.t.Fatalf("flotilla %s: exit code %d (%v), want %d\n%s%s", strings.Join(args, " "), got, err, code, tail(out.String(), 20), errOut.String())
	}
	return out.String(), errOut.String()
}

// json runs a command that must succeed and decodes what it prints.
func (b *blackBox) json(v any, args ...string) {
	b.t.Helper()
	out, _ := b.cli(exitOK, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		b.t.Fatalf("flotilla %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// eventually calls f until it says true.
func (b *blackBox) eventually(what string, f func() bool) {
	b.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			b.t.Fatalf("never: %s", what)
		}
	}
}

func (b *blackBox) leader(topic string, partition int) int {
	b.t.Helper()
	leader := -1
	b.eventually("the partition has a leader", func() bool {
		var t topicJSON
		b.json(&t, "topic", "describe", topic)
		leader = int(t.Partitions[partition].Leader)
		return leader > 0
	})
	return leader
}

const (
	blackBoxKeys  = 7
	blackBoxLines = 6000
)

// TestBlackBox runs the binary as its users do: three broker processes, of which one is killed while records are produced.
func TestBlackBox(t *testing.T) {
	b := newBlackBox(t)
	for i := range devBrokers {
		b.launch(i)
	}
	for i := range devBrokers {
		b.waitReady(i)
	}
	b.cli(exitOK, "health")
	var topic topicJSON
	b.json(&topic, "topic", "create", "events", "--partitions", "4", "--replication-factor", "3")
	if len(topic.Partitions) != 4 {
		t.Fatalf("%+v", topic)
	}
	b.cli(exitRefused, "topic", "create", "events")
	b.cli(exitNotFound, "topic", "describe", "nothing")
	b.cli(exitNotFound, "produce", "nothing")
	b.secondProcess()

	killed := b.leader("events", 0) - 1
	b.produceThroughCrash(killed)
	b.checkLog("without the broker that was killed")

	b.launch(killed)
	b.waitReady(killed)
	b.eventually("the cluster is well again", func() bool {
		return b.command("cluster", "status", "--check").Run() == nil
	})
	b.checkGroup()
	b.checkFormats()
	b.checkRejections()
	b.cli(exitRefused, "log", "verify", b.dataDir(0))

	for i := range devBrokers {
		if state := b.signal(i, syscall.SIGTERM); !state.Success() {
			t.Errorf("broker %d ended with %s after SIGTERM", i+1, state)
		}
	}
	b.checkFiles()
}

// secondProcess: a data directory belongs to one process.
func (b *blackBox) secondProcess() {
	b.t.Helper()
	args := append(b.brokerArgs(0), "--grpc-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0")
	_, said := b.cli(exitFailure, args...)
	if !strings.Contains(said, b.dataDir(0)) {
		b.t.Errorf("a second process on a data directory said: %s", said)
	}
}

// produceThroughCrash feeds lines to one produce command, and kills a leader when a third of them are acknowledged.
func (b *blackBox) produceThroughCrash(killed int) {
	b.t.Helper()
	cmd := b.command("produce", "events", "--key-separator", ":", "--no-progress", "-o", "json")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for i := range blackBoxLines {
		if i == blackBoxLines/2 {
			b.eventually("a third is acknowledged", func() bool { return b.acknowledged() >= blackBoxLines/3 })
			b.signal(killed, syscall.SIGKILL)
		}
		if _, err := fmt.Fprintf(stdin, "key-%d:%d\n", i%blackBoxKeys, i); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := stdin.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.t.Fatalf("produce: %v\n%s", err, errOut.String())
	}
	var s produceSummary
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || s.Records != blackBoxLines || s.Failed != 0 {
		b.t.Errorf("%s: %v", out.String(), err)
	}
}

// acknowledged is how many records are in the log.
func (b *blackBox) acknowledged() int64 {
	b.t.Helper()
	var t topicJSON
	b.json(&t, "topic", "describe", "events")
	var sum int64
	for _, p := range t.Partitions {
		sum += max(0, p.HighWatermark)
	}
	return sum
}

// checkLog reads everything and wants each record once, each key in one partition and in order.
func (b *blackBox) checkLog(when string) {
	b.t.Helper()
	out, _ := b.cli(exitOK, "consume", "events", "--until", "end", "-o", "json")
	next := map[string]int{}
	home := map[string]int32{}
	offsets := map[int32]int64{}
	records := 0
	for line := range strings.Lines(out) {
		var r consumedJSON
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Key == nil || r.Value == nil {
			b.t.Fatalf("%s: %q: %v", when, line, err)
		}
		if r.Offset != offsets[r.Partition] {
			b.t.Fatalf("%s: partition %d: offset %d after %d", when, r.Partition, r.Offset, offsets[r.Partition]-1)
		}
		offsets[r.Partition]++
		if p, ok := home[*r.Key]; ok && p != r.Partition {
			b.t.Fatalf("%s: %s is in two partitions", when, *r.Key)
		}
		home[*r.Key] = r.Partition
		k, _ := strconv.Atoi(strings.TrimPrefix(*r.Key, "key-"))
		if want := strconv.Itoa(k + blackBoxKeys*next[*r.Key]); *r.Value != want {
			b.t.Fatalf("%s: %s has %s where %s was due", when, *r.Key, *r.Value, want)
		}
		next[*r.Key]++
		records++
	}
	if records != blackBoxLines {
		b.t.Errorf("%s: %d records, want %d", when, records, blackBoxLines)
	}
}

// checkGroup reads as a group, looks at it, and moves its offsets.
func (b *blackBox) checkGroup() {
	b.t.Helper()
	few := map[string]bool{} // what was not printed is not committed: members that stop early leave no gaps
	for range 3 {
		out, _ := b.cli(exitOK, "consume", "events", "--group", "few", "--count", "2", "--format", `%p/%o\n`)
		for _, at := range strings.Fields(out) {
			p, offset, _ := strings.Cut(at, "/")
			n, _ := strconv.Atoi(offset)
			if few[at] = true; n > 0 && !few[fmt.Sprintf("%s/%d", p, n-1)] {
				b.t.Errorf("a member that read on from where another had stopped left out what is before %s", at)
			}
		}
	}
	if len(few) != 6 {
		b.t.Errorf("three members that read two records each read %v", few)
	}
	out, _ := b.cli(exitOK, "consume", "events", "--group", "readers", "--until", "end", "--format", `%s\n`)
	if n := strings.Count(out, "\n"); n != blackBoxLines {
		b.t.Errorf("the group read %d records, want %d", n, blackBoxLines)
	}
	var g groupJSON
	b.json(&g, "group", "describe", "readers")
	for _, o := range g.Offsets {
		if o.Lag != 0 {
			b.t.Errorf("lag after reading to the end: %+v", o)
		}
	}
	if len(g.Members) != 0 || len(g.Offsets) != 4 {
		b.t.Errorf("%+v", g)
	}
	shown, _ := b.cli(exitOK, "group", "reset-offsets", "readers", "--to", "shift:-1")
	if !strings.Contains(shown, "dry run") {
		b.t.Error(shown)
	}
	b.cli(exitOK, "consume", "events", "--group", "readers", "--until", "end") // nothing was changed
	b.cli(exitOK, "group", "reset-offsets", "readers", "--to", "shift:-1", "--execute")
	out, _ = b.cli(exitOK, "consume", "events", "--group", "readers", "--until", "end")
	if n := strings.Count(out, "\n"); n != 4 {
		b.t.Errorf("after going back by one in four partitions the group read %d records:\n%s", n, out)
	}
	b.cli(exitOK, "group", "delete", "readers", "--yes")
	b.cli(exitNotFound, "group", "describe", "readers")
}

// checkRejections produces input of which some lines are no records.
func (b *blackBox) checkRejections() {
	b.t.Helper()
	b.cli(exitOK, "topic", "create", "scores", "--partitions", "1")
	file := filepath.Join(b.dir, "scores.txt")
	write(b.t, file, "ada:1\nbob\ncyd:3\n")
	_, said := b.cli(exitBadData, "produce", "scores", "--file", file, "--key-separator", ":")
	if !strings.Contains(said, `line 2: no separator ":"`) {
		b.t.Error(said)
	}
	out, said := b.cli(exitBadData, "produce", "scores", "--file", file, "--key-separator", ":", "--on-error", "skip", "-H", "from=test")
	if !strings.Contains(said, `line 2: no separator ":"`) || !strings.Contains(out, "1 line rejected") {
		b.t.Error(out, said)
	}
	out, _ = b.cli(exitOK, "consume", "scores", "--until", "end", "-f", `%k=%s(%h) `)
	if out != "ada=1() ada=1(from=test) cyd=3(from=test) " {
		b.t.Errorf("%q", out)
	}
	b.cli(exitUsage, "topic", "delete", "scores")
	b.cli(exitOK, "topic", "delete", "scores", "--yes")
	b.eventually("the deleted topic is gone from every broker's view", func() bool {
		cmd := b.command("topic", "describe", "scores")
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode() == exitNotFound
	})
}

func (b *blackBox) checkFormats() {
	b.t.Helper()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--from", "last:2", "--partitions", "0", "--until", "end", "-f", `%t %p\n`}, "events 0\nevents 0\n"},
		{[]string{"--from", "offset:5", "--partitions", "0", "--count", "2", "-f", `%o `}, "5 6 "},
		{[]string{"--from", "time:2100-01-01", "--until", "end"}, ""},
		{[]string{"--from", "latest", "--until", "end"}, ""},
	} {
		out, _ := b.cli(exitOK, append([]string{"consume", "events"}, c.args...)...)
		if out != c.want {
			b.t.Errorf("consume %q printed %q, want %q", c.args, out, c.want)
		}
	}
	b.cli(exitNotFound, "consume", "events", "--partitions", "4", "--until", "end")
	b.cli(exitNotFound, "produce", "events", "--partition", "4")
	b.cli(exitRefused, "consume", "events", "--partitions", "0", "--from", "offset:1000000", "--until", "end")
}

// checkFiles inspects the stopped brokers' files, then damages one and wants that to be found.
func (b *blackBox) checkFiles() {
	b.t.Helper()
	for i := range devBrokers {
		b.cli(exitOK, "log", "verify", b.dataDir(i))
	}
	segments, err := filepath.Glob(filepath.Join(b.dataDir(0), "partitions", "events-*", "*.log"))
	if err != nil || len(segments) == 0 {
		b.t.Fatalf("segments: %v, %v", segments, err)
	}
	dump, _ := b.cli(exitOK, "log", "dump", filepath.Dir(segments[0]), "--records")
	if !strings.Contains(dump, `key "key-`) {
		b.t.Errorf("dump: %s", tail(dump, 20))
	}
	f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 1)
	const at = 1000
	if _, err := f.ReadAt(buf, at); err != nil {
		b.t.Fatal(err)
	}
	buf[0] ^= 0x10
	if _, err := f.WriteAt(buf, at); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
	out, _ := b.cli(exitBadData, "log", "verify", b.dataDir(0))
	if !strings.Contains(out, filepath.Base(segments[0])) || !strings.Contains(out, "damage") {
		b.t.Errorf("verify of a damaged file said: %s", out)
	}
}
