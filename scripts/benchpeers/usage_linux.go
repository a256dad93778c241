package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
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
		u, err := usageOfOne(pid)
		if err != nil {
			return usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		sum.cpu += u.cpu
		sum.written += u.written
		sum.rss = max(sum.rss, u.rss)
	}
	return sum, nil
}

func usageOfOne(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return usage{}, err
	}
	// From the third field on, after the program's name in parentheses: 11 and 12 are user and system time in ticks of 10 ms, 21 is pages resident.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 22 {
		return usage{}, fmt.Errorf("its stat has %d fields", len(f))
	}
	user, system, pages := number(f[11]), number(f[12]), number(f[21])
	return usage{cpu: (user + system) / 100, written: lineNumber(string(io), "write_bytes:"), rss: pages * float64(os.Getpagesize())}, nil
}

func lineNumber(text, name string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return number(strings.TrimSpace(rest))
		}
	}
	return 0
}

func number(s string) float64 {
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

// ownCPU is the CPU time of this process, which is the client's, in seconds.
func ownCPU() float64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(r.Utime) + seconds(r.Stime)
}
