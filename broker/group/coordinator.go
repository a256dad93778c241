package group

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Coordinator serves the members of one coordinator partition's groups while this broker leads it. Its methods may be called from
// many goroutines. Each period of leadership is a term of its own, so nothing of an earlier one can leak into the next.
type Coordinator struct {
	cfg      Config
	settings Settings
	limits   Limits
	logger   hclog.Logger

	guard     jumpGuard        // of the clock goroutine of the term that runs
	now       func() time.Time // the wall clock; a seam
	lifecycle sync.Mutex       // held while a term starts or stops
	current   atomic.Pointer[term]
}

// NewCoordinator returns a coordinator that does not lead yet: all calls fail with CodeNotCoordinator.
func NewCoordinator(cfg Config) (*Coordinator, error) {
	if cfg.Machine == nil || cfg.Propose == nil || cfg.Partitions == nil {
		return nil, errors.New("group coordinator: Machine, Propose and Partitions are required")
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Rebalanced == nil {
		cfg.Rebalanced = func() {}
	}
	if cfg.NewID == nil {
		cfg.NewID = randomID
	}
	s := cfg.Settings.withDefaults()
	c := &Coordinator{
		cfg: cfg, now: time.Now,
		settings: s,
		limits:   Limits{GroupsMax: s.GroupsMax, MembersMax: s.MembersMax, OffsetsMax: s.OffsetsMax, StateBytesMax: s.StateBytesMax},
		logger:   cfg.Logger.With("partition", cfg.Name),
	}
	c.guard.jumped(c.now(), time.Now())
	return c, nil
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// LeaderStart begins to serve: it proposes a barrier and returns when all that was committed before is applied here, with
// fresh deadlines for all members and phases. Call it when the partition's replica becomes leader. After an error the coordinator does
// not serve; the caller may try again while it still leads. ctx bounds the barrier only.
func (c *Coordinator) LeaderStart(ctx context.Context) error {
	c.lifecycle.Lock()
	defer c.lifecycle.Unlock()
	c.stopCurrent()
	t := newTerm(c)
	c.current.Store(t)
	if err := t.start(ctx); err != nil {
		c.stopCurrent()
		return fmt.Errorf("%s: start of the group coordinator: %w", c.cfg.Name, err)
	}
	return nil
}

// LeaderStop ends service: calls that wait fail with CodeNotCoordinator, and all goroutines have ended when it returns. It
// may be called at any time, also twice, also while LeaderStart waits. Call it when leadership is lost, and before the replica is closed.
func (c *Coordinator) LeaderStop() {
	if t := c.current.Load(); t != nil {
		t.cancel() // so that a LeaderStart that waits for its barrier lets go of the lifecycle
	}
	c.lifecycle.Lock()
	defer c.lifecycle.Unlock()
	c.stopCurrent()
}

func (c *Coordinator) stopCurrent() {
	if t := c.current.Swap(nil); t != nil {
		t.stop()
	}
}

// lead returns the running term: CodeNotCoordinator without one, CodeCoordinatorNotAvailable until it has begun to serve.
func (c *Coordinator) lead() (*term, error) {
	t := c.current.Load()
	if t == nil {
		return nil, c.notCoordinator()
	}
	if !t.ready.Load() {
		return nil, api.Errorf(api.CodeCoordinatorNotAvailable, "%s: the coordinator is starting", c.cfg.Name)
	}
	if t.over() {
		return nil, c.notCoordinator()
	}
	if err := c.cfg.Machine.err(); err != nil {
		return nil, api.Errorf(api.CodeCoordinatorNotAvailable, "%s: %w", c.cfg.Name, err)
	}
	return t, nil
}

func (c *Coordinator) notCoordinator() *api.Error {
	return api.Errorf(api.CodeNotCoordinator, "%s: this broker is not the coordinator", c.cfg.Name)
}

// TopicsChanged asks for a look whether groups whose assignment is made here cover other partitions than exist now. Call
// it whenever topics or their partition counts change (and only then: it reads all groups). It does not block.
func (c *Coordinator) TopicsChanged() {
	if t := c.current.Load(); t != nil {
		t.assigner.lookAtTopics(lookForAll)
	}
}
