package sim

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Every schedule runs in a process of its own: what packages keep for all (pools of objects with channels) must not come from another bubble, what one run
// leaves behind (goroutines that hashicorp/raft never answers) must not burden the next, and a panic in a broker shall end one run only.
const (
	envSeed     = "FLOTILLA_SIM_SEED"     // the seed of a random plan
	envScenario = "FLOTILLA_SIM_SCENARIO" // or a plan's name
	envResult   = "FLOTILLA_SIM_RESULT"   // the file that the result goes to
	envLog      = "FLOTILLA_SIM_LOG"      // the level of the brokers' log, which goes to stderr
	envProfile  = "FLOTILLA_SIM_PROFILE"  // the file that a CPU profile goes to, if any
)

// TestOneSchedule is what such a process runs; for itself it does nothing.
func TestOneSchedule(t *testing.T) {
	path := os.Getenv(envResult)
	if path == "" {
		return
	}
	seed, err := strconv.ParseUint(os.Getenv(envSeed), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planOf(os.Getenv(envScenario), seed)
	if err != nil {
		t.Fatal(err)
	}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(os.Getenv(envLog)), Output: os.Stderr, TimeFormat: "04:05.000"})
	profiled, err := profile(os.Getenv(envProfile))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		result := Run(plan, log)
		time.Sleep(time.Minute) // timers of what was closed
		synctest.Wait()
		if left := leftovers(); left != "" && result.Verdict != "FAIL" {
			result.Verdict = "FAIL"
			result.Problems = append(result.Problems, "goroutines that nobody ended:\n"+left)
		}
		data, err := json.Marshal(result)
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		profiled()
		os.Exit(0) // the bubble would wait for what raft never answers
	})
}

// profile begins a CPU profile if it is given a file, and returns what ends it.
func profile(path string) (end func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, pprof.StartCPUProfile(f)
}

// unanswered are the goroutines that wait for an answer that hashicorp/raft v1.7.3 never gives after a shutdown: to a proposal (see partition's README), whether this
// replica still leads, to a change of the configuration that it has committed and not applied, to a transfer of leadership that had not begun, or to a bootstrap whose term could not be stored.
var unanswered = regexp.MustCompile(`metadata\.(\(\*Node\)\.bootstrapRaft|waitFuture)\.func1|partition\.\(\*(sequencer\)\.(collect|wait\.func1)|Replica\)\.(Bootstrap|answer)\.func1|transferFuture\)\.Error\.func1)`)

// leftovers are the stacks of the bubble's other goroutines.
func leftovers() string {
	buf := make([]byte, 64<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for i, g := range bytes.Split(buf, []byte("\n\n")) {
		head, _, _ := bytes.Cut(g, []byte("\n"))
		if i == 0 || !bytes.Contains(head, []byte("synctest bubble")) || bytes.Contains(g, []byte("testing/synctest.")) || unanswered.Match(g) {
			continue
		}
		left = append(left, string(g))
	}
	return strings.Join(left[:min(len(left), 5)], "\n\n")
}
