package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func newProducer(t *testing.T, c *client.Client, opts ...client.ProducerOption) *client.Producer {
	t.Helper()
	p, err := c.NewProducer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(testContext(t)) })
	return p
}

// outcome collects what became of records produced asynchronously.
type outcome struct {
	mu     sync.Mutex
	errs   []error
	stored int
}

func (o *outcome) done(_ *client.Record, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.errs = append(o.errs, err)
		return
	}
	o.stored++
}

func (o *outcome) check(t *testing.T, want int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stored != want || len(o.errs) > 0 {
		t.Errorf("%d of %d stored, %d errors, the first: %v", o.stored, want, len(o.errs), append(o.errs, nil)[0])
	}
}

func manual(part int32, value string) *client.Record {
	return &client.Record{Topic: "t", Partition: part, Value: []byte(value)}
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}

// produceNumbers produces 0 to n-1 to partition 0 and flushes.
func produceNumbers(t *testing.T, p *client.Producer, n int) *outcome {
	t.Helper()
	ctx := testContext(t)
	var o outcome
	for _, v := range numbers(n) {
		p.ProduceAsync(ctx, manual(0, v), o.done)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	return &o
}

func TestProduceSetsPartitionAndOffset(t *testing.T) {
	f, c := connect(t, 3, 6)
	p := newProducer(t, c)
	for i := range 20 {
		key := []byte(fmt.Sprint("key", i))
		r := &client.Record{Topic: "t", Key: key, Value: []byte("v"), Headers: []client.Header{{Key: "h", Value: []byte("x")}}}
		if err := p.Produce(testContext(t), r); err != nil {
			t.Fatal(err)
		}
		if r.Partition != record.PartitionForKey(key, 6) {
			t.Errorf("%s went to partition %d", key, r.Partition)
		}
		got := f.Records("t", r.Partition)[r.Offset]
		if string(got.Key) != string(key) || got.Timestamp != r.Timestamp.UnixMilli() || got.Headers[0].Key != "h" {
			t.Errorf("stored %+v for %+v", got, r)
		}
	}
}

func TestStickyPartitionsShareTheLoad(t *testing.T) {
	f, c := connect(t, 3, 6)
	p := newProducer(t, c, client.WithBatchBytes(2000), client.WithLinger(time.Second))
	var o outcome
	for range 3000 {
		p.ProduceAsync(testContext(t), &client.Record{Topic: "t", Value: make([]byte, 100)}, o.done)
	}
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, 3000)
	for i := range int32(6) {
		rs, bs := len(f.Records("t", i)), f.Batches("t", i)
		if rs < 200 || rs > 1000 || rs/bs < 10 {
			t.Errorf("partition %d has %d records in %d batches", i, rs, bs)
		}
	}
}

func TestCompressionTypes(t *testing.T) {
	f, c := connect(t, 1, 1)
	for _, k := range []record.Compression{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		p := newProducer(t, c, client.WithCompression(k), client.WithPartitioner(client.Manual()))
		produceNumbers(t, p, 500).check(t, 500)
	}
	if n := len(f.Records("t", 0)); n != 2500 {
		t.Errorf("%d records", n)
	}
}

