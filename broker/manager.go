package broker

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// replicaManager keeps the replicas of this broker as the metadata says: it opens those assigned to this incarnation, closes those that are
// not, and deletes files once nobody can need them.
//
// One goroutine (run) compares; each replica lives in a goroutine of its own (hosted.run), which run starts and stops. A group has at most one
// hosted replica at a time, as its vote and its place in the transport are the group's: the next is opened when the last has closed.
type replicaManager struct {
	b   *Broker
	log hclog.Logger
	dir string

	openSlots *semaphore.Weighted // replicas opening at a time: recovery reads and checks, so more than the cores gain nothing
	transfers *throttle           // leaderships given to preferred leaders
	budget    *partition.Budget
	tail      *tailShares

	mu     sync.RWMutex
	hosted map[transport.GroupID]*hosted
	passed uint64 // version of the State that the last pass saw
	closed bool

	wake     chan struct{}
	changed  *notifier // a replica opened, failed or went, or a pass ended
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{}
	removals *removals
	pace     deletePace
	rebuilds rebuilds
	foreign  map[string]bool              // told about already
	relist   atomic.Bool                  // the directories in dir may be others than those in dirs
	dirs     []replicaDir                 // as last listed; only run's
	shape    map[string]int               // partitions by topic, as the coordinators know; only run's
	settings map[string]map[string]string // metadata.State.BrokerSettings as told to all; only run's
}

func newReplicaManager(b *Broker) (*replicaManager, error) {
	m := &replicaManager{
		b: b, log: b.log.Named("replicas"), dir: filepath.Join(b.cfg.DataDir, partitionsDir),
		openSlots: semaphore.NewWeighted(int64(max(2, runtime.GOMAXPROCS(0)))),
		transfers: newThrottle(200 * time.Millisecond),
		budget:    partition.NewBudget(b.cfg.Memory.InflightBytes, 4096),
		tail:      &tailShares{left: b.cfg.Memory.TailCacheBytes},
		hosted:    map[transport.GroupID]*hosted{}, wake: make(chan struct{}, 1), changed: newNotifier(),
		done: make(chan struct{}), foreign: map[string]bool{},
	}
	m.removals = newRemovals(m)
	m.pace = newDeletePace(deleteBytesPerSecond)
	m.relist.Store(true)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.fs().MkdirAll(m.dir); err != nil {
		return nil, fmt.Errorf("making %s: %w", m.dir, err)
	}
	return m, nil
}

func (m *replicaManager) start() { go m.run() }

// close closes all replicas, several at a time, and waits for everything that the manager started.
func (m *replicaManager) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	<-m.done
	for _, h := range m.all() {
		h.stop()
	}
	for _, h := range m.all() {
		<-h.done
	}
	m.removals.wg.Wait()
}

// wakeAll makes the manager and all replicas look again: a broker came or went.
func (m *replicaManager) wakeAll() {
	m.wakeUp()
	for _, h := range m.all() {
		h.wakeUp()
	}
}

func (m *replicaManager) wakeUp() { signal(m.wake) }

func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// get returns the replica of the partition as the metadata has it, or nil.
func (m *replicaManager) get(p *metadata.Partition) *hosted {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.hosted[p.Group]
}

func (m *replicaManager) byGroup(g transport.GroupID) *hosted {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.hosted[g]
}

func (m *replicaManager) all() []*hosted {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*hosted, 0, len(m.hosted))
	for _, h := range m.hosted {
		out = append(out, h)
	}
	return out
}

// passPause keeps a storm of changes from becoming a storm of passes.
const passPause = 10 * time.Millisecond

// run compares whenever the metadata changed, a replica closed, or a removal ended.
func (m *replicaManager) run() {
	defer close(m.done)
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	pause := time.NewTimer(passPause)
	defer pause.Stop()
	for {
		changed := m.b.node.Changed()
		if err := m.pass(m.b.node.State()); err != nil {
			m.log.Error("comparing replicas with the metadata", "error", err)
		}
		select {
		case <-changed:
		case <-m.wake:
			m.relist.Store(true)
		case <-tick.C:
			m.relist.Store(true)
			m.removals.retry()
		case <-m.ctx.Done():
			return
		}
		pause.Reset(passPause)
		select {
		case <-pause.C:
		case <-m.ctx.Done():
		}
	}
}

// wanted is a replica that should be open here.
type wanted struct {
	topic     *metadata.Topic
	partition *metadata.Partition
	serverID  string
}

func (m *replicaManager) pass(s *metadata.State) error {
	dirs, err := m.listDirs()
	if err != nil {
		return err
	}
	groups := s.Groups()
	m.tellSettings(s)
	want := m.wanted(s, dirs, groups)
	m.closeOthers(want)
	m.openMissing(want)
	m.clean(s, dirs, groups, want)
	m.b.metrics.Rebuilds.Add(float64(m.rebuilds.ended(groups)))
	m.tellCoordinators(s)
	m.mu.Lock()
	m.passed = s.Version
	m.mu.Unlock()
	m.changed.notify()
	return nil
}

// listDirs lists the replicas' directories. It reads them only if they may have changed: with a thousand replicas that takes milliseconds, and an election of all of them makes dozens
// of changes of the metadata. Who makes, renames or removes one sets relist afterwards.
func (m *replicaManager) listDirs() ([]replicaDir, error) {
	if !m.relist.Swap(false) {
		return m.dirs, nil
	}
	dirs, foreign, err := listReplicaDirs(m.fs(), m.dir)
	if err != nil {
		m.relist.Store(true)
		return nil, err
	}
	m.dirs = dirs
	m.tellForeign(foreign)
	return dirs, nil
}

