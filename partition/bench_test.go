package partition

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// instantRaft commits each proposal at once.
type instantRaft struct {
	fakeRaft
	at time.Time
}

type instantFuture struct{ res any }

func (f instantFuture) Error() error  { return nil }
func (f instantFuture) Response() any { return f.res }

func (r *instantRaft) barrier() future { return instantFuture{} }
func (r *instantRaft) propose(data []byte) future {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.index++
	res, err := r.state.apply(&raft.Log{Index: r.index, Term: 1, Data: data, AppendedAt: r.at})
	if err != nil {
		panic(err)
	}
	return instantFuture{res}
}

// BenchmarkSequencer is what the sequencer and the state machine cost per batch, without a log and without raft.
func BenchmarkSequencer(b *testing.B) {
	for _, idempotent := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "idempotent"}[idempotent], func(b *testing.B) {
			seq, fake, _ := newTestSequencer()
			ir := &instantRaft{fakeRaft: fakeRaft{state: fake.state, term: 1}, at: time.Unix(1, 0)}
			ready := make(chan uint64, 1)
			seq.raft, seq.opened = ir, func(t uint64) { ready <- t }
			seq.lead(1)
			<-ready
			batch := recordtest.Batch(10, 100, recordtest.Producer(1, 0, 0))
			h, _ := record.ParseHeader(batch)
			if !idempotent {
				h.ProducerID = -1
			}
			done := make(chan struct{}, 1)
			b.ReportAllocs()
			for b.Loop() {
				if err := seq.submit(context.Background(), submission{data: batch, batch: true, header: h, reply: func(proposalResult) { done <- struct{}{} }}); err != nil {
					b.Fatal(err)
				}
				<-done
				h.BaseSequence = record.AddSequence(h.BaseSequence, h.Count)
				record.SetProducer(batch, h.ProducerID, 0, h.BaseSequence)
			}
			seq.close(ErrClosed)
			seq.wg.Wait()
		})
	}
}

// onDisk puts the replicas on the real file system.
func onDisk(b *testing.B) func(*Config) {
	dir := b.TempDir()
	return func(c *Config) {
		c.FS, c.Dir = vfs.OS(), filepath.Join(dir, string(c.LocalID))
		c.Timing = Timing{Commit: 50 * time.Millisecond}
		c.Limits.ReserveBytes = -1
	}
}

// BenchmarkAppend appends to three replicas on one disk, over loopback, from 32 callers.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(map[int]string{1 << 10: "1KiB", 64 << 10: "64KiB"}[size], func(b *testing.B) {
			c := newCluster(b, 3, onDisk(b))
			r := c.leader().rep
			batch := recordtest.Batch(1, size)
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			next, failed := make(chan struct{}), atomic.Bool{}
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for range next {
						if _, err := r.Append(context.Background(), AppendRequest{Batch: bytes.Clone(batch)}); err != nil && failed.CompareAndSwap(false, true) {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				next <- struct{}{}
			}
			close(next)
			wg.Wait()
		})
	}
}

// BenchmarkRead reads a megabyte at a time.
func BenchmarkRead(b *testing.B) {
	c := newCluster(b, 1, onDisk(b))
	for range 64 {
		c.mustAppend(recordtest.Batch(10, 6<<10))
	}
	r := c.leader().rep
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if res, err := r.Read(5, 1<<20); err != nil || res.Bytes == 0 {
			b.Fatalf("%+v, %v", res, err)
		}
	}
}
