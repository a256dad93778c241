package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Settings are the coordinator's choices, under Kafka's names where Kafka has them. Zero means the default.
// They are read by proposers only: what the state machine needs of them travels in each command, so brokers with different
// settings (in the middle of a rolling restart, say) cannot make replicas differ.
type Settings struct {
	// InitialRebalanceDelay (group.initial.rebalance.delay.ms) is how long an empty group waits for more members after the
	// first. Default 100 ms: members of one deployment that start together come into one generation, and a lone consumer on a
	// terminal does not feel it. Kafka's 3 s pay for eager rebalances, which stop everyone; here cooperative is the default.
	InitialRebalanceDelay time.Duration
	// SessionTimeoutMin and SessionTimeoutMax (group.min.session.timeout.ms, group.max.session.timeout.ms) bound what members may
	// ask for. Default 6 s and 30 min.
	SessionTimeoutMin, SessionTimeoutMax time.Duration
	// RebalanceTimeoutMax bounds the join phase. Default 24 h. A longer wish is lowered to it.
	RebalanceTimeoutMax time.Duration
	// OffsetsRetention (offsets.retention.minutes) is how long offsets are kept after the group became empty (KIP-211), or,
	// for offsets that no member's subscription covers, after their commit. Default 7 days.
	OffsetsRetention time.Duration
	// OffsetsRetentionCheck (offsets.retention.check.interval.ms) is how often to look. Default 10 min.
	OffsetsRetentionCheck time.Duration
	// OffsetMetadataMax (offset.metadata.max.bytes) bounds the text beside a committed offset, in bytes. Default 4096.
	OffsetMetadataMax int
	// MembersMax (group.max.size) bounds the members of a group. Default 2000.
	MembersMax int
	// GroupsMax bounds the groups of this coordinator partition. Default 20000.
	GroupsMax int
	// OffsetsMax bounds the committed offsets of a group. Default 100000.
	OffsetsMax int
	// StateBytesMax bounds the memory of all groups of this coordinator partition, estimated, in bytes. Default 256 MiB.
	// What would grow the state further is refused with CodeStorageFull; commits to offsets that exist still work.
	StateBytesMax int64
	// SubscriptionBytesMax bounds all protocols' metadata of one member together, in bytes. Default 512 KiB.
	SubscriptionBytesMax int
	// CommandBytesMax bounds one proposal, and with it one SyncGroup and one CommitOffsets, in bytes. Default 4 MiB. At
	// most the partition's largest entry. Calls are combined up to 1 MiB only.
	CommandBytesMax int
	// QueueBytesMax bounds what waits to be proposed, in bytes. More is refused with CodeThrottled. Default 16 MiB.
	QueueBytesMax int
	// ProposeTimeout bounds one proposal. Default 30 s.
	ProposeTimeout time.Duration
}

func (s Settings) withDefaults() Settings {
	def(&s.InitialRebalanceDelay, 100*time.Millisecond)
	def(&s.SessionTimeoutMin, 6*time.Second)
	def(&s.SessionTimeoutMax, 30*time.Minute)
	def(&s.RebalanceTimeoutMax, 24*time.Hour)
	def(&s.OffsetsRetention, 7*24*time.Hour)
	def(&s.OffsetsRetentionCheck, 10*time.Minute)
	def(&s.OffsetMetadataMax, 4096)
	def(&s.MembersMax, 2000)
	def(&s.GroupsMax, 20000)
	def(&s.OffsetsMax, 100000)
	def(&s.StateBytesMax, 256<<20)
	def(&s.SubscriptionBytesMax, 512<<10)
	def(&s.CommandBytesMax, 4<<20)
	def(&s.QueueBytesMax, 16<<20)
	def(&s.ProposeTimeout, 30*time.Second)
	return s
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// timeoutMax is what fits a member's timeouts as they are stored: 32 bits of milliseconds.
const timeoutMax = 24 * 24 * time.Hour

// Validate says what is wrong with s, after defaults.
func (s Settings) Validate() error {
	s = s.withDefaults()
	for _, d := range []time.Duration{s.InitialRebalanceDelay, s.SessionTimeoutMin, s.SessionTimeoutMax, s.RebalanceTimeoutMax,
		s.OffsetsRetention, s.OffsetsRetentionCheck, s.ProposeTimeout} {
		if d < 0 {
			return errors.New("group coordinator: a duration is negative")
		}
	}
	if s.SessionTimeoutMin > s.SessionTimeoutMax {
		return errors.New("group coordinator: group.min.session.timeout.ms is above group.max.session.timeout.ms")
	}
	if max(s.SessionTimeoutMax, s.RebalanceTimeoutMax) > timeoutMax {
		return fmt.Errorf("group coordinator: a member's timeouts cannot exceed %v", timeoutMax)
	}
	if min(s.MembersMax, s.GroupsMax, s.OffsetsMax, s.OffsetMetadataMax, s.SubscriptionBytesMax) < 0 || s.StateBytesMax < 0 {
		return errors.New("group coordinator: a limit is negative")
	}
	if s.CommandBytesMax < s.SubscriptionBytesMax+8<<10 {
		return errors.New("group coordinator: CommandBytesMax must exceed SubscriptionBytesMax by 8 KiB")
	}
	if s.QueueBytesMax < s.CommandBytesMax {
		return errors.New("group coordinator: QueueBytesMax must be at least CommandBytesMax")
	}
	return nil
}

// Config is what a Coordinator needs.
type Config struct {
	// Rebalanced is called for each new generation of a group while this coordinator serves. It must be quick. Nil: nobody counts.
	Rebalanced func()
	// Name of the coordinator partition, for messages: "__consumer_offsets/3".
	Name string
	// Self is named as coordinator in lists and descriptions.
	Self api.Endpoint
	// Machine is the partition's state machine on this broker. Required.
	Machine *Machine
	// Propose replicates a command and returns what Machine.Apply returned for it on this broker. An error that is
	// an *api.Error keeps its code (CodeNotLeader becomes CodeNotCoordinator); others become CodeCoordinatorNotAvailable. It must return when
	// ctx ends or leadership is lost. Required. Calls never overlap.
	Propose func(ctx context.Context, cmd []byte) (any, error)
	// Term gives the Raft term in which this broker leads the partition, 0 while it does not. It is asked before each call and each proposal, so
	// that a leadership lost, or lost and won again, of which LeaderStop and LeaderStart have not told yet, cannot serve old reads or
	// end sessions by deadlines of another time. It must be cheap. nil: only LeaderStart and LeaderStop count.
	Term func() uint64
	// Partitions gives the number of partitions of a topic, and false if there is no such topic; for members that leave the
	// assignment to the coordinator. Required. It must not block.
	Partitions func(topic string) (int32, bool)
	Settings   Settings
	// NewID returns text that is unique for ever, for member IDs. nil: 128 random bits.
	NewID  func() string
	Logger hclog.Logger
}
