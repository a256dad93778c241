package transport

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// groupQueue is how many requests of a group, beyond MaxInflight, wait for raft before more are refused. A leader keeps at most
// MaxInflight under way, so a refusal means that more than one broker believes itself leader, or that raft hangs.
const (
	groupQueue              = 16
	maxInflight             = 64
	defaultMaxInflight      = 16
	defaultMaxInflightBytes = 32 << 20
)

// GroupOptions configures one Raft group's use of the transport.
type GroupOptions struct {
	// ServerID is this replica's own Raft ID. Requests meant for another are refused with ErrWrongServer; "" accepts all.
	ServerID raft.ServerID
	// CheckResponse runs on a follower before its answer to a replication request leaves. A non-nil error is sent
	// instead of the response. It is not asked about heartbeats, nor about responses that tell the leader of a newer
	// term, which must get through. It runs on the group's goroutine and must not block.
	CheckResponse func(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error
	// Stalled tells whether the group waits in vain for a quorum, so that followers which are far behind should catch up as fast as they can. Nil: never.
	// It is called often and must not block.
	Stalled func() bool
	// MaxInflight is how many pipelined requests may be under way to one follower; 0 means 16, 1 turns pipelining off,
	// more than 64 counts as 64. A request larger than MaxAppendBytes counts once for each of its parts.
	MaxInflight int
	// MaxInflightBytes bounds the entry bytes of those requests; 0 means 32 MiB. One request always passes.
	MaxInflightBytes int64
	// PayloadSum knows the CRC-32C of the data of some entries without reading it, which frames need; nil: of none. It is asked for large ones, by the index of the
	// entry and its data, and must not block.
	PayloadSum func(index uint64, data []byte) (sum uint32, known bool)
	// Load reads an entry that Defer was called for. It must be there if entries are deferred. What it returns is not kept.
	Load func(index uint64, out *raft.Log) error
	// HasEntry tells whether the log holds the entry of an index and a term. A leader's snapshot of such an entry is not given to raft: the answer is that it is there, after which the leader
	// goes on with what is behind it (Raft paper, figure 13, step 6; hashicorp/raft would replace the log by the snapshot). It may read the disk. Nil: it never does.
	HasEntry func(index, term uint64) bool
	// Prompt keeps the group's heartbeats and empty appends from waiting for HeartbeatWindow, on either side, and has followers told of what is committed without waiting for a round of claims, if
	// TellCommit is called when something was applied.
	Prompt bool
}

// Group is the raft.Transport of one Raft group. Its goroutine, started when a request comes and waited for by Close,
// runs raft's heartbeat handler and sends raft's answers back; it ends when nothing is left.
type Group struct {
	t        *Transport
	id       GroupID
	opts     GroupOptions
	server   uint64 // serverHash of opts.ServerID
	local    []byte
	consumer chan raft.RPC
	inflight chan *served // what was put into consumer, in that order, until it is answered
	beats    chan beat
	handler  atomic.Pointer[func(raft.RPC)]
	current  *served       // run's own: the head of inflight
	latest   time.Duration // run's own: when it took a request
	lively   bool          // run's own: requests come in quick succession
	preVote  atomic.Pointer[func(*raft.RequestPreVoteRequest) (granted, answered bool)]
	vote     atomic.Pointer[func(*raft.RequestVoteRequest)]
	claimant atomic.Pointer[Claimant]
	claims   groupClaims

	carried atomic.Int64           // when entries were last sent, in the transport's clock
	commit  atomic.Uint64          // the highest commit index that raft has sent
	farMu   sync.Mutex             // innermost
	far     map[raft.ServerID]bool // followers that were far behind when last sent something
	proven  proven                 // see prove
	// followers are how far they are.
	followers followers

	mu      sync.Mutex // orders consumer and inflight alike
	closed  chan struct{}
	ended   bool
	running bool // run is
	wg      sync.WaitGroup
}

var (
	_ raft.Transport   = (*Group)(nil)
	_ raft.WithPreVote = (*Group)(nil)
	_ raft.WithClose   = (*Group)(nil)
)

// Group registers a Raft group and returns its transport. The ID must not be in use.
func (t *Transport) Group(id GroupID, opts GroupOptions) (*Group, error) {
	setDefault(&opts.MaxInflight, defaultMaxInflight)
	opts.MaxInflight = min(opts.MaxInflight, maxInflight)
	setDefault(&opts.MaxInflightBytes, defaultMaxInflightBytes)
	g := &Group{
		t: t, id: id, opts: opts, server: serverHash(opts.ServerID), local: []byte(t.cfg.Local),
		consumer: make(chan raft.RPC, opts.MaxInflight+groupQueue),
		inflight: make(chan *served, opts.MaxInflight+groupQueue+1),
		beats:    make(chan beat, 4),
		closed:   make(chan struct{}),
		far:      map[raft.ServerID]bool{},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	if t.groups[id] != nil {
		return nil, fmt.Errorf("raft group %d is registered already", id)
	}
	t.groups[id] = g
	return g, nil
}

func (t *Transport) group(id GroupID) *Group {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.groups[id]
}

// Close implements raft.WithClose: it unregisters the group, fails what it has in flight, answers what peers
// wait for, and waits for the group's goroutines. It may be called before raft has shut down, to end raft's
// requests at once, and again.
func (g *Group) Close() error {
	g.mu.Lock()
	if !g.ended {
		g.ended = true
		close(g.closed)
	}
	g.mu.Unlock()
	g.t.mu.Lock()
	if g.t.groups[g.id] == g {
		delete(g.t.groups, g.id)
	}
	g.t.mu.Unlock()
	g.lastClaims()
	g.wg.Wait()
	return nil
}

// Consumer implements raft.Transport.
func (g *Group) Consumer() <-chan raft.RPC { return g.consumer }

// LocalAddr implements raft.Transport: the broker's ID.
func (g *Group) LocalAddr() raft.ServerAddress { return g.t.cfg.Local }

// EncodePeer implements raft.Transport. raft calls it for every request and response; nobody changes the result.
func (g *Group) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	if addr == g.t.cfg.Local {
		return g.local
	}
	return []byte(addr)
}

// DecodePeer implements raft.Transport.
func (g *Group) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport. Until it is called, heartbeats are refused: raft is not running.
func (g *Group) SetHeartbeatHandler(cb func(rpc raft.RPC)) { g.handler.Store(&cb) }

// failure puts the group and the peer into an error and translates the reasons that are the group's own.
func (g *Group) failure(what string, target raft.ServerAddress, err error) error {
	if errors.Is(err, errStopped) {
		err = ErrGroupClosed
	}
	return fmt.Errorf("raft group %d: %s to broker %s: %w", g.id, what, target, err)
}

// AppendEntries implements raft.Transport. args.Entries may be shorter afterwards; see the package comment.
func (g *Group) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		err := g.awaitBack(target)
		if err == nil {
			err = g.heartbeat(id, target, args, resp, g.opts.Prompt, g.closed)
		}
		if err != nil {
			return g.failure("heartbeat", target, err)
		}
		return nil
	}
	g.grew(args)
	g.carries(args)
	send := g.appendOnce
	if behind(args, 1) {
		send = g.catchUp
	}
	if err := send(id, target, args, resp); err != nil {
		return g.failure("append entries", target, err)
	}
	g.note(id, behind(args, 1))
	g.heard(id, args, resp)
	return nil
}

