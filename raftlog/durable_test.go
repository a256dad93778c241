package raftlog

import (
	"sync"
	"testing"
)

// TestCheckpointsBesideAppends lets the two things that sync a log under flush=os run at the same time: the race detector watches.
func TestCheckpointsBesideAppends(t *testing.T) {
	opts := testOptions(newMem(t))
	opts.Durability, opts.SegmentBytes = DurabilityOS, 1<<20
	l := mustOpen(t, opts)
	defer l.Close()
	a := appenderFor(t, l)
	mustStore(t, l, a.batch(1, 100, 7))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			last, err := l.LastIndex()
			if err != nil {
				t.Error(err)
				return
			}
			term, next, err := l.stateAt(Index(last))
			if err == nil {
				err = l.WriteCheckpoint(Checkpoint{Index: Index(last), Term: term, NextOffset: next})
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 500 {
		mustStore(t, l, a.batch(1, 100, 7))
	}
	close(stop)
	wg.Wait()
}
