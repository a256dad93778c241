package metadata

import "github.com/flotilla-log/flotilla/broker/api"

// Identity is broker.json: which broker, which incarnation of its data directory, which cluster. Its methods may be called from
// many goroutines.
type Identity struct{}

// Pledge is a broker's promise to begin a cluster's life together with a set of brokers.
type Pledge struct {
	ClusterID string         `json:"cluster_id"`
	Set       []api.BrokerID `json:"set"`
}

// OpenIdentity reads <dir>/broker.json, or makes it with a random incarnation if there is none.
// ErrBrokerMismatch, ErrNewerFormat, ErrMalformed.
func OpenIdentity(dir string, broker api.BrokerID) (*Identity, error) { return nil, nil }

// Broker is the broker's ID.
func (i *Identity) Broker() api.BrokerID { return 0 }

// Incarnation names this data directory: 12 random characters without '-'.
func (i *Identity) Incarnation() string { return "" }

// ClusterID is empty until it is known. Give it to transport.Config.ClusterID and membership.
func (i *Identity) ClusterID() string { return "" }

// Learn records the cluster's ID durably. Again with the same ID it does nothing; ErrClusterMismatch with another.
// Give it to transport.Config.Learned.
func (i *Identity) Learn(clusterID string) error { return nil }

// Changed returns a channel that is closed when ClusterID becomes known; tell membership then.
func (i *Identity) Changed() <-chan struct{} { return nil }
