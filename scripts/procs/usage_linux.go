package procs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// attributes keep Ctrl-C at the terminal away from the brokers and have the kernel end them should this process die.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Usage is what broker i has used.
func (c *Cluster) Usage(i int) (Usage, error) { return UsageOf(c.Pid(i)) }

// UsageOf reads what a process has used from /proc, in which a tick is 10 ms.
func UsageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The second field is the program's name in parentheses; from the third on, index 11 and 12 are user and system time, 21 is pages resident.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 22 {
		return Usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(string(f[i]), 10, 64); return v }
	u := Usage{CPU: time.Duration(n(11)+n(12)) * 10 * time.Millisecond, RSS: n(21) * int64(os.Getpagesize())}
	u.Written, err = written(pid)
	return u, err
}

func written(pid int) (int64, error) {
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(io) {
		if rest, ok := bytes.CutPrefix(line, []byte("write_bytes:")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/io has no write_bytes", pid)
}
