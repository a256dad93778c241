package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The heap of a broker of a thousand idle partitions is small things that live long, and Go lets a heap double before it collects. That is right where much is allocated, and
// wasted where nothing is: then a collection is needed once in a minute, and may as well begin earlier. A broker that works allocates what its producers send, so one with a small heap
// would collect several times a second: it lets collectSpare gather first. Not while it is merely set up, or partitions are created, for what lives long lies scattered among the garbage
// then, and the pages between are never free again.
const (
	collectEvery   = 5 * time.Second
	collectBusy    = 100       // percent, Go's default
	collectMost    = 300       // percent, of a small heap
	collectSpare   = 128 << 20 // bytes of garbage for which a heap need not be collected
	collectIdle    = 25        // percent
	idleAllocBytes = 8 << 20   // per second; a busy broker allocates more
	loadAllocBytes = 64 << 20  // per second; a broker that stores or sends much allocates more
	idleTicks      = 3         // so long in a row, before memory is given back
)

// collectLess is how garbage is collected while this broker runs: while it works by Go's default, or later if its heap is small; and earlier while it is idle, when memory that it no longer needs is given back to
// the system. The variable GOGC takes precedence. It returns when ctx ends.
func collectLess(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	defer debug.SetGCPercent(collectBusy)
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	last, percent := sample[0].Value.Uint64(), collectBusy
	for idle := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		was, allocated := idle, now-last
		idle = idleFor(idle, allocated)
		last = now
		switch {
		case idle < idleTicks:
			if busy := busyPercent(allocated, sample[1].Value.Uint64()); busy != percent {
				percent = busy
				debug.SetGCPercent(percent)
			}
		case was < idleTicks:
			percent = collectIdle
			debug.SetGCPercent(percent)
			for range idleTicks { // each halves the stacks that have become too large for what is left on them
				runtime.GC()
			}
			debug.FreeOSMemory()
		}
	}
}

// busyPercent is by how much the heap of a broker that works, and has allocated so much in the last tick, grows between two collections, in steps of ten percent.
func busyPercent(allocated, live uint64) int {
	if allocated < loadAllocBytes*uint64(collectEvery/time.Second) {
		return collectBusy
	}
	return int(min(max(10*collectSpare/max(live, 1)*10, collectBusy), collectMost))
}

// idleFor counts the ticks in a row in which little was allocated.
func idleFor(ticks int, allocated uint64) int {
	if allocated > idleAllocBytes*uint64(collectEvery/time.Second) {
		return 0
	}
	return min(ticks+1, idleTicks)
}
