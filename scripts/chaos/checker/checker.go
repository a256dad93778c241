// Package checker judges the history of a run. It is pure: it reads a history and returns what is wrong with it.
//
// What a log of records at offsets promises is checked per partition, from acknowledgements, all reads and the files of all replicas together:
// one value at an offset, one offset for a value, no acknowledged record missing, nothing that was never sent or was refused, each producer's
// records in the order sent, a record that was sent after the acknowledgement of another one behind it. Sessions of readers must go forward
// without gaps. Groups must not have two owners of a partition in one generation; their commits must be linearizable.
package checker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// Kind names an anomaly.
type Kind string

// What the checker can find.
const (
	LostWrite      Kind = "lost acknowledged write"
	Duplicate      Kind = "duplicate"
	Reordered      Kind = "reordering within a partition"
	Inconsistent   Kind = "inconsistent offsets"
	NonMonotonic   Kind = "non-monotonic poll"
	SentBefore     Kind = "non-monotonic send"
	Skipped        Kind = "skipped records"
	NeverSent      Kind = "read of something never sent"
	FailedWrite    Kind = "a refused write took effect"
	WrongCondition Kind = "conditional append at another offset"
	StaleRead      Kind = "stale read after an acknowledged write"
	CommitWentBack Kind = "a commit that went back"
	NeverCommitted Kind = "committed offset that nobody committed"
	// NotLinearizable: each reading of a committed offset is possible, but not all of them together.
	NotLinearizable Kind = "commits are not linearizable"
	TwoOwners       Kind = "two owners of a partition in one generation"
	FinalGap        Kind = "hole in the log"
	ReplicaGap      Kind = "hole in a replica"
	NotRead         Kind = "partition not read at the end"
)

// Anomaly is one thing that is wrong.
type Anomaly struct {
	Kind   Kind
	Detail string
}

func (a Anomaly) String() string { return string(a.Kind) + ": " + a.Detail }

// Options say what makes a run valid.
type Options struct {
	// MinAcks is how many acknowledgements a run must have in all, and MinDuring how many writes must have been tried while a fault was in force.
	MinAcks, MinDuring int
}

// Result is the checker's judgement.
type Result struct {
	Anomalies []Anomaly
	// Invalid says why the run proves nothing; empty if it is valid.
	Invalid string
	Counts  Counts
}

// Counts are how much the run did.
type Counts struct {
	Acked, Failed, Unknown int // writes
	Outbid                 int // conditional appends that were refused because another one was first; they do not count as Failed
	During                 int // writes tried during a fault
	Reads, Commits         int
	Generations            int
}

// Good tells whether the run is valid and nothing is wrong.
func (r Result) Good() bool { return r.Invalid == "" && len(r.Anomalies) == 0 }

// Verdict is the result in a word.
func (r Result) Verdict() string {
	switch {
	case len(r.Anomalies) > 0:
		return "FAIL"
	case r.Invalid != "":
		return "INVALID"
	default:
		return "ok"
	}
}

// maxPerKind bounds how many anomalies of one kind are reported: one cause often has thousands.
const maxPerKind = 5

// Check judges h.
func Check(h *history.History, opts Options) Result {
	c := &check{h: h, logs: map[history.Partition]*partitionLog{}, perKind: map[Kind]int{}, wrong: map[groupPartition]bool{}}
	c.produces()
	c.allReads()
	c.finals()
	c.orders()
	c.sends()
	c.sessions()
	c.latests()
	c.commits()
	c.linear()
	c.owners()
	c.groupReads()
	c.summaries()
	r := Result{Anomalies: c.found, Counts: c.count()}
	if r.Invalid = opts.judge(r.Counts); r.Invalid == "" && c.undecided > 0 {
		r.Invalid = fmt.Sprintf("whether the commits of %d partitions are linearizable was not found out within %d steps", c.undecided, linearBudget)
	}
	return r
}

func (o Options) judge(c Counts) string {
	if c.Acked < o.MinAcks {
		return fmt.Sprintf("only %d writes were acknowledged, %d are needed", c.Acked, o.MinAcks)
	}
	if c.During < o.MinDuring {
		return fmt.Sprintf("only %d writes were tried during the fault, %d are needed", c.During, o.MinDuring)
	}
	return ""
}

type check struct {
	h       *history.History
	logs    map[history.Partition]*partitionLog
	found   []Anomaly
	perKind map[Kind]int
	// wrong are the registers of commits with a reading that is wrong by itself; undecided is how many others could not be judged.
	wrong     map[groupPartition]bool
	undecided int
}

// partitionLog is what is known of a partition's log.
type partitionLog struct {
	sent     map[string]*history.Produce
	at       map[int64]string   // value at an offset
	offsetOf map[string]int64   // where a value was first seen
	copies   map[string][]int64 // the further offsets of values that may be stored more than once
}

func (c *check) report(k Kind, format string, args ...any) {
	c.perKind[k]++
	if c.perKind[k] <= maxPerKind {
		c.found = append(c.found, Anomaly{k, fmt.Sprintf(format, args...)})
	}
}

// summaries says how many were left off.
func (c *check) summaries() {
	for k, n := range c.perKind {
		if n > maxPerKind {
			c.found = append(c.found, Anomaly{k, fmt.Sprintf("and %d more", n-maxPerKind)})
		}
	}
	slices.SortStableFunc(c.found, func(a, b Anomaly) int { return cmp.Compare(a.Kind, b.Kind) })
}

func (c *check) log(p history.Partition) *partitionLog {
	l := c.logs[p]
	if l == nil {
		l = &partitionLog{sent: map[string]*history.Produce{}, at: map[int64]string{}, offsetOf: map[string]int64{}, copies: map[string][]int64{}}
		c.logs[p] = l
	}
	return l
}

func (c *check) count() Counts {
	var n Counts
	for _, p := range c.h.Produces {
		switch {
		case p.Outcome == history.OK:
			n.Acked++
		case p.Outbid:
			n.Outbid++
		case p.Outcome == history.Failed:
			n.Failed++
		case p.Outcome == history.Unknown:
			n.Unknown++
		}
		if slices.ContainsFunc(c.h.Faults, func(f history.Fault) bool { return overlaps(f.Span, p.Span) }) {
			n.During++
		}
	}
	for _, p := range c.h.Polls {
		n.Reads += len(p.Records)
	}
	generations := map[string]bool{}
	for _, a := range c.h.Assigns {
		generations[fmt.Sprint(a.Group, a.Generation)] = true
	}
	n.Commits, n.Generations = len(c.h.Commits), len(generations)
	return n
}

func overlaps(a, b history.Span) bool { return a.Start <= b.End && b.Start <= a.End }

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
