package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clockTicksPerSecond is the unit of the times in /proc/PID/stat (USER_HZ, 100 on every Linux architecture Go runs on).
const clockTicksPerSecond = 100

// usage is what a process has used since it started.
type usage struct {
	// WriteBytes is what it caused to be written to disk (write_bytes of /proc/PID/io: counted when a page is made dirty, so a page that is
	// written again after an fsync counts again, as it does on the disk).
	WriteBytes int64
	CPUSeconds float64
	// RSSBytes is its resident memory now.
	RSSBytes int64
}

func (u usage) minus(v usage) usage {
	return usage{WriteBytes: u.WriteBytes - v.WriteBytes, CPUSeconds: u.CPUSeconds - v.CPUSeconds, RSSBytes: u.RSSBytes}
}

// procUsage adds up the usage of processes as /proc (procDir) tells it.
func procUsage(procDir string, pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		u, err := onePIDUsage(filepath.Join(procDir, strconv.Itoa(pid)))
		if err != nil {
			return usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		sum.WriteBytes += u.WriteBytes
		sum.CPUSeconds += u.CPUSeconds
		sum.RSSBytes += u.RSSBytes
	}
	return sum, nil
}

func onePIDUsage(dir string) (usage, error) {
	var u usage
	var err error
	if u.WriteBytes, err = procField(filepath.Join(dir, "io"), "write_bytes:"); err != nil {
		return u, err
	}
	rssKiB, err := procField(filepath.Join(dir, "status"), "VmRSS:")
	if err != nil {
		return u, err
	}
	u.RSSBytes = rssKiB << 10
	u.CPUSeconds, err = procCPU(filepath.Join(dir, "stat"))
	return u, err
}

// procField reads the number after a name at the beginning of a line.
func procField(path, name string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), name); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				break
			}
			return strconv.ParseInt(fields[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// procCPU reads user and system time. The fields are counted after the last parenthesis, since the program's name before it may hold anything.
func procCPU(path string) (float64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("%s is not as expected", path)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		ticks += n
	}
	return float64(ticks) / clockTicksPerSecond, nil
}

// findBrokers returns the processes that run 'flotilla broker' or 'flotilla dev'.
func findBrokers(procDir string) ([]int, error) {
	entries, err := os.ReadDir(procDir)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(procDir, e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended meanwhile, or is not ours to look at
		}
		args := strings.Split(string(cmdline), "\x00")
		if len(args) > 1 && filepath.Base(args[0]) == "flotilla" && contains([]string{"broker", "dev"}, args[1]) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
