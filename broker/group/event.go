package group

import "github.com/flotilla-log/flotilla/broker/api"

// Event is something that happens to a group (ExpireOffsets and Barrier: to none in particular). Everything that a step
// depends on is in the event, its time, its Limits and the group; so every replica comes to the same state.
type Event interface {
	kind() eventKind
	// groupID is empty for events that concern no single group.
	groupID() string
}

type eventKind uint8

// The kinds, as stored: never renumber.
const (
	kindJoin eventKind = iota + 1
	kindSync
	kindLeave
	kindExpireMember
	kindJoinDeadline
	kindSyncDeadline
	kindRebalance
	kindCommit
	kindSetOffsets
	kindDelete
	kindExpireOffsets
	kindBarrier
	kindForget
)

// Join is a call of JoinGroup.
type Join struct {
	Group      string
	MemberID   string // empty: the member is new
	NewID      string // the ID to give, should one be needed (unique, chosen by the proposer)
	InstanceID string
	ClientID   string
	ClientHost string
	SessionMs  int32
	// RebalanceMs is how long the group waits for this member in a rebalance.
	RebalanceMs     int32
	ProtocolType    string
	Protocols       []api.GroupProtocol
	RequireMemberID bool
	Native          bool
}

// Sync is the leader's call of SyncGroup. The others' calls change nothing and are not replicated.
type Sync struct {
	Group, MemberID, InstanceID string
	Generation                  int32
	ProtocolType, Protocol      string // empty: not checked
	Assignments                 []MemberAssignment
}

// MemberAssignment is one member's part of a Sync.
type MemberAssignment struct {
	MemberID   string
	Assignment []byte
}

// Leave is a call of LeaveGroup. With an instance ID alone, it removes whoever has it.
type Leave struct{ Group, MemberID, InstanceID string }

// ExpireMember says that nothing was heard of a member (or of somebody who was given an ID) for its session timeout.
type ExpireMember struct{ Group, MemberID string }

// JoinDeadline says that the join phase has taken as long as it may.
type JoinDeadline struct {
	Group string
	Round uint64
}

// SyncDeadline says that the sync phase has taken as long as it may, and who has not asked for an assignment.
type SyncDeadline struct {
	Group      string
	Generation int32
	Missing    []string
}

// Rebalance asks for a new generation, if the group still is Stable in this one.
type Rebalance struct {
	Group      string
	Generation int32
	Reason     string
}

// Commit is a call of CommitOffsets.
type Commit struct {
	Group, MemberID, InstanceID string
	Generation                  int32
	Offsets                     []api.OffsetCommit // CommitTime is not used: the event's time is taken
}

// SetOffsets sets (or, where negative, removes) offsets of a group without members.
type SetOffsets struct {
	Group   string
	Offsets []api.OffsetCommit
}

// Delete removes a group without members.
type Delete struct{ Group string }

// ExpireOffsets removes the offsets that have outlived the retention, and groups that are Empty and have none left.
type ExpireOffsets struct{ RetentionMs int64 }

// Barrier changes nothing: that it was applied says that all before it was.
type Barrier struct{}

func (*Join) kind() eventKind          { return kindJoin }
func (*Sync) kind() eventKind          { return kindSync }
func (*Leave) kind() eventKind         { return kindLeave }
func (*ExpireMember) kind() eventKind  { return kindExpireMember }
func (*JoinDeadline) kind() eventKind  { return kindJoinDeadline }
func (*SyncDeadline) kind() eventKind  { return kindSyncDeadline }
func (*Rebalance) kind() eventKind     { return kindRebalance }
func (*Commit) kind() eventKind        { return kindCommit }
func (*SetOffsets) kind() eventKind    { return kindSetOffsets }
func (*Delete) kind() eventKind        { return kindDelete }
func (*ExpireOffsets) kind() eventKind { return kindExpireOffsets }
func (*Barrier) kind() eventKind       { return kindBarrier }

func (e *Join) groupID() string         { return e.Group }
func (e *Sync) groupID() string         { return e.Group }
func (e *Leave) groupID() string        { return e.Group }
func (e *ExpireMember) groupID() string { return e.Group }
func (e *JoinDeadline) groupID() string { return e.Group }
func (e *SyncDeadline) groupID() string { return e.Group }
func (e *Rebalance) groupID() string    { return e.Group }
func (e *Commit) groupID() string       { return e.Group }
func (e *SetOffsets) groupID() string   { return e.Group }
func (e *Delete) groupID() string       { return e.Group }
func (*ExpireOffsets) groupID() string  { return "" }
func (*Barrier) groupID() string        { return "" }

// Limits bound what a command may let the state grow to. They come with the command (see Settings), so that brokers with
// other settings agree on its outcome. Zero means none.
type Limits struct {
	GroupsMax     int
	MembersMax    int
	OffsetsMax    int
	StateBytesMax int64
}

// Result is the outcome of an event for whoever proposed it.
type Result struct {
	// Err is why nothing happened.
	Err *api.Error
	// MemberID is the joining member's ID, also when it was given just now.
	MemberID string
	// Joined is the answer to a Join that need not wait for the end of a join phase.
	Joined *api.JoinResult
	// Subscribed are the topics whose offsets a Forget left alone, as members subscribe to them.
	Subscribed []string
}

// ActionKind says what happened in a step.
type ActionKind uint8

// The kinds of Action. A coordinator arms deadlines and wakes waiting calls by them.
const (
	// MemberTouched: the member or pending ID was added or joined again, so its session deadline changes.
	MemberTouched ActionKind = iota + 1
	// MemberRemoved: waiting calls of the member fail; its deadline ends.
	MemberRemoved
	// JoinPhase: a join phase began or was prolonged (Round), so its deadline starts.
	JoinPhase
	// NewGeneration: the join phase ended: waiting joins return, the sync deadline and all sessions start.
	NewGeneration
	// Assigned: the group is Stable: waiting syncs return.
	Assigned
	// BecameEmpty: the last member is gone.
	BecameEmpty
	// Removed: the group is deleted.
	Removed
	// OffsetsExpired: some offsets have outlived the retention.
	OffsetsExpired
)

// Action is one thing that happened.
type Action struct {
	Kind   ActionKind
	Member string
	Reason string
}
