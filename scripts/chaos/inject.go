package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

// injection is a fault that strace puts into system calls of a running broker.
type injection struct {
	name  string
	calls string // separated by commas
	what  string // as strace has it: error=EIO, delay_enter=200000 (in microseconds)
	time  time.Duration
	// onePartition limits it to the segments of a partition that the victim leads; otherwise everything on its disk is struck.
	onePartition bool
}

const flushCalls = "fdatasync,fsync"

// inject strikes a leader. A broker that stops because its disk fails is started again when the fault is over, as an operator would; whatever it
// does, the cluster must become healthy.
func inject(in injection) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		i := e.victim(ctx)
		err := e.fault(ctx, in.name, i, func() error {
			struck, err := e.strike(ctx, i, in)
			if err != nil {
				return err
			}
			e.struck += struck
			return e.healthyAgain(ctx, i)
		})
		return errors.Join(err, measure.Pause(ctx, 3*time.Second))
	}
}

// struckEnough fails a run in which nothing was struck: no system call, no packet.
func struckEnough(run func(context.Context, *env) error) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		if err := run(ctx, e); err != nil {
			return err
		}
		if e.struck == 0 {
			return errors.New("nothing was struck: this run shows nothing")
		}
		e.notes = append(e.notes, fmt.Sprintf("%d system calls or packets struck", e.struck))
		return nil
	}
}

// strike runs strace on a broker and tells how many calls were struck.
func (e *env) strike(ctx context.Context, i int, in injection) (int, error) {
	log := filepath.Join(filepath.Dir(e.cluster.Dir(i)), fmt.Sprintf("strace-%d", i+1))
	argv := []string{"-f", "-qq", "-o", log, "-e", "trace=" + in.calls, "-e", "inject=" + in.calls + ":" + in.what}
	if in.onePartition {
		files, err := e.segmentsLed(ctx, i)
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			argv = append(argv, "-P", f)
		}
	}
	cmd := exec.Command("strace", append(argv, "-p", fmt.Sprint(e.cluster.Pid(i)))...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err := measure.Pause(ctx, in.time)
	_ = cmd.Process.Signal(syscall.SIGINT) // it lets go of the broker
	_ = cmd.Wait()                         // by the signal, or because the broker has ended
	data, readErr := os.ReadFile(log)
	if readErr != nil {
		return 0, fmt.Errorf("strace: %w: %s", readErr, said.String())
	}
	return strings.Count(string(data), "(INJECTED)") + strings.Count(string(data), "(DELAYED)"), err
}

// segmentsLed lists the segments that there are of one partition that broker i leads.
func (e *env) segmentsLed(ctx context.Context, i int) ([]string, error) {
	leaders := e.leaders(ctx)
	for id := range int32(eventsPartitions) {
		if leaders[history.Partition{Topic: eventsTopic, ID: id}] != i+1 {
			continue
		}
		files, err := filepath.Glob(filepath.Join(e.cluster.Dir(i), "partitions", fmt.Sprintf("%s-%d.*", eventsTopic, id), "*.log"))
		if err == nil && len(files) > 0 {
			return files, nil
		}
	}
	return nil, fmt.Errorf("broker %d leads nothing", i+1)
}

// healthyAgain waits until the cluster is healthy, and starts broker i meanwhile should it end.
func (e *env) healthyAgain(ctx context.Context, i int) error {
	problem := "not asked"
	for until := time.Now().Add(healthWithin); time.Now().Before(until); {
		if err := e.reviveEnded(ctx, i); err != nil {
			return err
		}
		if problem = e.problem(ctx); problem == "" {
			return nil
		}
		if err := measure.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("not healthy again within %s: %s", healthWithin, problem)
}

// reviveEnded starts broker i if it has ended by itself, and says so in the report.
func (e *env) reviveEnded(ctx context.Context, i int) error {
	select {
	case <-e.cluster.Ended(i):
	default:
		return nil
	}
	e.cluster.Kill(i)
	e.notes = append(e.notes, fmt.Sprintf("broker %d had stopped by itself and was started again", i+1))
	return e.start(ctx, i)
}
