package main

import "testing"

func TestBusyPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: collectMost, 10 << 20: collectMost, collectSpare / 3: collectMost, collectSpare / 2: 200, collectSpare: collectBusy, 10 << 30: collectBusy} {
		if got := busyPercent(10<<30, live); got != want {
			t.Errorf("with %d bytes alive: %d percent, want %d", live, got, want)
		}
		if got := busyPercent(100<<20, live); got != collectBusy {
			t.Errorf("with %d bytes alive, and little allocated: %d percent, want %d", live, got, collectBusy)
		}
	}
}

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