// TestOrderUnderFaults is the core promise: whatever goes wrong between, each record is stored once and in order.
func TestOrderUnderFaults(t *testing.T) {
	notLeader := fakebroker.Verdict{Action: fakebroker.Refuse, Code: pb.ErrorCode_ERROR_CODE_NOT_LEADER}
	// Made anew for each run: they count.
	faults := map[string]func() []fakebroker.Fault{
		"none":       func() []fakebroker.Fault { return nil },
		"not leader": func() []fakebroker.Fault { return []fakebroker.Fault{fakebroker.Nth(2, notLeader)} },
		"not leader twice": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(1, notLeader), fakebroker.Nth(1, notLeader)}
		},
		"stored, answer refused": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(3, fakebroker.Verdict{Action: fakebroker.StoreThenFail, Code: pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT})}
		},
		"stored, stream cut": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(2, fakebroker.Verdict{Action: fakebroker.StoreThenCut})}
		},
		"stream cut": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(1, fakebroker.Verdict{Action: fakebroker.Cut}), fakebroker.Nth(3, fakebroker.Verdict{Action: fakebroker.Cut})}
		},
		"stored, no answer": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(2, fakebroker.Verdict{Action: fakebroker.StoreThenIgnore})}
		},
		"no answer": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(2, fakebroker.Verdict{Action: fakebroker.Ignore})}
		},
		"storage full": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(1, fakebroker.Verdict{Action: fakebroker.Refuse, Code: pb.ErrorCode_ERROR_CODE_STORAGE_FULL})}
		},
		"slow": func() []fakebroker.Fault {
			return []fakebroker.Fault{fakebroker.Nth(2, fakebroker.Verdict{Delay: 100 * time.Millisecond})}
		},
	}
	for name, fs := range faults {
		for _, inFlight := range []int{1, 5} {
			t.Run(fmt.Sprint(name, " in flight ", inFlight), func(t *testing.T) {
				t.Parallel()
				f, c := connect(t, 2, 1)
				for _, x := range fs() {
					f.AddFault(x)
				}
				p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithBatchBytes(200), client.WithMaxInFlight(inFlight),
					client.WithProduceTimeout(200*time.Millisecond))
				produceNumbers(t, p, 300).check(t, 300)
				if got := f.Values("t", 0); !reflect.DeepEqual(got, numbers(300)) {
					t.Errorf("stored %d values: %v", len(got), got)
				}
			})
		}
	}
}

// TestRandomFaults mixes everything, with leaders moving and brokers killed meanwhile.
func TestRandomFaults(t *testing.T) {
	f, c := connect(t, 3, 4)
	rng := newRand(t)
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		switch x := rng.IntN(100); {
		case x < 6:
			return fakebroker.Verdict{Action: fakebroker.Action(1 + rng.IntN(6)), Code: pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT}
		case x < 9:
			return fakebroker.Verdict{Action: fakebroker.Refuse, Code: pb.ErrorCode_ERROR_CODE_NOT_LEADER}
		case x < 15:
			return fakebroker.Verdict{Delay: time.Duration(rng.IntN(5)) * time.Millisecond}
		}
		return fakebroker.Verdict{}
	})
	p := newProducer(t, c, client.WithBatchBytes(300), client.WithProduceTimeout(100*time.Millisecond), client.WithPartitioner(client.Manual()))
	var o outcome
	const n = 4000
	for i := range n {
		if i%400 == 399 {
			f.MoveLeader("t", int32(i/400%4), int32(i/100%3))
		}
		if i == n/2 {
			f.Kill(1)
			f.Restart(t, 1)
		}
		p.ProduceAsync(testContext(t), manual(int32(i%4), fmt.Sprint(i)), o.done)
	}
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, n)
	for part := range 4 {
		got := f.Values("t", int32(part))
		for j, v := range got {
			if v != fmt.Sprint(part+4*j) {
				t.Fatalf("partition %d: position %d holds %s", part, j, v)
			}
		}
		if len(got) != n/4 {
			t.Errorf("partition %d holds %d", part, len(got))
		}
	}
}

func TestRefusedBatchDoesNotStopTheOthers(t *testing.T) {
	f, c := connect(t, 1, 1)
	f.AddFault(fakebroker.Nth(3, fakebroker.Verdict{Action: fakebroker.Refuse, Code: pb.ErrorCode_ERROR_CODE_INVALID_RECORD}))
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithBatchBytes(200))
	o := produceNumbers(t, p, 200)
	if len(o.errs) == 0 || !errors.Is(o.errs[0], client.CodeInvalidRecord) || errors.Is(o.errs[0], client.ErrOutcomeUnknown) {
		t.Fatalf("errors: %v", o.errs)
	}
	got := f.Values("t", 0)
	if len(got) != o.stored || o.stored+len(o.errs) != 200 {
		t.Fatalf("%d values, %d reported stored, %d failed", len(got), o.stored, len(o.errs))
	}
	ordered(t, got)
}

// ordered checks that numbers only grow.
func ordered(t *testing.T, values []string) {
	t.Helper()
	last := -1
	for _, v := range values {
		var n int
		if _, err := fmt.Sscan(v, &n); err != nil || n <= last {
			t.Fatalf("%s after %d", v, last)
		}
		last = n
	}
}

