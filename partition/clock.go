package partition

import "time"

const (
	// jumpMax is how far a wall clock may get ahead of the time that has passed before that counts as a jump.
	jumpMax = time.Hour
	// jumpBelieved is how long the clock must stay there to be believed.
	jumpBelieved = 24 * time.Hour
)

// jumpGuard keeps a clock that was set wrong from having everything deleted as old. A jump ahead is not believed for a day, in which somebody may put the
// clock right; time goes on at its usual pace meanwhile. Going back is harmless, as less is old then. What it cannot see is a clock that was wrong when
// the replica was opened. Used by one goroutine.
type jumpGuard struct {
	wall   time.Time // as of passed
	passed time.Time // with a monotonic reading
	since  time.Time // when the jump was noticed; zero: there was none
}

// believe returns the time to go by. now is what the wall clock says, passed a reading of the monotonic one.
func (g *jumpGuard) believe(now, passed time.Time) (t time.Time, jumped time.Duration) {
	if !g.passed.IsZero() {
		steady := g.wall.Add(passed.Sub(g.passed))
		if ahead := now.Sub(steady); ahead > jumpMax {
			if g.since.IsZero() {
				g.since = passed
			}
			if passed.Sub(g.since) < jumpBelieved {
				return steady, ahead
			}
		}
	}
	*g = jumpGuard{wall: now.Round(0), passed: passed}
	return now, 0
}
