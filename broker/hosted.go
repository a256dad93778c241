package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/broker/metrics"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// hosted is one replica assigned to this broker, from its opening to its closing. Its goroutine (run) opens it, does what a leader owes the
// cluster (lead.go), opens it again after failures that this can cure, and closes it; it exists only while there is something to do. The manager starts run and stops it with stop; done is
// closed when everything has ended. mu guards what others read.
type hosted struct {
	m        *replicaManager
	log      hclog.Logger
	name     string // "orders/3"
	tp       api.TopicPartition
	group    transport.GroupID
	serverID string
	dirName  string
	tailSize int64

	ctx    context.Context // ends when the replica is to close
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu          sync.Mutex
	topic       *metadata.Topic
	partition   *metadata.Partition
	replica     *partition.Replica // nil while not open
	coordinator *group.Coordinator // nil for data; set and unset with replica
	serving     bool               // the coordinator has started in this term
	tried       bool               // the first opening has ended, one way or the other
	err         error              // why it is not open, or what it failed of last
	failure     chan error         // of the replica that is open; cap 1

	settings sync.Mutex // see applySettings; before mu

	parking sync.Mutex // after all other locks
	parked  bool       // run has returned, and wakeUp starts it again

	// The following are only run's.
	lead    leadState
	running bool          // the replica is open
	opened  bool          // it was open when it failed
	began   time.Time     // when it was last opened
	pause   time.Duration // before it is opened again after a failure
	again   *time.Timer   // runs wakeUp

	damaged    atomic.Bool            // its files are set aside, and the cluster is asked for another replica
	foundBy    atomic.Pointer[string] // what found the damage, if not a read or write
	divergence divergence
}

func newHosted(m *replicaManager, w wanted) *hosted {
	_, _, generation, _ := metadata.ParseServerID(w.serverID)
	h := &hosted{
		m: m, name: w.partition.String(), tp: w.partition.TP(), group: w.partition.Group, serverID: w.serverID,
		dirName: dirName(w.partition.TP(), w.partition.Group, generation),
		topic:   w.topic, partition: w.partition, done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	h.log = m.log.With("partition", h.name)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.pause = reopenMin
	h.again = time.AfterFunc(time.Hour, h.wakeUp)
	h.again.Stop()
	return h
}

func (h *hosted) stop() {
	h.cancel()
	h.wakeUp()
}

// wakeUp has run look again, or go on if it has parked. It does not block.
func (h *hosted) wakeUp() {
	signal(h.wake)
	h.parking.Lock()
	defer h.parking.Unlock()
	if h.parked {
		h.parked = false
		go h.run()
	}
}

// update tells the replica what the metadata says now. The pointers are new only if there is something new, but the topic's whenever there is for any of its partitions, of
// which there may be thousands: only what concerns this one wakes it.
func (h *hosted) update(t *metadata.Topic, p *metadata.Partition) {
	h.mu.Lock()
	altered, changed := h.topic != t && !maps.Equal(h.topic.Settings, t.Settings), h.partition != p
	h.topic, h.partition = t, p
	h.mu.Unlock()
	if altered {
		h.applySettings()
	}
	if altered || changed {
		h.wakeUp()
	}
}

// applySettings gives the topic's settings to the replica, if it is open. Both the change of a topic and the opening of the replica call it,
// each after it has set what the other reads, so whichever comes last applies the newest; settings keeps the two from passing each other.
func (h *hosted) applySettings() {
	h.settings.Lock()
	defer h.settings.Unlock()
	h.mu.Lock()
	t, r := h.topic, h.replica
	h.mu.Unlock()
	if r != nil {
		r.UpdateSettings(h.settingsOf(t))
	}
}

// assigned is what update said last.
func (h *hosted) assigned() (*metadata.Topic, *metadata.Partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.topic, h.partition
}

// open returns the replica, or nil while it is not open.
func (h *hosted) open() *partition.Replica {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.replica
}

// leads says that this replica leads and serves.
func (h *hosted) leads() bool {
	r := h.open()
	return r != nil && r.IsLeader()
}

// leadingTerm is the Raft term in which this replica leads and serves; 0 while it does not.
func (h *hosted) leadingTerm() uint64 {
	r := h.open()
	if r == nil {
		return 0
	}
	_, before := r.Leader()
	leads := r.IsLeader()
	if _, after := r.Leader(); !leads || before != after {
		return 0
	}
	return before
}

// knownLeader is what Raft here knows; known is false while the replica is not open.
func (h *hosted) knownLeader() (leader raft.ServerAddress, known bool) {
	r := h.open()
	if r == nil {
		return "", false
	}
	leader, _ = r.Leader()
	return leader, true
}

// storageFull is why nobody may lead: this replica cannot write for lack of space. h may be nil.
func (h *hosted) storageFull() error {
	if h == nil {
		return nil
	}
	if r := h.open(); r != nil {
		return r.StorageFull()
	}
	return nil
}

func (h *hosted) opening() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.tried
}

