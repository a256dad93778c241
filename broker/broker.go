// Package broker composes a Flotilla broker out of its parts and runs it.
//
// A broker is: gossip membership, one Raft transport for all groups, the metadata group's node, the controller (busy only on
// the metadata leader), a replica manager that opens, moves and closes the partitions' replicas as the metadata says, the
// coordinators of consumer groups on the coordinator partitions that it leads, and the front ends over all that.
//
//	start.go, shutdown.go   the order of things, and why
//	manager.go, hosted.go   which replicas are here, and each one's life
//	lead.go, report.go      what the leader of a partition owes the cluster
//	route.go, errors.go     who answers a request, and what refusals look like
//	log.go, fetch.go, topics.go, groups.go, groupadmin.go, cluster.go: api.Broker
//	calls.go                what brokers ask one another
package broker

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/controller"
	"github.com/flotilla-log/flotilla/broker/grpcapi"
	"github.com/flotilla-log/flotilla/broker/kafka"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/broker/metrics"
	"github.com/flotilla-log/flotilla/membership"
	"github.com/flotilla-log/flotilla/partition/rounds"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// Broker is one broker. Make it with New, run it with Start, end it with Shutdown. It implements api.Broker.
//
// Goroutines: everything that Start started has ended when Shutdown returns. ctx stops the broker's own background loops (wg);
// the parts stop their own. Locks: none is held while a part is called.
type Broker struct {
	cfg Config
	log hclog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	grpcLn     net.Listener
	peerLn     net.Listener
	kafkaLns   []kafkaListener // by name
	metricsLn  net.Listener    // nil: metrics are not served
	grpcAddr   string          // as advertised
	peerAddr   string
	identity   *metadata.Identity
	stable     *stable.Store
	transport  *transport.Transport
	node       *metadata.Node
	replicas   *replicaManager
	reporter   *reporter
	nodeRef    atomic.Pointer[metadata.Node] // node, for those who run before Start is through
	members    atomic.Pointer[membership.Membership]
	controller atomic.Pointer[controller.Controller]
	server     *grpcapi.Server
	kafka      *kafka.Server // nil: no Kafka listener
	metrics    *metrics.Set
	metricsSrv *metrics.Server // nil: metrics are not served

	// closers end the parts that are up, in reverse order of their start.
	closers []func()

	route     *notifier                // some replica's leader changed, or a broker came or went
	bootstrap *notifier                // the candidates for a new cluster changed
	syncs     *rounds.Rounds[struct{}] // of node.Sync
	producers producerIDs
	scrubbing scrubbing
	condemned condemned
	// topicNames maps topic IDs to the names that they had when last looked up.
	topicNames sync.Map

	up       atomic.Bool // all parts are there
	synced   atomic.Bool // the metadata were up to date once since the start
	stopping atomic.Bool
	killed   atomic.Bool
	ready    chan struct{}
	failed   chan error
	stopOnce sync.Once
	life     life
}

var _ api.Broker = (*Broker)(nil)

// New checks the configuration. It touches nothing outside of the process.
func New(cfg Config) (*Broker, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, log: cfg.Logger, route: newNotifier(), bootstrap: newNotifier(), producers: producerIDs{turn: make(chan struct{}, 1)},
		ready: make(chan struct{}), failed: make(chan error, 1),
	}
	b.metrics = metrics.New(cfg.Version)
	b.syncs = rounds.New(syncWait, func(ctx context.Context) (struct{}, error) { return struct{}{}, b.node.Sync(ctx) })
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b, nil
}

// Ready is closed once the broker belongs to a cluster, its metadata is caught up with the cluster's, and its
// replicas were opened. The gRPC health service says SERVING from then on.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Failed delivers the error that makes the broker useless (the disk under the metadata or the vote store failed): the process should call
// Shutdown and exit with it.
func (b *Broker) Failed() <-chan error { return b.failed }

// fail reports the first error that the broker cannot go on with.
func (b *Broker) fail(err error) {
	select {
	case b.failed <- err:
		b.log.Error("the broker cannot go on", "error", err)
	default:
	}
}

// ID is the broker's own ID.
func (b *Broker) ID() api.BrokerID { return b.cfg.ID }

// GRPCAddr is the address that clients use, known after Start even if port 0 was asked for.
func (b *Broker) GRPCAddr() string { return b.grpcAddr }

// PeerAddr is the address that other brokers use.
func (b *Broker) PeerAddr() string { return b.peerAddr }

// MetricsAddr is where metrics are served; empty if they are not.
func (b *Broker) MetricsAddr() string {
	if b.metricsLn == nil {
		return ""
	}
	return b.metricsLn.Addr().String()
}

// GossipAddr is the address to put in another broker's Join.
func (b *Broker) GossipAddr() string {
	if m := b.members.Load(); m != nil {
		return m.LocalAddr()
	}
	return ""
}

// notifier tells any number of waiters that something changed. Take wait's channel first, then look, then wait.
type notifier struct {
	mu sync.Mutex
	ch chan struct{}
}

func newNotifier() *notifier { return &notifier{ch: make(chan struct{})} }

func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
