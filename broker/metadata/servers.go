package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Server is a member of the metadata group.
type Server struct {
	Broker   api.BrokerID
	ServerID raft.ServerID // see MemberID
	Voter    bool
}

// MemberID is the server ID in the metadata group, "<broker>-<incarnation>", of a broker. A broker whose data directory was lost is another member.
func MemberID(id api.BrokerID, incarnation string) raft.ServerID {
	return raft.ServerID(string(ServerAddress(id)) + "-" + incarnation)
}

// changeTimeout bounds the wait for earlier changes of the configuration.
const changeTimeout = 5 * time.Second

// caughtUpWithin is how many entries a member may lack and still count as caught up: the leader gets more all the time.
const caughtUpWithin = 64

// Servers is the group's latest configuration, by broker ID.
func (n *Node) Servers() []Server {
	var out []Server
	for _, s := range n.configuration().Servers {
		if id, ok := ParseServerAddress(s.Address); ok {
			out = append(out, Server{Broker: id, ServerID: s.ID, Voter: s.Suffrage == raft.Voter})
		}
	}
	slices.SortFunc(out, func(a, b Server) int { return int(a.Broker) - int(b.Broker) })
	return out
}

// AddServer adds a broker as nonvoter, or makes it a voter. Leader only: ErrNotLeader.
func (n *Node) AddServer(ctx context.Context, id api.BrokerID, incarnation string, voter bool) error {
	add := n.raft.AddNonvoter
	if voter {
		add = n.raft.AddVoter
	}
	return n.reconfigure(ctx, id, func() raft.IndexFuture { return add(MemberID(id, incarnation), ServerAddress(id), 0, changeTimeout) })
}

// DemoteServer takes a broker's vote. Leader only: ErrNotLeader.
func (n *Node) DemoteServer(ctx context.Context, s Server) error {
	return n.reconfigure(ctx, s.Broker, func() raft.IndexFuture { return n.raft.DemoteVoter(s.ServerID, 0, changeTimeout) })
}

// RemoveServer removes a member. Leader only: ErrNotLeader.
func (n *Node) RemoveServer(ctx context.Context, s Server) error {
	return n.reconfigure(ctx, s.Broker, func() raft.IndexFuture { return n.raft.RemoveServer(s.ServerID, 0, changeTimeout) })
}

// reconfigure changes the configuration, after something else was stored: a leader whose disk is full loses leadership over that, and not over an entry that raft would take for stored
// (logStore.StoreLogs).
func (n *Node) reconfigure(ctx context.Context, id api.BrokerID, change func() raft.IndexFuture) error {
	err := waitFuture(ctx, n.raft.Barrier(changeTimeout))
	if err == nil {
		err = waitFuture(ctx, change())
	}
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
		err = fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if err != nil {
		return fmt.Errorf("metadata group: broker %d: %w", id, err)
	}
	return nil
}

// CaughtUp says whether the broker's node, in this incarnation, has nearly everything that is committed. Leader only.
func (n *Node) CaughtUp(ctx context.Context, id api.BrokerID, incarnation string) (bool, error) {
	target := n.raft.CommitIndex()
	if id == n.cfg.Identity.Broker() {
		return true, nil
	}
	p, err := n.progress(ctx, ServerAddress(id), false)
	if err != nil {
		return false, err
	}
	return p.ServerID == string(MemberID(id, incarnation)) && p.LastIndex+caughtUpWithin >= target && (target < caughtUpWithin || p.LastIndex > 0), nil
}

// TransferLeadership hands leadership to another voter; a graceful stop calls it first. nil if this node does not lead, or is the
// only voter.
func (n *Node) TransferLeadership(ctx context.Context) error {
	voters := 0
	for _, s := range n.Servers() {
		if s.Voter {
			voters++
		}
	}
	if !n.IsLeader() || voters < 2 {
		return nil
	}
	err := waitFuture(ctx, n.raft.LeadershipTransfer())
	if err != nil && n.IsLeader() {
		return fmt.Errorf("metadata group: hand over leadership: %w", err)
	}
	return nil
}
