package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/partition/transport/election"
)

// Config says how to open a Node.
type Config struct {
	// Dir is <data>/metadata: raft.db (log) and snapshots/.
	Dir string
	// Identity is the broker's opened broker.json.
	Identity *Identity
	// Transport must already carry Identity.ClusterID and Identity.Learn as its ClusterID and Learned.
	Transport *transport.Transport
	// Stable holds this group's term and vote: stable.Store.Group(metadata.Group).
	Stable raft.StableStore
	Timing Timing
	// Stores replace raft.db and the snapshots in Dir, for simulated disks; nil: the files.
	Stores *Stores
	// OnFailure is called at most once, when the node finds that the broker must not go on: it belongs to another cluster, or a newer release has written
	// to the metadata log (ErrNewerFormat). It must not block.
	OnFailure func(error)
	Logger    hclog.Logger
}

// Timing is the Raft group's. Zero values mean the defaults.
type Timing struct {
	// Heartbeat is the time without word from the leader after which raft begins an election, between one and three times that, if package election has not noticed before. Default 5 s.
	Heartbeat time.Duration
	// CommitDelay is how often a leader sends to its followers when nothing is proposed. They learn of what is committed without that, at once, but entries that were lost with a connection
	// are sent again only then, or with the next. Default 1 s.
	CommitDelay time.Duration
	// SnapshotEvery is the number of commands after which a snapshot is taken, and about the number kept in the log. Default 4096.
	SnapshotEvery uint64
}

func (t *Timing) setDefaults() {
	if t.Heartbeat <= 0 {
		t.Heartbeat = 5 * time.Second
	}
	if t.CommitDelay <= 0 {
		t.CommitDelay = time.Second
	}
	if t.SnapshotEvery == 0 {
		t.SnapshotEvery = 4096
	}
}

// keepSnapshots is how many snapshots stay on disk.
const keepSnapshots = 2

// Node is this broker's member of the metadata group. It owns one goroutine, watch, besides Raft's own; Close stops
// it through ctx and waits.
type Node struct {
	cfg  Config
	log  hclog.Logger
	fsm  *fsm
	raft *raft.Raft
	// group is raft's transport.
	group *transport.Group
	logs  *logStore
	// elector finds a new leader as soon as the old one's broker is gone; raft's own timeouts are for the rest.
	elector *election.Elector

	observer      *raft.Observer
	observations  chan raft.Observation
	bootstrapping sync.Mutex
	failed        atomic.Bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  sync.Once
}

// Open starts the node on what is in Dir. Without a Raft configuration there, it waits to be bootstrapped (TryBootstrap)
// or to be added by the controller of a cluster that learns of this broker through gossip. ErrMetadataLost, ErrDamaged, ErrNewerFormat, ErrMalformed.
func Open(cfg Config) (*Node, error) {
	cfg.Timing.setDefaults()
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	n := &Node{cfg: cfg, log: cfg.Logger, fsm: newFSM(), observations: make(chan raft.Observation, 16)}
	n.fsm.onHalt = n.fail
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.openApart(); err != nil {
		n.cancel()
		return nil, fmt.Errorf("%s: %w", cfg.Dir, err)
	}
	n.handle()
	n.wg.Add(1)
	go n.watch()
	return n, nil
}

// errVotes: the term could not be stored.
var errVotes = errors.New("metadata: the vote store has failed")

// openApart opens on a goroutine of its own: that ends when a term cannot be stored (package stable), and the broker's own must not.
func (n *Node) openApart() error {
	err := errVotes
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = n.open()
	}()
	<-done
	if !errors.Is(err, errVotes) {
		return err
	}
	if n.group != nil {
		err = errors.Join(err, n.group.Close())
	}
	return errors.Join(err, n.logs.Close())
}

// open brings Raft up; after an error nothing is left open.
func (n *Node) open() (err error) {
	var snapshots raft.SnapshotStore
	if n.logs, snapshots, err = n.openStores(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.logs.Close())
		}
	}()
	if err := n.checkFiles(snapshots); err != nil {
		return err
	}
	return n.startRaft(snapshots)
}

