package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepPrecisely sleeps in the kernel. The runtime's timers wake an idle process with a granularity of a millisecond, which would count as
// latency that no broker causes.
func sleepPrecisely(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	// A signal ends the sleep early; whoever sleeps looks at the time again.
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
}
