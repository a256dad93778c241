package main

import (
	"cmp"
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
	gaps     []gap
	rounds   int
	trouble  map[string]int
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

// gap is the longest time without an acknowledgement to the steady writer of a partition, for one fault.
type gap struct {
	partition history.Partition
	fault     history.Fault
	time      time.Duration
}

// led tells whether the fault struck the partition's leader, or every broker.
func (g gap) led() bool { return g.fault.Victim == 0 || g.fault.Leaders[g.partition] == g.fault.Victim }

// gaps are those of all partitions of events and all faults.
func gaps(h *history.History) []gap {
	acks := map[history.Partition][]time.Duration{}
	for _, p := range h.Produces {
		if p.Producer == "steady" && p.Outcome == history.OK {
			acks[p.Partition] = append(acks[p.Partition], p.End)
		}
	}
	var all []gap
	for p, times := range acks {
		slices.Sort(times)
		for _, f := range h.Faults {
			all = append(all, gap{p, f, longest(times, f.Start, f.End+afterFault)})
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

// summary tells the gaps of partitions whose leader was struck apart from those of others.
func summary(gaps []gap) string {
	var led, others []time.Duration
	for _, g := range gaps {
		if g.led() {
			led = append(led, g.time)
		} else {
			others = append(others, g.time)
		}
	}
	text := "longest gap per partition: " + spread(led)
	if len(others) > 0 {
		text += "; of partitions led elsewhere: " + spread(others)
	}
	return text
}

func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "none measured"
	}
	slices.Sort(times)
	return fmt.Sprintf("median %d ms, max %d ms (n=%d)", times[len(times)/2].Milliseconds(), times[len(times)-1].Milliseconds(), len(times))
}

// printGaps prints every gap.
func (r *report) printGaps(out io.Writer) {
	slices.SortFunc(r.gaps, func(a, b gap) int {
		return cmp.Or(cmp.Compare(a.fault.Start, b.fault.Start), cmp.Compare(a.partition.ID, b.partition.ID))
	})
	for _, g := range r.gaps {
		fmt.Fprintf(out, "    %s of broker %d at %d to %d ms: %s, led by %d: %d ms\n", g.fault.Name, g.fault.Victim,
			g.fault.Start.Milliseconds(), g.fault.End.Milliseconds(), g.partition, g.fault.Leaders[g.partition], g.time.Milliseconds())
	}
}
