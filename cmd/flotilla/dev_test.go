package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// devRun is 'flotilla dev' within the test.
type devRun struct {
	grpc  string // what the ready line says
	end   context.CancelFunc
	code  chan int
	stder *syncBuffer
}

var readyLine = regexp.MustCompile(`^ready grpc=(127\.0\.0\.1:[0-9]+(?:,127\.0\.0\.1:[0-9]+){2}) kafka=127\.0\.0\.1:[0-9]+(?:,127\.0\.0\.1:[0-9]+){2}\n$`)

func startDev(t *testing.T, dir string) *devRun {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(end)
	out, in := io.Pipe()
	d := &devRun{end: end, code: make(chan int, 1), stder: &syncBuffer{}}
	go func() {
		code := run(ctx, []string{"dev", "--dir", dir, "--port-base", "0"}, strings.NewReader(""), in, d.stder)
		_ = in.Close()
		d.code <- code
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	m := readyLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("dev printed %q (%v); its log ends with:\n%s", line, err, tail(d.stder.String(), 20))
	}
	d.grpc = m[1]
	return d
}

func (d *devRun) stop(t *testing.T) {
	t.Helper()
	d.end()
	if code := <-d.code; code != exitOK {
		t.Errorf("dev ended with exit code %d; its log ends with:\n%s", code, tail(d.stder.String(), 20))
	}
}

// TestDevKeepsItsData starts the development cluster twice on one directory, under other addresses the second time.
func TestDevKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	d := startDev(t, dir)
	for _, args := range [][]string{{"topic", "create", "orders", "--partitions", "2"}, {"produce", "orders"}} {
		if got := runCLI(t, "one\ntwo\nthree", append(args, "--brokers", d.grpc)...); got.code != exitOK {
			t.Fatalf("%v: %+v", args, got)
		}
	}
	d.stop(t)

	d = startDev(t, dir)
	got := runCLI(t, "", "consume", "orders", "--until", "end", "--brokers", d.grpc)
	if lines := strings.Fields(got.stdout); got.code != exitOK || len(lines) != 3 {
		t.Errorf("after a restart: %+v", got)
	}
	got = runCLI(t, "", "cluster", "status", "--brokers", d.grpc)
	for _, addr := range strings.Split(d.grpc, ",") {
		if !strings.Contains(got.stdout, addr) {
			t.Errorf("the cluster does not know of %s:\n%s", addr, got.stdout)
		}
	}
	d.stop(t)
}

func TestReadyIsNotPrintedWhenStoppedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	run(ctx, []string{"dev", "--dir", t.TempDir(), "--port-base", "0"}, strings.NewReader(""), &out, &errOut)
	if out.Len() > 0 {
		t.Errorf("printed %q", out.String())
	}
}
