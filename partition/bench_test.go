package partition

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
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

// BenchmarkIdle opens 100 groups of three replicas in one process and reports what they cost while nothing happens.
func BenchmarkIdle(b *testing.B) {
	const groups = 100
	c := newCluster(b, 3, onDisk(b))
	var more []*Replica
	for g := range groups - 1 {
		for _, n := range c.nodes {
			cfg := n.config()
			cfg.Group, cfg.Dir = transport.GroupID(100+g), filepath.Join(cfg.Dir, "..", fmt.Sprintf("%s-%d", n.server.ID, g))
			cfg.Stable, cfg.Timing = raft.NewInmemStore(), Timing{}
			r, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			more = append(more, r)
			if err := r.Bootstrap(context.Background(), []raft.Server{c.nodes[0].server, c.nodes[1].server, c.nodes[2].server}); err != nil {
				b.Fatal(err)
			}
		}
	}
	c.eventually("all groups have leaders", func() bool {
		leaders := 0
		for _, r := range more {
			if r.IsLeader() {
				leaders++
			}
		}
		return leaders == groups-1
	})
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	cpu, at := cpuTime(b), time.Now()
	for b.Loop() {
		<-time.After(3 * time.Second)
	}
	b.ReportMetric((cpuTime(b)-cpu).Seconds()/time.Since(at).Seconds()*100, "cpu-%")
	b.ReportMetric(float64(mem.HeapInuse+mem.StackInuse)/1024/groups/3, "KiB/replica")
	b.ReportMetric(float64(runtime.NumGoroutine())/groups/3, "goroutines/replica")
	var wg sync.WaitGroup
	for _, r := range more {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			r.Close(ctx)
		})
	}
	wg.Wait()
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