// tellCoordinators lets groups know of topics that came, grew or went.
func (m *replicaManager) tellCoordinators(s *metadata.State) {
	shape := make(map[string]int, len(s.Topics))
	for name, t := range s.Topics {
		shape[name] = len(t.Partitions)
	}
	if maps.Equal(shape, m.shape) {
		return
	}
	m.shape = shape
	for _, h := range m.all() {
		if c := h.servingCoordinator(); c != nil {
			c.TopicsChanged()
		}
	}
}

// tellSettings hands on settings of brokers that were altered.
func (m *replicaManager) tellSettings(s *metadata.State) {
	if maps.EqualFunc(s.BrokerSettings, m.settings, maps.Equal[map[string]string]) {
		return
	}
	m.settings = s.BrokerSettings
	m.log.Info("settings altered at run time", "now", describeSet(m.settings))
	m.b.applyBrokerSettings()
	for _, h := range m.all() {
		h.applySettings()
		h.wakeUp()
	}
}

func (m *replicaManager) tellForeign(names []string) {
	for _, n := range names {
		if !m.foreign[n] {
			m.foreign[n] = true
			m.log.Warn("something in the partitions' directory is not a replica; it is left alone", "name", filepath.Join(m.dir, n))
		}
	}
}

func (m *replicaManager) serverID(generation int32) string {
	return metadata.ServerID(m.b.cfg.ID, m.b.identity.Incarnation(), generation)
}

// wanted lists the replicas assigned to this broker, by group, and those that are on its disk and may still be voters although the metadata
// does not say so: a removal that was reported before it was certain must not cost the quorum a member.
func (m *replicaManager) wanted(s *metadata.State, dirs []replicaDir, groups map[transport.GroupID]*metadata.Partition) map[transport.GroupID]wanted {
	want := map[transport.GroupID]wanted{}
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if r, ok := p.Local(m.b.cfg.ID, m.b.identity.Incarnation()); ok {
				want[p.Group] = wanted{t, p, r.ServerID}
			}
		}
	}
	for _, d := range dirs {
		p := groups[d.group]
		if _, ok := want[d.group]; ok || p == nil || d.damaged || d.deleted {
			continue
		}
		if id := m.serverID(d.generation); !p.Surplus(id) && !p.IsQuarantined(id) && d.generation <= p.Generation {
			want[d.group] = wanted{s.Topics[p.Topic], p, id}
		}
	}
	return want
}

// closeOthers stops the replicas that are not wanted, and forgets those that have ended. The others learn what is new.
func (m *replicaManager) closeOthers(want map[transport.GroupID]wanted) {
	for _, h := range m.all() {
		w, ok := want[h.group]
		if ok && w.serverID == h.serverID {
			h.update(w.topic, w.partition)
		} else {
			h.stop()
		}
		select {
		case <-h.done:
			m.mu.Lock()
			delete(m.hosted, h.group)
			m.mu.Unlock()
		default:
		}
	}
}

func (m *replicaManager) openMissing(want map[transport.GroupID]wanted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for g, w := range want {
		if m.hosted[g] == nil && !m.removals.votes(g) {
			h := newHosted(m, w)
			m.hosted[g] = h
			go h.run()
		}
	}
}

// clean deletes the directories that no replica can need any more: of deleted partitions, and of replicas that neither vote nor shall. Both can
// be told from any State, as groups and generations are never used twice. A directory that was set aside as damaged goes only when,
// besides, the partition has all the replicas that it should.
func (m *replicaManager) clean(s *metadata.State, dirs []replicaDir, groups map[transport.GroupID]*metadata.Partition, want map[transport.GroupID]wanted) {
	for _, d := range dirs {
		if d.deleted { // a broker that stopped has not come to the end of it
			m.removals.begin(d, false)
			continue
		}
		id, p := m.serverID(d.generation), groups[d.group]
		h := m.byGroup(d.group)
		if h != nil && h.serverID == id && !d.damaged {
			continue
		}
		if w, ok := want[d.group]; ok && w.serverID == id {
			continue
		}
		deleted := s.GroupDeleted(d.group, groups)
		surplus := p != nil && p.Surplus(id) && (!d.damaged || !p.Moving())
		if deleted || surplus {
			m.removals.begin(d, h == nil)
		}
	}
}

// awaitOpen waits until a pass has seen the present State and every replica of it is open, or has failed.
func (m *replicaManager) awaitOpen(ctx context.Context) error {
	version := m.b.node.State().Version
	for {
		changed := m.changed.wait()
		m.mu.RLock()
		seen := m.passed >= version
		m.mu.RUnlock()
		if seen && !slices.ContainsFunc(m.all(), (*hosted).opening) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// problems are the troubles of this broker's replicas, which only it knows of.
func (m *replicaManager) problems() []api.PartitionProblem {
	var out []api.PartitionProblem
	for _, h := range m.all() {
		err := h.trouble()
		if err == nil {
			err = h.storageFull()
		}
		if err != nil {
			out = append(out, api.PartitionProblem{TopicPartition: h.tp, Problem: fmt.Sprintf("replica on broker %d: %v", m.b.cfg.ID, err)})
		}
		if text := h.divergence.text.Load(); text != nil {
			out = append(out, api.PartitionProblem{TopicPartition: h.tp, Problem: *text})
		}
	}
	return out
}
