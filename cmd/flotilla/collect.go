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
// wasted where nothing is: then a collection is needed once in a minute, and may as well begin earlier.
const (
	collectEvery   = 5 * time.Second
	collectBusy    = 100     // percent, Go's default
	collectIdle    = 25      // percent
	idleAllocBytes = 8 << 20 // per second; a busy broker allocates more
	idleTicks      = 3       // so long in a row, before memory is given back
)

// collectLess is how garbage is collected while this broker runs: by Go's default while it works, and earlier while it is idle, when memory that it no longer needs is given back to the system. The variable GOGC
// takes precedence. It returns when ctx ends.
func collectLess(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	defer debug.SetGCPercent(collectBusy)
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var last uint64
	for idle := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		was := idle
		idle = idleFor(idle, now-last)
		last = now
		switch {
		case was >= idleTicks && idle == 0:
			debug.SetGCPercent(collectBusy)
		case was < idleTicks && idle >= idleTicks:
			debug.SetGCPercent(collectIdle)
			for range idleTicks { // each halves the stacks that have become too large for what is left on them
				runtime.GC()
			}
			debug.FreeOSMemory()
		}
	}
}

// idleFor counts the ticks in a row in which little was allocated.
func idleFor(ticks int, allocated uint64) int {
	if allocated > idleAllocBytes*uint64(collectEvery/time.Second) {
		return 0
	}
	return min(ticks+1, idleTicks)
}
