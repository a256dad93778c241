package client_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	// patience is what a busy machine may need for anything.
	patience = time.Minute
	// requestTimeout is what nobody waits for.
	requestTimeout = 10 * patience
)

// testContext bounds a test well below the test binary's timeout.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connect starts n fake brokers with a topic "t" and returns a client of them.
func connect(t *testing.T, n, partitions int, opts ...client.Option) (*fakebroker.Cluster, *client.Client) {
	t.Helper()
	f := fakebroker.Start(t, n)
	f.CreateTopic("t", partitions)
	opts = append([]client.Option{client.WithRetryBackoff(2*time.Millisecond, 50*time.Millisecond), client.WithRequestTimeout(requestTimeout)}, opts...)
	c, err := client.New(f.Addrs(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, c
}

// eventually polls until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
