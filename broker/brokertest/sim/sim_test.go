package sim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simTime     = flag.Duration("sim.time", 0, "run random schedules for so long, instead of a few")
	simSeed     = flag.Uint64("sim.seed", 0, "run the schedule of this seed only")
	simScenario = flag.String("sim.scenario", "", "run the named schedule only")
	simRuns     = flag.Int("sim.runs", 1, "how often to run a seed or a named schedule")
	simLog      = flag.String("sim.log", "", "level of the brokers' logs of one schedule; they are kept if it fails")
	simOut      = flag.String("sim.out", "", "folder for what failed schedules leave; default: a new one")
	simFirst    = flag.Uint64("sim.first", 0, "begin with this seed")
	simMost     = flag.Int("sim.most", 1<<30, "run at most so many random schedules in -sim.time")
	simProfiles = flag.String("sim.profiles", "", "folder for a CPU profile of each schedule")
	simProcs    = flag.Int("sim.procs", 0, "schedules at a time; default: one for each core")
)

// runWithin is how long one schedule may take in real time. It takes about a second of a processor, and ten with the race detector, but the machine may be busy.
const runWithin = 5 * time.Minute

// planOf is a named plan, or the random one of a seed.
func planOf(name string, seed uint64) (Plan, error) {
	if name == "" {
		return Random(seed), nil
	}
	for _, s := range append(scenarios, lazy) {
		if s.Name == name {
			s.Seed = seed
			return s, nil
		}
	}
	return Plan{}, fmt.Errorf("there is no scenario %q", name)
}

// TestSchedules runs random schedules: a few, or as many as fit into -sim.time, or the one of -sim.seed. The few are the same each time, so that a failure is the fault of a change and not of the
// draw; who looks for what nobody has found yet gives it time.
func TestSchedules(t *testing.T) {
	s := newSuite(t)
	switch {
	case *simScenario != "":
		s.repeat(*simScenario, max(*simSeed, 1))
	case *simSeed != 0:
		s.repeat("", *simSeed)
	case *simTime > 0:
		s.until(time.Now().Add(*simTime), *simMost, uint64(time.Now().UnixNano())%1e12)
	case testing.Short():
		s.until(time.Now().Add(10*time.Second), 4, 1)
	case raceDetector:
		s.until(time.Now().Add(20*time.Second), 4, 1)
	default:
		s.until(time.Now().Add(30*time.Second), 60, 1)
	}
	s.report()
}

// TestScenarios runs the named schedules, each of which showed a bug once.
func TestScenarios(t *testing.T) {
	if *simTime > 0 || *simSeed != 0 || *simScenario != "" {
		return // asked for something else
	}
	s := newSuite(t)
	names := scenarios
	if testing.Short() || raceDetector {
		names = names[:min(len(names), 3)]
	}
	s.all(len(names), func(i int) (string, uint64) { return names[i].Name, cmp.Or(names[i].Seed, uint64(i)+1) })
	s.report()
}

// suite runs schedules and gathers what came of them.
type suite struct {
	t     *testing.T
	began time.Time

	mu      sync.Mutex
	results []Result
	cpu     time.Duration // that the processes used
	trouble map[string]int
	out     string
}

func newSuite(t *testing.T) *suite {
	return &suite{t: t, began: time.Now(), trouble: map[string]int{}, out: *simOut}
}

// until runs the schedules of the seeds from first on, unless -sim.first says another: as many as begin before the end.
func (s *suite) until(end time.Time, most int, first uint64) {
	if *simFirst != 0 {
		first = *simFirst
	}
	s.all(most, func(i int) (string, uint64) {
		if time.Now().After(end) {
			return "", 0
		}
		return "", first + uint64(i)
	})
}

func (s *suite) repeat(name string, seed uint64) {
	if plan, err := planOf(name, seed); err != nil {
		s.t.Fatal(err)
	} else {
		s.t.Logf("%s", plan)
	}
	s.all(*simRuns, func(int) (string, uint64) { return name, seed })
}

// all runs n schedules, several at a time. next may end it with seed 0.
func (s *suite) all(n int, next func(i int) (string, uint64)) {
	procs := *simProcs
	if procs == 0 {
		procs = runtime.NumCPU()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	at := 0
	for range procs {
		wg.Go(func() {
			for {
				mu.Lock()
				i := at
				at++
				mu.Unlock()
				if i >= n {
					return
				}
				name, seed := next(i)
				if seed == 0 {
					return
				}
				s.add(s.run(name, seed))
			}
		})
	}
	wg.Wait()
}

// run runs one schedule in a process of its own.
func (s *suite) run(name string, seed uint64) (Result, []byte) {
	dir, err := os.MkdirTemp("", "sim-")
	if err != nil {
		s.t.Error(err)
		return Result{}, nil
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), runWithin)
	defer cancel()
	file := filepath.Join(dir, "result.json")
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOneSchedule$", "-test.timeout="+(runWithin-5*time.Second).String())
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envSeed, seed), envScenario+"="+name, envResult+"="+file, envLog+"="+level(), "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=700MiB", "GOTRACEBACK=all")
	if *simProfiles != "" {
		cmd.Env = append(cmd.Env, envProfile+"="+filepath.Join(*simProfiles, fmt.Sprintf("%s%d.pprof", name, seed)))
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	s.spent(cmd.ProcessState)
	data, rerr := os.ReadFile(file)
	var r Result
	if jerr := errors.Join(rerr, json.Unmarshal(data, &r)); err != nil || jerr != nil {
		return Result{Name: name, Seed: seed, Verdict: "FAIL", Problems: []string{fmt.Sprintf("the process ended without a result: %v\n%s", errors.Join(err, jerr), head(out.Bytes()))}}, out.Bytes()
	}
	return r, out.Bytes()
}

