package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// kcat is librdkafka's command line tool. It tells no acknowledgements; it fails if there are none.
type kcat struct{ program }

func kcatInstalled() installed {
	return installed{name: "kcat", step: "kcat", check: []string{"kcat", "-V"},
		client: &kcat{program{[]string{"kcat"}, traits{allCodecs, true, []string{"describe topic", "describe cluster", "offsets by time"}}}}}
}

func (*kcat) title(t *testing.T) string {
	out, err := exec.Command("kcat", "-V").Output()
	if err != nil {
		t.Fatal(err)
	}
	version := func(what string) string {
		if m := regexp.MustCompile(what + ` ([0-9.]+)`).FindSubmatch(out); m != nil {
			return string(m[1])
		}
		return "?"
	}
	return fmt.Sprintf("kcat %s (librdkafka %s)", version("Version"), version("librdkafka"))
}

func kcatArgs(c *cluster, args ...string) []string {
	return append([]string{"-b", strings.Join(c.seeds(), ",")}, args...)
}

// shown is how kcat prints a record for parseReading.
const shown = `%p %o %k %s\n`

func (k *kcat) produce(t *testing.T, c *cluster, topic, codec string) producer {
	t.Helper()
	return &programProducer{running: start(t, func(string) {}, k.argv, kcatArgs(c, "-P", "-t", topic, "-K", ":", "-z", codec, "-X", "enable.idempotence=true")...)}
}

func (k *kcat) join(t *testing.T, c *cluster, group, topic string, show *readings) member {
	t.Helper()
	r := start(t, showTo(show), k.argv, kcatArgs(c, "-G", group, "-q", "-u", "-f", shown,
		"-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=300", topic)...)
	r.end = func() error { return r.cmd.Process.Signal(os.Interrupt) } // in a group it does not read its input
	return r
}

func (k *kcat) seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error) {
	from := fmt.Sprint(at)
	if by == "time" {
		from = "s@" + from
	}
	out, err := k.run(t, "-C", kcatArgs(c, "-t", topic, "-p", fmt.Sprint(partition), "-o", from, "-c", "1", "-q", "-f", shown)...)
	if err != nil {
		return reading{}, err
	}
	return parseReading(out)
}

func (k *kcat) admin(t *testing.T, c *cluster, s adminStage) (did []string, err error) {
	listed, err := k.run(t, "-L", kcatArgs(c, "-t", s.data)...)
	if err != nil {
		return nil, err
	}
	if strings.Contains(listed, "3 brokers:") {
		did = append(did, "describe cluster")
	}
	if strings.Contains(listed, `topic "`+s.data+`" with 1 partitions`) {
		did = append(did, "describe topic")
	}
	found, err := k.run(t, "-Q", kcatArgs(c, "-t", fmt.Sprintf("%s:0:%d", s.data, stagedAt(20)))...)
	if strings.Contains(found, "offset 20") {
		did = append(did, "offsets by time")
	}
	return did, err
}