// TestGivenUpBatch: a batch that may be stored expires; what comes after it has a new epoch.
func TestGivenUpBatch(t *testing.T) {
	for name, action := range map[string]fakebroker.Action{"stored": fakebroker.StoreThenFail, "not stored": fakebroker.Refuse} {
		t.Run(name, func(t *testing.T) {
			f, c := connect(t, 1, 1)
			f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
				return fakebroker.Verdict{Action: action, Code: pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT}
			})
			p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithDeliveryTimeout(300*time.Millisecond))
			err := p.Produce(testContext(t), manual(0, "lost"))
			if !errors.Is(err, client.ErrDeliveryTimeout) || !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, client.CodeRequestTimedOut) {
				t.Fatalf("got %v", err)
			}
			f.ClearFaults()
			for i := range 3 {
				if err := p.Produce(testContext(t), manual(0, fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			want := []string{"0", "1", "2"}
			if name == "stored" {
				want = append([]string{"lost"}, want...)
			}
			if got := f.Values("t", 0); !reflect.DeepEqual(got, want) {
				t.Errorf("stored %v, want %v", got, want)
			}
		})
	}
}

func TestNeverSentIsNotUnsure(t *testing.T) {
	f, c := connect(t, 1, 1)
	f.MoveLeader("t", 0, -1)
	p := newProducer(t, c, client.WithDeliveryTimeout(100*time.Millisecond))
	err := p.Produce(testContext(t), manual(0, "x"))
	if !errors.Is(err, client.ErrDeliveryTimeout) || errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, client.CodeLeaderNotAvailable) {
		t.Errorf("got %v", err)
	}
}

func TestForgottenProducerGoesOn(t *testing.T) {
	f, c := connect(t, 1, 1)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()))
	produceNumbers(t, p, 10).check(t, 10)
	f.ForgetProducers("t")
	produceNumbers(t, p, 10).check(t, 10)
	if got, want := f.Values("t", 0), append(numbers(10), numbers(10)...); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %v", got)
	}
}

func TestLeaderMovesAndAppears(t *testing.T) {
	f, c := connect(t, 3, 1)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()))
	for i := range 9 {
		f.MoveLeader("t", 0, int32(i%3))
		if err := p.Produce(testContext(t), manual(0, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	f.MoveLeader("t", 0, -1)
	var o outcome
	p.ProduceAsync(testContext(t), manual(0, "9"), o.done)
	f.MoveLeader("t", 0, 2)
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, 1)
	if got := f.Values("t", 0); !reflect.DeepEqual(got, numbers(10)) {
		t.Errorf("stored %v", got)
	}
}

// TestFrozenLeader: a leader that takes batches and answers nothing, while its connection stands, is left when another leads; what it may have
// stored is stored once.
func TestFrozenLeader(t *testing.T) {
	f, c := connect(t, 3, 1)
	f.MoveLeader("t", 0, 0)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err := p.Produce(testContext(t), manual(0, "0")); err != nil {
		t.Fatal(err)
	}
	var silent atomic.Int32
	f.AddFault(func(broker int32, _ *pb.ProduceRequest) fakebroker.Verdict {
		switch {
		case broker != 0:
			return fakebroker.Verdict{}
		case silent.Add(1) == 1:
			return fakebroker.Verdict{Action: fakebroker.StoreThenIgnore}
		}
		return fakebroker.Verdict{Action: fakebroker.Ignore}
	})
	var o outcome
	for i := range 2 { // both are with the frozen leader before it loses its leadership
		p.ProduceAsync(testContext(t), manual(0, fmt.Sprint(i+1)), o.done)
		eventually(t, "the leader has it", func() bool { return int(silent.Load()) == i+1 })
	}
	f.MoveLeader("t", 0, 1)
	for i := range 3 {
		p.ProduceAsync(testContext(t), manual(0, fmt.Sprint(i+3)), o.done)
	}
	if err := p.Flush(testContext(t)); err != nil { // the context ends long before requestTimeout
		t.Fatal(err)
	}
	o.check(t, 5)
	if got := f.Values("t", 0); !reflect.DeepEqual(got, numbers(6)) {
		t.Errorf("stored %v", got)
	}
}

// TestFrozenLeaderOfOneRecord: the same where nothing else is sent, so that only the suspicion itself can wake the producer.
func TestFrozenLeaderOfOneRecord(t *testing.T) {
	f, c := connect(t, 3, 1)
	f.MoveLeader("t", 0, 0)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithLinger(0))
	if err := p.Produce(testContext(t), manual(0, "0")); err != nil {
		t.Fatal(err)
	}
	var silent atomic.Int32
	f.AddFault(func(broker int32, _ *pb.ProduceRequest) fakebroker.Verdict {
		if broker != 0 {
			return fakebroker.Verdict{}
		}
		silent.Add(1)
		return fakebroker.Verdict{Action: fakebroker.Ignore}
	})
	var o outcome
	p.ProduceAsync(testContext(t), manual(0, "1"), o.done)
	eventually(t, "the leader has it", func() bool { return silent.Load() == 1 })
	f.MoveLeader("t", 0, 1)
	eventually(t, "the record is acknowledged", func() bool { return len(f.Values("t", 0)) == 2 })
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, 1)
}

