package partition

import (
	"testing"
	"time"
)

func TestJumpGuard(t *testing.T) {
	var g jumpGuard
	begin := time.Now()
	wall := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, x := range []struct {
		passed time.Duration // since the beginning
		ahead  time.Duration // of the wall clock, against where it began
		jumped bool
	}{
		{0, 0, false},
		{time.Minute, time.Second, false},
		{2 * time.Minute, 30 * time.Minute, false},         // corrected
		{3 * time.Minute, 10 * 365 * 24 * time.Hour, true}, // set wrong
		{4 * time.Minute, 10 * 365 * 24 * time.Hour, true},
		{5 * time.Minute, -24 * time.Hour, false}, // and further back
		{6 * time.Minute, 0, true},                // to where it should be: a day later
		{24 * time.Hour, 0, true},
		{24*time.Hour + 7*time.Minute, 0, false}, // it stayed
		{30 * time.Hour, 0, false},
	} {
		passed := begin.Add(x.passed)
		now := wall.Add(x.passed + x.ahead)
		got, jumped := g.believe(now, passed)
		if (jumped > 0) != x.jumped || !x.jumped && !got.Equal(now) || x.jumped && !got.Before(now.Add(-jumpMax)) {
			t.Errorf("%d: believed %v (jumped by %s) when the clock said %v", i, got, jumped, now)
		}
	}
}
