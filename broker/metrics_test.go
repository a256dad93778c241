package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// withMetrics has each broker serve its metrics on a port of its own.
func withMetrics(cfg *broker.Config) { cfg.MetricsAddr = "127.0.0.1:0" }

// httpGet reads a page of a broker's metrics listener.
func httpGet(c *brokertest.Cluster, id api.BrokerID, path string) (int, string) {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Broker(id).MetricsAddr()+path, nil)
	if err != nil {
		c.T.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		c.T.Fatalf("broker %d: %v", id, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.T.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// metricsOf scrapes a broker: the values by name and labels, as in the text.
func metricsOf(c *brokertest.Cluster, id api.BrokerID) map[string]float64 {
	c.T.Helper()
	code, text := httpGet(c, id, "/metrics")
	if code != http.StatusOK {
		c.T.Fatalf("broker %d: status %d: %s", id, code, text)
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if value == "" {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		} else {
			name += "}"
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			c.T.Fatalf("broker %d: %q: %v", id, line, err)
		}
		out[name] = v
	}
	return out
}

// sumMetric adds a metric over the brokers that run.
func sumMetric(c *brokertest.Cluster, name string) float64 {
	c.T.Helper()
	sum := 0.0
	for _, id := range c.Running() {
		sum += metricsOf(c, id)[name]
	}
	return sum
}

// eventually waits until a metric, summed over all brokers, is as it should be.
func eventually(c *brokertest.Cluster, name string, ok func(float64) bool) {
	c.T.Helper()
	c.Eventually(name, func() error {
		if v := sumMetric(c, name); !ok(v) {
			return fmt.Errorf("it is %v", v)
		}
		return nil
	})
}

func is(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

// TestMetricsOfTraffic: what was produced and fetched is counted, by topic, once.
func TestMetricsOfTraffic(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: withMetrics})
	c.CreateTopic("orders", 2, 3)
	for i := range 10 {
		c.Produce("orders", int32(i%2), "one", "two")
	}
	if got := len(c.ReadAll("orders", 0)); got != 10 {
		t.Fatalf("%d records of 10", got)
	}
	if n := sumMetric(c, `flotilla_topic_acknowledged_records_total{topic="orders"}`); n != 20 {
		t.Errorf("%v records acknowledged, of 20", n)
	}
	if n := sumMetric(c, `flotilla_topic_appended_records_total{topic="orders"}`); n < 20 {
		t.Errorf("%v records appended, of at least 20", n)
	}
	if n := sumMetric(c, `flotilla_topic_fetched_records_total{topic="orders"}`); n < 10 {
		t.Errorf("%v records fetched, of at least 10", n)
	}
	if n := sumMetric(c, "flotilla_append_duration_seconds_count"); n != 10 {
		t.Errorf("%v appends timed, of 10", n)
	}
	if n := sumMetric(c, "flotilla_log_sync_duration_seconds_count"); n < 10 {
		t.Errorf("%v fsyncs", n)
	}
	if n := sumMetric(c, `flotilla_operations_total{listener="grpc",operation="Append"}`); n < 10 {
		t.Errorf("%v appends asked for over gRPC", n)
	}
	eventually(c, "flotilla_leader_partitions", is(float64(2+3*boolFloat(c.Broker(1).Metadata([]string{"__consumer_offsets"}).Topics[0].Unknown == false))))
	eventually(c, "flotilla_under_replicated_partitions", is(0))
	eventually(c, "flotilla_cluster_offline_partitions", is(0))
	eventually(c, "flotilla_controller", is(1))
}

func boolFloat(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestMetricsOfABrokerThatIsAway: the leaders see their replicas there missing, and the time when it is back.
func TestMetricsOfABrokerThatIsAway(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: withMetrics})
	c.CreateTopic("t", 4, 3)
	c.Crash(3)
	eventually(c, `flotilla_cluster_brokers{state="away"}`, is(2)) // both others say so
	eventually(c, "flotilla_under_replicated_partitions", func(v float64) bool { return v >= 4 })
	eventually(c, "flotilla_cluster_offline_partitions", is(0))
	c.Produce("t", 0, "while it is away")
	c.Restart(3)
	eventually(c, "flotilla_under_replicated_partitions", is(0))
	eventually(c, `flotilla_follower_lag_entries_max{broker="3"}`, is(0))
	if n := sumMetric(c, "flotilla_leader_elections_total"); n < 4 {
		t.Errorf("%v elections counted", n)
	}
}

