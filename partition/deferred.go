package partition

import (
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// GetLog implements raft.LogStore. A leader reads what it has applied for one reason only: to send it to a follower that lacks it. It reads as many entries at a time as
// it has room for in its queue, for each follower; so of large ones that are on the disk it gets the header, and the transport reads the rest when there is room for it on
// the connection. What is not applied yet is read whole, as it is for the state machine. Raft applies in order and moves its index afterwards.
func (g *logGuard) GetLog(index uint64, out *raft.Log) error {
	node := g.raft.Load()
	if node == nil || index > node.AppliedIndex() || node.State() != raft.Leader {
		return g.Log.GetLog(index, out)
	}
	size, err := g.Log.GetHeader(index, out)
	if err == nil && size > 0 {
		transport.Defer(out, size)
	}
	return err
}
