// Package history records what the clients of a run did and saw, for scripts/chaos/checker to judge.
//
// Times are durations since the run began, from one monotonic clock: so "an acknowledgement came before a read began" can be told for any two
// operations of the run, whoever did them.
package history

import (
	"fmt"
	"sync"
	"time"
)

// Partition names a partition.
type Partition struct {
	Topic string
	ID    int32
}

func (p Partition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.ID) }

// Outcome is how an operation ended, as far as its caller was told.
type Outcome uint8

// OK: it happened. Failed: it did not, and must not have any effect. Unknown: it may have happened, or may still.
const (
	OK Outcome = iota
	Failed
	Unknown
)

func (o Outcome) String() string {
	return [...]string{"ok", "failed", "unknown"}[o]
}

// Span is when an operation began and ended.
type Span struct{ Start, End time.Duration }

// Unassigned is the offset of a record that has none or whose offset was not learnt.
const Unassigned int64 = -1

// Produce is one record that was sent. Value must be unlike that of every other record of the run.
type Produce struct {
	Span
	Producer string
	// Seq is the record's place among all that this producer sent to this partition, where the producer keeps an order. 0: it keeps none.
	Seq       int64
	Partition Partition
	Value     string
	Outcome   Outcome
	Offset    int64 // Unassigned, unless OK and known
	// Expected is the offset that a conditional append asked for; Unassigned for others.
	Expected int64
	// Outbid says of a conditional append that Failed that it was refused because its offset is not the next one any more: another one was first.
	Outbid bool
	// Sends is how often the record was sent by a producer that is not idempotent, and so how often it may be stored. 0 and 1: once.
	Sends int
}

// Read is one record that a poll returned.
type Read struct {
	Offset int64
	Value  string
}

// Poll is what one poll returned of one partition. Polls of one Session read on one after the other; a new session may begin anywhere.
type Poll struct {
	Span
	Session   string
	Group     string // whose member the session is; empty: of none
	Partition Partition
	Records   []Read
}

// Replica is what one broker's files hold of a partition after the run, in order.
type Replica struct {
	Broker    int
	Partition Partition
	Records   []Read
}

// Final is the reading of a partition from its beginning to its end, after all faults were healed and all writes had ended.
type Final struct {
	Partition Partition
	Records   []Read
	// LogStart is where the log began, after retention; records below may be missing.
	LogStart int64
}

// Latest is a reading of the end of a partition (the offset after the last record) from its leader.
type Latest struct {
	Span
	Partition Partition
	Offset    int64
}

// Commit is an attempt to commit Offset for a group.
type Commit struct {
	Span
	Group     string
	Member    string
	Partition Partition
	Offset    int64
	Outcome   Outcome
}

// Committed is a reading of a group's committed offset; Unassigned if there was none.
type Committed struct {
	Span
	Group     string
	Partition Partition
	Offset    int64
}

// Assign says that a member had a partition in a generation of its group.
type Assign struct {
	At         time.Duration
	Group      string
	Generation int32
	Member     string
	Partition  Partition
}

// Fault is the time in which something was broken.
type Fault struct {
	Span
	Name   string
	Victim int // the broker that it struck, by ID; 0: none in particular
	// Leaders led the partitions when it began, as far as was known.
	Leaders map[Partition]int
}

// History is all that happened in a run.
type History struct {
	Produces  []Produce
	Polls     []Poll
	Replicas  []Replica
	Finals    []Final
	Latests   []Latest
	Commits   []Commit
	Committed []Committed
	Assigns   []Assign
	Faults    []Fault
}

// Recorder gathers a history from any number of goroutines.
type Recorder struct {
	began time.Time
	mu    sync.Mutex
	h     History
}

// NewRecorder begins a history now.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Now is the time since the run began.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// Since is the span from start until now.
func (r *Recorder) Since(start time.Duration) Span { return Span{Start: start, End: r.Now()} }

// Produce adds op.
func (r *Recorder) Produce(op Produce) { add(r, &r.h.Produces, op) }

// Poll adds op.
func (r *Recorder) Poll(op Poll) { add(r, &r.h.Polls, op) }

// Replica adds op.
func (r *Recorder) Replica(op Replica) { add(r, &r.h.Replicas, op) }

// Final adds op.
func (r *Recorder) Final(op Final) { add(r, &r.h.Finals, op) }

// Latest adds op.
func (r *Recorder) Latest(op Latest) { add(r, &r.h.Latests, op) }

// Commit adds op.
func (r *Recorder) Commit(op Commit) { add(r, &r.h.Commits, op) }

// Committed adds op.
func (r *Recorder) Committed(op Committed) { add(r, &r.h.Committed, op) }

// Assign adds op.
func (r *Recorder) Assign(op Assign) { add(r, &r.h.Assigns, op) }

// Fault adds op.
func (r *Recorder) Fault(op Fault) { add(r, &r.h.Faults, op) }

func add[T any](r *Recorder, ops *[]T, op T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*ops = append(*ops, op)
}

// History returns what was recorded. Nothing may be added afterwards.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &r.h
}