func (h *hosted) trouble() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

func (h *hosted) setTrouble(err error) {
	h.mu.Lock()
	h.err, h.tried = err, true
	h.mu.Unlock()
	h.m.changed.notify()
}

const (
	reopenMin = time.Second
	reopenMax = time.Minute
)

// run goes on with the replica's life until there is nothing to do (wakeUp starts it again then) or it has ended. A failure that opening again may cure is answered so, with growing
// pauses; damage ends it, as only a fresh replica helps.
func (h *hosted) run() {
	for h.running || h.ctx.Err() == nil {
		err := h.openAndServe()
		if errors.Is(err, errParked) {
			return
		}
		if h.ctx.Err() != nil {
			break
		}
		var damage *raftlog.DamageError
		if errors.As(err, &damage) {
			h.countDamage()
			h.quarantine(err)
			break
		}
		h.m.b.metrics.ReplicaFailures.Inc()
		h.log.Error("the replica failed and will be opened again", "error", err, "pause", h.pause)
		h.setTrouble(err)
		if time.Since(h.began) > reopenMax {
			h.pause = reopenMin
		}
		h.sleep(h.pause)
		h.pause = min(2*h.pause, reopenMax)
	}
	h.cancel()
	close(h.done)
	h.m.wakeUp()
	h.m.changed.notify()
}

// errParked says that the replica is open and there is nothing to do for it.
var errParked = errors.New("nothing to do")

// park ends run until wakeUp, unless something has come up meanwhile: a thousand idle replicas need no goroutines.
func (h *hosted) park() bool {
	h.parking.Lock()
	defer h.parking.Unlock()
	h.parked = len(h.wake) == 0 && h.ctx.Err() == nil
	return h.parked
}

func (h *hosted) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.ctx.Done():
	}
}

// What found a replica's damage, where it is not the replica itself.
var foundByScrub, foundByPeers = metrics.FoundByScrub, metrics.FoundByPeers

// countDamage says how the damage was found. A replica that never was open is damaged since before it was opened.
func (h *hosted) countDamage() {
	by := metrics.FoundAtOpen
	if h.opened {
		by = metrics.FoundInUse
	}
	if found := h.foundBy.Load(); found != nil {
		by = *found
	}
	h.m.b.metrics.Damage.WithLabelValues(by).Inc()
}

// openAndServe runs the replica once: until it is to close (nil), or has failed, or there is nothing to do (errParked).
func (h *hosted) openAndServe() error {
	if !h.running {
		h.began, h.opened = time.Now(), false
		if err := h.openReplica(); err != nil {
			return err
		}
		h.running, h.opened, h.lead = true, true, leadState{}
		h.setTrouble(nil)
		h.m.b.route.notify()
	}
	err := h.serve()
	if errors.Is(err, errParked) {
		return err
	}
	h.again.Stop()
	h.running = false
	h.closeReplica()
	return err
}

// openReplica opens the files and starts Raft, a few replicas of the broker at a time.
func (h *hosted) openReplica() error {
	if err := h.m.openSlots.Acquire(h.ctx, 1); err != nil {
		return err
	}
	defer h.m.openSlots.Release(1)
	if err := h.prepareDir(); err != nil {
		return err
	}
	topic, p := h.assigned()
	var coordinator *group.Coordinator
	var machine partition.Machine
	if topic.Kind == metadata.KindCoordinator {
		var err error
		if coordinator, machine, err = h.newCoordinator(); err != nil {
			return err
		}
	}
	failure := make(chan error, 1)
	cfg := h.config(topic, failure)
	cfg.Machine = machine
	r, err := partition.Open(cfg)
	if err != nil {
		h.m.tail.giveBack(h.tailSize)
		return err
	}
	h.mu.Lock()
	h.replica, h.coordinator, h.failure = r, coordinator, failure
	h.mu.Unlock()
	h.applySettings() // they may have changed since cfg was made
	if !p.Bootstraps(h.serverID) {
		return nil
	}
	// Without effect on a replica that has any state; one that had some and lost it does not come here (prepareDir).
	if err := r.Bootstrap(h.ctx, metadata.Servers(p.Initial)); err != nil {
		h.closeReplica()
		return fmt.Errorf("bootstrapping: %w", err)
	}
	return nil
}

