package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

func newConsumer(t *testing.T, c *client.Client, opts ...client.ConsumerOption) *client.Consumer {
	t.Helper()
	k, err := c.NewConsumer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// fill stores numbers, batch by batch, in a partition.
func fill(f *fakebroker.Cluster, part int32, batches, each int, opts ...recordtest.Option) {
	for b := range batches {
		at := recordtest.Time(int64(recordtest.Timestamp + b*each))
		value := recordtest.Values(func(i int) []byte { return []byte(fmt.Sprint(b*each + i)) })
		f.Append("t", part, recordtest.Batch(each, 0, append(opts, value, at)...))
	}
}

type poller interface {
	Poll(context.Context) ([]*client.Record, error)
}

// pollN polls until there are n records.
func pollN(t *testing.T, k poller, n int) []*client.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), patience)
	defer cancel()
	var out []*client.Record
	for len(out) < n {
		rs, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(out), n, err)
		}
		out = append(out, rs...)
	}
	if len(out) > n {
		t.Fatalf("%d records, wanted %d", len(out), n)
	}
	return out
}

func valuesOf(rs []*client.Record) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = string(r.Value)
	}
	return out
}

// nothingMore makes sure that no record follows, as far as 50 ms tell.
func nothingMore(t *testing.T, k poller) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if rs, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%d records more, %v", len(rs), err)
	}
}

func at(part int32, p client.Position) client.Assignment {
	return client.Assignment{Topic: "t", Partition: part, Start: p}
}

func TestConsumePositions(t *testing.T) {
	f, c := connect(t, 2, 1)
	fill(f, 0, 10, 10, recordtest.Compression(record.Zstd))
	f.TrimTo("t", 0, 15)
	for name, x := range map[string]struct {
		from  client.Position
		first int
	}{
		"earliest":           {client.Earliest(), 15},
		"zero":               {client.Position{}, 15},
		"offset in a batch":  {client.AtOffset(37), 37},
		"time":               {client.AtTime(time.UnixMilli(recordtest.Timestamp + 42)), 42},
		"last 7":             {client.FromEnd(7), 93},
		"last more than all": {client.FromEnd(1000), 15},
	} {
		t.Run(name, func(t *testing.T) {
			k := newConsumer(t, c)
			if err := k.Assign(at(0, x.from)); err != nil {
				t.Fatal(err)
			}
			rs := pollN(t, k, 100-x.first)
			if got := valuesOf(rs); !reflect.DeepEqual(got, numbers(100)[x.first:]) {
				t.Errorf("got %v", got)
			}
			r := rs[0]
			if r.Offset != int64(x.first) || r.Timestamp.UnixMilli() != recordtest.Timestamp+int64(x.first) || r.LeaderEpoch != 1 || r.Topic != "t" {
				t.Errorf("first record %+v", r)
			}
			if pos, ok := k.Position(r.TopicPartition()); !ok || pos != 100 {
				t.Errorf("position %d, %v", pos, ok)
			}
			if hw, ok := k.HighWatermark(r.TopicPartition()); !ok || hw != 100 {
				t.Errorf("high watermark %d, %v", hw, ok)
			}
		})
	}
}

func TestConsumeLatestWaits(t *testing.T) {
	for name, p := range map[string]client.Position{"latest": client.Latest(), "future time": client.AtTime(time.Now().Add(time.Hour))} {
		t.Run(name, func(t *testing.T) {
			f, c := connect(t, 1, 1)
			fill(f, 0, 1, 10)
			k := newConsumer(t, c)
			if err := k.AssignTopic(testContext(t), "t", p); err != nil {
				t.Fatal(err)
			}
			nothingMore(t, k)
			fill(f, 0, 1, 3)
			if rs := pollN(t, k, 3); rs[0].Offset != 10 {
				t.Errorf("first offset %d", rs[0].Offset)
			}
		})
	}
}

