package client

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

func batchOf(tb testing.TB, rs ...record.Record) []byte {
	tb.Helper()
	b := record.NewBuilder(record.BuilderOptions{LeaderEpoch: 7})
	for _, r := range rs {
		if err := b.Append(r); err != nil {
			tb.Fatal(err)
		}
	}
	batch, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return batch
}

func sameRecords(n, size int) []record.Record {
	rs := make([]record.Record, n)
	for i := range rs {
		rs[i] = record.Record{Timestamp: 1000 + int64(i)/100, Value: make([]byte, size)}
	}
	return rs
}

// Each record has headers, time and content of its own, also behind the first slab.
func TestDecodedRecordsAreTheirOwn(t *testing.T) {
	const n, from = slabRecords*2 + 10, 3
	rs := make([]record.Record, n)
	for i := range rs {
		rs[i] = record.Record{
			Timestamp: int64(i / 2), Key: fmt.Append(nil, i), Value: fmt.Append(nil, i+1),
			Headers: []record.HeaderField{{Key: "n", Value: fmt.Append(nil, i+2)}},
		}
	}
	tp := TopicPartition{Topic: "t", Partition: 4}
	got, err := decodeBatch(tp, batchOf(t, rs...), from, 1<<20)
	if err != nil || len(got) != n-from {
		t.Fatalf("%d records, %v, want %d", len(got), err, n-from)
	}
	for k, r := range got {
		i := k + from
		if r.Topic != "t" || r.Partition != 4 || r.Offset != int64(i) || r.LeaderEpoch != 7 || !r.Timestamp.Equal(time.UnixMilli(int64(i/2))) {
			t.Fatalf("record %d: %+v", i, r)
		}
		if string(r.Key) != fmt.Sprint(i) || string(r.Value) != fmt.Sprint(i+1) || len(r.Headers) != 1 || string(r.Headers[0].Value) != fmt.Sprint(i+2) {
			t.Fatalf("record %d: key %q, value %q, headers %v", i, r.Key, r.Value, r.Headers)
		}
	}
}

// What Poll returns is the caller's: to append to it changes nothing that comes with the next one.
func TestPolledSliceIsTheCallers(t *testing.T) {
	k := &Consumer{cfg: consumerConfig{maxPoll: 2}}
	fs := &fetchState{records: []*Record{{Offset: 0}, {Offset: 1}, {Offset: 2}}}
	first := k.deliver(fs, nil)
	_ = append(first, &Record{Offset: 99})
	if second := k.deliver(fs, nil); len(first) != 2 || len(second) != 1 || second[0].Offset != 2 {
		t.Fatalf("%d records and then %v", len(first), second)
	}
}

// A batch of records takes a few allocations, however many there are.
func TestDecodeAllocatesSlabs(t *testing.T) {
	for _, n := range []int{10, slabRecords, 4 * slabRecords} {
		batch := batchOf(t, sameRecords(n, 20)...)
		allocs := testing.AllocsPerRun(20, func() {
			if _, err := decodeBatch(TopicPartition{Topic: "t"}, batch, 0, 1<<20); err != nil {
				t.Fatal(err)
			}
		})
		if limit := float64(6 + 2*n/slabRecords); allocs > limit {
			t.Errorf("%d records: %.0f allocations, want at most %.0f", n, allocs, limit)
		}
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			batch := batchOf(b, sameRecords(256<<10/size, size)...)
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeBatch(TopicPartition{Topic: "t"}, batch, 0, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
