package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

type method = transport.Method

// Methods of the transport's calls that the metadata node answers. The numbers 0x0100 to 0x01FF are this package's; the broker's own
// calls begin at 0x0200. Payloads are JSON, except that MethodPropose takes an encoded command.
const (
	// MethodPropose hands a command to the group's leader.
	MethodPropose transport.Method = 0x0100 + iota
	// MethodProgress asks a member how far it has applied the log, and the leader how far it is committed.
	MethodProgress
	// MethodPledge asks a broker for its promise to be bootstrapped with a certain set of brokers as a certain cluster.
	MethodPledge
	// MethodBootstrap tells a pledged broker to begin.
	MethodBootstrap
)

// proposeReply answers MethodPropose.
type proposeReply struct {
	Outcome outcome `json:"outcome"`
	// NotProposed says why the command certainly was not proposed.
	NotProposed string `json:"not_proposed,omitempty"`
}

// progressRequest asks; Barrier only the leader can answer.
type progressRequest struct {
	Barrier bool `json:"barrier"`
}

type progressReply struct {
	// Applied is the index of the last command in the state machine, LastIndex that of the last entry in the log.
	Applied   uint64 `json:"applied"`
	LastIndex uint64 `json:"last_index"`
	ServerID  string `json:"server_id"`
	Error     string `json:"error,omitempty"`
}

func (n *Node) handle() {
	t := n.cfg.Transport
	t.Handle(MethodPropose, n.servePropose)
	t.Handle(MethodProgress, n.serveProgress)
	t.Handle(MethodPledge, n.servePledge)
	t.Handle(MethodBootstrap, n.serveBootstrap)
}

func (n *Node) servePropose(ctx context.Context, _ raft.ServerAddress, payload []byte) ([]byte, error) {
	if n.ctx.Err() != nil {
		return json.Marshal(proposeReply{NotProposed: ErrClosed.Error()})
	}
	if _, _, err := decodeCommand(payload); errors.Is(err, ErrMalformed) {
		return nil, err
	}
	ctx, cancel := n.serving(ctx)
	defer cancel()
	o, err := n.applyHere(ctx, payload)
	if errors.Is(err, errNotProposed) {
		return json.Marshal(proposeReply{NotProposed: err.Error()})
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(proposeReply{Outcome: o})
}

// serving bounds a handler by the caller's time and the node's life.
func (n *Node) serving(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	stop := context.AfterFunc(n.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (n *Node) serveProgress(ctx context.Context, _ raft.ServerAddress, payload []byte) ([]byte, error) {
	var req progressRequest
	if err := json.Unmarshal(payload, &req); err != nil {
		return nil, fmt.Errorf("%w: progress request: %w", ErrMalformed, err)
	}
	ctx, cancel := n.serving(ctx)
	defer cancel()
	p := progressReply{Applied: n.fsm.index.Load(), LastIndex: n.raft.LastIndex(), ServerID: string(n.serverID())}
	if req.Barrier {
		index, err := n.barrier(ctx)
		if err != nil {
			p.Error = err.Error()
		}
		p.Applied = index
	}
	return json.Marshal(p)
}

func (n *Node) progress(ctx context.Context, to raft.ServerAddress, barrier bool) (progressReply, error) {
	payload, err := json.Marshal(progressRequest{Barrier: barrier})
	if err != nil {
		return progressReply{}, err
	}
	var p progressReply
	if err := n.call(ctx, to, MethodProgress, payload, &p); err != nil {
		return p, err
	}
	if p.Error != "" {
		return p, fmt.Errorf("broker %s: %s", to, p.Error)
	}
	return p, nil
}

// notProposed marks the transport's errors that mean that the peer never got the call.
func notProposed(err error) error {
	for _, certain := range []error{transport.ErrUnreachable, transport.ErrBusy, transport.ErrNoHandler, transport.ErrTooLarge} {
		if errors.Is(err, certain) {
			return fmt.Errorf("%w: %w", errNotProposed, err)
		}
	}
	return err
}
