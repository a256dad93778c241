package broker

import (
	"testing"
	"time"
)

// On a partition that takes 100,000 entries a second, a replica that lacks the last half second of them will never be within 128 entries.
func TestProgressByTime(t *testing.T) {
	var p progress
	now := time.Unix(1000, 0)
	for i := range uint64(100) {
		p.note(now.Add(time.Duration(i)*200*time.Millisecond), 20_000*i)
	}
	now = now.Add(99 * 200 * time.Millisecond)
	for _, c := range []struct {
		index uint64
		want  bool
	}{
		{20_000 * 99, true},
		{20_000*99 - 50_000, true},   // half a second behind
		{20_000*99 - 100_000, true},  // a second
		{20_000*99 - 100_001, false}, // more
		{20_000*99 - 1_000_000, false},
		{0, false},
	} {
		if got := p.within(now, c.index); got != c.want {
			t.Errorf("a replica at %d counts as caught up: %t, want %t", c.index, got, c.want)
		}
	}
	if len(p.marks) > progressMarks {
		t.Errorf("%d marks are remembered", len(p.marks))
	}
	if p.within(now.Add(time.Minute), 20_000*99) {
		t.Error("where the log ended a minute ago says nothing about now")
	}
}
