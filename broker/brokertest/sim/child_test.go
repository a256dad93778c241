package sim

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"runtime"
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
		os.Exit(0) // the bubble would wait for what raft never answers
	})
}

// unanswered are the goroutines that wait for an answer that hashicorp/raft v1.7.3 never gives after a shutdown: to a proposal (see partition's README), or whether this
// replica still leads.
var unanswered = regexp.MustCompile(`partition\.\(\*(sequencer\)\.(collect|wait\.func1)|Replica\)\.ConfirmLeader\.func1)`)

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