func (h *hosted) config(topic *metadata.Topic, failure chan error) partition.Config {
	b := h.m.b
	h.tailSize = h.m.tail.take()
	limits := partition.Limits{TailCacheBytes: max(h.tailSize, leastTail), ReserveBytes: b.cfg.DiskReserve}
	return partition.Config{
		Name: h.name, Group: h.group, Dir: filepath.Join(h.m.dir, h.dirName), FS: h.m.fs(),
		LocalID: raft.ServerID(h.serverID), LocalAddr: metadata.ServerAddress(b.cfg.ID),
		Transport: b.transport, Stable: b.stable.Group(h.group),
		Settings: h.settingsOf(topic), Budget: h.m.budget, Limits: limits,
		Timing: partition.Timing{Heartbeat: b.cfg.Timing.Heartbeat},
		Now:    b.cfg.Seams.Now, Logger: b.log.Named("partition"), Meter: b.metrics.Topic(h.tp.Topic),
		OnEvent: func(e partition.Event) { h.onEvent(e, failure) },
	}
}

// onEvent is called by the replica, from any of its goroutines.
func (h *hosted) onEvent(e partition.Event, failure chan error) {
	switch e.Type {
	case partition.EventFailed:
		select {
		case failure <- e.Err:
		default:
		}
	case partition.EventLeader:
		h.m.b.metrics.Elections.Inc()
	}
	h.wakeUp()
	h.m.b.route.notify()
}

func (h *hosted) newCoordinator() (*group.Coordinator, *group.Machine, error) {
	b := h.m.b
	machine := group.NewMachine(b.log.Named("groups"))
	c, err := group.NewCoordinator(group.Config{
		Name: h.name, Self: b.self(), Machine: machine,
		Rebalanced: b.metrics.Rebalances.Inc,
		Propose:    h.propose, Term: h.leadingTerm, Partitions: b.partitionsOf, Logger: b.log.Named("groups"),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("group coordinator: %w", err)
	}
	return c, machine, nil
}

// propose is what the coordinator replicates its commands with.
func (h *hosted) propose(ctx context.Context, cmd []byte) (any, error) {
	r := h.open()
	if r == nil {
		return nil, h.m.b.apiError(partition.ErrClosed, &h.tp)
	}
	propose := r.Propose
	if group.IsBarrier(cmd) { // else a new coordinator could not even tell the offsets that it has while the disk is full
		propose = r.ProposeUpkeep
	}
	res, err := propose(ctx, cmd)
	return res, h.m.b.apiError(err, &h.tp)
}

// serve does a leader's duties whenever something calls for it, until the replica is to close (nil) or fails, or nothing does (errParked).
func (h *hosted) serve() error {
	for {
		select { // before the looks: what comes up after them makes for another one
		case <-h.wake:
		default:
		}
		select {
		case <-h.ctx.Done():
			return nil
		case err := <-h.failure:
			return err
		default:
		}
		if again := h.leadStep(); again > 0 {
			h.again.Reset(again)
		}
		if h.park() {
			return errParked
		}
	}
}

// closeReplica ends the coordinator first, as it proposes to the replica. Closing writes a checkpoint unless the broker is being killed.
func (h *hosted) closeReplica() {
	h.mu.Lock()
	r, c := h.replica, h.coordinator
	h.mu.Unlock()
	if c != nil {
		c.LeaderStop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	if h.m.b.killed.Load() {
		cancel()
	}
	defer cancel()
	if err := r.Close(ctx); err != nil && !h.m.b.killed.Load() {
		h.log.Warn("closing the replica", "error", err)
	}
	h.m.tail.giveBack(h.tailSize)
	h.mu.Lock()
	h.replica, h.coordinator, h.serving = nil, nil, false
	h.mu.Unlock()
	h.m.b.route.notify()
}

// settingsOf are a topic's settings in effect on this broker.
func (h *hosted) settingsOf(t *metadata.Topic) partition.Settings {
	return toSettings(h.m.b.node.State().TopicConfig(t, h.m.b.cfg.ID))
}

// toSettings converts a topic's settings.
func toSettings(c metadata.TopicConfig) partition.Settings {
	s := partition.Settings{
		SegmentBytes: c.SegmentBytes, SegmentAge: c.SegmentAge, RetentionAge: c.RetentionAge, RetentionBytes: c.RetentionBytes,
		MaxMessageBytes: c.MaxMessageBytes, Compression: compressionOf(c.Compression), LogAppendTime: c.LogAppendTime,
	}
	if !c.FlushQuorum {
		s.Flush = raftlog.DurabilityOS
	}
	// 0 is no time and no bytes to topics, and the default to partition.
	if c.RetentionAge == 0 {
		s.RetentionAge = 1
	}
	if c.RetentionBytes == 0 {
		s.RetentionBytes = 1
	}
	return s
}

func (m *replicaManager) fs() vfs.FS { return m.b.cfg.Seams.PartitionFS }