func (g *Group) appendOnce(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	args.Entries = args.Entries[:fitting(args.Entries, g.t.cfg.MaxAppendBytes)]
	c, err := g.t.connTo(target, purposeData, g.closed)
	if err != nil {
		return err
	}
	cl, err := g.sendAppend(c, id, args, resp, false, g.closed)
	if err != nil {
		return err
	}
	return c.wait(cl, g.closed, errStopped)
}

// sendAppend sends one frame's worth of entries. The call it returns is registered. With lazy, it and its reply may wait to share a write.
func (g *Group) sendAppend(c *conn, server raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, lazy bool, stop <-chan struct{}) (*call, error) {
	flags := uint8(0)
	if lazy {
		flags = flagLazy
	}
	args, release, err := g.load(c, args, stop)
	if err != nil {
		return nil, err
	}
	defer release()
	return g.sendRequest(c, newCall(kindAppendReply, resp), func(id uint64) (*frame, error) {
		f, err := encodeAppend(header{flags: flags, id: id, group: g.id, target: serverHash(server)}, args, g.opts.PayloadSum)
		if err == nil && f.size-headerSize > g.t.cfg.MaxFrameBytes {
			err = fmt.Errorf("append entries of %d bytes after index %d: %w", f.size, args.PrevLogEntry, ErrTooLarge)
		}
		if err == nil {
			f.lazy = lazy
		}
		return f, err
	}, stop)
}

