package partition

import (
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	start := time.Unix(1000, 0)
	var s stall
	for _, step := range []struct {
		after        time.Duration
		commit, last uint64
		want         bool
		why          string
	}{
		{0, 10, 12, false, "it was not looked at before"},
		{stallAfter - 1, 10, 15, false, "not for long enough"},
		{stallAfter, 10, 15, true, "nothing was committed for stallAfter"},
		{stallAfter + 1, 11, 15, false, "it goes on"},
		{2*stallAfter + 1, 11, 15, true, "it is stuck again"},
		{2*stallAfter + 2, 15, 15, false, "all is committed"},
		{9 * stallAfter, 15, 15, false, "an idle group waits for nothing"},
		{9*stallAfter + 1, 15, 16, false, "the first entry after a long time has only begun to wait"},
	} {
		if got := s.look(start.Add(step.after), step.commit, step.last); got != step.want {
			t.Fatalf("after %s: stalled is %t: %s", step.after, got, step.why)
		}
	}
}
