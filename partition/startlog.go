package partition

import (
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// startLog spares raft's start the reading of what recovery has just read. Before it runs, raft reads every entry after the newest checkpoint, up to
// Limits.CheckpointBytes of them, and takes no notice of any but configurations; of commands it gets no more here than that they are commands.
type startLog struct {
	*logGuard
	newest  uint64 // index of the last entry: raft wants its term
	running atomic.Bool
}

func newStartLog(g *logGuard) (*startLog, error) {
	newest, err := g.LastIndex()
	return &startLog{logGuard: g, newest: newest}, err
}

// GetLog implements raft.LogStore.
func (s *startLog) GetLog(index uint64, out *raft.Log) error {
	if !s.running.Load() && index != s.newest && s.WasCommand(index) {
		*out = raft.Log{Index: index, Type: raft.LogCommand}
		return nil
	}
	return s.logGuard.GetLog(index, out)
}

// startTransport tells startLog when the start is over: raft sets the handler of heartbeats when it has read the log, before any goroutine of its own runs. From then on entries
// are read to be applied and sent.
type startTransport struct {
	*transport.Group
	log *startLog
}

// SetHeartbeatHandler implements raft.Transport.
func (t startTransport) SetHeartbeatHandler(cb func(raft.RPC)) {
	t.log.running.Store(true)
	t.Group.SetHeartbeatHandler(cb)
}