// sendRequest registers the call, then sends its request. After an error the call is gone.
func (g *Group) sendRequest(c *conn, cl *call, encode func(id uint64) (*frame, error), stop <-chan struct{}) (*call, error) {
	timeout := g.t.cfg.AppendTimeout
	if c.purpose == purposeControl {
		timeout = g.t.cfg.ControlTimeout
	}
	if err := c.register(cl, timeout); err != nil {
		cl.free()
		return nil, err
	}
	f, err := encode(cl.id)
	if err == nil {
		err = c.send(f, stop)
	}
	if err != nil {
		c.abandon(cl)
		cl.free()
		return nil, err
	}
	return cl, nil
}

// fitting is how many entries, at least one if there is any, have at most limit bytes together.
func fitting(entries []*raft.Log, limit int) int {
	size := 0
	for i, l := range entries {
		size += entryFixed + logBytes(l)
		if size > limit && i > 0 {
			return i
		}
	}
	return len(entries)
}

// RequestVote implements raft.Transport.
func (g *Group) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return g.control("vote request", id, target, header{kind: kindVote}, resp, args.RPCHeader, args.Candidate,
		func(e *encoder) { e.voteRequest(args) })
}

// RequestPreVote implements raft.WithPreVote.
func (g *Group) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	v := &raft.RequestVoteRequest{RPCHeader: args.RPCHeader, Candidate: args.Addr,
		Term: args.Term, LastLogIndex: args.LastLogIndex, LastLogTerm: args.LastLogTerm}
	return g.control("pre-vote request", id, target, header{kind: kindPreVote}, resp, args.RPCHeader, args.Addr,
		func(e *encoder) { e.voteRequest(v) })
}

// TimeoutNow implements raft.Transport.
func (g *Group) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return g.control("leadership transfer", id, target, header{kind: kindTimeoutNow}, resp, args.RPCHeader, args.Addr,
		func(e *encoder) { e.names(args.RPCHeader, args.Addr) })
}

// control sends one small request on the control connection and waits for its reply, whose kind is the next number.
func (g *Group) control(what string, server raft.ServerID, target raft.ServerAddress, h header, resp any, names raft.RPCHeader, leader []byte, put func(*encoder)) error {
	h.group, h.target = g.id, serverHash(server)
	err := checkNames(names.ID, names.Addr, leader)
	if err == nil {
		err = g.controlOnce(target, h, resp, put)
	}
	if err != nil {
		return g.failure(what, target, err)
	}
	return nil
}

func (g *Group) controlOnce(target raft.ServerAddress, h header, resp any, put func(*encoder)) error {
	c, err := g.t.connTo(target, purposeControl, g.closed)
	if err != nil {
		return err
	}
	cl, err := g.sendRequest(c, newCall(h.kind+1, resp), func(id uint64) (*frame, error) {
		e, pooled := newEncoder(128)
		put(e)
		h.id = id
		return seal(h, e, pooled), nil
	}, g.closed)
	if err != nil {
		return err
	}
	return c.wait(cl, g.closed, errStopped)
}
