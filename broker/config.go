package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/membership"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// The default ports of the three listeners.
const (
	DefaultGRPCPort   = 7070
	DefaultPeerPort   = 7071
	DefaultGossipPort = 7072
	DefaultKafkaPort  = 9092 // of the Kafka listener, where there is one
	// DefaultMetricsPort is where the command line serves metrics, on loopback, unless it is told otherwise.
	DefaultMetricsPort = 7074
)

// Config is everything a broker can be told. Start from DefaultConfig; fields that are zero get the default where zero makes
// no sense. Sizes are bytes.
type Config struct {
	// ID is the broker's number, 0 or more, unique in the cluster and the same for the life of the data directory.
	ID api.BrokerID
	// DataDir holds all that the broker keeps. One process at a time may use it.
	DataDir string

	// GRPCAddr is where clients connect (host:port; an empty host or 0.0.0.0 listens everywhere; port 0 picks a free one).
	GRPCAddr string
	// KafkaAddr is where Kafka clients connect. Empty: they cannot.
	KafkaAddr string
	// KafkaListeners are further listeners for Kafka clients, each with a name, for clients that reach the brokers at other addresses.
	KafkaListeners []KafkaListener
	// PeerAddr is where other brokers connect: replication, votes, calls.
	PeerAddr string
	// GossipAddr is used over both TCP and UDP for membership.
	GossipAddr string
	// MetricsAddr is where metrics are served over HTTP, at /metrics. Empty: nowhere. With MetricsOptional, an address that cannot be listened on is a warning
	// instead of the end of the start: for one that nobody asked for. Profiles serves /debug/pprof there, too.
	MetricsAddr     string
	MetricsOptional bool
	Profiles        bool
	// The Advertise addresses are what is told to others, host:port or just host; empty: the address listened on. They are needed where
	// that address is not reachable from outside (0.0.0.0, NAT, containers). AdvertiseHost is the host of all of them where they
	// are not set one by one.
	AdvertiseHost       string
	AdvertiseGRPCAddr   string
	AdvertisePeerAddr   string
	AdvertiseGossipAddr string
	AdvertiseKafkaAddr  string

	// Join lists gossip addresses of brokers of the cluster; one that answers is enough.
	Join []string
	// BootstrapExpect makes a new cluster once exactly so many new brokers, which all expect that number, have found one another. 0 only
	// joins an existing cluster. It has no effect once the data directory belongs to a cluster.
	BootstrapExpect int

	// Rack is the failure domain that replicas of one partition are spread over. Empty: none.
	Rack string
	// Version is the program's version, shown in the cluster's status.
	Version string

	// DefaultPartitions and DefaultReplicationFactor are for topics created without saying. Default 1, and the smaller of
	// 3 and the number of brokers.
	DefaultPartitions        int32
	DefaultReplicationFactor int16
	// AutoCreateTopics lets Kafka clients create a topic by asking for its metadata, as auto.create.topics.enable does. DefaultConfig sets it.
	AutoCreateTopics bool
	// OffsetsPartitions and OffsetsReplicationFactor shape the internal topic of consumer groups when it is created. Default 16, and the smaller
	// of 3 and the number of brokers.
	OffsetsPartitions        int32
	OffsetsReplicationFactor int16

	// ReplaceAfter is how long a broker may be away before its replicas are rebuilt on others. Default 10 min; negative: never.
	ReplaceAfter time.Duration
	// AutoBalanceLeaders gives leadership back to the preferred leaders (the first of each partition's replicas). DefaultConfig sets it.
	AutoBalanceLeaders bool

	// CatchUpBytesPerSecond is the most that this broker sends to replicas that are far behind (new ones, and those of brokers that come back), over all partitions. Live
	// traffic is not counted and goes first. It is exceeded only where a replica would never arrive otherwise, or a quorum waits for it. Default 32 MiB/s; negative: no limit.
	CatchUpBytesPerSecond int64

	Memory MemoryLimits
	// DiskReserve is the free space below which produce requests are refused with a retriable error. Default 128 MiB; negative: none.
	DiskReserve int64
	Timing      Timing
	Scrub       ScrubConfig
	// CompareEvery is how often leaders compare their state with that of the other replicas. Default 1 min; negative: never.
	CompareEvery time.Duration

	Logger hclog.Logger
	// Seams are for tests.
	Seams Seams
}

// maxMessageBytes is the longest entry of a partition.
const maxMessageBytes = 32 << 20