// openStores opens log and snapshots; after an error nothing is left open.
func (n *Node) openStores() (*logStore, raft.SnapshotStore, error) {
	if s := n.cfg.Stores; s != nil {
		logs, err := newLogStore(s.Log)
		if err != nil {
			return nil, nil, err
		}
		return n.withSnapshots(logs, s.Snapshots)
	}
	if err := os.MkdirAll(n.cfg.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, keepSnapshots, quiet(n.log.Named("snapshots")))
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(filepath.Join(n.cfg.Dir, logFile)); errors.Is(err, fs.ErrNotExist) {
		list, err := files.List()
		if err != nil {
			return nil, nil, err
		}
		if n.cfg.Identity.record().Member || len(list) > 0 {
			return nil, nil, fmt.Errorf("%w: %s: %s", ErrMetadataLost, logFile, remedy)
		}
	}
	logs, err := openLog(n.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	return n.withSnapshots(logs, files)
}

// withSnapshots checks the snapshots and closes the log on an error.
func (n *Node) withSnapshots(logs *logStore, store raft.SnapshotStore) (*logStore, raft.SnapshotStore, error) {
	logs.fail = n.fail
	snapshots, err := newCheckedSnapshots(store, n.log)
	if err != nil {
		return nil, nil, errors.Join(err, logs.Close())
	}
	return logs, snapshots, nil
}

// remedy is what helps against lost and damaged files.
const remedy = "empty the broker's whole data directory to let it join as a new one; its replicas are rebuilt from the others"

// checkFiles refuses to start a member whose files are gone, and completes a bootstrap that was interrupted.
func (n *Node) checkFiles(snapshots raft.SnapshotStore) error {
	last, err := n.logs.LastIndex()
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	if d, ok := n.cfg.Stable.(interface{ Damaged() error }); ok && d.Damaged() != nil {
		return fmt.Errorf("%w: %w: %s", ErrDamaged, d.Damaged(), remedy)
	}
	if last > 0 || len(list) > 0 {
		return n.checkTogether(last, list)
	}
	if n.cfg.Identity.record().Member {
		return fmt.Errorf("%w: %s", ErrMetadataLost, remedy)
	}
	return n.completeBootstrap()
}

// checkTogether finds what is missing between snapshot, log and vote store: raft would panic at a gap, and vote a second time in a term that it does not know of.
func (n *Node) checkTogether(last uint64, list []*raft.SnapshotMeta) error {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return err
	}
	covered := uint64(0)
	if len(list) > 0 {
		covered = list[0].Index
	}
	if last > covered && first > covered+1 {
		return fmt.Errorf("%w: the log begins with entry %d, and the newest sound snapshot ends with %d: %s", ErrDamaged, first, covered, remedy)
	}
	if term, err := n.cfg.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term == 0 {
		return fmt.Errorf("%w: the vote store knows no term of the metadata group: %s", ErrMetadataLost, remedy)
	}
	return nil
}

