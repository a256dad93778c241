package partition

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog"
)

// fsm feeds raft's committed entries to the state, and tells the replica what came of it. Its methods are called by raft's FSM goroutine, and by
// NewRaft before that one runs.
type fsm struct {
	state *state
	log   interface {
		Boundary(after raftlog.Index) (raftlog.Boundary, bool)
	}
	lastCheckpoint  raftlog.Index // the newest handed to save
	sinceCheckpoint int64         // bytes applied since then
	checkpointBytes int64
	save            func(raftlog.Checkpoint) // must not block
	applied         func(applySummary)       // must not block
	restored        func(raftlog.Index)      // must not block
	failed          func(error)              // must not block
}

// applySummary tells what a group of entries changed.
type applySummary struct {
	batches, trimmed, config bool
}

var errSnapshot = errors.New("raft's snapshots are not in use: checkpoints are")

// ApplyBatch implements raft.BatchingFSM. If an entry cannot be applied the replica fails and the goroutine ends: going on would make this
// replica differ from the others.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	var sum applySummary
	if err := f.applyAll(logs, out, &sum); err != nil {
		f.failed(err)
		runtime.Goexit()
	}
	f.applied(sum)
	return out
}

func (f *fsm) applyAll(logs []*raft.Log, out []any, sum *applySummary) error {
	f.state.mu.Lock()
	defer f.state.mu.Unlock()
	for i, l := range logs {
		if err := f.saveBoundaries(raftlog.Index(l.Index)); err != nil {
			return err
		}
		f.state.noteMarks(raftlog.Index(l.Index))
		res, err := f.state.apply(l)
		if err != nil {
			return err
		}
		out[i] = res
		f.sinceCheckpoint += int64(len(l.Data))
		sum.batches = sum.batches || res.accepted
		sum.trimmed = sum.trimmed || res.trimmed
		sum.config = sum.config || res.config
	}
	if f.sinceCheckpoint >= f.checkpointBytes {
		return f.saveAt(f.state.applied, f.state.appliedTerm)
	}
	return nil
}

// saveBoundaries hands over a checkpoint for each segment that ends before entry next: nothing between the last applied entry and next changes
// the state, so the state as it is now is the state at that end.
func (f *fsm) saveBoundaries(next raftlog.Index) error {
	for {
		b, ok := f.log.Boundary(f.lastCheckpoint)
		if !ok || b.Index >= next {
			return nil
		}
		if err := f.saveAt(b.Index, b.Term); err != nil {
			return err
		}
	}
}

func (f *fsm) saveAt(index raftlog.Index, term uint64) error {
	f.lastCheckpoint, f.sinceCheckpoint = index, 0
	cp, err := f.state.checkpoint(index, term)
	if err == nil {
		f.save(cp)
	}
	return err
}

// saveIdleBoundaries is saveBoundaries for a log that was rolled while idle: the last applied entry may be the last of the sealed segment.
func (f *fsm) saveIdleBoundaries() error {
	f.state.mu.Lock()
	defer f.state.mu.Unlock()
	return f.saveBoundaries(f.state.applied + 1)
}

// Apply implements raft.FSM; raft calls ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nil, errSnapshot }

// Restore implements raft.FSM: at the start from the newest checkpoint, later from one that a leader sent because this replica was too far
// behind.
func (f *fsm) Restore(rc io.ReadCloser) error {
	cp, err := raftlog.ReadCheckpoint(rc)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	f.state.mu.Lock()
	err = f.state.restore(cp)
	if err == nil {
		f.lastCheckpoint, f.sinceCheckpoint = cp.Index, 0
		f.restored(cp.Index)
	}
	f.state.mu.Unlock()
	if err != nil {
		// The log already begins at the checkpoint: without its state nothing that follows can be applied.
		err = fmt.Errorf("restore: %w", err)
		f.failed(err)
		return err
	}
	f.applied(applySummary{batches: true, trimmed: true, config: true})
	return nil
}
