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

// Usage reads what broker i has used from /proc, in which a tick is 10 ms.
func (c *Cluster) Usage(i int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Pid(i)))
	if err != nil {
		return Usage{}, err
	}
	// The second field is the program's name in parentheses; from the third on, index 11 and 12 are user and system time, 21 is pages resident.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 22 {
		return Usage{}, fmt.Errorf("/proc/%d/stat has %d fields", c.Pid(i), len(f))
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(string(f[i]), 10, 64); return v }
	return Usage{CPU: time.Duration(n(11)+n(12)) * 10 * time.Millisecond, RSS: n(21) * int64(os.Getpagesize())}, nil
}
