package partition

import (
	"errors"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// maxPendingCheckpoints bounds the checkpoints in memory that wait for the disk. Beyond it the oldest is dropped: its segment is then removed together with the
// next one that has a checkpoint.
const maxPendingCheckpoints = 4

// keeper writes checkpoints in their order and then lets the log remove what no one needs, on a goroutine that exists only while there is something to do.
//
// The order of the two durable things: a checkpoint is durable before a segment below it goes. A crash between them leaves a segment too many, which the next
// trim removes.
type keeper struct {
	name   string
	log    *raftlog.Log
	logger hclog.Logger
	// bounds says what the log may remove: records below the offset, in entries up to the index.
	bounds func() (record.Offset, raftlog.Index)
	// idle is called before trimming: it rolls a segment that is all history, and asks the state machine for the checkpoint of its end.
	idle func()

	mu      sync.Mutex
	pending []raftlog.Checkpoint
	durable raftlog.Index // of the newest checkpoint on disk
	work    lazy
}

// save queues a checkpoint.
func (k *keeper) save(cp raftlog.Checkpoint) {
	k.mu.Lock()
	if len(k.pending) >= maxPendingCheckpoints {
		k.pending = k.pending[1:]
	}
	k.pending = append(k.pending, cp)
	k.mu.Unlock()
	k.work.kick()
}

// run writes what is queued and trims. A checkpoint for which there is no space stays queued for the next run; one that the log refuses is of a log that was
// replaced meanwhile.
func (k *keeper) run() {
	if k.log.Err() != nil {
		return
	}
	k.writeAll()
	k.idle()
	k.writeAll()
	start, upTo := k.bounds()
	if err := k.log.Trim(start, upTo); err != nil {
		k.logger.Warn("could not remove old segments; it is tried again", "partition", k.name, "error", err)
	}
}

func (k *keeper) writeAll() {
	for {
		cp, ok := k.next()
		if !ok {
			return
		}
		err := k.log.WriteCheckpoint(cp)
		if err != nil {
			k.logger.Warn("could not write a checkpoint", "partition", k.name, "index", cp.Index, "error", err)
		}
		if errors.Is(err, raftlog.ErrOutOfStep) {
			k.log.Poison(err) // the state machine and the log disagree on what was accepted: neither may be served
		}
		if errors.Is(err, raftlog.ErrNoSpace) || k.log.Err() != nil {
			return
		}
		k.done(cp, err == nil)
	}
}

func (k *keeper) next() (raftlog.Checkpoint, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.pending) == 0 {
		return raftlog.Checkpoint{}, false
	}
	return k.pending[0], true
}

func (k *keeper) done(cp raftlog.Checkpoint, written bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if written {
		k.durable = max(k.durable, cp.Index)
	}
	if len(k.pending) > 0 && k.pending[0].Index == cp.Index {
		k.pending = k.pending[1:]
	}
	if len(k.pending) == 0 {
		k.pending = nil
	}
}

// restored notes a checkpoint that was installed, or read at the start. What was queued before describes a log that is gone.
func (k *keeper) restored(index raftlog.Index) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.durable, k.pending = index, nil
}

func (k *keeper) durableIndex() raftlog.Index {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.durable
}
