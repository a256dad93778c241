// Package membership tells which brokers are there, by gossip (hashicorp/memberlist): who joined, left or failed, with each one's
// addresses, rack and version. It only reports; deciding what follows from it is the business of the cluster's metadata.
package membership

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Errors of New and UpdateMeta.
var (
	// ErrDuplicateID: a broker with the same ID is alive elsewhere. Give this one another ID, or stop the other.
	ErrDuplicateID = errors.New("membership: broker ID is in use")
	// ErrForeignCluster: the brokers to join belong to another cluster. Correct the addresses, or the data directory.
	ErrForeignCluster = errors.New("membership: other cluster")
	// ErrMetaTooLarge: addresses, rack and version do not fit in 512 bytes.
	ErrMetaTooLarge = errors.New("membership: metadata too large")
	// ErrBind: the gossip address cannot be listened on.
	ErrBind = errors.New("membership: cannot listen")
)

// Config says how to take part.
type Config struct {
	Meta Meta
	// BindAddr is host:port for TCP and UDP; port 0 picks one.
	BindAddr string
	// AdvertiseAddr is host:port, or just a host, that others should use; empty: BindAddr.
	AdvertiseAddr string
	// Join lists gossip addresses (host:port) of brokers of the cluster. They are asked again every RejoinEvery.
	Join []string
	// RejoinEvery defaults to 15 s, and 1 s as long as nobody was found.
	RejoinEvery time.Duration
	// OnEvent is called from one goroutine, one event at a time, in order; also for this broker itself. It may block, and must not call Close.
	OnEvent func(Event)
	// OnConflict is called (as OnEvent is) when, after New, a broker of another cluster or with this broker's ID shows up.
	OnConflict func(error)
	// Fast shortens all times for clusters on one machine: failures are noticed in about a second.
	Fast   bool
	Logger hclog.Logger
}

// Membership is this broker's part in the gossip.
type Membership struct{}

// New listens, tells the brokers of cfg.Join, and returns. That none of them answers is no error: they are asked again for as long as it
// lives. ErrDuplicateID, ErrForeignCluster, ErrMetaTooLarge, ErrBind.
func New(ctx context.Context, cfg Config) (*Membership, error) { return nil, ErrBind }

// Members returns all known members in all states, by ID, this broker included. Members that failed or left are
// forgotten after a day.
func (m *Membership) Members() []Member { return nil }

// Member returns the member with that ID.
func (m *Membership) Member(id int32) (Member, bool) { return Member{}, false }

// LocalAddr is the gossip address as advertised.
func (m *Membership) LocalAddr() string { return "" }

// UpdateMeta changes what this broker tells about itself: cluster ID, bootstrap set, addresses, rack, version. ID and incarnation cannot change.
func (m *Membership) UpdateMeta(meta Meta) error { return nil }

// Leave says goodbye, so that others report EventLeft instead of EventFailed. Call Close afterwards.
func (m *Membership) Leave(ctx context.Context) error { return nil }

// Close ends everything without a goodbye, and waits for OnEvent to return.
func (m *Membership) Close() error { return nil }
