package metadata

import (
	"maps"
	"math"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
)

// change is one command at work on a State: it copies what it changes, once, and leaves the rest shared with the old State.
// A command checks everything before it changes anything, so that an error leaves no trace.
type change struct {
	old     *State
	s       *State // a shallow copy of old
	dirty   bool
	brokers bool // s.Brokers is a copy
	topics  bool // s.Topics is a copy
	fresh   map[*Topic]bool
}

func newChange(old *State) *change {
	s := *old
	return &change{old: old, s: &s}
}

// done returns the State after the command, stamped with the command's index if anything changed.
func (c *change) done(index uint64) *State {
	if !c.dirty {
		return c.old
	}
	c.s.Version = index
	return c.s
}

// putBroker adds or replaces a broker; b must be a new value.
func (c *change) putBroker(b *Broker) {
	c.ownBrokers()
	c.s.Brokers[b.ID] = b
}

func (c *change) ownBrokers() {
	c.dirty = true
	if !c.brokers {
		c.s.Brokers, c.brokers = cloneMap(c.s.Brokers), true
	}
}

func (c *change) ownTopics() {
	c.dirty = true
	if !c.topics {
		c.s.Topics, c.topics = cloneMap(c.s.Topics), true
	}
}

// ownTopic returns a copy of the topic that may be changed, except for the partitions that it points to.
func (c *change) ownTopic(name string) *Topic {
	t := c.s.Topics[name]
	if c.fresh[t] {
		return t
	}
	c.ownTopics()
	cp := *t
	cp.Partitions = slices.Clone(t.Partitions)
	cp.Settings = maps.Clone(t.Settings)
	c.putTopic(&cp)
	return &cp
}

func (c *change) putTopic(t *Topic) {
	c.ownTopics()
	c.s.Topics[t.Name] = t
	if c.fresh == nil {
		c.fresh = map[*Topic]bool{}
	}
	c.fresh[t] = true
}

// ownPartition puts a copy of p, which may be changed, in its place.
func (c *change) ownPartition(p *Partition) *Partition {
	cp := *p
	c.ownTopic(p.Topic).Partitions[p.Partition] = &cp
	return &cp
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

func (c *InitCluster) apply(ch *change) (Result, error) {
	switch {
	case ch.s.ClusterID == c.ClusterID:
		return Result{}, nil
	case ch.s.ClusterID != "":
		return Result{}, api.Errorf(api.CodePolicyViolation, "the cluster is %s already, not %s", ch.s.ClusterID, c.ClusterID)
	}
	ch.s.ClusterID, ch.dirty = c.ClusterID, true
	return Result{}, nil
}

func (c *RegisterBroker) apply(ch *change) (Result, error) {
	b := c.Broker
	old := ch.s.Brokers[b.ID]
	b.Draining, b.AwaySinceMs, b.Left = false, 0, false
	if old != nil {
		b.Draining = old.Draining
		if b == *old {
			return Result{}, nil
		}
	}
	ch.putBroker(&b)
	if old == nil && c.Rebalance {
		ch.s.Rebalance = true
	}
	return Result{}, nil
}

// withBroker applies edit to a copy of a broker.
func (ch *change) withBroker(id api.BrokerID, edit func(*Broker)) error {
	b := ch.s.Brokers[id]
	if b == nil {
		return api.Errorf(api.CodeUnknownBroker, "there is no broker %d", id)
	}
	cp := *b
	if edit(&cp); cp != *b {
		ch.putBroker(&cp)
	}
	return nil
}

func (c *MarkAway) apply(ch *change) (Result, error) {
	return Result{}, ch.withBroker(c.ID, func(b *Broker) { b.AwaySinceMs, b.Left = c.SinceMs, c.Left && c.SinceMs != 0 })
}

func (c *SetDraining) apply(ch *change) (Result, error) {
	was := ch.s.Brokers[c.ID] != nil && ch.s.Brokers[c.ID].Draining
	err := ch.withBroker(c.ID, func(b *Broker) { b.Draining = c.Draining })
	if err == nil && was && !c.Draining && c.Rebalance {
		ch.s.Rebalance, ch.dirty = true, true
	}
	return Result{}, err
}

func (c *RemoveBroker) apply(ch *change) (Result, error) {
	if ch.s.Brokers[c.ID] == nil {
		return Result{}, nil
	}
	for _, t := range ch.s.SortedTopics() {
		for _, p := range t.Partitions {
			if p.On(c.ID) {
				return Result{}, api.Errorf(api.CodePolicyViolation, "broker %d has replicas, for example of %s", c.ID, p)
			}
		}
	}
	ch.ownBrokers()
	delete(ch.s.Brokers, c.ID)
	if ch.s.SetAt(c.ID) != nil {
		ch.setBrokerSettings(c.ID, nil)
	}
	return Result{}, nil
}

func hasBroker(list []Replica, id api.BrokerID) bool {
	return slices.ContainsFunc(list, func(r Replica) bool { return r.Broker == id })
}

func (c *SetRebalance) apply(ch *change) (Result, error) {
	if ch.s.Rebalance != c.On {
		ch.s.Rebalance, ch.dirty = c.On, true
	}
	if c.On && c.Everything {
		ch.forgetHands()
	}
	return Result{}, nil
}

// forgetHands makes partitions that were placed by an operator like all others.
func (ch *change) forgetHands() {
	for _, t := range ch.s.SortedTopics() {
		for _, p := range t.Partitions {
			if p.ByHand {
				ch.ownPartition(p).ByHand = false
			}
		}
	}
}

func (c *AllocateProducerIDs) apply(ch *change) (Result, error) {
	if c.Count < 0 || ch.s.NextProducerID > math.MaxInt64-c.Count {
		return Result{}, api.Errorf(api.CodePolicyViolation, "all producer IDs are used up")
	}
	first := ch.s.NextProducerID
	ch.s.NextProducerID, ch.dirty = first+c.Count, true
	return Result{FirstProducerID: first}, nil
}

// NewState is the state before the first command.
func NewState() *State {
	return &State{NextGroup: Group + 1, NextProducerID: 1, Brokers: map[api.BrokerID]*Broker{}, Topics: map[string]*Topic{}}
}

// Apply returns the state after a command, without any Node: for planners and tests. s is not changed; it is returned as it is if the command
// fails or changes nothing. index becomes the Version otherwise.
func Apply(s *State, index uint64, c Command) (*State, Result, error) {
	if err := c.check(s); err != nil {
		return s, Result{}, err
	}
	ch := newChange(s)
	res, err := c.apply(ch)
	if err != nil {
		return s, Result{}, err
	}
	return ch.done(index), res, nil
}
