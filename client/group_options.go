package client

import (
	"context"
	"errors"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Strategy is how a group's partitions are shared among its members.
type Strategy int32

// Kafka's strategies. CooperativeSticky moves as few partitions as possible and lets members go on reading those that stay.
const (
	RangeStrategy      = Strategy(pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_RANGE)
	RoundRobinStrategy = Strategy(pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_ROUND_ROBIN)
	StickyStrategy     = Strategy(pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_STICKY)
	CooperativeSticky  = Strategy(pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_COOPERATIVE_STICKY)
)

// String is Kafka's name of the strategy.
func (s Strategy) String() string {
	switch s {
	case RangeStrategy:
		return "range"
	case RoundRobinStrategy:
		return "roundrobin"
	case StickyStrategy:
		return "sticky"
	case CooperativeSticky:
		return "cooperative-sticky"
	}
	return "unspecified"
}

// ParseStrategy reads one of Kafka's names.
func ParseStrategy(name string) (Strategy, error) {
	for s := RangeStrategy; s <= CooperativeSticky; s++ {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, errors.New("unknown assignment strategy " + name + " (want range, roundrobin, sticky or cooperative-sticky)")
}

// RebalanceFunc is told of partitions. It runs inside Poll or Close, so records returned by the Poll before have been dealt with, and must not
// call Poll or Close.
type RebalanceFunc func(ctx context.Context, partitions []TopicPartition)

type groupOption func(*groupConfig)

func (f groupOption) applyGroup(c *groupConfig) { f(c) }

type groupConfig struct {
	consumer         consumerConfig
	start            Position
	autoCommit       time.Duration
	strategies       []Strategy
	instanceID       string
	sessionTimeout   time.Duration
	rebalanceTimeout time.Duration
	onAssigned       RebalanceFunc
	onRevoked        RebalanceFunc
	onLost           RebalanceFunc
}

func defaultGroupConfig() groupConfig {
	none := func(context.Context, []TopicPartition) {}
	return groupConfig{
		consumer: defaultConsumerConfig(), start: Earliest(), autoCommit: 5 * time.Second, strategies: []Strategy{CooperativeSticky},
		sessionTimeout: 45 * time.Second, rebalanceTimeout: 5 * time.Minute, onAssigned: none, onRevoked: none, onLost: none,
	}
}

func (c *groupConfig) validate() error {
	switch {
	case c.sessionTimeout <= 0 || c.rebalanceTimeout <= 0 || c.autoCommit < 0:
		return errors.New("client: a group consumer's timeouts must be above 0")
	case len(c.strategies) == 0:
		return errors.New("client: no assignment strategy")
	case c.onAssigned == nil || c.onRevoked == nil || c.onLost == nil:
		return errors.New("client: a rebalance callback is nil")
	}
	for _, s := range c.strategies {
		if (s == CooperativeSticky) != (c.strategies[0] == CooperativeSticky) {
			return errors.New("client: cooperative and eager strategies do not go together in one member")
		}
	}
	if c.consumer.reset.kind == posUnset {
		c.consumer.reset = c.start
	}
	return c.consumer.validate()
}

// WithStart is where to begin in partitions for which the group has committed nothing. Default Earliest, so that nothing is skipped unseen.
func WithStart(p Position) GroupOption { return groupOption(func(c *groupConfig) { c.start = p }) }

// WithAutoCommit is how often the offsets of records that have been dealt with (a later Poll was called) are committed; they are also
// committed before partitions are given up. 0 leaves it all to Commit. Default 5 s, Kafka's.
func WithAutoCommit(every time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) { c.autoCommit = every })
}

// WithStrategies lists the strategies that the member knows, best first; the group uses one that all members know. Default
// CooperativeSticky alone.
func WithStrategies(s ...Strategy) GroupOption {
	return groupOption(func(c *groupConfig) { c.strategies = s })
}

// WithInstanceID makes the member a static one (KIP-345): it keeps its partitions through a restart that takes less than the session
// timeout, and Close does not leave the group.
func WithInstanceID(id string) GroupOption {
	return groupOption(func(c *groupConfig) { c.instanceID = id })
}

// WithSessionTimeout is how long the member may be silent before the group goes on without it; it sends heartbeats three times as often.
// Default 45 s, Kafka's.
func WithSessionTimeout(d time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) { c.sessionTimeout = d })
}

// WithRebalanceTimeout is how long the group waits in a rebalance for the member to give up partitions, which it does in Poll. So it is also the longest that
// records of one Poll may take. Default 5 min, Kafka's.
func WithRebalanceTimeout(d time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) { c.rebalanceTimeout = d })
}

// WithOnAssigned is called with partitions that the member has been given, before their first record; it may Seek.
func WithOnAssigned(f RebalanceFunc) GroupOption {
	return groupOption(func(c *groupConfig) { c.onAssigned = f })
}

// WithOnRevoked is called with partitions that the member is about to give up; it may still Commit for them.
func WithOnRevoked(f RebalanceFunc) GroupOption {
	return groupOption(func(c *groupConfig) { c.onRevoked = f })
}

// WithOnLost is called with partitions that the group has already taken away from the member; commits for them would fail.
func WithOnLost(f RebalanceFunc) GroupOption {
	return groupOption(func(c *groupConfig) { c.onLost = f })
}
