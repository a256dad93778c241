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

// spread is the middle and the end of a number of times.
type spread struct {
	n           int
	median, max time.Duration
}

func spreadOf(times []time.Duration) spread {
	if len(times) == 0 {
		return spread{}
	}
	slices.Sort(times)
	return spread{len(times), times[len(times)/2], times[len(times)-1]}
}

func (s spread) String() string {
	if s.n == 0 {
		return "none measured"
	}
	return fmt.Sprintf("median %d ms, max %d ms (n=%d)", s.median.Milliseconds(), s.max.Milliseconds(), s.n)
}

// short is the spread for a column of a table.
func (s spread) short() string {
	if s.n == 0 {
		return ""
	}
	return fmt.Sprintf("%d / %d", s.median.Milliseconds(), s.max.Milliseconds())
}

// summary tells the gaps of partitions whose leader was struck apart from those of others.
func summary(gaps []gap) (led, others spread) {
	var l, o []time.Duration
	for _, g := range gaps {
		if g.led() {
			l = append(l, g.time)
		} else {
			o = append(o, g.time)
		}
	}
	return spreadOf(l), spreadOf(o)
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
		parts = append(parts, fmt.Sprintf("%s %s", p, spreadOf(times[p]).short()))
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
