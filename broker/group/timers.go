package group

import (
	"container/heap"
	"time"
)

type timerKind uint8

const (
	sessionTimer timerKind = iota + 1 // of a member or of an ID handed out
	joinTimer
	syncTimer
	sweepTimer
	assignTimer // of an assignment that is to be tried again
)

// timerKey names a deadline. There is at most one of each name.
type timerKey struct {
	kind   timerKind
	group  string
	member string
}

type timer struct {
	key timerKey
	// due orders the heap. deadline is what counts: extending it leaves the heap alone, and when due comes the timer goes back in.
	due, deadline time.Time
	mark          uint64 // the join phase's round, or the sync phase's generation
	index         int
}

// timers are all deadlines of a coordinator partition in one heap. It is not safe for concurrent use.
type timers struct {
	heap  timerHeap
	named map[timerKey]*timer
	// sooner is called when the earliest deadline changes to an earlier one. It must not block.
	sooner func()
}

func newTimers(sooner func()) timers { return timers{named: map[timerKey]*timer{}, sooner: sooner} }

func (ts *timers) has(key timerKey) bool { return ts.named[key] != nil }

// set arms or re-arms a deadline.
func (ts *timers) set(key timerKey, deadline time.Time, mark uint64) {
	if tm := ts.named[key]; tm != nil {
		tm.due, tm.deadline, tm.mark = deadline, deadline, mark
		heap.Fix(&ts.heap, tm.index)
		ts.first(tm)
		return
	}
	tm := &timer{key: key, due: deadline, deadline: deadline, mark: mark}
	ts.named[key] = tm
	heap.Push(&ts.heap, tm)
	ts.first(tm)
}

func (ts *timers) first(tm *timer) {
	if tm.index == 0 {
		ts.sooner()
	}
}

// extend moves a deadline out, if there is one, in constant time.
func (ts *timers) extend(key timerKey, deadline time.Time) {
	if tm := ts.named[key]; tm != nil && deadline.After(tm.deadline) {
		tm.deadline = deadline
	}
}

func (ts *timers) drop(key timerKey) {
	if tm := ts.named[key]; tm != nil {
		heap.Remove(&ts.heap, tm.index)
		delete(ts.named, key)
	}
}

// expire removes and returns up to limit deadlines that have passed, and says when to look again (false: there is no deadline left).
func (ts *timers) expire(now time.Time, limit int) (passed []*timer, next time.Time, more bool) {
	for len(ts.heap) > 0 && len(passed) < limit {
		tm := ts.heap[0]
		switch {
		case tm.due.After(now):
			return passed, tm.due, true
		case tm.deadline.After(now):
			tm.due = tm.deadline
			heap.Fix(&ts.heap, 0)
		default:
			heap.Pop(&ts.heap)
			delete(ts.named, tm.key)
			passed = append(passed, tm)
		}
	}
	return passed, now, len(ts.heap) > 0
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	tm := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return tm
}
