package client_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// TestNewLeaderIsFound: the leader's broker dies, and another one leads only after it has been looked for in vain. It is found and tried at once all the same, and what comes
// next does not wait either: all without the pause between tries, which is longer than the test waits.
func TestNewLeaderIsFound(t *testing.T) {
	for name, use := range map[string]func(*testing.T, *fakebroker.Cluster, *client.Client) func(context.Context) error{
		"producer": func(t *testing.T, _ *fakebroker.Cluster, c *client.Client) func(context.Context) error {
			p := newProducer(t, c, client.WithPartitioner(client.Manual()))
			return func(ctx context.Context) error { return p.Produce(ctx, manual(0, "x")) }
		},
		"append": func(t *testing.T, _ *fakebroker.Cluster, c *client.Client) func(context.Context) error {
			p := newProducer(t, c)
			return func(ctx context.Context) error {
				_, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("x")}})
				return err
			}
		},
		"consumer": func(t *testing.T, f *fakebroker.Cluster, c *client.Client) func(context.Context) error {
			k := newConsumer(t, c)
			if err := k.Assign(at(0, client.AtOffset(0))); err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context) error {
				f.Append("t", 0, recordtest.Batch(1, 0))
				for {
					if records, err := k.Poll(ctx); len(records) > 0 || err != nil {
						return err
					}
				}
			}
		},
		"call": func(_ *testing.T, _ *fakebroker.Cluster, c *client.Client) func(context.Context) error {
			return func(ctx context.Context) error {
				tp := client.TopicPartition{Topic: "t"}
				return c.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.Latest()})[tp].Err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, c := connect(t, 3, 1, client.WithRetryBackoff(3*time.Minute, 3*time.Minute), client.WithRequestTimeout(5*time.Minute))
			do := use(t, f, c)
			if err := do(testContext(t)); err != nil {
				t.Fatal(err)
			}
			f.Kill(0)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			done := make(chan error, 1)
			looked := f.Lookups()
			go func() {
				for i := range 3 {
					if err := do(ctx); err != nil {
						done <- fmt.Errorf("number %d: %w", i, err)
						return
					}
				}
				done <- nil
			}()
			eventually(t, "a leader is looked for again and again", func() bool { return f.Lookups() > looked+8 })
			f.MoveLeader("t", 0, 1)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSilentLeaderIsNotAskedForAnother: who suspects a leader asks the other brokers who leads, since that one may be frozen or cut off from them.
func TestSilentLeaderIsNotAskedForAnother(t *testing.T) {
	f, c := connect(t, 3, 1)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err := p.Produce(testContext(t), manual(0, "0")); err != nil {
		t.Fatal(err)
	}
	f.AddFault(func(broker int32, _ *pb.ProduceRequest) fakebroker.Verdict {
		if broker != 0 {
			return fakebroker.Verdict{}
		}
		return fakebroker.Verdict{Action: fakebroker.Ignore}
	})
	there, everywhere := f.LookupsAt(0), f.Lookups()
	var o outcome
	p.ProduceAsync(testContext(t), manual(0, "1"), o.done)
	eventually(t, "another leader is looked for", func() bool { return f.Lookups() > everywhere+20 })
	if n := f.LookupsAt(0); n > there {
		t.Errorf("%d of %d times at the silent one", n-there, f.Lookups()-everywhere)
	}
	f.MoveLeader("t", 0, 1)
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, 1)
}

// TestLeadersThatNameOneAnother: where two brokers each take the other for the leader, they are not asked in a circle without a pause.
func TestLeadersThatNameOneAnother(t *testing.T) {
	f, c := connect(t, 2, 1, client.WithRetryBackoff(time.Hour, time.Hour))
	var sent atomic.Int32
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		sent.Add(1)
		return fakebroker.Verdict{}
	})
	f.AddFault(f.NameTheOther())
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithDeliveryTimeout(2*time.Second))
	if err := p.Produce(testContext(t), manual(0, "x")); err == nil {
		t.Fatal("stored, though nobody leads")
	}
	if n := sent.Load(); n > 10 {
		t.Errorf("sent %d times", n)
	}
}
