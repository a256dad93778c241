package group

import "time"

const (
	// jumpMax is how far the wall clock may get ahead of the time that has passed before that counts as a jump.
	jumpMax = time.Hour
	// jumpBelieved is how long the clock must stay there to be believed.
	jumpBelieved = 24 * time.Hour
)

// jumpGuard keeps a clock that was set wrong from having all offsets expire, as partition's does for records: a jump ahead is not believed for a day, in
// which somebody may put the clock right. It cannot see that a clock was wrong when the coordinator was made. Used by one goroutine at a time.
type jumpGuard struct {
	wall, passed time.Time // at the last look; passed has a monotonic reading
	since        time.Time // when the jump was noticed; zero: there was none
}

// jumped tells how far the clock is ahead of what is believed; 0: it is believed. now is what the wall clock says, passed a reading of the monotonic one.
func (g *jumpGuard) jumped(now, passed time.Time) time.Duration {
	if !g.passed.IsZero() {
		if ahead := now.Sub(g.wall.Add(passed.Sub(g.passed))); ahead > jumpMax {
			if g.since.IsZero() {
				g.since = passed
			}
			if passed.Sub(g.since) < jumpBelieved {
				return ahead
			}
		}
	}
	*g = jumpGuard{wall: now.Round(0), passed: passed}
	return 0
}
