package client_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// TestMemoryOfBatchesIsUsedAgain: batches arrive as they were made, in order and once, although their memory is used again, however often their streams are cut and they
// are sent again, to whichever broker.
func TestMemoryOfBatchesIsUsedAgain(t *testing.T) {
	f, c := connect(t, 3, 2)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	verdicts := []fakebroker.Action{fakebroker.StoreThenCut, fakebroker.Cut}
	var left, n atomic.Int64
	left.Store(25)
	pick := rng.IntN(97)
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		if k := n.Add(1); (k*31+int64(pick))%11 == 0 && left.Add(-1) >= 0 {
			return fakebroker.Verdict{Action: verdicts[k%2]}
		}
		return fakebroker.Verdict{}
	})
	before := client.FreedBatches.Load()
	p := newProducer(t, c, client.WithBatchBytes(8<<10), client.WithBufferBytes(2<<20), client.WithPartitioner(client.Manual()))
	const records = 12_000
	var failed atomic.Int64
	for i := range records {
		if i%2500 == 2499 {
			f.MoveLeader("t", int32(i%2), rng.Int32N(3))
		}
		r := manual(int32(i%2), fmt.Sprintf("%06d-%0100d", i, i))
		p.ProduceAsync(testContext(t), r, func(_ *client.Record, err error) {
			if err != nil && failed.Add(1) == 1 {
				t.Errorf("%v", err)
			}
		})
	}
	if err := p.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for part := range int32(2) {
		values := f.Values("t", part)
		if len(values) != records/2 {
			t.Fatalf("partition %d has %d records, want %d", part, len(values), records/2)
		}
		for k, v := range values {
			if i := 2*k + int(part); v != fmt.Sprintf("%06d-%0100d", i, i) {
				t.Fatalf("partition %d: record %d is %q", part, k, v)
			}
		}
	}
	if freed := client.FreedBatches.Load() - before; freed < 50 {
		t.Errorf("memory came back %d times", freed)
	}
	if left.Load() > 20 {
		t.Errorf("only %d streams were cut", 25-left.Load())
	}
}
