// Package controller decides: where replicas go, which of them move, and who takes part in the metadata group.
//
// The planner is pure: (metadata state, what gossip shows, now) -> plan. The Controller is the small loop around it that runs on every
// broker and acts only on the leader of the metadata group. It changes nothing but the desired replicas; the broker that leads a
// partition moves its Raft configuration there and reports back. Each step is idempotent, so a new controller goes on where the last one ended.
package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/membership"
)

// Node is what the controller needs of the metadata node; *metadata.Node is one.
type Node interface {
	State() *metadata.State
	Changed() <-chan struct{}
	IsLeader() bool
	Leader() api.BrokerID
	Sync(context.Context) error
	Propose(context.Context, metadata.Command) (metadata.Result, error)
	Servers() []metadata.Server
	CaughtUp(ctx context.Context, id api.BrokerID, incarnation string) (bool, error)
	AddServer(ctx context.Context, id api.BrokerID, incarnation string, voter bool) error
	DemoteServer(context.Context, metadata.Server) error
	RemoveServer(context.Context, metadata.Server) error
	TransferLeadership(context.Context) error
}

var _ Node = (*metadata.Node)(nil)

// Config says how to run a Controller. Zero values mean the defaults.
type Config struct {
	Node Node
	// Members is membership.Members.
	Members func() []membership.Member
	// ReplaceAfter is how long a broker may be away before its replicas are rebuilt elsewhere. Default 10 min; negative: never.
	ReplaceAfter time.Duration
	// Grace is how long a new controller only watches before it marks brokers as away and moves replicas. Default 15 s.
	Grace time.Duration
	// MaxMoving is the number of partitions that may move at once. Default 8.
	MaxMoving int
	// MaxBuilding is the number of replicas that may be built on one broker at once. Default 2.
	MaxBuilding int
	// Tick is how often it looks when nothing wakes it. Default 1 s.
	Tick time.Duration
	// Now is the wall clock, which may jump. Monotonic is a clock that does not, for Grace. Both default to time.Now.
	Now, Monotonic func() time.Time
	Logger         hclog.Logger
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c *Config) setDefaults() {
	setDefault(&c.ReplaceAfter, 10*time.Minute)
	setDefault(&c.Grace, 15*time.Second)
	setDefault(&c.MaxMoving, 8)
	setDefault(&c.MaxBuilding, 2)
	setDefault(&c.Tick, time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Monotonic == nil {
		c.Monotonic = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
}

const (
	// breather is the least time between two looks, so that a storm of reports does not become one of plans.
	breather = 50 * time.Millisecond
	// stepTimeout bounds each thing that the controller does.
	stepTimeout = 5 * time.Second
	// maxChanges bounds the partitions in one command.
	maxChanges = 500
)

// Controller is the loop: one goroutine, which Close stops through ctx and waits for. All fields below wg are that goroutine's.
type Controller struct {
	cfg    Config
	log    hclog.Logger
	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	leading time.Time       // since when; zero: not leading
	said    map[string]bool // what cannot be done, so that it is logged once
}

// New starts the loop.
func New(cfg Config) *Controller {
	cfg.setDefaults()
	c := &Controller{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), said: map[string]bool{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Add(1)
	go c.run()
	return c
}

// Wake asks for a look now; call it on every membership event. It never blocks.
func (c *Controller) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Close ends the loop and waits for it.
func (c *Controller) Close() {
	c.cancel()
	c.wg.Wait()
}

func (c *Controller) run() {
	defer c.wg.Done()
	tick := time.NewTicker(c.cfg.Tick)
	defer tick.Stop()
	for {
		changed := c.cfg.Node.Changed()
		if c.look() && !c.pause(breather) {
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		case <-c.wake:
		case <-changed:
		}
	}
}

func (c *Controller) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// look does what there is to do now, if this broker is the controller of a cluster. An error ends the look; the next one begins from what is true then.
func (c *Controller) look() (looked bool) {
	if !c.cfg.Node.IsLeader() {
		c.leading = time.Time{}
		return false
	}
	if err := c.act(); err != nil && c.ctx.Err() == nil && c.cfg.Node.IsLeader() {
		c.log.Warn("a step did not succeed and will be tried again", "error", err)
		return true
	}
	return c.cfg.Node.State().ClusterID != ""
}

func (c *Controller) act() error {
	if c.leading.IsZero() {
		// Plan on everything that earlier controllers did.
		if err := c.step(c.cfg.Node.Sync); err != nil {
			return err
		}
		c.leading = c.cfg.Monotonic()
		c.log.Info("this broker is the controller now")
	}
	if c.cfg.Node.State().ClusterID == "" {
		return nil
	}
	members := c.cfg.Members()
	for _, do := range []func([]membership.Member) error{c.register, c.markAway, c.keepGroup, c.move, c.forget} {
		if err := do(members); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) step(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, stepTimeout)
	defer cancel()
	return f(ctx)
}

func (c *Controller) propose(cmd metadata.Command) error {
	return c.step(func(ctx context.Context) error {
		_, err := c.cfg.Node.Propose(ctx, cmd)
		return err
	})
}

// graceOver says that this controller has led for long enough for gossip and reports to have reached it.
func (c *Controller) graceOver() bool { return c.cfg.Monotonic().Sub(c.leading) >= c.cfg.Grace }

// view is what the planner sees. A member counts as alive if it is the incarnation that is registered.
func (c *Controller) view(members []membership.Member) View {
	v := View{State: c.cfg.Node.State(), Alive: map[api.BrokerID]bool{}, Now: c.cfg.Now()}
	for _, m := range members {
		b := v.State.Brokers[api.BrokerID(m.ID)]
		if m.State == membership.Alive && b != nil && b.Incarnation == m.Incarnation {
			v.Alive[b.ID] = true
		}
	}
	return v
}

// register brings the registry in line with gossip. A new broker is given its share of the replicas.
func (c *Controller) register(members []membership.Member) error {
	s := c.cfg.Node.State()
	for _, m := range members {
		if m.State != membership.Alive || m.ClusterID != "" && m.ClusterID != s.ClusterID {
			continue
		}
		b := metadata.Broker{ID: api.BrokerID(m.ID), Incarnation: m.Incarnation, GRPCAddr: m.GRPCAddr, PeerAddr: m.PeerAddr,
			GossipAddr: m.GossipAddr, KafkaAddr: m.KafkaAddr, KafkaListeners: m.KafkaListeners, Rack: m.Rack, Version: m.Version}
		if old := s.Brokers[b.ID]; old != nil {
			b.Draining = old.Draining
			if b == *old {
				continue
			}
		}
		c.log.Info("registering broker", "broker", b.ID, "incarnation", b.Incarnation, "peer", b.PeerAddr, "rack", b.Rack)
		if err := c.propose(&metadata.RegisterBroker{Broker: b, Rebalance: true}); err != nil {
			return err
		}
		if err := c.welcomeBack(s, b.ID); err != nil {
			return err
		}
	}
	return nil
}

// welcomeBack gives a broker that stayed away until its replicas were rebuilt elsewhere a share again. s is the state from before it came back.
func (c *Controller) welcomeBack(s *metadata.State, id api.BrokerID) error {
	old := s.Brokers[id]
	if old == nil || old.AwaySinceMs == 0 || old.Draining || s.PartitionCount() == 0 || ReplicasOn(s, id) > 0 {
		return nil
	}
	return c.propose(&metadata.SetRebalance{On: true})
}

// markAway records when brokers went, so that the next controller knows too.
func (c *Controller) markAway(members []membership.Member) error {
	if !c.graceOver() {
		return nil
	}
	v := c.view(members)
	left := map[api.BrokerID]bool{}
	for _, m := range members {
		left[api.BrokerID(m.ID)] = m.State == membership.Left
	}
	for _, b := range v.State.SortedBrokers() {
		if v.Alive[b.ID] || b.AwaySinceMs != 0 {
			continue
		}
		c.log.Info("broker is away", "broker", b.ID, "left", left[b.ID])
		if err := c.propose(&metadata.MarkAway{ID: b.ID, SinceMs: v.Now.UnixMilli(), Left: left[b.ID]}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) limits() Limits {
	return Limits{MaxMoving: c.cfg.MaxMoving, MaxBuilding: c.cfg.MaxBuilding, ReplaceAfter: c.cfg.ReplaceAfter}
}

// keepGroup makes one step in the metadata group's membership.
func (c *Controller) keepGroup(members []membership.Member) error {
	g := GroupView{View: c.view(members), Self: c.cfg.Node.Leader(), Servers: c.cfg.Node.Servers(), CaughtUp: c.caughtUp, Limits: c.limits()}
	step, ok := PlanGroup(g)
	if !ok {
		return nil
	}
	c.log.Info("metadata group", "step", string(step.Action), "broker", step.Server.Broker, "why", step.Why)
	err := c.step(func(ctx context.Context) error { return c.changeGroup(ctx, step) })
	if err != nil {
		return fmt.Errorf("%s broker %d: %w", step.Action, step.Server.Broker, err)
	}
	c.Wake()
	return nil
}

func (c *Controller) caughtUp(b *metadata.Broker) bool {
	ok := false
	err := c.step(func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ok, err = c.cfg.Node.CaughtUp(ctx, b.ID, b.Incarnation)
		return err
	})
	if err != nil {
		c.log.Debug("metadata group: a broker's progress is not known", "broker", b.ID, "error", err)
	}
	return ok
}

func (c *Controller) changeGroup(ctx context.Context, step GroupStep) error {
	n, s := c.cfg.Node, step.Server
	switch step.Action {
	case AddMember, PromoteMember:
		b := n.State().Brokers[s.Broker]
		if b == nil || metadata.MemberID(b.ID, b.Incarnation) != s.ServerID {
			return errors.New("the broker was registered anew meanwhile")
		}
		return n.AddServer(ctx, b.ID, b.Incarnation, step.Action == PromoteMember)
	case DemoteMember:
		return n.DemoteServer(ctx, s)
	case RemoveMember:
		return n.RemoveServer(ctx, s)
	case HandOver:
		return n.TransferLeadership(ctx)
	}
	return fmt.Errorf("unknown step %q", step.Action)
}

// move takes the next steps of moving replicas.
func (c *Controller) move(members []membership.Member) error {
	if !c.graceOver() {
		return nil
	}
	plan := MakePlan(c.view(members), c.limits())
	c.sayBlocked(plan.Blocked)
	for i, ch := range plan.Changes {
		c.log.Info("assigning replicas", "partition", fmt.Sprintf("%s/%d", ch.TP.Topic, ch.TP.Partition), "replicas", metadata.BrokerIDs(ch.Replicas), "why", plan.Reasons[i])
	}
	for from := 0; from < len(plan.Changes); from += maxChanges {
		to := min(from+maxChanges, len(plan.Changes))
		if err := c.propose(&metadata.SetReplicas{Changes: plan.Changes[from:to]}); err != nil {
			return err
		}
	}
	if plan.Balanced {
		c.log.Info("replicas and leaders are balanced")
		return c.propose(&metadata.SetRebalance{On: false})
	}
	return nil
}

func (c *Controller) sayBlocked(blocked []api.PartitionProblem) {
	now := map[string]bool{}
	for _, b := range blocked {
		text := fmt.Sprintf("%s/%d: %s", b.Topic, b.Partition, b.Problem)
		now[text] = true
		if !c.said[text] {
			c.log.Warn("cannot repair", "partition", fmt.Sprintf("%s/%d", b.Topic, b.Partition), "problem", b.Problem)
		}
	}
	c.said = now
}

// forget removes the records of brokers that were decommissioned and stopped, after the metadata group is rid of them.
func (c *Controller) forget(members []membership.Member) error {
	servers := map[api.BrokerID]bool{}
	for _, s := range c.cfg.Node.Servers() {
		servers[s.Broker] = true
	}
	for _, id := range Forget(c.view(members), c.limits()) {
		if servers[id] {
			continue
		}
		c.log.Info("forgetting decommissioned broker", "broker", id)
		if err := c.propose(&metadata.RemoveBroker{ID: id}); err != nil {
			return err
		}
	}
	return nil
}
