package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flotilla-log/flotilla/client"
)

// TestCloseMeetsProducers: whatever producers are doing when Close comes, to partitions old and new, every record is either stored or refused, once, and nothing that was accepted is
// left when Close returns.
func TestCloseMeetsProducers(t *testing.T) {
	f, c := connect(t, 2, 16)
	there := func() (n int) {
		for i := range int32(16) {
			n += len(f.Records("t", i))
		}
		return n
	}
	for round := range 4 {
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		before := there()
		var stored, refused, under atomic.Int64
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for g := range 4 {
			wg.Go(func() {
				for i := range 500 {
					if i == 80*round {
						started <- struct{}{}
					}
					r := &client.Record{Topic: "t", Value: []byte("v")}
					if i%2 == 0 {
						r.Key = fmt.Appendf(nil, "%d-%d", g, i)
					}
					under.Add(1)
					p.ProduceAsync(context.Background(), r, func(_ *client.Record, err error) {
						under.Add(-1)
						switch {
						case err == nil:
							stored.Add(1)
						case errors.Is(err, client.ErrClosed):
							refused.Add(1)
						default:
							t.Errorf("round %d: %v", round, err)
						}
					})
				}
			})
		}
		for range 4 {
			<-started
		}
		if err := p.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
		atClose := stored.Load()
		wg.Wait()
		switch {
		case under.Load() != 0:
			t.Fatalf("round %d: %d records without an answer", round, under.Load())
		case stored.Load() != atClose:
			t.Fatalf("round %d: %d records were acknowledged after Close had returned", round, stored.Load()-atClose)
		case stored.Load()+refused.Load() != 4*500:
			t.Fatalf("round %d: %d stored and %d refused of %d", round, stored.Load(), refused.Load(), 4*500)
		case int64(there()-before) != stored.Load():
			t.Fatalf("round %d: %d records are there, %d were acknowledged", round, there()-before, stored.Load())
		}
	}
}
