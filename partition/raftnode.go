package partition

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog"
)

const (
	// maxEntryBytes bounds one entry; the transport's frames and the log's entries are larger.
	maxEntryBytes = 32 << 20
	// followerBytes bounds what raft reads into memory at a time for one follower that is behind, counted in batches of the largest size.
	followerBytes = 64 << 20
	// queueReserve is room in raft's queue for what the sequencer does not count: a barrier.
	queueReserve = 4
)

// raftQueue is raft's MaxAppendEntries: how many entries it reads for a follower at a time, and the size of its queue of proposals. More than that are never in flight, so that an
// enqueue does not wait, and so that one request carries all that is not committed: what does not fit in it hashicorp/raft leaves until the next proposal or Timing.Commit.
func raftQueue(s Settings) int {
	return min(max(followerBytes/s.MaxMessageBytes+1, 16), 128)
}

// raftConfig turns off what this package does itself (snapshots), and sets what it needs.
func raftConfig(cfg Config) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = cfg.LocalID
	c.HeartbeatTimeout = cfg.Timing.Heartbeat
	c.ElectionTimeout = cfg.Timing.Election
	c.LeaderLeaseTimeout = cfg.Timing.Lease
	c.CommitTimeout = cfg.Timing.Commit
	c.MaxAppendEntries = raftQueue(cfg.Settings)
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false // the owner of the replica decides what becomes of it
	c.SnapshotInterval = spareInterval
	c.SnapshotThreshold = math.MaxUint64
	c.TrailingLogs = math.MaxUint64
	c.NoLegacyTelemetry = true
	c.Logger = &raftLogger{Logger: cfg.Logger.With("partition", cfg.Name), limit: &logLimit{}}
	return c
}

// raftNode is raft as the sequencer sees it.
type raftNode struct{ *raft.Raft }

func (n raftNode) propose(data []byte) future {
	return n.ApplyLog(raft.Log{Data: data}, 0)
}

func (n raftNode) barrier() future {
	return barrierFuture{n.Barrier(0)}
}

// leads relies on raft changing its state before it changes the term when it loses leadership, and the term before the state when it wins: a replica that is Leader between two
// equal readings of the term leads that term.
func (n raftNode) leads(term uint64) bool {
	return n.CurrentTerm() == term && n.State() == raft.Leader && n.CurrentTerm() == term
}

func (n raftNode) leader() (raft.ServerAddress, raft.ServerID, uint64) {
	addr, id := n.LeaderWithID()
	return addr, id, n.CurrentTerm()
}

type barrierFuture struct{ raft.Future }

func (barrierFuture) Response() any { return nil }

// logGuard is the log as raft sees it. Raft never replaces an entry that was committed, unless a quorum has lost what it had acknowledged: by a power failure with
// flush=os, or by disks that are gone or lie. The state machine here has applied it, and would neither take it back nor apply what comes in its place: raft has
// passed that index. From then on it would disagree with the log about offsets, and a batch that it accepts would be dead for every reader. So the log is poisoned
// first, and nothing has changed. Opened again, the replica knows no more than its newest checkpoint, and follows; if that checkpoint covers what is gone, it has
// to be rebuilt, which its *raftlog.DamageError says.
type logGuard struct {
	*raftlog.Log
	raft atomic.Pointer[raft.Raft] // nil until NewRaft has returned: nothing is committed by then
}

// StoreLogs implements raft.LogStore. A leader of hashicorp/raft v1.7.3 goes on with a configuration whether or not it could store the entry (Raft.appendConfigurationEntry): it would count
// votes by it, take it for committed with whatever comes to stand at its index, and make the next change on top of it, two steps from what the others have; quorums of those
// need not meet. So the log is poisoned; opened again, the replica has the configuration that is in it.
func (g *logGuard) StoreLogs(logs []*raft.Log) error {
	err := g.Log.StoreLogs(logs)
	if err == nil || !slices.ContainsFunc(logs, func(l *raft.Log) bool { return l.Type == raft.LogConfiguration }) {
		return err
	}
	if node := g.raft.Load(); node != nil && node.State() != raft.Leader {
		return err // a follower looks at the entry when it is stored
	}
	return g.Poison(fmt.Errorf("%w: the entry of a new configuration could not be stored: %w", raftlog.ErrOutOfStep, err))
}

// DeleteRange implements raft.LogStore. Raft's main goroutine calls it, which is the one that moves the commit index.
func (g *logGuard) DeleteRange(from, to uint64) error {
	if node := g.raft.Load(); node != nil && g.holds(from) && from <= node.CommitIndex() {
		return g.Poison(fmt.Errorf("%w: the leader replaces entry %d, and %d was committed: a quorum has lost it", raftlog.ErrOutOfStep, from, node.CommitIndex()))
	}
	err := g.Log.DeleteRange(from, to)
	var damage *raftlog.DamageError
	if errors.As(err, &damage) {
		return g.Poison(err)
	}
	return err
}

// holds says whether an entry is there: after a checkpoint was installed, raft asks for the removal of a log that is empty already.
func (g *logGuard) holds(index uint64) bool {
	last, err := g.Log.LastIndex()
	return err == nil && index > 0 && index <= last
}

// checkResponse is the follower's last look at an answer. A follower whose disk is full answers "no", which a leader of hashicorp/raft takes for a log that does not match: it
// would go back, entry by entry, and end by sending a checkpoint to a follower that lacks nothing. An error makes it try again instead. A mismatch sets
// NoRetryBackoff and has to pass.
func checkResponse(log *raftlog.Log) func(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	return func(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		if resp.Success || resp.NoRetryBackoff || resp.Term != req.Term || len(req.Entries) == 0 {
			return nil
		}
		return log.LastStoreError()
	}
}

// raftLogger turns raft's chatter down: what it calls information, and its warnings, are details here, and of its errors (one for each failed call to a peer that is
// down) only one in a while passes.
type raftLogger struct {
	hclog.Logger
	limit *logLimit
}

func (l *raftLogger) Info(msg string, args ...any) { l.Logger.Debug(msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any) { l.Logger.Debug(msg, args...) }

func (l *raftLogger) Error(msg string, args ...any) {
	if l.limit.allow(time.Now()) {
		l.Logger.Warn(msg, args...)
		return
	}
	l.Logger.Debug(msg, args...)
}

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{Logger: l.Logger.With(args...), limit: l.limit}
}

func (l *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{Logger: l.Logger.Named(name), limit: l.limit}
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{Logger: l.Logger.ResetNamed(name), limit: l.limit}
}

// logLimit lets one message in ten seconds pass.
type logLimit struct {
	mu   sync.Mutex
	next time.Time
}

func (l *logLimit) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) {
		return false
	}
	l.next = now.Add(10 * time.Second)
	return true
}