// MemoryLimits bound what a broker holds in memory.
type MemoryLimits struct {
	// InflightBytes of batches that were received and are not yet acknowledged; producers wait, then are refused, beyond it. Default 128 MiB.
	InflightBytes int64
	// TailCacheBytes over all partitions, for the newest entries; those for which nothing is left have 4 KiB each. Default 128 MiB.
	TailCacheBytes int64
	// MaxMessageBytes is the most that a topic's max.message.bytes may be, and with some room the size limit of a gRPC message. Default 32 MiB, which is
	// also the most: no partition takes a longer entry.
	MaxMessageBytes int
	// FetchBytes is the most that one fetch response carries. Default 32 MiB.
	FetchBytes int
}

// Timing is how patient a broker is. The defaults are for real networks; tests shorten them.
type Timing struct {
	// Heartbeat is raft's heartbeat and election timeout of partitions. That a broker died or stands still is noticed sooner and for all of its partitions at once, and so is who leads them; this
	// is for what all of that misses (partition.Timing). An idle group costs each of its followers up to ten messages in this time. Default 2 min.
	Heartbeat time.Duration
	// MetadataHeartbeat is the same for the metadata group. Default 5 s.
	MetadataHeartbeat time.Duration
	// AppendTimeout bounds an append whose caller set no deadline. Default 30 s.
	AppendTimeout time.Duration
	// LeaderWait is how long a request waits for an election to end. Default 1.5 s.
	LeaderWait time.Duration
	// CreateWait is how long CreateTopic waits for all partitions to have leaders. Default 10 s.
	CreateWait time.Duration
	// ReconcileEvery is how often led partitions are compared with what they should be when nothing else wakes the loop. Default 1 s.
	ReconcileEvery time.Duration
	// PreferredAfter is how long a preferred leader must have been alive and caught up before it gets its leadership back. Default 5 s.
	PreferredAfter time.Duration
	// CallTimeout bounds a call to another broker. Default 3 s.
	CallTimeout time.Duration
	// HandOver bounds the transfer of leaderships in a graceful stop. Default 5 s.
	HandOver time.Duration
	// Gossip tells membership to be fast at the price of traffic, for tests and clusters on one machine.
	FastGossip bool
}

