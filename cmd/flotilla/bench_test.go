package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/client"
)

// TestScheduleDoesNotOmit: a receiver that stalls once for a second must be seen in all the events that were meant to happen in that second,
// although they are sent late, and not in one alone.
func TestScheduleDoesNotOmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatencies()
		const events, stalledAt = 3000, 1000
		err := schedule{start: time.Now(), rate: 1000, sleep: time.Sleep}.run(t.Context(), func(i int64, meant time.Time) bool {
			if i == stalledAt {
				time.Sleep(time.Second) // on the virtual clock
			}
			l.record(time.Since(meant))
			return i < events-1
		})
		if err != nil {
			t.Fatal(err)
		}
		s := l.summary()
		if s.Count != events {
			t.Errorf("%d events, want %d", s.Count, events)
		}
		// 1000 of the 3000 events were late, evenly between 0 and 1 s: the 90th percentile is at 0.7 s.
		if s.P90Ms < 650 || s.P90Ms > 750 || s.MaxMs < 990 || s.P50Ms > 1 {
			t.Errorf("p50 %.1f, p90 %.1f, max %.1f ms", s.P50Ms, s.P90Ms, s.MaxMs)
		}
	})
}

func TestScheduleKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := schedule{start: start, rate: 200, sleep: time.Sleep}.run(t.Context(), func(i int64, meant time.Time) bool {
			if meant != start.Add(time.Duration(i)*5*time.Millisecond) || time.Now().Before(meant) {
				t.Errorf("event %d is meant for %s, it is %s", i, meant.Sub(start), time.Since(start))
			}
			return i < 399
		})
		if took := time.Since(start); err != nil || took != 1995*time.Millisecond {
			t.Errorf("it took %s, %v", took, err)
		}
	})
}

func TestScheduleEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := 0
		err := schedule{start: time.Now(), rate: 10, sleep: time.Sleep}.run(ctx, func(int64, time.Time) bool { n++; return true })
		if !errors.Is(err, context.DeadlineExceeded) || n > 11 {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

// fakeProc makes a /proc with one process; the program's name holds what a careless parser trips over.
func fakeProc(t *testing.T, pid, stat, io, cmdline string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"stat": stat, "io": io, "status": "Name:\tx\nVmRSS:\t    2048 kB\n", "cmdline": cmdline} {
		file := filepath.Join(dir, pid, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, file, content)
	}
	return dir
}

const (
	sampleStat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100 200 300\n"
	sampleIO   = "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 81920\ncancelled_write_bytes: 5\n"
)

func TestProcUsage(t *testing.T) {
	proc := fakeProc(t, "42", sampleStat, sampleIO, "")
	got, err := procUsage(proc, []int{42, 42})
	if want := (usage{WriteBytes: 163840, CPUSeconds: 4, RSSBytes: 4 << 20}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := procUsage(proc, []int{43}); err == nil || !strings.Contains(err.Error(), "process 43") {
		t.Errorf("a process that does not exist: %v", err)
	}
	for _, stat := range []string{"", "42 (x", "42 (x) S 1", "42 (x) S 1 2 3 4 5 6 7 8 9 10 x y z"} {
		if _, err := procUsage(fakeProc(t, "42", stat, sampleIO, ""), []int{42}); err == nil {
			t.Errorf("stat %q: no error", stat)
		}
	}
	if _, err := procUsage(fakeProc(t, "42", sampleStat, "write_bytes:\n", ""), []int{42}); err == nil {
		t.Error("an empty write_bytes: no error")
	}
}

func TestFindBrokers(t *testing.T) {
	for cmdline, want := range map[string]int{
		"/usr/bin/flotilla\x00broker\x00--id\x001\x00": 1, "flotilla\x00dev\x00": 1, "flotilla\x00bench\x00produce\x00": 0, "flotillas\x00broker\x00": 0, "": 0,
	} {
		pids, err := findBrokers(fakeProc(t, "42", sampleStat, sampleIO, cmdline))
		if err != nil || len(pids) != want {
			t.Errorf("%q: %v, %v", cmdline, pids, err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	deadline, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailure},
		{usageErrorf("x"), exitUsage},
		{errors.Join(errors.New("x"), withCode(exitBadData, errors.New("y"))), exitBadData},
		{context.Canceled, exitInterrupted},
		{deadline.Err(), exitUnavailable},
		{status.Error(codes.NotFound, "x"), exitNotFound},
		{status.Error(codes.Internal, "x"), exitFailure},
		{&client.Error{Code: client.CodeUnavailable}, exitUnavailable},
		{&client.Error{Code: client.CodeInvalidReplicationFactor}, exitRefused},
		{client.ErrDeliveryTimeout, exitUnavailable},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
