package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/rounds"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/partition/transport/election"
	"github.com/flotilla-log/flotilla/raftlog"
)

// How long Close waits, at most, if its context allows: for appends in flight and a change of configuration, for the state machine to
// catch up with raft, for raft's goroutines, and for the collector, which hangs if raft failed with proposals in its queue.
const (
	drainTimeout   = 5 * time.Second
	applyTimeout   = 2 * time.Second
	raftTimeout    = 10 * time.Second
	collectTimeout = time.Second
)

// Replica is one replica of a partition. It owns the log, the Raft node, the sequencer and the keeper; Close stops them, and waits for all
// goroutines that they started (unless raft's own are lost, after a failure).
type Replica struct {
	cfg      Config
	logger   hclog.Logger
	settings atomic.Pointer[Settings]
	log      *raftlog.Log
	group    *transport.Group
	raft     *raft.Raft
	elector  *election.Elector
	nudges   lazy // runs nudge
	state    *state
	fsm      *fsm
	seq      *sequencer
	keeper   *keeper
	watchers watchers

	// serving is the term in which this replica's barrier went through, 0 if it does not lead.
	serving atomic.Uint64
	lead    lazy // runs reconsider
	led     leadership
	upkeep  lazy      // runs runUpkeep
	clock   jumpGuard // of runUpkeep
	timerMu sync.Mutex
	timer   *time.Timer

	failure      atomic.Pointer[error] // why the replica failed; set once
	failedLeader atomic.Bool           // it led then
	closing      atomic.Bool
	stopCtx      context.Context // ends when Close begins
	stop         context.CancelFunc
	eventMu      sync.Mutex    // OnEvent is called under it
	change       chan struct{} // holds a token while a change of configuration or leadership is under way
	started      atomic.Bool
	stall        stall                  // see stalled
	confirms     *rounds.Rounds[uint64] // of askQuorum
	haltOnce     sync.Once
	halted       chan struct{} // closed when raft's goroutines have ended
	closeOnce    sync.Once
	closeErr     error
}

