// Package measure is what the programs below scripts that measure brokers have in common.
package measure

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Pause waits for d; an error is why ctx ended before.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Spread is the middle and the end of a number of times. Of an even number, the median is the upper one of the two in the middle.
type Spread struct {
	N           int
	Median, Max time.Duration
}

// SpreadOf sorts times.
func SpreadOf(times []time.Duration) Spread {
	if len(times) == 0 {
		return Spread{}
	}
	slices.Sort(times)
	return Spread{len(times), times[len(times)/2], times[len(times)-1]}
}

func (s Spread) String() string {
	if s.N == 0 {
		return "none measured"
	}
	return fmt.Sprintf("median %d ms, max %d ms (n=%d)", s.Median.Milliseconds(), s.Max.Milliseconds(), s.N)
}

// Short is the spread for a column of a table, in ms; empty if there is none.
func (s Spread) Short() string {
	if s.N == 0 {
		return ""
	}
	return fmt.Sprintf("%d / %d", s.Median.Milliseconds(), s.Max.Milliseconds())
}
