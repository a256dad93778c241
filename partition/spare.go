package partition

import (
	"runtime"
	"strings"
	"time"
)

// Two goroutines of hashicorp/raft do nothing for a replica here, and a broker of a thousand replicas would have two thousand of them: one waits to take snapshots, which are turned off, and
// one of each leader reads the oldest entry from the disk every ten seconds, for a metric that nobody collects. Neither can be turned off. Both ask the log for its first or last index,
// which raft does nowhere else once it runs; then the goroutine ends.
//
// That it is one of the two is read off its stack. So if a later release of raft does otherwise, they only stay, which a test notices.

// spareInterval is after how long, at most twice, raft first asks whether a snapshot is due.
const spareInterval = time.Second

// spare are functions at the bottom of the stacks of goroutines that are not needed.
var spare = []string{".emitLogStoreMetrics", ".(*Raft).runSnapshots"}

// FirstIndex implements raft.LogStore.
func (g *logGuard) FirstIndex() (uint64, error) {
	g.endSpare()
	return g.Log.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (g *logGuard) LastIndex() (uint64, error) {
	g.endSpare()
	return g.Log.LastIndex()
}

// endSpare ends the goroutine if it is one that is not needed. It holds no lock then, and waits for nothing: the one is in the middle of a metric, the other before a snapshot that it will not take.
func (g *logGuard) endSpare() {
	if g.raft.Load() == nil {
		return // NewRaft asks
	}
	var pcs [12]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		for _, name := range spare {
			if strings.HasPrefix(f.Function, "github.com/hashicorp/raft.") && strings.HasSuffix(f.Function, name) {
				runtime.Goexit()
			}
		}
		if !more {
			return
		}
	}
}
