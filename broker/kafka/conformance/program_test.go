package conformance

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is a client in another language: a command that takes a verb, the brokers' addresses and more. README.md describes the verbs.
type program struct {
	argv []string
	can  traits
}

// cache is where setup has put the clients: CONFORMANCE_CACHE, or else a folder of the user's.
func cache(elem ...string) string {
	dir := os.Getenv("CONFORMANCE_CACHE")
	if dir == "" {
		user, _ := os.UserCacheDir() // without a home there are no clients either
		dir = filepath.Join(user, "flotilla", "conformance")
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

func (p *program) title(t *testing.T) string {
	t.Helper()
	out, err := p.run(t, "version")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (p *program) traits() traits { return p.can }

// run runs a verb to its end and returns what it printed.
func (p *program) run(t *testing.T, verb string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.argv[0], append(append(p.argv[1:len(p.argv):len(p.argv)], verb), args...)...)
	var stderr tail
	cmd.Stderr, cmd.WaitDelay = &stderr, time.Second
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", p.argv[len(p.argv)-1], verb, err, stderr.String())
	}
	return string(out), err
}

func (p *program) produce(t *testing.T, c *cluster, topic, codec string) producer {
	t.Helper()
	acked := 0
	run := start(t, func(string) { acked++ }, p.argv, "produce", strings.Join(c.seeds(), ","), topic, codec)
	return &programProducer{running: run, acked: &acked}
}

func (p *program) join(t *testing.T, c *cluster, group, topic string, show *readings) member {
	t.Helper()
	return start(t, showTo(show), p.argv, "consume", strings.Join(c.seeds(), ","), group, topic)
}

// showTo takes lines as parseReading does.
func showTo(show *readings) func(string) {
	return func(line string) {
		r, err := parseReading(line)
		if err != nil {
			show.fail(err)
			return
		}
		show.add(r)
	}
}

// parseReading takes a line "PARTITION OFFSET KEY VALUE".
func parseReading(line string) (reading, error) {
	f := strings.Fields(line)
	if len(f) != 4 {
		return reading{}, fmt.Errorf("a client printed %q instead of a record", line)
	}
	p, err1 := strconv.ParseInt(f[0], 10, 32)
	o, err2 := strconv.ParseInt(f[1], 10, 64)
	return reading{int32(p), o, f[2], f[3]}, errors.Join(err1, err2)
}

func (p *program) seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error) {
	out, err := p.run(t, "seek", strings.Join(c.seeds(), ","), topic, fmt.Sprint(partition), by, fmt.Sprint(at))
	if err != nil {
		return reading{}, err
	}
	return parseReading(out)
}

func (p *program) admin(t *testing.T, c *cluster, s adminStage) (did []string, err error) {
	out, err := p.run(t, "admin", strings.Join(c.seeds(), ","), s.topic, s.data, s.group, strings.Join(s.operations, ","))
	for line := range strings.Lines(out) {
		if op, ok := strings.CutPrefix(strings.TrimSpace(line), "did "); ok {
			did = append(did, op)
		}
	}
	return did, err
}

// running is a program that runs until its input ends.
type running struct {
	what  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	tail  *tail         // of its standard error
	read  chan struct{} // closed when all of its output is read
	once  sync.Once
	err   error
	end   func() error // asks it to end
}

// start runs a command; each line of its output goes to line.
func start(t *testing.T, line func(string), argv []string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], args...)...)
	r := &running{what: fmt.Sprint(argv[len(argv)-1], " ", args[0]), cmd: cmd, tail: &tail{}, read: make(chan struct{})}
	cmd.Stderr, cmd.WaitDelay = r.tail, time.Second
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	r.stdin, r.end = stdin, stdin.Close
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer close(r.read)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			line(lines.Text())
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = r.wait()
		if said := r.tail.String(); said != "" && t.Failed() {
			t.Logf("%s said: %s", r.what, said)
		}
	})
	return r
}

// stop has the program end and waits for it.
func (r *running) stop() error {
	_ = r.end()
	bound := time.AfterFunc(2*patience, func() { _ = r.cmd.Process.Kill() })
	defer bound.Stop()
	return r.wait()
}

