package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

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
		if p.Producer == steadyName && p.Outcome == history.OK {
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
func summary(gaps []gap) (led, others measure.Spread) {
	var l, o []time.Duration
	for _, g := range gaps {
		if g.led() {
			l = append(l, g.time)
		} else {
			o = append(o, g.time)
		}
	}
	return measure.SpreadOf(l), measure.SpreadOf(o)
}

// perPartition tells the unavailability of each partition: median and maximum, in ms, over all faults.
func perPartition(gaps []gap) string {
	times := map[history.Partition][]time.Duration{}
	for _, g := range gaps {
		times[g.partition] = append(times[g.partition], g.time)
	}
	var parts []string
	order := slices.SortedFunc(maps.Keys(times), func(a, b history.Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.ID, b.ID))
	})
	for _, p := range order {
		parts = append(parts, fmt.Sprintf("%s %s", p, measure.SpreadOf(times[p]).Short()))
	}
	return strings.Join(parts, ", ")
}

// printGaps prints every gap.
func printGaps(out io.Writer, gaps []gap) {
	slices.SortFunc(gaps, func(a, b gap) int {
		return cmp.Or(cmp.Compare(a.fault.Start, b.fault.Start), cmp.Compare(a.partition.ID, b.partition.ID))
	})
	for _, g := range gaps {
		fmt.Fprintf(out, "    %s of broker %d at %d to %d ms: %s, led by %d: %d ms\n", g.fault.Name, g.fault.Victim,
			g.fault.Start.Milliseconds(), g.fault.End.Milliseconds(), g.partition, g.fault.Leaders[g.partition], g.time.Milliseconds())
	}
}
