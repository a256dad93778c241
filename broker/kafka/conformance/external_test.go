package conformance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// program is a client in another language. It prints a line "ok FEATURE" for what works.
type program struct {
	client   string
	present  []string // a command that succeeds where the client is there
	run      []string // the brokers' addresses are added
	features []string
}

// programs are looked for in CONFORMANCE_PYTHON (an interpreter), NODE_PATH, and CONFORMANCE_JAVA_LIB (a folder of jars).
func programs() []program {
	python := cmp.Or(os.Getenv("CONFORMANCE_PYTHON"), "python3")
	jars := filepath.Join(cmp.Or(os.Getenv("CONFORMANCE_JAVA_LIB"), "clients/lib"), "*")
	common := []string{"compression", "group", "resume", "seek", "admin"}
	return []program{
		{"confluent-kafka", []string{python, "-c", "import confluent_kafka"}, []string{python, "clients/confluent.py"}, common},
		{"kafka-python", []string{python, "-c", "import kafka"}, []string{python, "clients/kafka_python.py"}, []string{"compression", "resume", "seek", "admin"}},
		{"kafkajs", []string{"node", "-e", "require('kafkajs')"}, []string{"node", "clients/kafkajs.js"}, common},
		{"java", []string{"sh", "-c", "command -v java && ls " + jars}, []string{"java", "-cp", jars, "clients/Conformance.java"}, common},
	}
}

func TestOtherLanguages(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	for _, p := range programs() {
		if err := exec.Command(p.present[0], p.present[1:]...).Run(); err != nil {
			absent(p.client, "it is not installed")
			continue
		}
		t.Run(p.client, func(t *testing.T) { p.test(t, c) })
	}
	if _, err := exec.LookPath("kcat"); err != nil {
		absent("kcat", "it is not installed")
		return
	}
	feature(t, "kcat", "compression", func(t *testing.T) { kcatCompression(t, c) })
	feature(t, "kcat", "seek", func(t *testing.T) { kcatSeek(t, c) })
	feature(t, "kcat", "group", func(t *testing.T) { kcatGroup(t, c) })
}

func (p program) test(t *testing.T, c *brokertest.Cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	args := append(p.run[1:len(p.run):len(p.run)], strings.Join(seeds(c), ","))
	cmd := exec.CommandContext(ctx, p.run[0], args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	for _, f := range p.features {
		ok := strings.Contains(string(out), "ok "+f+"\n")
		note(p.client, f, ok)
		if !ok {
			t.Errorf("%s does not work", f)
		}
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// kcat runs kcat with an input, and returns its output's lines.
func kcat(t *testing.T, c *brokertest.Cluster, input string, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), "kcat", append([]string{"-b", strings.Join(seeds(c), ",")}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kcat %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.Fields(string(out))
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s:%s\n", key(i), value(i))
	}
	return b.String()
}

func kcatCompression(t *testing.T, c *brokertest.Cluster) {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		topic := "kcat-" + codec
		c.CreateTopic(topic, 3, 3)
		kcat(t, c, lines(200), "-P", "-t", topic, "-K", ":", "-z", codec, "-X", "enable.idempotence=true")
		got := seen{}
		for _, v := range kcat(t, c, "", "-C", "-t", topic, "-e", "-q") {
			got[v]++
		}
		if err := got.exactly(200); err != nil {
			t.Errorf("%s: %v", codec, err)
		}
	}
}

func kcatSeek(t *testing.T, c *brokertest.Cluster) {
	c.CreateTopic("kcat-seek", 1, 3)
	kcat(t, c, lines(50), "-P", "-t", "kcat-seek", "-K", ":")
	if got := kcat(t, c, "", "-C", "-t", "kcat-seek", "-o", "40", "-e", "-q"); len(got) != 10 || got[0] != value(40) {
		t.Errorf("from offset 40: %v", got)
	}
	if got := kcat(t, c, "", "-C", "-t", "kcat-seek", "-o", "s@1000", "-e", "-q"); len(got) != 50 {
		t.Errorf("from a time before all: %d", len(got))
	}
}

func kcatGroup(t *testing.T, c *brokertest.Cluster) {
	c.CreateTopic("kcat-group", 3, 3)
	kcat(t, c, lines(100), "-P", "-t", "kcat-group", "-K", ":")
	read := func() int {
		return len(kcat(t, c, "", "-G", "kcat", "-X", "auto.offset.reset=earliest", "-e", "-q", "kcat-group"))
	}
	if n := read(); n != 100 {
		t.Errorf("a first time: %d", n)
	}
	kcat(t, c, lines(10), "-P", "-t", "kcat-group", "-K", ":")
	if n := read(); n != 10 {
		t.Errorf("a second time: %d", n)
	}
}