func TestBufferIsBounded(t *testing.T) {
	f, c := connect(t, 1, 1)
	if _, err := c.Partitions(testContext(t), "t"); err != nil { // WithMaxBlock bounds looking the topic up, too
		t.Fatal(err)
	}
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		return fakebroker.Verdict{Action: fakebroker.Ignore}
	})
	p := newProducer(t, c, client.WithBufferBytes(20_000), client.WithBatchBytes(5000), client.WithMaxRecordBytes(10_000), client.WithMaxBlock(100*time.Millisecond),
		client.WithProduceTimeout(300*time.Millisecond), client.WithLinger(time.Hour), client.WithPartitioner(client.Manual()))
	var o outcome
	full := make(chan error, 100)
	for range 100 {
		p.ProduceAsync(testContext(t), &client.Record{Topic: "t", Value: make([]byte, 1000)}, func(r *client.Record, err error) {
			if errors.Is(err, client.ErrBufferFull) {
				full <- err
				return
			}
			o.done(r, err)
		})
		if len(full) > 0 {
			break
		}
	}
	if len(full) == 0 {
		t.Fatal("100 KB were accepted into 20 KB")
	}
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := p.Produce(ctx, &client.Record{Topic: "t", Value: make([]byte, 5000)}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
	f.ClearFaults()
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o.check(t, len(f.Records("t", 0)))
	if err := p.Produce(testContext(t), manual(0, "room again")); err != nil {
		t.Error(err)
	}
}

func TestProduceErrors(t *testing.T) {
	_, c := connect(t, 1, 2)
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithMaxRecordBytes(1000))
	for name, x := range map[string]struct {
		r    *client.Record
		want error
	}{
		"no such partition": {manual(2, "x"), client.CodeUnknownTopicOrPartition},
		"no such topic":     {&client.Record{Topic: "other"}, client.CodeUnknownTopicOrPartition},
		"too large":         {&client.Record{Topic: "t", Value: make([]byte, 1000)}, client.CodeMessageTooLarge},
	} {
		if err := p.Produce(testContext(t), x.r); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(testContext(t), manual(0, "x")); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for _, o := range []client.ProducerOption{client.WithMaxInFlight(6), client.WithBatchBytes(0), client.WithDeliveryTimeout(0), client.WithBufferBytes(100), client.WithPartitioner(nil)} {
		if _, err := c.NewProducer(o); err == nil {
			t.Error("an impossible option is accepted")
		}
	}
}

func TestCloseFailsWhatIsLeft(t *testing.T) {
	f, c := connect(t, 1, 1)
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		return fakebroker.Verdict{Action: fakebroker.Ignore}
	})
	p := newProducer(t, c)
	var o outcome
	p.ProduceAsync(testContext(t), manual(0, "x"), o.done)
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if len(o.errs) != 1 || !errors.Is(o.errs[0], client.ErrClosed) || !errors.Is(o.errs[0], client.ErrOutcomeUnknown) {
		t.Errorf("callback: %v", o.errs)
	}
}

