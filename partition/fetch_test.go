package partition

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

type fetched struct {
	res ReadResult
	err error
}

func fetchAsync(ctx context.Context, r *Replica, req FetchRequest) <-chan fetched {
	ch := make(chan fetched, 1)
	go func() {
		res, err := r.Fetch(ctx, req)
		ch <- fetched{res, err}
	}()
	return ch
}

func (r *Replica) waiting() int {
	r.watchers.mu.Lock()
	defer r.watchers.mu.Unlock()
	return len(r.watchers.waits)
}

func TestFetchWaitsForCommits(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(2, 100)
	r := c.leader().rep
	if res, err := r.Fetch(testContext(t), FetchRequest{Offset: 0, MaxBytes: 1 << 20, MinBytes: 1}); err != nil || len(res.Batches) != 2 || res.Next != 2 {
		t.Fatalf("what is there: %+v, %v", res, err)
	}
	if res, err := r.Fetch(testContext(t), FetchRequest{Offset: 0, MaxBytes: 1, MinBytes: 1 << 20, MaxWait: time.Hour}); err != nil || len(res.Batches) != 1 {
		t.Fatalf("MinBytes above MaxBytes: %+v, %v", res, err)
	}
	got := fetchAsync(testContext(t), r, FetchRequest{Offset: 2, MaxBytes: 1 << 20, MinBytes: 1, MaxWait: time.Hour})
	c.eventually("the fetch waits", func() bool { return r.waiting() == 1 })
	c.fill(1, 100)
	if f := <-got; f.err != nil || len(f.res.Batches) != 1 || f.res.Next != 3 || f.res.HighWatermark != 3 {
		t.Errorf("woken: %+v", f)
	}
	got = fetchAsync(testContext(t), r, FetchRequest{Offset: 3, MaxBytes: 1 << 20, MinBytes: 400, MaxWait: time.Hour})
	c.fill(5, 100)
	if f := <-got; f.err != nil || f.res.Bytes < 400 || f.res.Bytes > 800 {
		t.Errorf("at least 400 bytes: %d bytes, %v", f.res.Bytes, f.err)
	}
	if res, err := r.Fetch(testContext(t), FetchRequest{Offset: 8, MaxBytes: 1 << 20, MinBytes: 1, MaxWait: 10 * time.Millisecond}); err != nil || len(res.Batches) != 0 || res.Next != 8 {
		t.Errorf("nothing within the wait: %+v, %v", res, err)
	}
	if r.waiting() != 0 {
		t.Errorf("%d waiters are left", r.waiting())
	}
}

func TestFetchEndsWhenLeadershipDoes(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(1, 10)
	leader := c.leader()
	got := fetchAsync(testContext(t), leader.rep, FetchRequest{Offset: 1, MaxBytes: 100, MaxWait: time.Hour})
	c.eventually("the fetch waits", func() bool { return leader.rep.waiting() == 1 })
	c.isolate(leader)
	if f := <-got; !errors.Is(f.err, ErrNotLeader) {
		t.Errorf("fetch: %+v", f)
	}
	if _, err := leader.rep.ReadLocal(0, 100); err != nil {
		t.Errorf("a local read: %v", err)
	}
}

func TestFetchEndsAtCloseAndCancel(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(1, 10)
	r := c.leader().rep
	ctx, cancel := context.WithCancel(testContext(t))
	got := fetchAsync(ctx, r, FetchRequest{Offset: 1, MaxBytes: 100, MaxWait: time.Hour})
	c.eventually("the fetch waits", func() bool { return r.waiting() == 1 })
	cancel()
	if f := <-got; !errors.Is(f.err, context.Canceled) {
		t.Errorf("cancelled: %+v", f)
	}
	got = fetchAsync(testContext(t), r, FetchRequest{Offset: 1, MaxBytes: 100, MaxWait: time.Hour})
	c.eventually("the fetch waits", func() bool { return r.waiting() == 1 })
	c.nodes[0].stop()
	if f := <-got; f.err == nil {
		t.Errorf("closed: %+v", f)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Limits.Watchers = 2 })
	r := c.leader().rep
	woken := make(chan struct{}, 1)
	defer r.Watch(0, woken)()
	defer r.Watch(0, woken)()
	began := time.Now()
	defer r.Watch(0, woken)()
	<-woken // told to poll
	if d := time.Since(began); d < overflowPoll {
		t.Errorf("after %s: its caller would do nothing else", d)
	}
	if n := r.waiting(); n != 2 {
		t.Errorf("%d are in the list", n)
	}
}

func TestOffsetsByTime(t *testing.T) {
	c := newCluster(t, 1)
	c.mustAppend(recordtest.Batch(3, 10, recordtest.Time(1000))) // 0..2: 1000, 1001, 1002
	c.mustAppend(recordtest.Batch(2, 10, recordtest.Time(5000))) // 3..4: 5000, 5001
	c.mustAppend(recordtest.Batch(2, 10, recordtest.Time(2000))) // 5..6: late ones
	r := c.leader().rep
	check := func(ms int64, want record.Offset, wantTs int64) {
		t.Helper()
		off, ts, found, err := r.OffsetForTimestamp(ms)
		if err != nil || off != want || ts != wantTs || found != (want >= 0) {
			t.Errorf("at %d ms: offset %d with %d (%v, %v), want %d with %d", ms, off, ts, found, err, want, wantTs)
		}
	}
	check(0, 0, 1000)
	check(1001, 1, 1001)
	check(1003, 3, 5000)
	check(5001, 4, 5001)
	check(5002, -1, -1)
	if off, ts, found, err := r.MaxTimestamp(); off != 4 || ts != 5001 || !found || err != nil {
		t.Errorf("largest: offset %d with %d (%v, %v)", off, ts, found, err)
	}
	if _, err := r.DeleteRecords(testContext(t), 4); err != nil {
		t.Fatal(err)
	}
	check(0, 4, 5001)
	if _, err := r.DeleteRecords(testContext(t), 5); err != nil {
		t.Fatal(err)
	}
	check(0, 5, 2000)
	check(3000, -1, -1)
	if _, err := r.DeleteRecords(testContext(t), -1); err != nil {
		t.Fatal(err)
	}
	if _, _, found, err := r.MaxTimestamp(); found || err != nil {
		t.Errorf("of an empty partition: %v, %v", found, err)
	}
}
