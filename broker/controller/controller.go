// Package controller decides: where replicas go, which of them move, and who takes part in the metadata group.
//
// The planner is pure: (metadata state, what gossip shows, now) -> plan. The Controller is the small loop around it that runs on every
// broker and acts only on the leader of the metadata group. It changes nothing but the desired replicas; the broker that leads a
// partition moves its Raft configuration there and reports back. Each step is idempotent, so a new controller goes on where the last one ended.
package controller

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/membership"
)

// Config says how to run a Controller. Zero values mean the defaults.
type Config struct {
	Node *metadata.Node
	// Members is membership.Members.
	Members func() []membership.Member
	// ReplaceAfter is how long a broker may be away before its replicas are rebuilt elsewhere. Default 10 min; negative: never.
	ReplaceAfter time.Duration
	// Grace is how long a new controller only watches before it moves replicas. Default 15 s.
	Grace time.Duration
	// MaxMoving is the number of partitions that may move at once. Default 8.
	MaxMoving int
	// Tick is how often it looks when nothing wakes it. Default 1 s.
	Tick   time.Duration
	Now    func() time.Time
	Logger hclog.Logger
}

// Controller is the loop.
type Controller struct{}

// New starts the loop.
func New(cfg Config) *Controller { return &Controller{} }

// Wake asks for a look now; call it on every membership event.
func (c *Controller) Wake() {}

// Close ends the loop and waits for it.
func (c *Controller) Close() {}