// Seams replace parts of the outside world in tests.
type Seams struct {
	// GRPCListener and PeerListener are used instead of listening on the addresses.
	GRPCListener, PeerListener net.Listener
	// DialPeer connects to other brokers; nil: net.Dialer.
	DialPeer func(ctx context.Context, network, addr string) (net.Conn, error)
	// PartitionFS holds the partitions' directories; nil: the operating system's files.
	PartitionFS vfs.FS
	// FS holds the rest of the data directory, but for the metadata group's files and the vote store; nil: the operating system's files.
	FS vfs.FS
	// StableBackend and MetadataStores replace the vote store's file and the metadata group's.
	StableBackend  stable.Backend
	MetadataStores *metadata.Stores
	// Gossip replaces the sockets of the membership.
	Gossip membership.Transport
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// DefaultConfig returns the defaults. ID and DataDir are left to be set.
func DefaultConfig() Config {
	c := Config{
		ID: api.NoBroker, AutoBalanceLeaders: true, AutoCreateTopics: true, KafkaAddr: net.JoinHostPort("", strconv.Itoa(DefaultKafkaPort)),
	}
	c.setDefaults()
	return c
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (c *Config) setDefaults() {
	setDefault(&c.GRPCAddr, net.JoinHostPort("", strconv.Itoa(DefaultGRPCPort)))
	setDefault(&c.PeerAddr, net.JoinHostPort("", strconv.Itoa(DefaultPeerPort)))
	setDefault(&c.GossipAddr, net.JoinHostPort("", strconv.Itoa(DefaultGossipPort)))
	setDefault(&c.Version, "dev")
	setDefault(&c.DefaultPartitions, 1)
	setDefault(&c.OffsetsPartitions, 16)
	setDefault(&c.ReplaceAfter, 10*time.Minute)
	setDefault(&c.DiskReserve, 128<<20)
	setDefault(&c.CatchUpBytesPerSecond, 32<<20)
	setDefault(&c.Memory.InflightBytes, 128<<20)
	setDefault(&c.Memory.TailCacheBytes, 128<<20)
	setDefault(&c.Memory.MaxMessageBytes, maxMessageBytes)
	setDefault(&c.Memory.FetchBytes, 32<<20)
	c.Timing.setDefaults()
	c.Scrub.setDefaults()
	setDefault(&c.CompareEvery, time.Minute)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Seams.PartitionFS == nil {
		c.Seams.PartitionFS = vfs.OS()
	}
	if c.Seams.FS == nil {
		c.Seams.FS = vfs.OS()
	}
	if c.Seams.Now == nil {
		c.Seams.Now = time.Now
	}
}

func (t *Timing) setDefaults() {
	setDefault(&t.Heartbeat, 2*time.Minute)
	setDefault(&t.MetadataHeartbeat, 5*time.Second)
	setDefault(&t.AppendTimeout, 30*time.Second)
	setDefault(&t.LeaderWait, 1500*time.Millisecond)
	setDefault(&t.CreateWait, 10*time.Second)
	setDefault(&t.ReconcileEvery, time.Second)
	setDefault(&t.PreferredAfter, 5*time.Second)
	setDefault(&t.CallTimeout, 3*time.Second)
	setDefault(&t.HandOver, 5*time.Second)
}

// ErrConfig is wrapped by every error of Validate.
var ErrConfig = errors.New("configuration")

// Validate says what is wrong and what to do about it. All errors are reported at once.
func (c *Config) Validate() error {
	var errs []error
	add := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
		}
	}
	add(c.ID >= 0, "the broker ID is %d: give every broker its own number, 0 or more", c.ID)
	add(c.DataDir != "", "no data directory is set")
	for _, a := range []struct{ name, addr string }{
		{"gRPC", c.GRPCAddr}, {"peer", c.PeerAddr}, {"gossip", c.GossipAddr},
	} {
		add(validHostPort(a.addr), "the %s address %q is not host:port", a.name, a.addr)
	}
	add(c.KafkaAddr == "" || validHostPort(c.KafkaAddr), "the Kafka address %q is not host:port", c.KafkaAddr)
	errs = append(errs, c.checkKafkaListeners()...)
	add(c.MetricsAddr == "" || validHostPort(c.MetricsAddr), "the metrics address %q is not host:port", c.MetricsAddr)
	for _, a := range c.Join {
		add(validHostPort(a), "the address to join %q is not host:port (the gossip port, by default %d)", a, DefaultGossipPort)
	}
	add(c.BootstrapExpect >= 0, "bootstrap-expect is %d: it is the number of brokers that make the new cluster, or 0 to only join one", c.BootstrapExpect)
	c.validateLimits(add)
	return errors.Join(errs...)
}

func (c *Config) validateLimits(add func(ok bool, format string, args ...any)) {
	add(c.DefaultPartitions > 0, "the default number of partitions is %d: it must be at least 1", c.DefaultPartitions)
	add(c.DefaultReplicationFactor >= 0, "the default replication factor is %d: it must be at least 1, or 0 to let the broker choose", c.DefaultReplicationFactor)
	add(c.OffsetsPartitions > 0, "the number of partitions for consumer groups is %d: it must be at least 1", c.OffsetsPartitions)
	add(c.OffsetsReplicationFactor >= 0, "the replication factor for consumer groups is %d: it must be at least 1, or 0 to let the broker choose", c.OffsetsReplicationFactor)
	add(c.Memory.MaxMessageBytes >= 1024 && c.Memory.MaxMessageBytes <= maxMessageBytes, "the largest message is limited to %d bytes: it must be from 1 KiB to 32 MiB", c.Memory.MaxMessageBytes)
	add(c.Memory.FetchBytes > 0, "fetch responses are limited to %d bytes: it must be more than 0", c.Memory.FetchBytes)
	add(c.Memory.InflightBytes >= int64(c.Memory.MaxMessageBytes), "%d bytes in flight are less than the largest message (%d): raise the one or lower the other",
		c.Memory.InflightBytes, c.Memory.MaxMessageBytes)
	add(c.CatchUpBytesPerSecond < 0 || c.CatchUpBytesPerSecond >= 1<<20, "replicas that are far behind are sent at most %d bytes a second: it must be at least 1 MiB, or without a limit", c.CatchUpBytesPerSecond)
	add(c.Memory.TailCacheBytes > 0, "the tail cache is %d bytes: it must be more than 0", c.Memory.TailCacheBytes)
	add(c.Scrub.Every > 0, "the pause between two scrubs is %s: it must be more than 0", c.Scrub.Every)
	add(c.Timing.Heartbeat >= 10*time.Millisecond, "a heartbeat timeout of %s is too short to tell a slow broker from a dead one: use 100 ms or more", c.Timing.Heartbeat)
}

func validHostPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}
