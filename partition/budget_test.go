package partition

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if n, err := b.acquire(ctx, 1000, 1000); n != 100 || err != nil {
			t.Fatalf("what is larger than the budget counts as all of it: %d, %v", n, err)
		}
		var order []string
		var mu sync.Mutex
		take := func(name string, n int64) {
			if _, err := b.acquire(ctx, n, n); err != nil {
				name += " failed"
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
		}
		go take("large", 90)
		synctest.Wait()
		go take("small", 5)
		synctest.Wait()
		if _, err := b.acquire(ctx, 1, 1); !errors.Is(err, ErrThrottled) {
			t.Errorf("a third waiter: %v", err)
		}
		b.release(10)
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%v went before its turn", order)
		}
		b.release(90)
		synctest.Wait()
		if len(order) != 2 {
			t.Errorf("got through: %v", order)
		}
		go take("cancelled", 50)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if order[2] != "cancelled failed" {
			t.Errorf("got through: %v", order)
		}
	})
}

// What waits is bounded in bytes as well: no more than the budget itself.
func TestBudgetBoundsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100, 1000)
		if _, err := b.acquire(t.Context(), 100, 100); err != nil {
			t.Fatal(err)
		}
		var through atomic.Int64
		for range 10 {
			go func() {
				if _, err := b.acquire(t.Context(), 50, 10); err == nil { // charged for more than it holds
					through.Add(1)
				}
			}()
		}
		synctest.Wait()
		if _, err := b.acquire(t.Context(), 50, 10); !errors.Is(err, ErrThrottled) {
			t.Errorf("with 100 bytes waiting: %v", err)
		}
		b.release(100)
		synctest.Wait()
		for range 4 {
			b.release(100)
			synctest.Wait()
		}
		if through.Load() != 10 || b.waitingBytes.Load() != 0 || b.waiting.Load() != 0 {
			t.Errorf("%d got through, %d bytes wait", through.Load(), b.waitingBytes.Load())
		}
	})
}

// Batches are decompressed a few at a time.
func TestDecodersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100, 10)
		var running, most atomic.Int64
		gate := make(chan struct{})
		for range 3 * decodersMax {
			go func() {
				_ = b.decode(t.Context(), func() error {
					most.Store(max(most.Load(), running.Add(1)))
					<-gate
					running.Add(-1)
					return nil
				})
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.decode(ctx, func() error { t.Error("out of turn"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gave up: %v", err)
		}
		close(gate)
		synctest.Wait()
		if n := most.Load(); n > decodersMax || n > int64(cap(b.decoders)) || running.Load() != 0 {
			t.Errorf("%d at a time, %d are left", n, running.Load())
		}
	})
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seq, r, _ := newTestSequencer()
		seq.budget, seq.least = NewBudget(10_000, 100), 1000
		r.term = 1
		seq.lead(1)
		synctest.Wait()
		r.commit(1)
		synctest.Wait()
		var entered atomic.Int64
		for range 25 {
			go func() {
				release, err := seq.charge(context.Background(), 10)
				if err != nil {
					t.Error(err)
					return
				}
				b := recordtest.Batch(1, 10)
				h, _ := record.ParseHeader(b)
				entered.Add(1)
				if err := seq.submit(context.Background(), submission{data: b, batch: true, header: h, reply: func(proposalResult) { release() }}); err != nil {
					t.Error(err)
				}
			}()
		}
		for _, want := range []int64{10, 14, 25} {
			synctest.Wait()
			if got := entered.Load(); got != want {
				t.Fatalf("%d batches are or were in flight, want %d", got, want)
			}
			for range map[int64]int{10: 4, 14: 25, 25: 25}[want] {
				r.commit(1)
				if want != 10 {
					synctest.Wait()
				}
			}
		}
		seq.close(ErrClosed)
		seq.wg.Wait()
	})
}
