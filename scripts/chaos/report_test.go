package main

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// TestRollingRestartIsJudged: what misses the bound of a rolling restart, and what does not.
func TestRollingRestartIsJudged(t *testing.T) {
	p := history.Partition{Topic: eventsTopic}
	for _, c := range []struct {
		name    string
		produce history.Produce
		gap     time.Duration
		missed  string
	}{
		{"acknowledged", history.Produce{Producer: "keyed"}, 299 * time.Millisecond, ""},
		{"a conditional append came second", history.Produce{Producer: "appender0", Outcome: history.Failed, Outbid: true}, time.Millisecond, ""},
		{"a conditional append failed otherwise", history.Produce{Producer: "appender0", Outcome: history.Failed}, time.Millisecond, "1 (1 by appender0) writes were given up"},
		{"unknown", history.Produce{Producer: "keyed", Outcome: history.Unknown}, time.Millisecond, "1 (1 by keyed) writes were given up"},
		{"failed", history.Produce{Producer: steadyName, Outcome: history.Failed}, time.Millisecond, "1 (1 by steady) writes were given up"},
		{"a gap", history.Produce{Producer: steadyName}, 300 * time.Millisecond, "the longest gap is 300 ms, the bound 300 ms"},
	} {
		l := &line{scenario: scenario{bound: boundRolling}}
		h := &history.History{Produces: []history.Produce{c.produce}}
		l.add(&report{lost: givenUp(h), gaps: []gap{{partition: p, time: c.gap}}})
		l.judge()
		if got := strings.Join(l.boundsMissed, "; "); got != c.missed || l.good() != (c.missed == "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.missed)
		}
	}
}
