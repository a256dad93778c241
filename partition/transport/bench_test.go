package transport

import (
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// BenchmarkIdleGroups is what 300 idle groups on three brokers cost: cores is the CPU time of all three brokers per second, with
// heartbeats every 100 to 200 ms and empty appends every 0.4 to 0.8 s.
func BenchmarkIdleGroups(b *testing.B) {
	const groups = 300
	f, trs := threeBrokers(b)
	all := make([][]*member, groups)
	for id := range all {
		for _, tr := range trs {
			all[id] = append(all[id], f.join(tr, GroupID(id), GroupOptions{}, servers("1", "2", "3"), func(c *raft.Config) {
				c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Second, time.Second, 800*time.Millisecond
				c.CommitTimeout = 400 * time.Millisecond
			}))
		}
	}
	for _, ms := range all {
		leaderOf(b, ms...)
	}
	const span = 4 * time.Second
	before, start := sum(trs), cpuTime()
	b.ResetTimer()
	for range b.N {
		wait := time.NewTimer(span)
		<-wait.C
	}
	b.StopTimer()
	seconds := span.Seconds() * float64(b.N)
	after := sum(trs)
	b.ReportMetric((cpuTime()-start).Seconds()/seconds, "cores")
	b.ReportMetric(float64(after.Heartbeats-before.Heartbeats)/seconds, "heartbeats+replies/s")
	b.ReportMetric(float64(after.HeartbeatFrames-before.HeartbeatFrames)/seconds, "heartbeat-frames/s")
	b.ReportMetric(float64(after.Writes-before.Writes)/seconds, "writes/s")
	b.ReportMetric(float64(runtime.NumGoroutine())/groups/3, "goroutines/replica")
}

func sum(trs []*Transport) (s Stats) {
	for _, tr := range trs {
		x := tr.Stats()
		s.Heartbeats += x.Heartbeats
		s.HeartbeatFrames += x.HeartbeatFrames
		s.Writes += x.Writes
	}
	return s
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPipeline is the transport's share of replication: entries of 64 KiB through a pipeline whose follower answers at
// once. Allocations are those of both sides.
func BenchmarkPipeline(b *testing.B) {
	f := newFleet(b)
	a, c := f.start("1"), f.start("2")
	leader, follower := f.group(a, 1, GroupOptions{}), f.group(c, 1, GroupOptions{})
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := make(chan struct{})
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case rpc := <-follower.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: true}, nil)
			case <-stop:
				return
			}
		}
	})
	p, err := leader.AppendEntriesPipeline("2", "2")
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	const perRequest, size = 16, 64 << 10
	data := make([]byte, size)
	b.SetBytes(perRequest * size)
	b.ReportAllocs()
	var consumed sync.WaitGroup
	consumed.Go(func() {
		for range b.N {
			if fut := <-p.Consumer(); fut.Error() != nil {
				b.Error(fut.Error())
			}
		}
	})
	index := uint64(0)
	for range b.N {
		req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 2, Leader: []byte("1"), PrevLogEntry: index, PrevLogTerm: 1}
		for range perRequest {
			index++
			req.Entries = append(req.Entries, &raft.Log{Index: index, Term: 2, Data: data})
		}
		if _, err := p.AppendEntries(req, &raft.AppendEntriesResponse{}); err != nil {
			b.Fatal(err)
		}
	}
	consumed.Wait()
}