func (r *running) wait() error {
	r.once.Do(func() {
		<-r.read
		if err := r.cmd.Wait(); err != nil {
			r.err = fmt.Errorf("%s: %w: %s", r.what, err, r.tail.String())
		}
	})
	return r.err
}

// programProducer feeds records to a program as lines "KEY:VALUE", which prints a line for each that is acknowledged.
type programProducer struct {
	*running
	sent  int
	acked *int // nil: the program does not say. Read it after the end only.
}

func (p *programProducer) send(i int) error {
	p.sent++
	_, err := fmt.Fprintf(p.stdin, "%s:%s\n", key(i), value(i))
	if err != nil {
		err = errors.Join(err, p.stop())
	}
	return err
}

func (p *programProducer) close() error {
	if err := p.stop(); err != nil {
		return err
	}
	if p.acked != nil && *p.acked != p.sent {
		return fmt.Errorf("%s: %d of %d records were acknowledged", p.what, *p.acked, p.sent)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	const most = 8 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > most {
		t.b = append([]byte(nil), t.b[len(t.b)-most:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// installed is a client that the set-up may have brought.
type installed struct {
	client
	name  string
	step  string   // of the set-up
	check []string // a command that succeeds if the client is there
}

// reason is why the client is not there, or "": what the set-up says of its step, or how the check failed.
func (i installed) reason() string {
	out, err := exec.Command(i.check[0], i.check[1:]...).CombinedOutput()
	if err == nil {
		return ""
	}
	if said, err := os.ReadFile(cache(i.step + ".failed")); err == nil {
		return strings.TrimSpace(string(said))
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "Error") {
			return strings.TrimSpace(line)
		}
	}
	return cmp.Or(strings.TrimSpace(string(out)), err.Error())
}

// test runs the scenario, or notes why it cannot.
func (i installed) test(t *testing.T) {
	if why := i.reason(); why != "" {
		note("not run: %s: %s", i.name, why)
		return
	}
	scenario(t, i.client)
}

func confluent() installed {
	python := cache("python", "bin", "python")
	return installed{name: "confluent-kafka", step: "python", check: []string{python, "-c", "import confluent_kafka"},
		client: &program{[]string{python, "clients/confluent.py"}, traits{allCodecs, true, []string{
			"create topic", "describe topic", "describe cluster", "grow partitions", "alter configs", "describe configs", "offsets by time", "delete records",
			"list groups", "describe group", "list group offsets", "alter group offsets", "delete group", "elect leaders", "delete topic",
		}}}}
}

func kafkaPython() installed {
	python := cache("python", "bin", "python")
	return installed{name: "kafka-python", step: "python", check: []string{python, "-c", "import kafka"},
		client: &program{[]string{python, "clients/kafka_python.py"}, traits{allCodecs, true, allOperations()}}}
}

// kafkaJS needs NODE_PATH.
func kafkaJS() installed {
	return installed{name: "kafkajs", step: "js", check: []string{"node", "-e", "require('kafkajs')"},
		client: &program{[]string{"node", "clients/kafkajs.js"}, traits{allCodecs, true, []string{
			"create topic", "describe topic", "describe cluster", "grow partitions", "alter configs", "describe configs", "offsets by time", "delete records",
			"list groups", "describe group", "list group offsets", "alter group offsets", "delete group", "reassign partitions", "delete topic",
		}}}}
}

func java() installed {
	classes := cache("java", "classes") + string(os.PathListSeparator) + cache("java", "lib", "*")
	argv := []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-cp", classes, "Conformance"}
	return installed{name: "java", step: "java", check: append(argv[:len(argv):len(argv)], "version"), client: &program{argv, traits{allCodecs, true, allOperations()}}}
}

func TestConfluent(t *testing.T)   { confluent().test(t) }
func TestKafkaPython(t *testing.T) { kafkaPython().test(t) }
func TestJava(t *testing.T)        { java().test(t) }
func TestKcat(t *testing.T)        { kcatInstalled().test(t) }

func TestKafkaJS(t *testing.T) {
	t.Setenv("NODE_PATH", cache("js", "node_modules"))
	kafkaJS().test(t)
}

// allOperations are for clients that can do everything.
func allOperations() []string {
	var names []string
	for _, op := range operations {
		names = append(names, op.name)
	}
	return names
}
