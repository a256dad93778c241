package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/broker/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a broker that counts how often it was looked at.
type source struct {
	looks int
	state State
}

func (s *source) Observe() State {
	s.looks++
	return s.state
}

// served runs a server on a set and returns how to get a page of it.
func served(t *testing.T, s *Set, opts Options) (get func(path string) string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(s, opts)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	return func(path string) string {
		t.Helper()
		resp, err := client.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// TestTopicsAreBounded: however many topics there are, the series are not more than so many.
func TestTopicsAreBounded(t *testing.T) {
	s := New("test")
	for i := range topicsMax + 500 {
		s.Topic(fmt.Sprint("topic", i)).Appended(1, 10)
	}
	first, late := s.Topic("topic1"), s.Topic(fmt.Sprint("topic", topicsMax+1))
	if first == late || late != s.Topic("another") {
		t.Error("the first topics have meters of their own, and the late ones share one")
	}
	text := served(t, s, Options{})("/metrics")
	if n := strings.Count(text, "\nflotilla_topic_appended_bytes_total{"); n != topicsMax+1 {
		t.Errorf("%d series, want %d", n, topicsMax+1)
	}
	if !strings.Contains(text, `flotilla_topic_appended_bytes_total{topic="(other)"} 5000`) {
		t.Error("what the late topics did is not counted together")
	}
}

// TestLookIsShared: two scrapes at the same time look around once.
func TestLookIsShared(t *testing.T) {
	s := New("test")
	src := &source{state: State{Partitions: []Partition{
		{Topic: "t", Bytes: 5, Leads: true, HasLeader: true, Under: true, Followers: map[string]int64{"2": 3, "3": 1000}},
		{Topic: "t", Bytes: 7},
	}}}
	s.Look(src)
	get := served(t, s, Options{})
	text := get("/metrics")
	get("/metrics")
	if src.looks != 1 {
		t.Errorf("%d looks for two scrapes within a moment", src.looks)
	}
	for _, want := range []string{
		"flotilla_replicas 2", "flotilla_leader_partitions 1", "flotilla_leaderless_replicas 1", "flotilla_under_replicated_partitions 1",
		`flotilla_topic_log_bytes{topic="t"} 12`, `flotilla_follower_lag_entries_max{broker="3"} 1000`,
		`flotilla_follower_lagging_partitions{broker="2"} 0`, `flotilla_follower_lagging_partitions{broker="3"} 1`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

// refusing is a broker that refuses everything.
type refusing struct{ api.Broker }

func (refusing) DeleteTopic(context.Context, string) error {
	return fmt.Errorf("no: %w", &api.Error{Code: api.CodePolicyViolation, Message: "policy"})
}

func (refusing) Fetch(context.Context, api.FetchRequest) ([]api.FetchResult, error) {
	return []api.FetchResult{{Err: api.Errorf(api.CodeNotLeader, "elsewhere")}, {}, {Err: errors.New("?")}}, nil
}

func TestObserved(t *testing.T) {
	s := New("test")
	b := s.Observe(refusing{}, ListenerKafka)
	_ = b.DeleteTopic(context.Background(), "t")
	_, _ = b.Fetch(context.Background(), api.FetchRequest{})
	text := served(t, s, Options{})("/metrics")
	for _, want := range []string{
		`flotilla_operations_total{listener="kafka",operation="DeleteTopic"} 1`,
		`flotilla_operation_errors_total{code="POLICY_VIOLATION",listener="kafka",operation="DeleteTopic"} 1`,
		`flotilla_operations_total{listener="kafka",operation="Fetch"} 1`,
		`flotilla_operation_errors_total{code="NOT_LEADER",listener="kafka",operation="Fetch"} 1`,
		`flotilla_operation_errors_total{code="INTERNAL",listener="kafka",operation="Fetch"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

// BenchmarkAppend is what counting costs per batch.
func BenchmarkAppend(b *testing.B) {
	s := New("test")
	for b.Loop() {
		t := s.Topic("orders")
		t.Appended(10, 1000)
		t.Acknowledged(10, 1000, time.Millisecond)
	}
}