// TestConsumeUnderFaults: leaders move, streams break and bytes are damaged on the way; each record comes once and in order.
func TestConsumeUnderFaults(t *testing.T) {
	f, c := connect(t, 3, 3)
	for part := range int32(3) {
		fill(f, part, 100, 20)
	}
	k := newConsumer(t, c, client.WithPrefetchBytes(2000), client.WithPartitionBytes(700), client.WithMaxPollRecords(33))
	if err := k.AssignTopic(testContext(t), "t", client.Earliest()); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t)
	next, damages := map[int32]int64{}, 2 // a third one in the same place would be an error
	for n := 0; n < 6000; {
		switch rng.IntN(12) {
		case 0:
			f.MoveLeader("t", rng.Int32N(3), rng.Int32N(3))
		case 1:
			f.CutFetches()
		case 2:
			if damages--; damages >= 0 {
				f.CorruptNext(1)
			}
		}
		rs, err := k.Poll(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) > 33 {
			t.Fatalf("%d records from one Poll", len(rs))
		}
		for _, r := range rs {
			if r.Offset != next[r.Partition] || string(r.Value) != fmt.Sprint(r.Offset) {
				t.Fatalf("partition %d: offset %d value %s, want %d", r.Partition, r.Offset, r.Value, next[r.Partition])
			}
			next[r.Partition]++
		}
		n += len(rs)
	}
	nothingMore(t, k)
}