// TestMetricsOfErrors: refusals are counted by what was asked and why.
func TestMetricsOfErrors(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: withMetrics})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx2, cancel2 := context.WithTimeout(ctx, brokertest.Patience)
	defer cancel2()
	if _, err := c.Broker(1).Append(ctx2, api.AppendRequest{TopicPartition: api.TopicPartition{Topic: "nosuch"}}); err == nil {
		t.Fatal("an append to a topic that does not exist was stored")
	}
	// The call above did not come over a listener, so it is not counted as a request.
	if n := sumMetric(c, `flotilla_operation_errors_total{code="UNKNOWN_TOPIC_OR_PARTITION",listener="grpc",operation="Append"}`); n != 0 {
		t.Errorf("%v errors before any request", n)
	}
	short, cancel3 := context.WithTimeout(ctx, brokertest.Patience/10)
	defer cancel3()
	if _, err := c.TryProduce(short, "nosuch", 0, "x"); err == nil {
		t.Fatal("an append to a topic that does not exist was stored")
	}
	if n := sumMetric(c, `flotilla_operation_errors_total{code="UNKNOWN_TOPIC_OR_PARTITION",listener="grpc",operation="Append"}`); n == 0 {
		t.Error("the refusal is not counted")
	}
}

// TestProfilesOnRequest: profiles are served only where they were asked for.
func TestProfilesOnRequest(t *testing.T) {
	for _, on := range []bool{false, true} {
		c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) {
			withMetrics(cfg)
			cfg.Profiles = on
		}})
		want := http.StatusNotFound
		if on {
			want = http.StatusOK
		}
		if code, _ := httpGet(c, 1, "/debug/pprof/cmdline"); code != want {
			t.Errorf("with profiles %v: status %d, want %d", on, code, want)
		}
	}
}

// TestMetricsPortTaken: a port that somebody asked for has to be free; the default one need not be.
func TestMetricsPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	start := func(optional bool) (*broker.Broker, error) {
		cfg := broker.DefaultConfig()
		cfg.ID, cfg.DataDir, cfg.BootstrapExpect = 1, t.TempDir(), 1
		cfg.GRPCAddr, cfg.PeerAddr, cfg.GossipAddr, cfg.KafkaAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", ""
		cfg.MetricsAddr, cfg.MetricsOptional = ln.Addr().String(), optional
		b, err := broker.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), brokertest.Patience)
		defer cancel()
		return b, b.Start(ctx)
	}
	b, err := start(true)
	if err != nil || b.MetricsAddr() != "" {
		t.Errorf("the default port being taken: error %v, metrics on %q", err, b.MetricsAddr())
	}
	b.Kill()
	b, err = start(false)
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("a port that was asked for is taken: error %v", err)
	}
	b.Kill()
}

// TestMetricsDocumented: what is served is in the README, and what is in the README is served.
func TestMetricsDocumented(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: withMetrics})
	c.CreateTopic("t", 3, 3)
	for p := range int32(3) {
		c.Produce("t", p, "x")
		c.ReadAll("t", p)
	}
	// Errors, groups and requests have no series before there is one.
	short, cancel := context.WithTimeout(context.Background(), brokertest.Patience/30)
	defer cancel()
	if _, err := c.TryProduce(short, "nosuch", 0, "x"); err == nil {
		t.Fatal("an append to a topic that does not exist was stored")
	}
	readme, err := os.ReadFile("metrics/README.md")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, id := range c.Running() {
		for name := range metricsOf(c, id) {
			name, _, _ = strings.Cut(name, "{")
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				name = strings.TrimSuffix(name, suffix)
			}
			served[name] = strings.HasPrefix(name, "flotilla_")
		}
	}
	text := strings.ReplaceAll(string(readme), "`..._records_total`", "")
	for name, ours := range served {
		short := strings.TrimSuffix(name, "records_total") + "bytes_total"
		if ours && !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "`"+short+"`") {
			t.Errorf("%s is served and not documented", name)
		}
	}
	for _, name := range regexp.MustCompile("`(flotilla_[a-z_]+)`").FindAllStringSubmatch(text, -1) {
		if name[1] != "flotilla_groups" && !served[name[1]] { // there are no groups
			t.Errorf("%s is documented and not served", name[1])
		}
	}
}
