package transport

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var errDisagrees = errors.New("the peer does not follow")

// Confirm asks a server, by a heartbeat that leaves now and is answered at once, whether this replica leads in a term: nil says that it had not heard of a later term when it got the question, which
// was after the call. The error wraps ErrOvertaken if it had.
//
// hashicorp/raft's VerifyLeader is not that: it counts an answer to a heartbeat that was under way when it was asked. Such an answer may come late, from before another leader's election.
func (g *Group) Confirm(ctx context.Context, server raft.ServerID, target raft.ServerAddress, term uint64) error {
	h := g.header()
	var resp raft.AppendEntriesResponse
	err := g.heartbeat(server, target, &raft.AppendEntriesRequest{RPCHeader: h, Term: term, Leader: h.Addr}, &resp, true, ctx.Done())
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && resp.Term > term:
		err = fmt.Errorf("%w: term %d", ErrOvertaken, resp.Term)
	case err == nil && !resp.Success:
		err = errDisagrees
	}
	if err != nil {
		return g.failure("question for leadership", target, err)
	}
	return nil
}
