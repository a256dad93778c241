package metadata

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
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
	Now    func() time.Time
	// OnFailure is called at most once, when the group's files fail in a way that needs the broker to go down.
	OnFailure func(error)
	Logger    hclog.Logger
}

// Timing is the Raft group's. Zero values mean the defaults.
type Timing struct {
	// Heartbeat is the time without word from the leader after which an election begins: it begins between one and two times that. Default 750 ms.
	Heartbeat time.Duration
	// CommitDelay is the most that a follower lags behind the leader's commit index when nothing is proposed. Default 50 ms.
	CommitDelay time.Duration
	// SnapshotEvery is the number of commands after which a snapshot is taken, and about the number kept in the log. Default 4096.
	SnapshotEvery uint64
}

// Server is a member of the metadata group.
type Server struct {
	Broker   api.BrokerID
	ServerID raft.ServerID // "<broker>-<incarnation>"
	Voter    bool
}

// Node is this broker's member of the metadata group.
type Node struct{}

// Open starts the node on what is in Dir. Without a Raft configuration there, it waits to be bootstrapped (Bootstrapper)
// or to be added by the controller of a cluster that learns of this broker through gossip.
func Open(cfg Config) (*Node, error) { return nil, ErrClosed }

// State returns the newest snapshot; never nil.
func (n *Node) State() *State { return nil }

// Changed returns a channel that is closed when State has changed after this call. Call Changed first, then State.
func (n *Node) Changed() <-chan struct{} { return nil }

// Propose has the command applied once, passing it to the leader, trying again for as long as it is certain or harmless, and returns
// when this broker's State contains it. Errors: *api.Error of the command itself; ErrNoLeader, ErrOutcomeUnknown, ErrClosed.
func (n *Node) Propose(ctx context.Context, c Command) (Result, error) { return Result{}, ErrClosed }

// Sync returns when this broker's State contains everything that was committed when Sync was called. ErrNoLeader, ErrClosed.
func (n *Node) Sync(ctx context.Context) error { return ErrClosed }

// IsLeader says whether this broker is the controller.
func (n *Node) IsLeader() bool { return false }

// Leader is the broker that leads the group (the controller), or api.NoBroker.
func (n *Node) Leader() api.BrokerID { return api.NoBroker }

// LeaderChanges delivers true when this node became leader and false when it stopped being it; only the latest matters.
func (n *Node) LeaderChanges() <-chan bool { return nil }

// HasCluster says whether the node has a Raft configuration, from bootstrapping or from a leader.
func (n *Node) HasCluster() bool { return false }

// Servers is the group's latest configuration, by broker ID.
func (n *Node) Servers() []Server { return nil }

// AddServer adds a broker as nonvoter, or makes it a voter. Leader only.
func (n *Node) AddServer(ctx context.Context, id api.BrokerID, incarnation string, voter bool) error {
	return ErrClosed
}

// DemoteServer takes a broker's vote. Leader only.
func (n *Node) DemoteServer(ctx context.Context, id raft.ServerID) error { return ErrClosed }

// RemoveServer removes a member. Leader only.
func (n *Node) RemoveServer(ctx context.Context, id raft.ServerID) error { return ErrClosed }

// CaughtUp says whether the broker's node has applied (nearly) everything that is committed. Leader only.
func (n *Node) CaughtUp(ctx context.Context, id api.BrokerID) (bool, error) { return false, ErrClosed }

// TransferLeadership hands leadership to another voter; a graceful stop calls it first. nil if this node does not lead.
func (n *Node) TransferLeadership(ctx context.Context) error { return nil }

// Close ends the node and waits for its goroutines. Close it before the transport and the stable store.
func (n *Node) Close() error { return nil }
