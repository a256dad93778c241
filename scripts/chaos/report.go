package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/checker"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

// report is what one run of a scenario ends with.
type report struct {
	name     string
	seed     uint64
	result   checker.Result
	problems []error // what the cluster did wrong that is not in the history: not served again, did not stop, panicked
	gaps     []gap
	rounds   int
	trouble  map[string]int
	notes    []string // what the scenario measured besides
	// lost is how many writes each producer gave up, in spite of its retries: failed, or with an unknown outcome.
	lost    map[string]int
	serving []time.Duration // after restarts of all brokers
}

func (r *report) add(err error) {
	if err != nil {
		r.problems = append(r.problems, err)
	}
}

func (r *report) good() bool { return r.result.Good() && len(r.problems) == 0 }

func (r *report) verdict() string {
	if len(r.problems) > 0 {
		return "FAIL"
	}
	return r.result.Verdict()
}

func (r *report) print(out io.Writer) {
	c := r.result.Counts
	led, others := summary(r.gaps)
	fmt.Fprintf(out, "%-22s %-8s %d rounds; writes: %d acknowledged (%d tried during faults), %s given up with retries; %d conditional appends came second; %d reads, %d commits, %d generations\n",
		r.name, r.verdict(), r.rounds, c.Acked, c.During, lostText(r.lost), c.Outbid, c.Reads, c.Commits, c.Generations)
	fmt.Fprintf(out, "    longest gap: %s", led)
	if others.N > 0 {
		fmt.Fprintf(out, "; of partitions led elsewhere: %s", others)
	}
	fmt.Fprintf(out, "\n    per partition, median / max in ms: %s\n", perPartition(r.gaps))
	for _, n := range r.notes {
		fmt.Fprintf(out, "    %s\n", n)
	}
	if r.verdict() != "ok" {
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

// bound is what the gaps of a scenario, over all repetitions, must stay below. The zero value is no bound.
type bound struct {
	// median is of the partitions whose leader was struck; max is of all.
	median, max time.Duration
	// others is the maximum of partitions whose leader was not struck.
	others time.Duration
	// serving is from the start of all brokers until every partition has acknowledged.
	serving time.Duration
	// noFailed: no acknowledgement may fail for good.
	noFailed bool
}

// line is a scenario in the summary of a run: all its repetitions together.
type line struct {
	scenario     scenario
	runs, bad    int
	rounds       int
	acked        int            // writes acknowledged
	lost         map[string]int // writes that each producer gave up
	gaps         []gap
	serving      []time.Duration
	notPossible  string
	boundsMissed []string
}

func (l *line) add(r *report) {
	l.runs++
	if !r.good() {
		l.bad++
	}
	l.rounds += r.rounds
	c := r.result.Counts
	l.acked += c.Acked
	for who, n := range r.lost {
		if l.lost == nil {
			l.lost = map[string]int{}
		}
		l.lost[who] += n
	}
	l.gaps = append(l.gaps, r.gaps...)
	l.serving = append(l.serving, r.serving...)
}

// judge compares the gaps with the scenario's bound.
func (l *line) judge() {
	b := l.scenario.bound
	led, others := summary(l.gaps)
	l.below("the median of the longest gaps", led.Median, b.median)
	l.below("the longest gap", max(led.Max, others.Max), b.max)
	l.below("the longest gap of partitions led elsewhere", others.Max, b.others)
	l.below("the longest time until all was served again", measure.SpreadOf(l.serving).Max, b.serving)
	if b.noFailed && len(l.lost) > 0 {
		l.boundsMissed = append(l.boundsMissed, lostText(l.lost)+" writes were given up")
	}
}

// lostText says how many writes were given up, and by whom.
func lostText(lost map[string]int) string {
	total := 0
	var parts []string
	for _, who := range slices.Sorted(maps.Keys(lost)) {
		total += lost[who]
		parts = append(parts, fmt.Sprintf("%d by %s", lost[who], who))
	}
	if total == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}

// below notes that a bound, if there is one, was missed.
func (l *line) below(what string, measured, limit time.Duration) {
	if limit > 0 && measured >= limit {
		l.boundsMissed = append(l.boundsMissed, fmt.Sprintf("%s is %d ms, the bound %d ms", what, measured.Milliseconds(), limit.Milliseconds()))
	}
}

func (l *line) verdict() string {
	switch {
	case l.notPossible != "":
		return "not possible: " + l.notPossible
	case l.bad > 0:
		return fmt.Sprintf("%d of %d not good", l.bad, l.runs)
	case len(l.boundsMissed) > 0:
		return "bound missed"
	default:
		return "ok"
	}
}

func (l *line) good() bool { return l.bad == 0 && len(l.boundsMissed) == 0 }

// printSummary prints a table that can be put into a README.
func printSummary(out io.Writer, lines []*line) {
	fmt.Fprint(out, "\n| scenario | verdict | runs | rounds | writes acknowledged | given up | gap of led partitions, median / max ms | of others | worst partition |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, l := range lines {
		led, others := summary(l.gaps)
		fmt.Fprintf(out, "| %s | %s | %d | %d | %d | %s | %s | %s | %s |\n", l.scenario.name, l.verdict(), l.runs, l.rounds, l.acked, lostText(l.lost), led.Short(), others.Short(), worst(l.gaps))
	}
	for _, l := range lines {
		if len(l.serving) > 0 {
			fmt.Fprintf(out, "%s: every partition served after %s\n", l.scenario.name, measure.SpreadOf(l.serving))
		}
		for _, missed := range l.boundsMissed {
			fmt.Fprintf(out, "%s: %s\n", l.scenario.name, missed)
		}
	}
}

// worst is the partition with the largest median, over all faults.
func worst(gaps []gap) string {
	times := map[int32][]time.Duration{}
	for _, g := range gaps {
		times[g.partition.ID] = append(times[g.partition.ID], g.time)
	}
	var name string
	var most measure.Spread
	for _, id := range slices.Sorted(maps.Keys(times)) {
		if s := measure.SpreadOf(times[id]); s.Median > most.Median || name == "" {
			name, most = fmt.Sprintf("%d: ", id), s
		}
	}
	return name + most.Short()
}
