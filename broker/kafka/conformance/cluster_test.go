package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

// patience bounds what a test waits for. It is generous, since three brokers and up to three clients may share two busy cores.
const patience = 90 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// binary is the flotilla command that the brokers run. TestMain makes it.
var binary string

// buildBinary builds the flotilla command, unless FLOTILLA_BINARY names one.
func buildBinary(dir string) (string, error) {
	if given := os.Getenv("FLOTILLA_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	out := filepath.Join(dir, "flotilla")
	cmd := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-trimpath", "-o", out, "./cmd/flotilla")
	cmd.Dir, cmd.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building flotilla: %w: %s", err, b)
	}
	return out, nil
}

// cluster is three brokers, each a process of its own, and a client of franz-go's that sets the stage and judges.
type cluster struct {
	t     testing.TB
	procs *procs.Cluster
	adm   *kadm.Client
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	p, err := procs.NewCluster(procs.Config{Binary: binary, Brokers: 3, Kafka: true, Extra: []string{"--fast-gossip", "--offsets-partitions", "3"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, procs: p}
	t.Cleanup(func() {
		if t.Failed() {
			c.logTails()
		}
		_ = p.Close()
	})
	if err := p.StartAll(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.adm = kadm.NewClient(c.client(t))
	return c
}

func (c *cluster) logTails() {
	for i := range c.seeds() {
		c.t.Logf("the log of broker %d ends with:\n%s", i+1, c.procs.LogTail(i))
	}
}

// seeds are the Kafka addresses of all brokers.
func (c *cluster) seeds() []string { return c.procs.KafkaAddrs() }

// client opens a client of franz-go's.
func (c *cluster) client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.seeds()...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// createTopic makes a topic with three replicas and waits until each partition has a leader that all brokers name.
func (c *cluster) createTopic(t testing.TB, topic string, partitions int32, settings ...string) {
	t.Helper()
	configs := map[string]*string{}
	for i := 0; i < len(settings); i += 2 {
		configs[settings[i]] = &settings[i+1]
	}
	made, err := c.adm.CreateTopics(testContext(t), partitions, 3, configs, topic)
	if err := errors.Join(err, made.Error()); err != nil {
		t.Fatalf("creating %s: %v", topic, err)
	}
	for p := range partitions {
		c.leader(t, topic, p)
	}
}

// leader waits until a partition has a leader.
func (c *cluster) leader(t testing.TB, topic string, partition int32) (id int32) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s/%d has a leader", topic, partition), func() error {
		topics, err := c.adm.ListTopics(testContext(t), topic)
		if err != nil {
			return err
		}
		p, ok := topics[topic].Partitions[partition]
		if id = p.Leader; !ok || p.Err != nil || id < 1 {
			return fmt.Errorf("%+v", topics[topic])
		}
		return nil
	})
	return id
}

// kill ends a broker with SIGKILL.
func (c *cluster) kill(id int32) { c.procs.Kill(int(id) - 1) }

// ends are the offsets after the last records of a topic.
func (c *cluster) ends(t testing.TB, topic string) map[int32]int64 {
	t.Helper()
	ends := map[int32]int64{}
	eventually(t, "the ends of "+topic+" are known", func() error {
		listed, err := c.adm.ListEndOffsets(testContext(t), topic)
		if err := errors.Join(err, listed.Error()); err != nil {
			return err
		}
		listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
		return nil
	})
	return ends
}

// read returns all records of a topic, those of each partition in order.
func (c *cluster) read(t testing.TB, topic string) []*kgo.Record {
	t.Helper()
	var n int64
	for _, end := range c.ends(t, topic) {
		n += end
	}
	cl := c.client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	ctx := testContext(t)
	var all []*kgo.Record
	for int64(len(all)) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("reading %s, %d of %d: %v", topic, len(all), n, err)
		}
		all = append(all, fs.Records()...)
	}
	return all
}

// eventually polls until ok, and fails the test with what ok said last.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}
