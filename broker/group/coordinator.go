package group

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Coordinator serves the members of one coordinator partition's groups while this broker leads it.
type Coordinator struct {
	cfg Config
}

// NewCoordinator returns a coordinator that does not lead yet: all calls fail with CodeNotCoordinator.
func NewCoordinator(cfg Config) (*Coordinator, error) { return &Coordinator{cfg: cfg}, nil }

// LeaderStart begins to serve: it proposes a barrier and returns when all that was committed before is applied here, with
// fresh deadlines for all members and phases. Call it when the partition's replica becomes leader. After an error the coordinator does
// not serve; the caller may try again while it still leads. ctx bounds the barrier only.
func (c *Coordinator) LeaderStart(ctx context.Context) error { return nil }

// LeaderStop ends service: calls that wait fail with CodeNotCoordinator, and all goroutines have ended when it returns. It
// may be called at any time, also twice. Call it when leadership is lost, and before the replica is closed.
func (c *Coordinator) LeaderStop() {}

// TopicsChanged asks for a look whether groups whose assignment is made here cover other partitions than exist now. Call
// it whenever topics or their partition counts change. It does not block.
func (c *Coordinator) TopicsChanged() {}

// JoinGroup is api.Groups' JoinGroup.
func (c *Coordinator) JoinGroup(ctx context.Context, req api.JoinRequest) (api.JoinResult, error) {
	return api.JoinResult{}, nil
}

// SyncGroup is api.Groups' SyncGroup.
func (c *Coordinator) SyncGroup(ctx context.Context, req api.SyncRequest) (api.SyncResult, error) {
	return api.SyncResult{}, nil
}

// JoinAndSync is api.Groups' JoinAndSync.
func (c *Coordinator) JoinAndSync(ctx context.Context, req api.NativeJoinRequest) (api.NativeJoinResult, error) {
	return api.NativeJoinResult{}, nil
}

// Heartbeat is api.Groups' Heartbeat.
func (c *Coordinator) Heartbeat(ctx context.Context, m api.MemberRef) error { return nil }

// LeaveGroup is api.Groups' LeaveGroup.
func (c *Coordinator) LeaveGroup(ctx context.Context, m api.MemberRef) error { return nil }

// CommitOffsets is api.Groups' CommitOffsets. Whether the partitions exist is the caller's business.
func (c *Coordinator) CommitOffsets(ctx context.Context, m api.MemberRef, offsets []api.OffsetCommit) error {
	return nil
}

// FetchOffsets is api.Groups' FetchOffsets.
func (c *Coordinator) FetchOffsets(ctx context.Context, group string, tps []api.TopicPartition) ([]api.OffsetCommit, error) {
	return nil, nil
}

// List returns this partition's groups, sorted by name.
func (c *Coordinator) List(ctx context.Context) ([]api.GroupSummary, error) { return nil, nil }

// Describe returns all about a group but the partitions' bounds and lag (those are -1). CodeUnknownGroup.
func (c *Coordinator) Describe(ctx context.Context, group string) (api.GroupDescription, error) {
	return api.GroupDescription{}, nil
}

// Delete removes a group without members, and its offsets. CodeGroupNotEmpty, CodeUnknownGroup.
func (c *Coordinator) Delete(ctx context.Context, group string) error { return nil }

// SetOffsets sets the offsets of a group without members, all or none; that it has none is checked where it is
// applied, so no member can join in between. A negative offset removes the committed one. The group is made if there is
// none. CodeGroupNotEmpty.
func (c *Coordinator) SetOffsets(ctx context.Context, group string, offsets []api.OffsetCommit) error {
	return nil
}
