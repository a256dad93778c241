// Command demo shows Flotilla at work and checks what it shows.
//
// It starts three brokers as processes of their own, produces 20,000 real events keyed by airport, lets a group of three members consume
// them while the leader of a partition is killed and started again, replays one partition from an offset and from a time, and compares
// everything with the source file. It exits with 0 only if all was as it must be. Processes and files are gone when it ends.
//
//	go run ./scripts/demo -flotilla bin/flotilla
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

const (
	brokerCount = 3
	demoTimeout = 58 * time.Second // bounds the whole
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	binary := flags.String("flotilla", "bin/flotilla", "the flotilla binary")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	bounded, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("the demo did not end within %s", demoTimeout))
	defer cancel()
	err := demo(bounded, *binary, &story{w: stdout, started: time.Now()})
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "\nInterrupted. The brokers are stopped and their files removed.")
		return 130
	}
	if err != nil {
		fmt.Fprintf(stderr, "\nFAILED: %v\n", err)
		return 1
	}
	return 0
}

// story tells what happens, with the time since the beginning.
type story struct {
	w       io.Writer
	started time.Time
}

func (s *story) tell(format string, args ...any) {
	fmt.Fprintf(s.w, "%5.1f s  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// detail continues what was told last.
func (s *story) detail(format string, args ...any) {
	fmt.Fprintf(s.w, "         %s\n", fmt.Sprintf(format, args...))
}

// demo runs in a directory of its own, and leaves neither that nor a process behind.
func demo(ctx context.Context, binary string, s *story) (err error) {
	events, err := loadEvents()
	if err != nil {
		return err
	}
	cluster, err := procs.New(binary, brokerCount, "--fast-gossip")
	if err != nil {
		return err
	}
	// Whatever happens below, no process and no file outlives the demo.
	defer func() { err = errors.Join(err, cluster.Close()) }()
	return play(ctx, cluster, events, s)
}