// Open opens a replica, or makes an empty one, and starts its Raft node. With errors.As a *raftlog.DamageError is found if files are damaged: set the directory aside and
// rebuild the replica from its peers. raftlog.ErrNewerFormat and ErrLocked say what they say.
func Open(cfg Config) (*Replica, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := newReplica(cfg)
	if err := r.openLog(); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	if err := r.openRaft(); err != nil {
		r.stop()
		r.keeper.work.close()
		if r.group != nil {
			r.group.Close()
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", cfg.Name, err), r.log.Close())
	}
	r.start()
	return r, nil
}

func newReplica(cfg Config) *Replica {
	r := &Replica{cfg: cfg, logger: cfg.Logger, halted: make(chan struct{}), change: make(chan struct{}, 1)}
	settings := cfg.Settings
	r.settings.Store(&settings)
	r.stopCtx, r.stop = context.WithCancel(context.Background())
	r.state = &state{host: cfg.Machine}
	r.watchers.limit = cfg.Limits.Watchers
	r.lead.fn = r.reconsider
	r.upkeep.fn = r.runUpkeep
	r.nudges.fn = r.nudge
	r.confirms = rounds.New(confirmWithin, r.askQuorum)
	return r
}

func (r *Replica) openLog() (err error) {
	s := r.settings.Load()
	r.log, err = raftlog.Open(raftlog.Options{
		FS: r.cfg.FS, Dir: r.cfg.Dir, SegmentBytes: s.SegmentBytes, SegmentAge: s.SegmentAge, Durability: s.Flush,
		TailCacheBytes: r.cfg.Limits.TailCacheBytes, Logger: r.logger.With("partition", r.cfg.Name), Now: r.cfg.Now, OnFailure: r.fail,
		OnSync: r.cfg.Meter.Synced, OnRepair: func(string) { r.cfg.Meter.Repaired() },
	})
	return err
}

func (r *Replica) openRaft() (err error) {
	r.keeper = &keeper{name: r.cfg.Name, log: r.log, logger: r.logger, bounds: r.removable, idle: r.sealHistory}
	r.keeper.work.fn = r.keeper.run
	r.state.sums = r.log.PayloadSum
	r.fsm = &fsm{
		state: r.state, log: r.log, checkpointBytes: r.cfg.Limits.CheckpointBytes,
		save: r.keeper.save, applied: r.applied, restored: r.keeper.restored, failed: r.fail,
	}
	r.group, err = r.cfg.Transport.Group(r.cfg.Group, transport.GroupOptions{ServerID: r.cfg.LocalID, CheckResponse: checkResponse(r.log), Stalled: r.stalled, PayloadSum: r.log.PayloadSum, Load: r.log.GetLog,
		HasEntry: r.log.Holds})
	if err != nil {
		return err
	}
	return r.newRaft()
}

// newRaft calls raft.NewRaft on a goroutine of its own: it reads the log, which ends the goroutine that finds damage, and writes the stable store, which does the same when it has failed
// (both because hashicorp/raft would panic). Nothing of raft runs yet then.
func (r *Replica) newRaft() error {
	r.log.FailFast(true)
	done := make(chan struct{})
	guard := &logGuard{Log: r.log}
	log, err := newStartLog(guard)
	if err != nil {
		return err
	}
	err = errEnded
	go func() {
		defer close(done)
		r.raft, err = raft.NewRaft(raftConfig(r.cfg), r.fsm, log, r.cfg.Stable, r.log.Snapshots(), startTransport{r.group, log})
		guard.raft.Store(r.raft)
	}()
	<-done
	cause := r.failure.Load()
	switch {
	case err == nil || cause == nil:
		return err
	case errors.Is(err, errEnded):
		return *cause
	}
	return fmt.Errorf("%w: %w", err, *cause)
}

// errEnded is returned when neither the log nor the state machine says why NewRaft did not return.
var errEnded = errors.New("the stable store has failed")

// start goes on after raft runs: from now on the log's SnapshotStore serves followers.
func (r *Replica) start() {
	r.log.ServeFollowers()
	r.seq = r.newSequencer()
	r.elector = election.New(r.raft, r.group, r.cfg.LocalID, r.nudges.kick, r.logger.With("partition", r.cfg.Name))
	r.raft.RegisterObserver(raft.NewObserver(nil, false, r.observe))
	r.started.Store(true)
	r.lead.kick()
	r.keeper.work.kick()
	r.scheduleUpkeep()
}

func (r *Replica) newSequencer() *sequencer {
	l := r.cfg.Limits
	return &sequencer{
		name: r.cfg.Name, raft: raftNode{r.raft}, state: r.state,
		space:  &spaceGuard{log: r.log, reserve: l.ReserveBytes},
		budget: NewBudget(l.InflightBytes, l.Waiters), least: l.InflightBytes / int64(l.Inflight), shared: r.cfg.Budget,
		ready: r.cfg.Timing.Ready, opened: r.opened,
	}
}

// Bootstrap gives a group its first configuration. It is for a group's first replicas only, and all must be given the same list, in the same order; it is ignored if there is
// any state already. An earlier one that was interrupted is completed; then the error wraps raftlog.ErrOutOfStep, and the replica has to be opened again. It waits while there
// is no space for raft's term; when ctx ends meanwhile the outcome is unknown, and the replica has to be closed.
func (r *Replica) Bootstrap(ctx context.Context, servers []raft.Server) error {
	if err := r.broken(); err != nil {
		return err
	}
	first := raft.Configuration{Servers: servers}
	done := make(chan error, 1)
	// Raft that could not store its term stands still: it answers no more, and then this goroutine stays.
	go func() { done <- r.raft.BootstrapCluster(first).Error() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("%s: bootstrap: %w", r.cfg.Name, ctx.Err())
	}
	if errors.Is(err, raft.ErrCantBootstrap) {
		err = r.completeBootstrap(first)
	}
	if err != nil {
		return fmt.Errorf("%s: bootstrap: %w", r.cfg.Name, err)
	}
	r.elector.Consider()
	return nil
}

// completeBootstrap does what is left of an interrupted bootstrap. Raft stores term 1 and then, as entry 1, the configuration. If the process died in between, or there
// was no space, it refuses ever after, and without a configuration nobody stands for election. The entry is the same on all first replicas, so to store it is right whenever
// the log is empty; but raft that runs does not learn of it. A larger term came from a peer that has the entry, and will send it.
func (r *Replica) completeBootstrap(first raft.Configuration) error {
	last, err := r.log.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	_, restored, err := r.log.LatestCheckpoint()
	if err != nil || restored {
		return err
	}
	if term, err := r.cfg.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term != 1 {
		return err
	}
	err = r.log.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(first)})
	if errors.Is(err, raftlog.ErrInvalid) {
		return nil // a leader was quicker
	}
	if err != nil {
		return err
	}
	return r.log.Poison(fmt.Errorf("%w: an interrupted bootstrap was completed", raftlog.ErrOutOfStep))
}

// UpdateSettings changes the settings of the running replica.
func (r *Replica) UpdateSettings(s Settings) {
	s = s.withDefaults()
	if *r.settings.Load() == s {
		return
	}
	r.settings.Store(&s)
	r.log.Reconfigure(s.SegmentBytes, s.SegmentAge, s.Flush)
	r.upkeep.kick()
}

// applied is called by the state machine after each group of entries.
func (r *Replica) applied(sum applySummary) {
	if sum.batches {
		_, hw := r.Bounds()
		r.watchers.advance(hw)
	}
	if sum.trimmed {
		r.keeper.work.kick()
	}
	if sum.config {
		r.emit(Event{Type: EventConfiguration, Servers: r.committedServers()})
	}
}

func (r *Replica) committedServers() []raft.Server {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	return r.state.config.Clone().Servers
}

func (r *Replica) emit(e Event) {
	r.eventMu.Lock()
	defer r.eventMu.Unlock()
	r.cfg.OnEvent(e)
}

// fail is called when the log is poisoned or the state machine cannot go on, from whatever goroutine found out, perhaps with locks of the log held: all else
// happens in reconsider. The first cause counts.
func (r *Replica) fail(err error) {
	if r.failure.CompareAndSwap(nil, &err) && r.started.Load() {
		r.lead.kick()
	}
}

