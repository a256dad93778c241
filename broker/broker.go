// Package broker composes a Flotilla broker out of its parts and runs it.
//
// A broker is: gossip membership, one Raft transport for all groups, the metadata group's node, the controller (busy only on
// the metadata leader), a replica manager that opens, moves and closes the partitions' replicas as the metadata says, the
// coordinators of consumer groups on the coordinator partitions that it leads, and the front ends over all that.
package broker

import (
	"context"
)

// Broker is one broker. Make it with New, run it with Start, end it with Shutdown. It implements api.Broker.
type Broker struct {
	cfg Config
}

// New checks the configuration. It touches nothing outside of the process.
func New(cfg Config) (*Broker, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Broker{cfg: cfg}, nil
}

// Start locks the data directory, brings all parts up and returns when the listeners accept requests; the broker may then still be waiting for
// its cluster (see Ready). On an error everything is closed again. ctx bounds the start only.
func (b *Broker) Start(ctx context.Context) error { return nil }

// Ready is closed once the broker belongs to a cluster, its metadata is caught up with the cluster's, and its
// replicas were opened. The gRPC health service says SERVING from then on.
func (b *Broker) Ready() <-chan struct{} { return nil }

// Failed delivers the error that makes the broker useless (the disk under the metadata or the vote store failed, the broker was
// removed from the cluster): the process should call Shutdown and exit with it.
func (b *Broker) Failed() <-chan error { return nil }

// Shutdown hands leaderships over, leaves the gossip and closes everything in order. It returns when all goroutines have ended; ctx bounds
// the polite part, after which it only closes.
func (b *Broker) Shutdown(ctx context.Context) error { return nil }

// Kill ends the broker as a crash would, as far as one process can: no hand-over, no leave, no final checkpoints. For tests.
func (b *Broker) Kill() {}

// GRPCAddr is the address that clients use, known after Start even if port 0 was asked for.
func (b *Broker) GRPCAddr() string { return "" }

// PeerAddr is the address that other brokers use.
func (b *Broker) PeerAddr() string { return "" }

// GossipAddr is the address to put in another broker's Join.
func (b *Broker) GossipAddr() string { return "" }
