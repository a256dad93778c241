package metadata

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Candidate is a broker as gossip shows it before there is a cluster.
type Candidate struct {
	ID          api.BrokerID
	Incarnation string
	ClusterID   string // empty: none yet
	Expect      int    // --bootstrap-expect; 0: does not take part
	Set         []api.BrokerID
}

// BootstrapSet is the set of brokers that this one would begin a cluster with, to be advertised through gossip: the expect lowest IDs of the
// candidates that expect that number too and belong to no cluster; nil if there are too few. Once the broker has pledged itself it is the pledge's set.
func (n *Node) BootstrapSet(expect int, alive []Candidate) []api.BrokerID { return nil }

// TryBootstrap begins the cluster if it is for this broker to do so: it has the lowest ID of its set, and all of the set advertise the very
// same set and belong to no cluster. Call it whenever the candidates change and once a second until HasCluster; it returns false, nil while it is
// not the time. alive includes this broker.
func (n *Node) TryBootstrap(ctx context.Context, expect int, alive []Candidate) (bool, error) {
	return false, nil
}
