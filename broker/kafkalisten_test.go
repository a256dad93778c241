package broker_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

func TestParseKafkaListener(t *testing.T) {
	for in, want := range map[string]broker.KafkaListener{
		"INTERNAL=:9093": {Name: "INTERNAL", Addr: ":9093"},
		"outside=0.0.0.0:9094,advertised=kafka.example:443": {Name: "OUTSIDE", Addr: "0.0.0.0:9094", Advertise: "kafka.example:443"},
		"V6=[::1]:0, advertised=::1":                        {Name: "V6", Addr: "[::1]:0", Advertise: "::1"},
	} {
		if got, err := broker.ParseKafkaListener(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "INTERNAL", "=:9092", "A=9092", "A=:99999", "A B=:9092", "A=:9092,advertised=", "A=:9092,address=x:1", "A=:9092,advertised=x:y", "A=:9092,advertised=b=c"} {
		if got, err := broker.ParseKafkaListener(in); !errors.Is(err, broker.ErrConfig) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestKafkaListenersMustDiffer(t *testing.T) {
	with := func(kafkaAddr string, listeners ...broker.KafkaListener) string {
		c := broker.DefaultConfig()
		c.ID, c.DataDir, c.KafkaAddr, c.KafkaListeners = 1, "data", kafkaAddr, listeners
		if err := c.Validate(); err != nil {
			return err.Error()
		}
		return ""
	}
	in := func(name, addr string) broker.KafkaListener { return broker.KafkaListener{Name: name, Addr: addr} }
	var many []broker.KafkaListener
	for i := range 9 {
		many = append(many, in(fmt.Sprintf("L%d", i), fmt.Sprintf(":%d", 9100+i)))
	}
	for _, c := range []struct{ got, want string }{
		{with(":9092", in("INTERNAL", ":9093"), in("EXTERNAL", ":9094")), ""},
		{with(":0", in("INTERNAL", ":0")), ""},
		{with("", in("INTERNAL", ":9093")), ""},
		{with(":9092", in("INTERNAL", ":9093"), in("INTERNAL", ":9094")), "two Kafka listeners INTERNAL"},
		{with(":9092", in("PLAINTEXT", ":9093")), "two Kafka listeners PLAINTEXT"},
		{with("", in("PLAINTEXT", ":9093")), "set that instead"},
		{with(":9092", in("INTERNAL", ":9092")), "the same address :9092"},
		{with(":9092", in("internal", ":9093")), "no name for a Kafka listener"},
		{with(":9092", many...), "at most 8"},
	} {
		if !strings.Contains(c.got, c.want) || c.want == "" && c.got != "" {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// A client that comes by a named listener is told the addresses of that name; a broker without it is left out, and what it leads cannot be used.
func TestClientsAreToldTheAddressesOfTheirListener(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		if cfg.ID != 3 {
			cfg.KafkaListeners = []broker.KafkaListener{{Name: "OUTSIDE", Addr: "127.0.0.1:0", Advertise: fmt.Sprintf("outside-%d.example:9%d", cfg.ID, cfg.ID)}}
		}
	}})
	c.CreateTopic("orders", 3, 3)
	outside := outsidePort(t, c.Broker(1))
	plain := c.Broker(1).KafkaAddr()

	if got := metadataBrokers(t, plain); len(got) != 3 || got[2] != c.Broker(2).KafkaAddr() {
		t.Errorf("the plain listener tells %v", got)
	}
	want := map[int32]string{1: "outside-1.example:91", 2: "outside-2.example:92"}
	if got := metadataBrokers(t, outside); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the listener OUTSIDE tells %v, want %v", got, want)
	}
	describe := kmsg.NewPtrDescribeClusterRequest()
	resp := try[*kmsg.DescribeClusterResponse](t, outside, describe)
	if len(resp.Brokers) != 2 || resp.Brokers[0].Host != "outside-1.example" && resp.Brokers[1].Host != "outside-1.example" {
		t.Errorf("DescribeCluster tells %+v", resp.Brokers)
	}
	for version, code := range map[int16]int16{5: 5, 6: 72} { // LEADER_NOT_AVAILABLE, LISTENER_NOT_FOUND
		for _, p := range partitionsOf(t, outside, version) {
			if p.Leader == 3 || p.Leader == -1 && p.ErrorCode != code || p.Leader > 0 && p.ErrorCode != 0 {
				t.Errorf("version %d: partition %d: leader %d, error %d", version, p.Partition, p.Leader, p.ErrorCode)
			}
		}
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.Version = 4
	for i := range 16 {
		find.CoordinatorKeys = append(find.CoordinatorKeys, fmt.Sprintf("group-%d", i))
	}
	for _, k := range try[*kmsg.FindCoordinatorResponse](t, outside, find).Coordinators {
		if ok := k.ErrorCode == 0 && want[k.NodeID] == net.JoinHostPort(k.Host, fmt.Sprint(k.Port)); !ok && k.ErrorCode != 15 {
			t.Errorf("the coordinator of %s: %+v", k.Key, k)
		}
	}
	st, err := c.Broker(2).Status(t.Context())
	if err != nil || len(st.Brokers) != 3 || len(st.Brokers[0].KafkaAddrs) != 2 || st.Brokers[0].KafkaAddrs[0] != (api.KafkaAddr{Listener: "OUTSIDE", Addr: want[1]}) || len(st.Brokers[2].KafkaAddrs) != 1 {
		t.Errorf("status: %+v, %v", st.Brokers, err)
	}
}

// outsidePort is where the listener OUTSIDE of a broker really is.
func outsidePort(t *testing.T, b *broker.Broker) string {
	t.Helper()
	addr := b.KafkaListening()["OUTSIDE"]
	if addr == nil {
		t.Fatal("there is no listener OUTSIDE")
	}
	return addr.String()
}

func try[R kmsg.Response](t *testing.T, addr string, req kmsg.Request) R {
	t.Helper()
	resp, err := brokertest.TryKafkaAt(addr, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(R)
}

func metadataBrokers(t *testing.T, addr string) map[int32]string {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	out := map[int32]string{}
	for _, b := range try[*kmsg.MetadataResponse](t, addr, req).Brokers {
		out[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	return out
}

func partitionsOf(t *testing.T, addr string, version int16) []kmsg.MetadataResponseTopicPartition {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = version
	for _, topic := range try[*kmsg.MetadataResponse](t, addr, req).Topics {
		if *topic.Topic == "orders" {
			return topic.Partitions
		}
	}
	t.Fatal("the topic is not there")
	return nil
}

// Every broker tells of the clients of all.
func TestListClients(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	for _, software := range []string{"one", "two"} {
		for range 2 {
			conn, err := net.Dial("tcp", c.Broker(2).KafkaAddr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			req := kmsg.NewPtrApiVersionsRequest()
			req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, software, "1.0"
			if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, req, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := c.Broker(1).ListClients(t.Context())
	if err != nil || len(got.Missing) > 0 || len(got.Clients) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	first := got.Clients[0]
	if first.SinceMs == 0 {
		t.Error("no time is told")
	}
	first.SinceMs = 0
	want := api.ClientGroup{Broker: 2, Listener: "PLAINTEXT", Host: "127.0.0.1", ClientID: "me", Software: "one", SoftwareVersion: "1.0", Connections: 2}
	if first != want {
		t.Errorf("got %+v, want %+v", first, want)
	}
}