func TestAppend(t *testing.T) {
	f, c := connect(t, 2, 1)
	p := newProducer(t, c)
	ctx := testContext(t)
	rs := []*client.Record{{Value: []byte("a")}, {Value: []byte("b")}}
	if r, err := p.Append(ctx, "t", 0, rs, client.ExpectOffset(0)); err != nil || r.BaseOffset != 0 || rs[1].Offset != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err := p.Append(ctx, "t", 0, rs, client.ExpectOffset(0))
	var e *client.Error
	if !errors.As(err, &e) || e.Code != client.CodeExpectedOffsetMismatch || e.HighWatermark != 2 {
		t.Fatalf("got %v", err)
	}
	f.AddFault(fakebroker.Nth(1, fakebroker.Verdict{Action: fakebroker.StoreThenCut}))
	r, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("c")}}, client.ExpectOffset(2))
	if err != nil || r.BaseOffset != 2 || !r.Duplicate {
		t.Fatalf("after a lost answer: %+v, %v", r, err)
	}
	f.MoveLeader("t", 0, 1)
	if r, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("d")}}); err != nil || r.BaseOffset != 3 {
		t.Fatalf("after a move: %+v, %v", r, err)
	}
	if got := f.Values("t", 0); !reflect.DeepEqual(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("stored %v", got)
	}
}

func TestGrowingTopic(t *testing.T) {
	f, c := connect(t, 1, 1, client.WithMetadataMaxAge(20*time.Millisecond))
	p := newProducer(t, c)
	if err := p.Produce(testContext(t), &client.Record{Topic: "t", Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	f.CreateTopic("t", 8)
	eventually(t, "a record in a new partition", func() bool {
		r := &client.Record{Topic: "t", Key: []byte("k")}
		return p.Produce(testContext(t), r) == nil && r.Partition == record.PartitionForKey([]byte("k"), 8)
	})
}

// TestFollowersOfAGivenUpBatch: a batch of unknown outcome follows one that was given up with unknown outcome. Only asking again under its old
// sequence number tells whether it is stored.
func TestFollowersOfAGivenUpBatch(t *testing.T) {
	for name, action := range map[string]fakebroker.Action{"stored": fakebroker.StoreThenFail, "not stored": fakebroker.Refuse} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // a busy machine may not give the second batch the time that it needs between the end of the first one and its own
				if followGivenUp(t, action) {
					return
				}
			}
			t.Error("the second batch was given up as well, time and again")
		})
	}
}

// followGivenUp returns false if nothing can be said because time was too short.
func followGivenUp(t *testing.T, action fakebroker.Action) bool {
	t.Helper()
	f, c := connect(t, 1, 1)
	var tries atomic.Int32
	f.AddFault(func(int32, *pb.ProduceRequest) fakebroker.Verdict {
		tries.Add(1)
		return fakebroker.Verdict{Action: action, Code: pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT}
	})
	p := newProducer(t, c, client.WithPartitioner(client.Manual()), client.WithDeliveryTimeout(time.Second), client.WithLinger(0))
	first, second := make(chan error, 1), make(chan error, 1)
	p.ProduceAsync(testContext(t), manual(0, "first"), func(_ *client.Record, err error) { first <- err })
	// With the backoffs between them, that takes 200 ms at least: so much longer lives the second one.
	eventually(t, "twelve tries", func() bool { return tries.Load() >= 12 || len(first) > 0 })
	p.ProduceAsync(testContext(t), manual(0, "second"), func(_ *client.Record, err error) { second <- err })
	if err := <-first; !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Fatalf("first: %v", err)
	}
	f.ClearFaults()
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-second; errors.Is(err, client.ErrDeliveryTimeout) {
		return false
	} else if err != nil {
		t.Fatalf("second: %v", err)
	}
	o := produceNumbers(t, p, 3)
	if slices.ContainsFunc(o.errs, func(err error) bool { return errors.Is(err, client.ErrDeliveryTimeout) }) {
		return false
	}
	o.check(t, 3)
	want := append([]string{"second"}, numbers(3)...)
	if action == fakebroker.StoreThenFail {
		want = append([]string{"first"}, want...)
	}
	if got := f.Values("t", 0); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	return true
}

func BenchmarkProduceAsync(b *testing.B) {
	f := fakebroker.Start(b, 3)
	f.CreateTopic("t", 12)
	c, err := client.New(f.Addrs())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer()
	if err != nil {
		b.Fatal(err)
	}
	value, ctx := make([]byte, 100), context.Background()
	b.SetBytes(100)
	b.ReportAllocs()
	for b.Loop() {
		p.ProduceAsync(ctx, &client.Record{Topic: "t", Value: value}, nil)
	}
	if err := p.Close(ctx); err != nil {
		b.Fatal(err)
	}
}