func (s *suite) spent(p *os.ProcessState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p != nil {
		s.cpu += p.UserTime() + p.SystemTime()
	}
}

func level() string {
	if *simLog != "" {
		return *simLog
	}
	return "info"
}

// head is the first part of a crash's output, from where it panicked.
func head(b []byte) []byte {
	for _, mark := range []string{"panic:", "fatal error:", "WARNING: DATA RACE", "--- FAIL"} {
		if i := bytes.Index(b, []byte(mark)); i >= 0 {
			b = b[i:]
			break
		}
	}
	return b[:min(len(b), 6000)]
}

func (s *suite) add(r Result, log []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, r)
	for k, n := range r.Trouble {
		s.trouble[k] += n
	}
	if r.Verdict == "ok" {
		return
	}
	if r.Verdict == "INVALID" && r.Name == "" {
		s.t.Logf("seed %d proves nothing: %s", r.Seed, strings.Join(r.Problems, "; "))
		return
	}
	s.t.Errorf("%s %s\n%s\n%s\nrepeat with: %s\n%s", nameOf(r), r.Verdict, planText(r), strings.Join(r.Problems, "\n"), again(r), s.keep(r, log))
}

func planText(r Result) string {
	p, err := planOf(r.Name, r.Seed)
	if err != nil {
		return err.Error()
	}
	return p.String()
}

func nameOf(r Result) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("seed %d", r.Seed)
}

// again is the command that runs the same schedule.
func again(r Result) string {
	if r.Name != "" {
		return "make sim SIM=" + r.Name
	}
	return fmt.Sprintf("make sim SEED=%d", r.Seed)
}

// keep writes timeline and logs of a failed schedule to a file.
func (s *suite) keep(r Result, log []byte) string {
	if s.out == "" {
		dir, err := os.MkdirTemp("", "sim-failed-")
		if err != nil {
			return err.Error()
		}
		s.out = dir
	}
	if err := os.MkdirAll(s.out, 0o700); err != nil {
		return err.Error()
	}
	path := filepath.Join(s.out, fmt.Sprintf("%s-%d.txt", strings.ReplaceAll(nameOf(r), " ", "-"), rand.Uint32()))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n%s\n%s\n\ntimeline\n%s\n\nclients\n%v\n\nlogs\n", nameOf(r), r.Verdict, planText(r), strings.Join(r.Problems, "\n"), strings.Join(r.Timeline, "\n"), r.Trouble)
	if head, tail := log[:min(len(log), 2<<20)], 24<<20; len(log) > len(head)+tail { // stacks are at the end
		log = slices.Concat(head, []byte("\n...\n"), log[len(log)-tail:])
	}
	b.Write(log)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return err.Error()
	}
	return "timeline and logs: " + path
}

// report sums up. Without a valid schedule nothing was tested.
func (s *suite) report() {
	var valid, invalid, failed, acked, during, reads, commits, faults, echoes int
	var virtual time.Duration
	for _, r := range s.results {
		switch r.Verdict {
		case "ok":
			valid++
		case "INVALID":
			invalid++
		default:
			failed++
		}
		acked, during, reads, commits = acked+r.Counts.Acked, during+r.Counts.During, reads+r.Counts.Reads, commits+r.Counts.Commits
		faults, echoes = faults+r.Faults, echoes+r.Echoes
		virtual += time.Duration(r.VirtualMs) * time.Millisecond
	}
	took := time.Since(s.began)
	s.t.Logf("%d schedules in %s (%.0f valid ones a minute), %s of virtual time: %d ok, %d failed, %d invalid", len(s.results), took.Round(time.Second),
		float64(valid)/took.Minutes(), virtual.Round(time.Second), valid, failed, invalid)
	s.t.Logf("they used a processor for %.2f s for each valid one, so two that do nothing else run %.0f a minute", s.cpu.Seconds()/float64(max(valid, 1)), 120*float64(valid)/s.cpu.Seconds())
	s.t.Logf("%d faults; %d writes acknowledged, %d tried during faults, %d records read, %d commits, %d connections that came twice", faults, acked, during, reads, commits, echoes)
	var told []string
	for _, k := range slices.Sorted(maps.Keys(s.trouble)) {
		told = append(told, fmt.Sprintf("%s: %d", k, s.trouble[k]))
	}
	s.t.Logf("clients were told:\n%s", strings.Join(told, "\n"))
	if valid == 0 && failed == 0 {
		s.t.Errorf("no schedule was valid: %d runs", len(s.results))
	}
}