// TestFrozenLeaderOfConsumer: a leader that brings nothing while its connection stands is left when another leads.
func TestFrozenLeaderOfConsumer(t *testing.T) {
	f, c := connect(t, 3, 1)
	f.MoveLeader("t", 0, 0)
	fill(f, 0, 1, 10)
	k := newConsumer(t, c)
	if err := k.Assign(at(0, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	pollN(t, k, 10)
	f.MuteFetches(0)
	f.MoveLeader("t", 0, 1)
	f.Append("t", 0, recordtest.Batch(1, 0, recordtest.Values(func(int) []byte { return []byte("10") })))
	if got := valuesOf(pollN(t, k, 1)); got[0] != "10" { // within less than requestTimeout
		t.Errorf("got %v", got)
	}
}

func TestPrefetchIsBounded(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 200, 20)
	const limit = 5000
	k := newConsumer(t, c, client.WithPrefetchBytes(limit), client.WithPartitionBytes(1000))
	if err := k.Assign(at(0, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the prefetch buffer is full", func() bool { return f.SentBytes() >= limit })
	for range 5 { // broken streams must not add up
		before := f.Fetches()
		f.CutFetches()
		eventually(t, "another stream begins to read", func() bool { return f.Fetches() > before })
	}
	if got := f.SentBytes(); got > limit+1000 {
		t.Fatalf("%d bytes were sent for a limit of %d", got, limit)
	}
	if got := valuesOf(pollN(t, k, 4000)); !reflect.DeepEqual(got, numbers(4000)) {
		t.Error("records are missing or out of order")
	}
}

func TestPauseResumeSeekUnassign(t *testing.T) {
	f, c := connect(t, 2, 2)
	fill(f, 0, 5, 10)
	fill(f, 1, 5, 10)
	k := newConsumer(t, c, client.WithMaxPollRecords(10))
	zero, one := client.TopicPartition{Topic: "t"}, client.TopicPartition{Topic: "t", Partition: 1}
	if err := k.Assign(at(0, client.Earliest()), at(1, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	k.Pause(one)
	for _, r := range pollN(t, k, 50) {
		if r.Partition != 0 {
			t.Fatal("a record of a paused partition")
		}
	}
	nothingMore(t, k)
	k.Resume(one)
	if got := valuesOf(pollN(t, k, 50)); !reflect.DeepEqual(got, numbers(50)) {
		t.Errorf("after Resume: %v", got)
	}
	if err := k.Seek(zero, client.AtOffset(45)); err != nil {
		t.Fatal(err)
	}
	if got := valuesOf(pollN(t, k, 5)); !reflect.DeepEqual(got, numbers(50)[45:]) {
		t.Errorf("after Seek: %v", got)
	}
	k.Unassign(zero)
	if got := k.Assigned(); !reflect.DeepEqual(got, []client.TopicPartition{one}) {
		t.Errorf("assigned: %v", got)
	}
	if err := k.Seek(zero, client.Earliest()); !errors.Is(err, client.ErrNotAssigned) {
		t.Errorf("seek in an unassigned partition: %v", err)
	}
	fill(f, 0, 1, 1)
	nothingMore(t, k)
}

func TestOffsetOutOfRange(t *testing.T) {
	f, c := connect(t, 1, 2)
	fill(f, 0, 5, 10)
	fill(f, 1, 5, 10)
	f.TrimTo("t", 0, 20)
	k := newConsumer(t, c)
	if err := k.Assign(at(0, client.AtOffset(5)), at(1, client.AtOffset(45))); err != nil {
		t.Fatal(err)
	}
	var e *client.Error
	var got []*client.Record
	for e == nil {
		rs, err := k.Poll(testContext(t))
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		got = append(got, rs...)
	}
	if e.Code != client.CodeOffsetOutOfRange || e.Partition != 0 || e.Topic != "t" || e.LogStartOffset != 20 || e.HighWatermark != 50 {
		t.Errorf("error %+v", e)
	}
	if len(got) < 5 {
		pollN(t, k, 5-len(got))
	}
	if err := k.Seek(client.TopicPartition{Topic: "t"}, client.AtOffset(e.LogStartOffset)); err != nil {
		t.Fatal(err)
	}
	pollN(t, k, 30)

	reset := newConsumer(t, c, client.WithReset(client.Earliest()))
	if err := reset.Assign(at(0, client.AtOffset(1000))); err != nil {
		t.Fatal(err)
	}
	if rs := pollN(t, reset, 30); rs[0].Offset != 20 {
		t.Errorf("after the reset: offset %d", rs[0].Offset)
	}
}

func TestDamagedForGood(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 1, 10)
	f.CorruptNext(1000)
	k := newConsumer(t, c)
	if err := k.Assign(at(0, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	if rs, err := k.Poll(testContext(t)); !errors.Is(err, client.CodeCorruptBatch) {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	nothingMore(t, k)
}

func TestControlBatchesAreNotShown(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 1, 3)
	f.Append("t", 0, recordtest.Batch(1, 5, recordtest.Attributes(0x30)))
	fill(f, 0, 1, 3)
	f.Append("t", 0, recordtest.Batch(1, 5, recordtest.Attributes(0x30)))
	k := newConsumer(t, c)
	if err := k.Assign(at(0, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	pollN(t, k, 6)
	nothingMore(t, k)
	if pos, _ := k.Position(client.TopicPartition{Topic: "t"}); pos != 8 {
		t.Errorf("position %d", pos)
	}
}

func TestConsumerClosed(t *testing.T) {
	_, c := connect(t, 1, 1)
	k := newConsumer(t, c)
	polled := make(chan error)
	go func() {
		_, err := k.Poll(context.Background())
		polled <- err
	}()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-polled; !errors.Is(err, client.ErrClosed) {
		t.Errorf("Poll: %v", err)
	}
	if err := k.Assign(at(0, client.Earliest())); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Assign: %v", err)
	}
}

func TestNoSuchPartitionIsReported(t *testing.T) {
	_, c := connect(t, 1, 1)
	k := newConsumer(t, c)
	if err := k.Assign(at(3, client.AtOffset(0))); err != nil {
		t.Fatal(err)
	}
	if rs, err := k.Poll(testContext(t)); !errors.Is(err, client.CodeUnknownTopicOrPartition) || len(rs) > 0 {
		t.Errorf("%d records, %v", len(rs), err)
	}
}

func TestTopicAppearsLater(t *testing.T) {
	f, c := connect(t, 1, 1)
	k := newConsumer(t, c)
	if err := k.Assign(client.Assignment{Topic: "later"}); err != nil {
		t.Fatal(err)
	}
	nothingMore(t, k)
	f.CreateTopic("later", 1)
	f.Append("later", 0, recordtest.Batch(4, 10))
	pollN(t, k, 4)
}

// TestSeekLeavesNothingBehind seeks while data is on its way: what comes next is what was asked for.
func TestSeekLeavesNothingBehind(t *testing.T) {
	f, c := connect(t, 1, 1)
	fill(f, 0, 500, 10)
	k := newConsumer(t, c, client.WithPrefetchBytes(3000), client.WithPartitionBytes(400), client.WithMaxPollRecords(10))
	if err := k.Assign(at(0, client.Earliest())); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t)
	for range 400 {
		want := rng.Int64N(4000)
		if err := k.Seek(client.TopicPartition{Topic: "t"}, client.AtOffset(want)); err != nil {
			t.Fatal(err)
		}
		for range rng.IntN(20) {
			rs, err := k.Poll(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs {
				if r.Offset != want {
					t.Fatalf("offset %d, want %d", r.Offset, want)
				}
				want++
			}
		}
	}
}
