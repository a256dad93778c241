package client

import (
	"testing"
	"time"
)

func woken(pp *partitionProducer) bool {
	select {
	case <-pp.wake:
		return true
	default:
		return false
	}
}

func TestBatchesDoNotLingerWhileNothingIsInFlight(t *testing.T) {
	now := time.Unix(1000, 0)
	e := eagerness{on: true}
	a, b := &partitionProducer{wake: make(chan struct{}, 1)}, &partitionProducer{wake: make(chan struct{}, 1)}
	if !e.may(a, now) {
		t.Fatal("the first batch lingers")
	}
	e.spend(now)
	e.sent()
	e.sent()
	for range 2 { // being asked twice is no reason to be woken twice
		if e.may(a, now) || e.may(b, now) {
			t.Fatal("a batch did not wait for those in flight")
		}
	}
	e.answered()
	if woken(a) || woken(b) {
		t.Fatal("woken while a batch was in flight")
	}
	e.answered()
	if !woken(a) || !woken(b) {
		t.Fatal("not woken when nothing was in flight any more")
	}
	if len(e.lingering) != 0 || a.lingers || b.lingers {
		t.Error("still registered")
	}
	if !e.may(b, now) {
		t.Error("a batch lingers for nothing")
	}
}

func TestTheRateOfBatchesThatDoNotLingerIsBounded(t *testing.T) {
	now, n := time.Unix(1000, 0), 0
	e := eagerness{on: true}
	pp := &partitionProducer{wake: make(chan struct{}, 1)}
	for end := now.Add(time.Second); now.Before(end); now = now.Add(20 * time.Microsecond) {
		if e.may(pp, now) {
			e.spend(now)
			n++
		}
	}
	if want := int(time.Second / eagerInterval); n < want || n > want+int(eagerBurst/eagerInterval)+1 {
		t.Errorf("%d batches in a second, want %d and a burst", n, want)
	}
	if off := (&eagerness{}); off.may(pp, now) {
		t.Error("a linger that was asked for was not kept")
	}
}
