package transport

import (
	"io"

	"github.com/hashicorp/raft"
)

// Consumer implements raft.Transport.
func (g *Group) Consumer() <-chan raft.RPC { return nil }

// LocalAddr implements raft.Transport.
func (g *Group) LocalAddr() raft.ServerAddress { return "" }

// AppendEntriesPipeline implements raft.Transport.
func (g *Group) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, errNotBuilt
}

// AppendEntries implements raft.Transport.
func (g *Group) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return errNotBuilt
}

// RequestVote implements raft.Transport.
func (g *Group) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return errNotBuilt
}

// RequestPreVote implements raft.WithPreVote.
func (g *Group) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return errNotBuilt
}

// InstallSnapshot implements raft.Transport.
func (g *Group) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return errNotBuilt
}

// EncodePeer implements raft.Transport.
func (g *Group) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (g *Group) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (g *Group) SetHeartbeatHandler(cb func(rpc raft.RPC)) {}

// TimeoutNow implements raft.Transport.
func (g *Group) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return errNotBuilt
}

// Close implements raft.WithClose.
func (g *Group) Close() error { return nil }
