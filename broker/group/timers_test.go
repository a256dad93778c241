package group

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimers compares the heap with a plain map of deadlines.
func TestTimers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	start := time.Unix(0, 0)
	now, woken := start, 0
	ts, model := newTimers(func() { woken++ }), map[timerKey]time.Time{}
	for range 20000 {
		key := timerKey{sessionTimer, "g", string(rune('a' + rng.IntN(26)))}
		deadline := now.Add(time.Duration(1+rng.IntN(100)) * time.Second)
		switch rng.IntN(5) {
		case 0:
			ts.set(key, deadline, 0)
			model[key] = deadline
		case 1:
			ts.extend(key, deadline)
			if old, ok := model[key]; ok && deadline.After(old) {
				model[key] = deadline
			}
		case 2:
			ts.drop(key)
			delete(model, key)
		default:
			now = now.Add(time.Duration(rng.IntN(10)) * time.Second)
			expireAndCompare(t, &ts, model, now)
		}
		if ts.has(key) != !model[key].IsZero() || len(ts.heap) != len(ts.named) || len(ts.named) != len(model) {
			t.Fatalf("%d timers in the heap, %d by name, %d in the model", len(ts.heap), len(ts.named), len(model))
		}
	}
	if woken == 0 {
		t.Error("an earlier deadline was never announced")
	}
}

func expireAndCompare(t *testing.T, ts *timers, model map[timerKey]time.Time, now time.Time) {
	t.Helper()
	passed, next, more := ts.expire(now, 1000)
	for _, tm := range passed {
		if d, ok := model[tm.key]; !ok || d.After(now) {
			t.Fatalf("%v passed at %v, not %v", tm.key, now, d)
		}
		delete(model, tm.key)
	}
	for key, d := range model {
		if !d.After(now) {
			t.Fatalf("%v did not pass at %v", key, now)
		}
		if more && d.Before(next) {
			t.Fatalf("%v comes before the next look at %v", key, next)
		}
	}
	if more != (len(model) > 0) {
		t.Fatalf("more: %v with %d left", more, len(model))
	}
}