// halt stops raft's goroutines. It does not wait: halted tells when they have ended, which they may never do if one of them hangs in a system call.
func (r *Replica) halt() {
	r.haltOnce.Do(func() {
		failedLeader := r.failure.Load() != nil && r.failedLeader.Load()
		f := r.raft.Shutdown()
		go func() {
			var asked sync.WaitGroup
			if failedLeader {
				r.nominate(&asked)
			}
			r.group.Close() // ends raft's calls to peers, which it would wait for, and the elector's
			asked.Wait()
			if c, ok := r.cfg.Stable.(io.Closer); ok {
				_ = c.Close() // ends a wait for space for raft's term
			}
			r.elector.Close()
			f.Error()
			close(r.halted)
		}()
	})
}

// broken returns the error with which everything is refused once the replica failed or is being closed.
func (r *Replica) broken() error {
	if err := r.failure.Load(); err != nil {
		return fmt.Errorf("%s: %w: %w", r.cfg.Name, ErrFailed, *err)
	}
	if r.closing.Load() {
		return fmt.Errorf("%s: %w", r.cfg.Name, ErrClosed)
	}
	return nil
}

// Close stops the replica in this order: no new proposals; wait for those in flight; raft's goroutines, so that the state machine no longer moves; a checkpoint at the
// applied index, so that the next start replays nothing; the log, which marks itself clean. Hand leadership over before, with TransferLeadership.
//
// Each wait is bounded, and all but that for raft's goroutines by ctx too; with a context that has ended already nothing is waited for and no checkpoint is written, so that
// the next start replays as it does after a crash. If raft's goroutines do not end, the log stays open: hashicorp/raft panics when a log that it still reads
// is gone. Close may be called again and returns the same.
func (r *Replica) Close(ctx context.Context) error {
	r.closeOnce.Do(func() { r.closeErr = r.close(ctx) })
	return r.closeErr
}

func (r *Replica) close(ctx context.Context) error {
	closed := fmt.Errorf("%s: %w", r.cfg.Name, ErrClosed)
	abrupt := ctx.Err() != nil
	r.seq.close(closed)
	r.drain(ctx)
	if abrupt {
		r.release()
	}
	r.closing.Store(true)
	r.stop()
	r.stopUpkeep()
	r.upkeep.close()
	r.confirms.Close()
	r.halt()
	stopped := within(context.Background(), raftTimeout, r.halted)
	r.seq.abandon(closed)
	r.lead.close()
	r.nudges.close()
	r.watchers.wakeAll(true)
	r.keeper.work.close()
	if !stopped {
		r.group.Close()
		return fmt.Errorf("%s: raft did not stop in time; its log stays open", r.cfg.Name)
	}
	r.seq.wait(collectTimeout)
	var err error
	if !abrupt {
		err = r.lastCheckpoint()
	}
	if e := r.log.Close(); e != nil && r.failure.Load() == nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("%s: close: %w", r.cfg.Name, err)
	}
	return nil
}

// release has raft answer what is in flight, by giving up leadership, instead of waiting for its outcome: raft that has been shut down answers no more, and somebody would wait for ever.
func (r *Replica) release() {
	if r.failure.Load() != nil || r.seq.drained() == nil {
		return
	}
	if _, term := r.Leader(); r.raft.State() != raft.Leader || r.group.StepDown(term) {
		ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
		defer cancel()
		r.seq.waitDrained(ctx.Done())
	}
}

// drain waits until no proposal is in flight and the state machine has applied what raft has handed to it.
func (r *Replica) drain(ctx context.Context) {
	if r.failure.Load() != nil || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	r.seq.waitDrained(ctx.Done())
	select {
	case r.change <- struct{}{}: // raft would never answer what is in its queues when it stops
	case <-ctx.Done():
	}
	ctx, cancel = context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.raft.Stats()["fsm_pending"] != "0" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lastCheckpoint writes what is queued and the state as it is. raft has stopped: nobody changes the state.
func (r *Replica) lastCheckpoint() error {
	if r.log.Err() != nil || r.failure.Load() != nil {
		return nil
	}
	r.keeper.writeAll()
	if r.state.applied <= r.keeper.durableIndex() {
		return nil
	}
	cp, err := r.state.checkpoint(r.state.applied, r.state.appliedTerm)
	if err != nil {
		return err
	}
	return r.log.WriteCheckpoint(cp)
}

// Destroy removes the replica's files. Close it before. Its entries in the stable store are the caller's to remove, after the files: a log without its vote is harmless, as the replica's
// server ID is never used again.
func (r *Replica) Destroy() error {
	if !r.closing.Load() {
		return fmt.Errorf("%s: destroy: the replica is open", r.cfg.Name)
	}
	if err := r.log.Destroy(); err != nil {
		return fmt.Errorf("%s: destroy: %w", r.cfg.Name, err)
	}
	return nil
}

// within waits for done, at most d or until ctx ends, and says whether it came.
func within(ctx context.Context, d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}
