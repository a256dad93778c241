package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/checker"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// report is what a scenario ends with.
type report struct {
	name     string
	seed     uint64
	result   checker.Result
	problems []error // what the cluster did wrong that is not in the history: not served again, did not stop, panicked
	gaps     []time.Duration
	rounds   int
	trouble  map[string]int
	healed   time.Duration
	stopping time.Duration
}

func (r *report) add(err error) {
	if err != nil {
		r.problems = append(r.problems, err)
	}
}

func (r *report) good() bool { return r.result.Good() && len(r.problems) == 0 }

func (r *report) print(out io.Writer) {
	verdict := r.result.Verdict()
	if len(r.problems) > 0 {
		verdict = "FAIL"
	}
	c := r.result.Counts
	fmt.Fprintf(out, "%-18s %-8s %d rounds; writes: %d acknowledged, %d failed, %d unknown (%d tried during faults); %d reads, %d commits, %d generations; %s\n",
		r.name, verdict, r.rounds, c.Acked, c.Failed, c.Unknown, c.During, c.Reads, c.Commits, c.Generations, summary(r.gaps))
	if verdict != "ok" {
		fmt.Fprintf(out, "    seed %d\n", r.seed)
	}
	if r.result.Invalid != "" {
		fmt.Fprintf(out, "    invalid: %s\n", r.result.Invalid)
	}
	for _, a := range r.result.Anomalies {
		fmt.Fprintf(out, "    %s\n", a)
	}
	if err := errors.Join(r.problems...); err != nil {
		fmt.Fprintf(out, "    %v\n", err)
	}
	for _, what := range slices.Sorted(maps.Keys(r.trouble)) {
		fmt.Fprintf(out, "    (%d times: %s)\n", r.trouble[what], what)
	}
}

// afterFault is how long after its end a fault is held to account for a gap.
const afterFault = 3 * time.Second

// gaps are, for each fault and partition of events, the longest time without an acknowledgement to its steady writer.
func gaps(h *history.History) []time.Duration {
	acks := map[history.Partition][]time.Duration{}
	for _, p := range h.Produces {
		if p.Producer == "steady" && p.Outcome == history.OK {
			acks[p.Partition] = append(acks[p.Partition], p.End)
		}
	}
	var all []time.Duration
	for _, times := range acks {
		slices.Sort(times)
		for _, f := range h.Faults {
			all = append(all, longest(times, f.Start, f.End+afterFault))
		}
	}
	return all
}

func longest(times []time.Duration, from, to time.Duration) time.Duration {
	var gap time.Duration
	for i := 1; i < len(times); i++ {
		if times[i] >= from && times[i-1] <= to {
			gap = max(gap, times[i]-times[i-1])
		}
	}
	return gap
}

func summary(gaps []time.Duration) string {
	if len(gaps) == 0 {
		return "no gaps measured"
	}
	slices.Sort(gaps)
	return fmt.Sprintf("longest gap per partition: median %d ms, max %d ms (n=%d)",
		gaps[len(gaps)/2].Milliseconds(), gaps[len(gaps)-1].Milliseconds(), len(gaps))
}
