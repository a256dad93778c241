package transport

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// GroupID names one Raft group on the wire. It is assigned by the cluster's metadata and never reused.
type GroupID uint64

// MetadataGroup is the group that holds the cluster's own state.
const MetadataGroup GroupID = 0

// Method names one kind of broker-to-broker call. Numbers are part of the protocol and never reused.
type Method uint16

// Handler answers one call. ctx ends when the caller's time is up, when the connection is lost or when the
// transport closes; a handler must return soon after. An error reaches the caller as a *RemoteError.
type Handler func(ctx context.Context, from raft.ServerAddress, payload []byte) ([]byte, error)

// Config configures a Transport. Zero values of limits and times mean the defaults named beside them.
type Config struct {
	Local           raft.ServerAddress
	ClusterID       func() string
	Learned         func(string) error
	Listener        net.Listener
	Dial            func(ctx context.Context, network, addr string) (net.Conn, error)
	Resolve         func(raft.ServerAddress) (hostport string, err error)
	MaxAppendBytes  int
	MaxFrameBytes   int
	MaxQueuedBytes  int64
	MaxConns        int
	MaxCalls        int
	HeartbeatWindow time.Duration
	ControlTimeout  time.Duration
	AppendTimeout   time.Duration
	SnapshotTimeout time.Duration
	DialTimeout     time.Duration
	Logger          hclog.Logger
}

// GroupOptions configures one Raft group's use of the transport.
type GroupOptions struct {
	CheckResponse    func(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error
	MaxInflight      int
	MaxInflightBytes int64
}

// Errors.
var (
	ErrClosed       = errors.New("transport is closed")
	ErrGroupClosed  = errors.New("raft group is closed")
	ErrUnreachable  = errors.New("peer is unreachable")
	ErrConnLost     = errors.New("connection to peer was lost")
	ErrTimeout      = errors.New("peer did not answer in time")
	ErrUnknownGroup = errors.New("peer has no such raft group")
	ErrBusy         = errors.New("peer is busy")
	ErrTooLarge     = errors.New("message exceeds the frame limit")
	ErrNoHandler    = errors.New("peer does not know the method")
	ErrRefused      = errors.New("peer refused the connection")
)

var errNotBuilt = errors.New("transport: under construction")

// RemoteError is what a call's handler returned on the peer.
type RemoteError struct {
	Code uint16
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

// PeerEvent tells that a connection with a peer came up or was lost.
type PeerEvent struct {
	Peer raft.ServerAddress
	Up   bool
	Err  error
}

// Transport carries all Raft groups and calls of one broker.
type Transport struct{ cfg Config }

// New starts a transport on cfg.Listener.
func New(cfg Config) (*Transport, error) { return nil, errNotBuilt }

// Close ends everything.
func (t *Transport) Close() error { return nil }

// Local returns this broker's address in Raft configurations.
func (t *Transport) Local() raft.ServerAddress { return t.cfg.Local }

// Handle registers the handler of a method.
func (t *Transport) Handle(m Method, h Handler) {}

// Call runs a method on a peer.
func (t *Transport) Call(ctx context.Context, to raft.ServerAddress, m Method, payload []byte) ([]byte, error) {
	return nil, errNotBuilt
}

// Watch calls fn, which must not block, whenever a connection with a peer comes up or is lost.
func (t *Transport) Watch(fn func(PeerEvent)) (cancel func()) { return func() {} }

// PeerDown drops all connections to a peer: what is in flight fails at once, the next use dials again.
func (t *Transport) PeerDown(to raft.ServerAddress) {}

// Group registers a Raft group.
func (t *Transport) Group(id GroupID, opts GroupOptions) (*Group, error) { return nil, errNotBuilt }

// Group is the raft.Transport of one Raft group.
type Group struct{}

var (
	_ raft.Transport   = (*Group)(nil)
	_ raft.WithPreVote = (*Group)(nil)
	_ raft.WithClose   = (*Group)(nil)
)