func (n *Node) startRaft(snapshots raft.SnapshotStore) error {
	cache, err := raft.NewLogCache(512, n.logs)
	if err != nil {
		return err
	}
	group, err := n.cfg.Transport.Group(Group, transport.GroupOptions{ServerID: n.serverID(), CheckResponse: n.logs.checkResponse, Prompt: true})
	if err != nil {
		return err
	}
	n.group, n.fsm.onApply = group, group.TellCommit
	n.raft, err = raft.NewRaft(n.raftConfig(), n.fsm, cache, n.cfg.Stable, snapshots, group)
	if err != nil {
		return errors.Join(err, group.Close())
	}
	n.logs.raft.Store(n.raft)
	n.elector = election.New(n.raft, group, n.serverID(), nil, quiet(n.log))
	n.observer = raft.NewObserver(n.observations, false, func(o *raft.Observation) bool {
		n.elector.Observe(o)
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	n.raft.RegisterObserver(n.observer)
	return nil
}

// serverID is this broker's in the metadata group.
func (n *Node) serverID() raft.ServerID {
	return MemberID(n.cfg.Identity.Broker(), n.cfg.Identity.Incarnation())
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	t := n.cfg.Timing
	c.LocalID = n.serverID()
	c.HeartbeatTimeout, c.ElectionTimeout = t.Heartbeat, t.Heartbeat
	c.LeaderLeaseTimeout = t.Heartbeat * 2 / 3
	c.CommitTimeout = t.CommitDelay
	c.SnapshotThreshold, c.TrailingLogs = t.SnapshotEvery, t.SnapshotEvery
	c.SnapshotInterval = 30 * time.Second
	// A broker that is removed and comes back is added again by the controller.
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = quiet(n.log)
	return c
}

// State returns the newest snapshot; never nil.
func (n *Node) State() *State { return n.fsm.state.Load() }

// Changed returns a channel that is closed when State or Leader has changed after this call. Call Changed first, then State.
func (n *Node) Changed() <-chan struct{} { return n.fsm.changed.wait() }

// IsLeader says whether this broker is the controller. Its State may lag for a moment after it became so: see Sync.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Leader is the broker that leads the group (the controller), or api.NoBroker.
func (n *Node) Leader() api.BrokerID {
	addr, _ := n.raft.LeaderWithID()
	id, _ := ParseServerAddress(addr)
	return id
}

// HasCluster says whether the node has a Raft configuration, from bootstrapping or from a leader.
func (n *Node) HasCluster() bool { return len(n.configuration().Servers) > 0 }

func (n *Node) configuration() raft.Configuration { return n.raft.GetConfiguration().Configuration() }

// watch follows the state: it tells those who wait for changes of the leader, begins the cluster's history when this node
// leads a new one, and notes the cluster's ID in broker.json.
func (n *Node) watch() {
	defer n.wg.Done()
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		changed := n.Changed()
		n.settle()
		select {
		case <-n.ctx.Done():
			return
		case <-changed:
		case <-retry.C:
		case <-n.observations:
			n.fsm.changed.raise()
		}
	}
}

// settle brings broker.json and the state in line. Each step is tried again a second later if it fails.
func (n *Node) settle() {
	if !n.HasCluster() {
		return
	}
	if !n.cfg.Identity.record().Member {
		if err := n.cfg.Identity.setMember(); err != nil {
			n.log.Error("broker.json cannot be written", "error", err)
		}
	}
	if s := n.State(); s.ClusterID != "" {
		n.learn(s.ClusterID)
		return
	}
	rec := n.cfg.Identity.record()
	if rec.Pledge == nil || !n.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
	defer cancel()
	if _, err := n.Propose(ctx, &InitCluster{ClusterID: rec.Pledge.ClusterID}); err != nil {
		n.log.Warn("the new cluster's ID is not yet recorded", "error", err)
	}
}

// fail tells the broker, once, that it must not go on.
func (n *Node) fail(err error) {
	if n.failed.CompareAndSwap(false, true) && n.cfg.OnFailure != nil {
		n.cfg.OnFailure(err)
	}
}

func (n *Node) learn(clusterID string) {
	err := n.cfg.Identity.Learn(clusterID)
	switch {
	case errors.Is(err, ErrClusterMismatch):
		n.fail(err)
	case err != nil:
		n.log.Error("broker.json cannot be written", "error", err)
	}
}

// snapshotWithin bounds the final snapshot. raft asks its main goroutine for it, which is gone if the vote store has failed.
const snapshotWithin = 2 * time.Second

// snapshot lets the next Open begin with the present state, instead of with an older one until a leader says what is committed. Its goroutine
// ends with raft, at the latest.
func (n *Node) snapshot() {
	done := make(chan error, 1)
	n.wg.Go(func() { done <- n.raft.Snapshot().Error() })
	late := time.NewTimer(snapshotWithin)
	defer late.Stop()
	var err error
	select {
	case err = <-done:
	case <-late.C:
		err = fmt.Errorf("not within %s", snapshotWithin)
	}
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		n.log.Warn("no final snapshot; the next start will take a moment longer", "error", err)
	}
}

// Close ends the node and waits for its goroutines. Close it before the transport and the stable store.
func (n *Node) Close() error {
	var err error
	n.close.Do(func() {
		n.cancel()
		n.snapshot()
		down := n.raft.Shutdown()
		err = n.group.Close() // ends raft's calls to peers, for which it would wait, and the elector's
		if c, ok := n.cfg.Stable.(io.Closer); ok {
			err = errors.Join(err, c.Close()) // ends a wait for space for raft's term
		}
		err = errors.Join(err, down.Error())
		n.elector.Close()
		n.wg.Wait()
		n.raft.DeregisterObserver(n.observer)
		err = errors.Join(err, n.logs.Close())
	})
	if err != nil {
		return fmt.Errorf("metadata: close: %w", err)
	}
	return nil
}
