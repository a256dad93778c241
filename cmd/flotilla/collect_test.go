package main

import "testing"

func TestIdleFor(t *testing.T) {
	const little, much = 1 << 20, 1 << 30 // bytes in a tick
	ticks := 0
	for i, c := range []struct {
		allocated uint64
		want      int
	}{{little, 1}, {much, 0}, {little, 1}, {little, 2}, {little, 3}, {little, 3}, {much, 0}} {
		if ticks = idleFor(ticks, c.allocated); ticks != c.want {
			t.Errorf("tick %d: %d, not %d", i, ticks, c.want)
		}
	}
}
