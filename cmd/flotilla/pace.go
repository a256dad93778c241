package main

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// schedule is an open-loop load: event i is meant for start + i/rate, whatever became of the events before it. Latencies are measured
// from the time meant, so a stall counts for every event that should have been sent during it and not for one alone (coordinated omission).
type schedule struct {
	start time.Time
	rate  float64 // per second; 0: everything is meant for now
	sleep func(time.Duration)
}

// at returns the time that event i is meant for.
func (s schedule) at(i int64) time.Time {
	return s.start.Add(time.Duration(math.Round(float64(i) / s.rate * float64(time.Second))))
}

// run calls send for each event from 0 on, never before its time, until send returns false or ctx ends. A send that is late is made at once.
func (s schedule) run(ctx context.Context, send func(i int64, meant time.Time) bool) error {
	for i := int64(0); ; i++ {
		meant := time.Now()
		if s.rate > 0 {
			meant = s.at(i)
			s.sleepUntil(ctx, meant)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !send(i, meant) {
			return nil
		}
	}
}

// longestSleep is how long ctx may have ended before a sleeper notices.
const longestSleep = 50 * time.Millisecond

func (s schedule) sleepUntil(ctx context.Context, t time.Time) {
	for wait := time.Until(t); wait > 0 && ctx.Err() == nil; wait = time.Until(t) {
		s.sleep(min(wait, longestSleep))
	}
}

// The range of a latency histogram in microseconds, at three significant digits. Longer latencies are recorded as the longest.
const (
	latencyUsMin = 1
	latencyUsMax = 10 * 60 * 1000 * 1000
)

// latencies is a histogram that many goroutines record into.
type latencies struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

func newLatencies() *latencies {
	return &latencies{h: hdrhistogram.New(latencyUsMin, latencyUsMax, 3)}
}

func (l *latencies) record(d time.Duration) {
	us := min(max(d.Microseconds(), latencyUsMin), latencyUsMax)
	l.mu.Lock()
	defer l.mu.Unlock()
	// It cannot fail: us is within the histogram's range.
	_ = l.h.RecordValue(us)
}

// latencySummary is in milliseconds.
type latencySummary struct {
	Count  int64   `json:"count"`
	MeanMs float64 `json:"meanMs"`
	P50Ms  float64 `json:"p50Ms"`
	P90Ms  float64 `json:"p90Ms"`
	P99Ms  float64 `json:"p99Ms"`
	P999Ms float64 `json:"p999Ms"`
	MaxMs  float64 `json:"maxMs"`
}

func (l *latencies) summary() *latencySummary {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := func(p float64) float64 { return float64(l.h.ValueAtPercentile(p)) / 1000 }
	return &latencySummary{
		Count: l.h.TotalCount(), MeanMs: l.h.Mean() / 1000,
		P50Ms: ms(50), P90Ms: ms(90), P99Ms: ms(99), P999Ms: ms(99.9), MaxMs: float64(l.h.Max()) / 1000,
	}
}
