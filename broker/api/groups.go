package api

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Groups is the consumer-group protocol as members use it: Kafka's classic one (JoinGroup, SyncGroup, Heartbeat, LeaveGroup,
// OffsetCommit, OffsetFetch), with opaque subscription and assignment bytes. Calls for a group that another broker coordinates fail with
// CodeNotCoordinator and name it.
type Groups interface {
	FindCoordinator(ctx context.Context, group string) (Endpoint, error)
	// JoinGroup blocks until the join phase of the rebalance ends.
	JoinGroup(ctx context.Context, req JoinRequest) (JoinResult, error)
	// SyncGroup brings (the group's leader) or awaits (all others) the assignment.
	SyncGroup(ctx context.Context, req SyncRequest) (SyncResult, error)
	// JoinAndSync is both in one call for members that leave the assignment to the coordinator: subscription and assignment
	// are in Kafka's consumer protocol format, so such members can share a group with Kafka clients.
	JoinAndSync(ctx context.Context, req NativeJoinRequest) (NativeJoinResult, error)
	// Heartbeat keeps a member alive. CodeRebalanceInProgress asks it to join again.
	Heartbeat(ctx context.Context, m MemberRef) error
	LeaveGroup(ctx context.Context, m MemberRef) error
	CommitOffsets(ctx context.Context, m MemberRef, offsets []OffsetCommit) error
	// FetchOffsets returns the committed offsets; tps nil means all. Those asked for that do not exist have Offset -1.
	FetchOffsets(ctx context.Context, group string, tps []TopicPartition) ([]OffsetCommit, error)
}

// MemberRef identifies a member to its coordinator. A commit from outside of the group has an empty MemberID and Generation -1.
type MemberRef struct {
	Group      string
	MemberID   string
	InstanceID string // static membership (KIP-345); empty: none
	Generation int32
}

// JoinRequest is Kafka's JoinGroup.
type JoinRequest struct {
	MemberRef
	ClientID         string
	ClientHost       string
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	ProtocolType     string // "consumer" for consumers
	Protocols        []GroupProtocol
	// RequireMemberID answers a first join with CodeMemberIDRequired and an ID to come back with (KIP-394).
	RequireMemberID bool
}

// GroupProtocol is an assignment strategy that a member knows, with its subscription for that strategy.
type GroupProtocol struct {
	Name     string
	Metadata []byte
}

// JoinResult is the outcome of the join phase. Members is filled for the leader only.
type JoinResult struct {
	MemberID     string
	Generation   int32
	ProtocolType string
	Protocol     string
	Leader       string
	Members      []JoinedMember
	// SkipAssignment tells a returning static leader to leave the assignment as it is (KIP-814).
	SkipAssignment bool
}

// JoinedMember is a member as the group's leader sees it.
type JoinedMember struct {
	MemberID   string
	InstanceID string
	Metadata   []byte
}

// SyncRequest is Kafka's SyncGroup; only the leader sends Assignments.
type SyncRequest struct {
	MemberRef
	ProtocolType string
	Protocol     string
	Assignments  map[string][]byte // by member ID
}

// SyncResult is a member's assignment.
type SyncResult struct {
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// NativeJoinRequest joins without knowing the assignment format.
type NativeJoinRequest struct {
	MemberRef        // Generation: the one in which Owned was assigned, or -1
	ClientID         string
	ClientHost       string
	SessionTimeout   time.Duration // 0: 45 s
	RebalanceTimeout time.Duration // 0: 300 s
	Topics           []string
	Strategies       []string // Kafka's names: range, roundrobin, sticky, cooperative-sticky; none: cooperative-sticky
	Owned            []TopicPartition
}

// NativeJoinResult is the member's place in the new generation.
type NativeJoinResult struct {
	MemberID   string
	Generation int32
	Strategy   string
	Assignment []TopicPartition
}

// OffsetCommit is a group's position in a partition.
type OffsetCommit struct {
	TopicPartition
	Offset      record.Offset
	LeaderEpoch int32 // -1: unknown
	Metadata    string
	CommitTime  int64 // Unix ms; set by the coordinator
}

// GroupAdmin is what operators do with groups. Any broker answers, asking the coordinators.
type GroupAdmin interface {
	ListGroups(ctx context.Context) ([]GroupSummary, error)
	// DescribeGroup includes offsets and lag.
	DescribeGroup(ctx context.Context, group string) (GroupDescription, error)
	DeleteGroup(ctx context.Context, group string) error
	ResetOffsets(ctx context.Context, req ResetOffsetsRequest) ([]OffsetReset, error)
	// DeleteOffsets forgets committed offsets, each for itself: the errors of partitions are in the order of tps, CodeGroupSubscribedToTopic where a member
	// subscribes to the topic. The error for the whole: CodeUnknownGroup, CodeGroupNotEmpty (with members that are no consumers).
	DeleteOffsets(ctx context.Context, group string, tps []TopicPartition) ([]error, error)
}

// GroupSummary is a line of the list of groups. State has Kafka's names.
type GroupSummary struct {
	Group        string
	State        string
	ProtocolType string
	Members      int
	Coordinator  BrokerID
}

// GroupDescription is all about a group.
type GroupDescription struct {
	Group        string
	State        string
	ProtocolType string
	Protocol     string
	Generation   int32
	Leader       string
	Coordinator  Endpoint
	Members      []GroupMember
	Offsets      []GroupOffset
}

// GroupMember is a member as operators see it. Topics and Assigned are decoded where ProtocolType is "consumer".
type GroupMember struct {
	MemberID       string
	InstanceID     string
	ClientID       string
	ClientHost     string
	SessionTimeout time.Duration
	Topics         []string
	Assigned       []TopicPartition
	Metadata       []byte
	Assignment     []byte
}

// GroupOffset is a committed offset with what is known of the partition; -1 where it is not known.
type GroupOffset struct {
	OffsetCommit
	LogStart      record.Offset
	HighWatermark record.Offset
	Lag           int64
	MemberID      string
}

// ResetKind chooses where ResetOffsets goes.
type ResetKind int8

// The kinds of reset.
const (
	ResetEarliest ResetKind = iota + 1
	ResetLatest
	ResetOffset
	ResetTimestamp
	ResetShift
)

// ResetOffsetsRequest sets the offsets of a group without members.
type ResetOffsetsRequest struct {
	Group      string
	Topics     []string         // none: those with committed offsets
	Partitions []TopicPartition // none: all of the topics
	Kind       ResetKind
	Value      int64 // offset, Unix ms, or shift
	DryRun     bool
}

// OffsetReset is one offset before (-1: none) and after.
type OffsetReset struct {
	TopicPartition
	From, To record.Offset
}
