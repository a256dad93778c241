package client

import (
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// maxMessageBytes bounds one gRPC message in both directions: well above what a topic's max.message.bytes should be.
const maxMessageBytes = 128 << 20

// defaultDialOptions: connections come back fast after a broker's restart, and a dead peer is noticed in half a minute at most.
func defaultDialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithReadBufferSize(128 << 10),
		grpc.WithWriteBufferSize(128 << 10),
		grpc.WithInitialWindowSize(4 << 20),
		grpc.WithInitialConnWindowSize(16 << 20),
		grpc.WithDisableServiceConfig(),
	}
}

// conn is one broker's connection with its services.
type conn struct {
	addr    string
	cc      *grpc.ClientConn
	log     pb.LogClient
	groups  pb.GroupsClient
	admin   pb.AdminClient
	cluster pb.ClusterClient
}

// doubtFor is how long a broker that did not answer is asked after the others.
const doubtFor = 3 * time.Second

// pool holds one connection for each address; gRPC connects when first used and reconnects by itself.
type pool struct {
	opts []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*conn
	doubts map[string]time.Time // addresses at which something was not answered, and when; pruned by doubt
	closed bool
}

func newPool(opts []grpc.DialOption) *pool {
	return &pool{opts: opts, conns: make(map[string]*conn), doubts: make(map[string]time.Time)}
}

// doubt notes that a broker does not answer: where any broker will do, the others are asked first for a while.
func (p *pool) doubt(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(p.doubts, func(_ string, since time.Time) bool { return now.Sub(since) > doubtFor })
	p.doubts[addr] = now
}

// doubted tells whether a broker did not answer lately.
func (p *pool) doubted(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, ok := p.doubts[addr]
	return ok && time.Since(since) <= doubtFor
}

// get returns the connection to an address. It does not wait for anything.
func (p *pool) get(addr string) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if c := p.conns[addr]; c != nil {
		return c, nil
	}
	// passthrough: the address goes to the dialer as it is; the system's resolver handles names and several addresses.
	cc, err := grpc.NewClient("passthrough:///"+addr, p.opts...)
	if err != nil {
		return nil, &Error{Op: "connect to " + addr, Code: CodeInvalidRequest, Message: err.Error(), Partition: -1, cause: err}
	}
	c := &conn{
		addr: addr, cc: cc, log: pb.NewLogClient(cc), groups: pb.NewGroupsClient(cc), admin: pb.NewAdminClient(cc), cluster: pb.NewClusterClient(cc),
	}
	p.conns[addr] = c
	return c, nil
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.conns {
		errs = append(errs, c.cc.Close())
	}
	p.conns = nil
	return errors.Join(errs...)
}

// backoffFor is the pause before retry number attempt (0 is the first): doubling from min to max, jittered down by up to half.
func backoffFor(attempt int, min, max time.Duration) time.Duration {
	d := max
	if attempt < 30 && min<<attempt > 0 && min<<attempt < max {
		d = min << attempt
	}
	return d/2 + rand.N(d/2+1)
}
