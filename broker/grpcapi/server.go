// Package grpcapi serves Flotilla's gRPC API (proto/flotilla/v1) on top of an api.Broker.
//
// It translates and bounds, nothing else: what a request means is decided behind api.Broker. One table (errors.go) gives every
// error its gRPC status, and each error carries one ErrorDetail.
package grpcapi

import (
	"context"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Options bound what clients may ask for. Zero values get the defaults.
type Options struct {
	// MaxMessageBytes is the largest record batch; a gRPC message may be 1 MiB larger. Default 32 MiB, which is also the most.
	MaxMessageBytes int
	// MaxFetchBytes is the most data in one response. Default 32 MiB. A single batch larger than that is still sent.
	MaxFetchBytes int
	// FetchInflightBytes bounds the data of all responses that are being read and sent at a time; fetches beyond it wait their
	// turn. Default 256 MiB.
	FetchInflightBytes int64
	// MaxUnsentBytes bounds the data of responses that clients have not taken yet, over all connections; where there is no room, fetches wait. Default 512 MiB.
	MaxUnsentBytes int64
	// StallTimeout is how long a client may leave a response where it is while others wait for room; then its connection is closed. Default 30 s.
	StallTimeout time.Duration
	// MaxConnections bounds the connections accepted at once; more wait in the listen queue. Default 10000.
	MaxConnections int
	// MaxStreams bounds the calls in flight per connection. Default 1000.
	MaxStreams uint32
	// StreamInflight and StreamInflightBytes bound the requests of one ProduceStream that have no response yet; beyond them the stream is not read,
	// which stops the client by gRPC's flow control. Default 1024 requests, 64 MiB.
	StreamInflight      int
	StreamInflightBytes int
	// MaxFetchPartitions bounds the partitions of one Fetch stream. Default 10000.
	MaxFetchPartitions int
	// AppendTimeout is for produce requests that set none. Default 30 s.
	AppendTimeout time.Duration
	// OnRequest is told of each call that was answered, as "Service/Method"; not of streams, which carry many requests. Nil: nobody is.
	OnRequest func(method string, took time.Duration)
	Logger    hclog.Logger
}

const (
	maxMessageBytes = 32 << 20
	messageOverhead = 1 << 20
	maxFetchWait    = 5 * time.Minute
	maxAppendWait   = 10 * time.Minute
)

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (o Options) withDefaults() Options {
	o.MaxMessageBytes = min(orDefault(o.MaxMessageBytes, maxMessageBytes), maxMessageBytes)
	o.MaxFetchBytes = orDefault(o.MaxFetchBytes, 32<<20)
	o.FetchInflightBytes = max(orDefault(o.FetchInflightBytes, 256<<20), int64(o.MaxFetchBytes))
	o.MaxUnsentBytes = max(orDefault(o.MaxUnsentBytes, 512<<20), int64(o.MaxFetchBytes))
	o.StallTimeout = orDefault(o.StallTimeout, 30*time.Second)
	o.MaxConnections = orDefault(o.MaxConnections, 10000)
	o.MaxStreams = orDefault(o.MaxStreams, 1000)
	o.StreamInflight = orDefault(o.StreamInflight, 1024)
	o.StreamInflightBytes = max(orDefault(o.StreamInflightBytes, 64<<20), o.MaxMessageBytes+messageOverhead)
	o.MaxFetchPartitions = orDefault(o.MaxFetchPartitions, 10000)
	o.AppendTimeout = orDefault(o.AppendTimeout, 30*time.Second)
	if o.OnRequest == nil {
		o.OnRequest = func(string, time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Server is the gRPC front end of one broker. Serve runs it, Stop ends it; each is called once.
type Server struct {
	opts   Options
	grpc   *grpc.Server
	conns  atomic.Pointer[limitedListener]
	health *health.Server
	unsent *unsent
	// stopping ends long-lived streams (fetches, watches, produce streams) so that a graceful stop can finish.
	stopping context.Context
	stop     context.CancelFunc
	// aborting ends appends in flight once a graceful stop has run out of time.
	aborting context.Context
	abort    context.CancelFunc
}

// New makes the server. It answers health checks with NOT_SERVING until SetServing(true).
func New(b api.Broker, opts Options) *Server {
	opts = opts.withDefaults()
	s := &Server{opts: opts, health: health.NewServer()}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.aborting, s.abort = context.WithCancel(context.Background())
	codec := newCodec()
	s.unsent = newUnsent(opts.MaxUnsentBytes, opts.StallTimeout, s.connected, s.hangUp)
	s.grpc = grpc.NewServer(serverOptions(opts, codec)...)
	pb.RegisterLogServer(s.grpc, &logService{
		broker: b, opts: opts, stopping: s.stopping, aborting: s.aborting, fetches: semaphore.NewWeighted(opts.FetchInflightBytes),
		unsent: s.unsent, codec: codec,
	})
	pb.RegisterGroupsServer(s.grpc, &groupsService{broker: b})
	pb.RegisterAdminServer(s.grpc, &adminService{topics: b, groups: b, moves: b})
	pb.RegisterClusterServer(s.grpc, &clusterService{broker: b, stopping: s.stopping})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.SetServing(false)
	return s
}

func (s *Server) connected(remote string) bool {
	l := s.conns.Load()
	return l != nil && l.connected(remote)
}

// hangUp closes the connection from an address.
func (s *Server) hangUp(remote string) {
	s.opts.Logger.Warn("a client does not take what it fetched while others wait for memory; its connection is closed", "client", remote)
	if l := s.conns.Load(); l != nil {
		l.hangUp(remote)
	}
}

func serverOptions(o Options, codec boundedCodec) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec),
		grpc.MaxRecvMsgSize(o.MaxMessageBytes + messageOverhead),
		// What is sent is bounded by MaxFetchBytes and by single batches; decoded records may be larger than either.
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(o.MaxStreams),
		grpc.UnaryInterceptor(o.observe),
		grpc.WaitForHandlers(true),
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.ConnectionTimeout(20 * time.Second),
		// A dead peer is noticed within a minute even on an idle watch; clients may ping every 5 s, also without calls.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 40 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// SetServing sets what the health service answers, for the server as a whole and for each service.
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	for _, name := range []string{
		pb.Log_ServiceDesc.ServiceName, pb.Groups_ServiceDesc.ServiceName,
		pb.Admin_ServiceDesc.ServiceName, pb.Cluster_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(name, status)
	}
}

// Serve accepts connections until Stop. It returns nil after Stop.
func (s *Server) Serve(l net.Listener) error {
	limited := limitListener(l, s.opts.MaxConnections, s.unsent.drop)
	s.conns.Store(limited)
	err := s.grpc.Serve(limited)
	if s.stopping.Err() != nil {
		return nil
	}
	return err
}

// Connections is how many connections are open.
func (s *Server) Connections() int {
	if l := s.conns.Load(); l != nil {
		return max(len(l.slots)-1, 0) // one slot is held for the next connection
	}
	return 0
}

// Stop answers health checks with NOT_SERVING, ends the streams with SHUTTING_DOWN, lets calls in flight finish
// until ctx is done, and closes all connections. All handlers have returned when it does.
func (s *Server) Stop(ctx context.Context) {
	s.health.Shutdown()
	s.stop()
	defer s.abort()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.abort()
		s.grpc.Stop()
		<-done
	}
}

var errShuttingDown = api.Errorf(api.CodeShuttingDown, "the broker is shutting down")
