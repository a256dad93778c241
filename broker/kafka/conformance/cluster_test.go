// Package conformance drives a cluster of three real brokers with Kafka clients as people use them. It is a module of its own, so
// that the clients are no dependency of Flotilla.
package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// patience bounds what a test waits for.
const patience = 60 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// seeds are the Kafka addresses of all brokers that run.
func seeds(c *brokertest.Cluster) []string {
	var out []string
	for _, id := range c.Running() {
		out = append(out, c.Broker(id).KafkaAddr())
	}
	return out
}

func key(i int) string   { return fmt.Sprintf("key-%d", i%17) }
func value(i int) string { return fmt.Sprintf("value-%06d", i) }

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

// seen counts how often each value was read.
type seen map[string]int

// missing says which of the values 0 to n-1 were not read.
func (s seen) missing(n int) error {
	for i := range n {
		if s[value(i)] == 0 {
			return fmt.Errorf("%q was not read; %d of %d were", value(i), len(s), n)
		}
	}
	return nil
}

// exactly says whether each of the values 0 to n-1 was read once.
func (s seen) exactly(n int) error {
	if err := s.missing(n); err != nil {
		return err
	}
	for v, times := range s {
		if times != 1 {
			return fmt.Errorf("%q was read %d times", v, times)
		}
	}
	if len(s) != n {
		return fmt.Errorf("%d values were read instead of %d", len(s), n)
	}
	return nil
}
