package main

import (
	"fmt"
	"syscall"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

// usage is what processes have used since they started. Those that end take theirs with them.
type usage struct {
	cpu     float64 // seconds, user and system
	written float64 // bytes that were sent to the disk (write_bytes in /proc/PID/io)
	rss     float64 // bytes, of the largest
}

func (u usage) minus(v usage) usage {
	return usage{cpu: u.cpu - v.cpu, written: u.written - v.written, rss: u.rss}
}

// usageOf adds up the usage of processes.
func usageOf(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		u, err := procs.UsageOf(pid)
		if err != nil {
			return usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		sum.cpu += u.CPU.Seconds()
		sum.written += float64(u.Written)
		sum.rss = max(sum.rss, float64(u.RSS))
	}
	return sum, nil
}

// ownCPU is the CPU time of this process, which is the client's, in seconds.
func ownCPU() float64 { return cpuOf(syscall.RUSAGE_SELF) }

// threadCPU is that of the thread that calls.
func threadCPU() float64 {
	const thread = 1 // RUSAGE_THREAD
	return cpuOf(thread)
}

func cpuOf(who int) float64 {
	var r syscall.Rusage
	if syscall.Getrusage(who, &r) != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(r.Utime) + seconds(r.Stime)
}
