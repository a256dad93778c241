package transport

import (
	"testing"
	"time"
)

// The rate can be changed at any time, also away from and back to none, and 0 goes back to what was configured.
func TestSetCatchUpRate(t *testing.T) {
	tr := &Transport{cfg: Config{CatchUpBytesPerSecond: 1000}, slowLane: throttle{rate: 1000}, start: time.Now()}
	for _, step := range []struct{ set, want int64 }{{5000, 5000}, {-1, -1}, {2000, 2000}, {0, 1000}} {
		tr.SetCatchUpRate(step.set)
		tr.adaptCatchUp(tr.rated + time.Hour)
		if tr.slowLane.rate != step.want {
			t.Errorf("set to %d: %d, want %d", step.set, tr.slowLane.rate, step.want)
		}
	}
}
