package raftlog

import (
	"sync"
	"testing"

	"github.com/hashicorp/raft"
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

// TestConfigurationsAreDurable: under flush=os too, with what was stored before them.
func TestConfigurationsAreDurable(t *testing.T) {
	mem := newMem(t)
	opts := testOptions(mem)
	opts.Durability = DurabilityOS
	l := mustOpen(t, opts)
	a := appenderFor(t, l)
	first := a.entry(raft.LogConfiguration, raft.EncodeConfiguration(testConfiguration()))
	mustStore(t, l, first)
	kept := []*raft.Log{first, a.batch(1, 100, 7), a.entry(raft.LogConfiguration, raft.EncodeConfiguration(testConfiguration()))}
	mustStore(t, l, kept[1])
	mustStore(t, l, kept[2])
	mustStore(t, l, a.batch(1, 100, 7))
	mem.Crash(nil)
	_ = l.Close()
	opts.FS = mem
	l = mustOpen(t, opts)
	defer l.Close()
	mustContain(t, l, kept)
}

// TestCrashTruncateUnderOS: a truncation interrupted by a power failure loses no more than was not synced, and is not taken for damage.
func TestCrashTruncateUnderOS(t *testing.T) {
	r := newCrashRun(t, DurabilityOS)
	var all []*raft.Log
	for i := range 8 {
		r.expect(func(*Log, []*raft.Log) error { return nil }) // nothing is promised yet, but that it opens
		for range 3 {
			a := appenderFor(t, r.log)
			a.term += uint64(i % 2)
			more := r.random(a, 5)
			mustStore(t, r.log, more...)
			all = append(all, more...)
		}
		keep := len(all) * (i + 1) / 10
		old, cut := all, all[:keep:keep]
		r.expect(func(l *Log, got []*raft.Log) error {
			if len(got) > keep {
				return between(old, 0)(l, got)
			}
			return between(cut, 0)(l, got)
		})
		if err := r.log.DeleteRange(all[keep].Index, all[len(all)-1].Index); err != nil {
			t.Fatal(err)
		}
		all = cut
		r.expect(exactly(all)) // a truncation syncs what it leaves
		r.crash("after a truncation")
	}
	r.close()
}
