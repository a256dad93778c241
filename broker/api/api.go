// Package api is what a broker does, as its front ends see it: plain Go types, one error type, no protocol.
//
// The gRPC services, the Kafka listener and the console are adapters on the interfaces of this package; package
// broker implements them. A front end declares the part that it needs as a small interface of its own, and
// imports no other front end. All methods may be called from many goroutines at once.
package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// BrokerID is a broker's number (Kafka's node.id), 0 or more, chosen by whoever deploys it.
type BrokerID int32

// NoBroker stands where a broker is not known, such as the leader during an election.
const NoBroker BrokerID = -1

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Endpoint is where clients reach a broker.
type Endpoint struct {
	ID    BrokerID
	Host  string // host:port of the gRPC listener
	Kafka string // host:port of the Kafka listener; empty: it has none
	// KafkaListeners are those with names, NAME=host:port, separated by commas. See KafkaAt.
	KafkaListeners string
	Rack           string
}

// KafkaAddr is the address of one Kafka listener.
type KafkaAddr struct{ Listener, Addr string }

// KafkaAddrs are the addresses of all Kafka listeners, sorted by name.
func (e *Endpoint) KafkaAddrs() []KafkaAddr {
	var out []KafkaAddr
	if e.Kafka != "" {
		out = append(out, KafkaAddr{DefaultKafkaListener, e.Kafka})
	}
	for s := range strings.SplitSeq(e.KafkaListeners, ",") {
		if name, addr, ok := strings.Cut(s, "="); ok {
			out = append(out, KafkaAddr{name, addr})
		}
	}
	slices.SortFunc(out, func(a, b KafkaAddr) int { return strings.Compare(a.Listener, b.Listener) })
	return out
}

// DefaultKafkaListener is the name of the listener whose address is Endpoint.Kafka.
const DefaultKafkaListener = "PLAINTEXT"

// KafkaAt is the address of the Kafka listener with the name; empty: the broker has none.
func (e *Endpoint) KafkaAt(listener string) string {
	if listener == DefaultKafkaListener {
		return e.Kafka
	}
	for s := range strings.SplitSeq(e.KafkaListeners, ",") {
		if name, addr, ok := strings.Cut(s, "="); ok && name == listener {
			return addr
		}
	}
	return ""
}

// Broker is everything. Front ends should ask for less.
type Broker interface {
	Log
	Groups
	Topics
	GroupAdmin
	Replicas
	Reassignments
	Configs
	Cluster
}

// Log appends to partitions and reads them.
type Log interface {
	// Append stores one record batch and returns when it is durable as the topic's flush setting says.
	// It keeps req.Batch. Appends to one partition whose calls do not overlap are stored in call order; to keep order
	// with calls in flight, use AppendAsync.
	Append(ctx context.Context, req AppendRequest) (AppendResult, error)
	// AppendAsync hands the batch to the partition's sequencer before it returns, so consecutive calls keep their
	// order, and calls done exactly once, on another goroutine, with the outcome. It blocks while the budget of bytes in flight
	// is used up. done must not block.
	AppendAsync(ctx context.Context, req AppendRequest, done func(AppendResult, error))
	// Fetch reads from several partitions. It returns as soon as MinBytes are there, a partition has an error, or MaxWait has
	// passed. Errors of single partitions are in the results; the error is for the request as a whole.
	Fetch(ctx context.Context, req FetchRequest) ([]FetchResult, error)
	ListOffset(ctx context.Context, tp TopicPartition, pos Position) (ListedOffset, error)
	// DeleteRecords moves the log start up to before (-1: the high watermark) and returns the new one.
	DeleteRecords(ctx context.Context, tp TopicPartition, before record.Offset) (record.Offset, error)
	// InitProducer allocates a producer ID, with epoch 0.
	InitProducer(ctx context.Context) (ProducerID, error)
}

// ProducerID identifies an idempotent producer (KIP-98).
type ProducerID struct {
	ID    int64
	Epoch int16
}

// AppendRequest is one batch for one partition.
type AppendRequest struct {
	TopicPartition
	// Batch is one RecordBatch v2. Base offset and leader epoch are overwritten in place.
	Batch []byte
	// Expected, if not nil, must be the partition's next offset (CodeExpectedOffsetMismatch).
	Expected *record.Offset
}

// AppendResult says where a batch went.
type AppendResult struct {
	BaseOffset    record.Offset
	LogAppendTime int64 // Unix ms, -1 with CreateTime
	LogStart      record.Offset
	Duplicate     bool // appended earlier; BaseOffset is the original one (-1 if it is no longer remembered)
	LeaderEpoch   int32
}

// FetchRequest reads several partitions that this broker leads.
type FetchRequest struct {
	Partitions []FetchPartition
	MinBytes   int           // 0 and 1: return as soon as there is anything
	MaxBytes   int           // over all partitions; the first batch is returned even if larger
	MaxWait    time.Duration // 0: do not wait
}

// FetchPartition is one partition of a FetchRequest.
type FetchPartition struct {
	TopicPartition
	Offset   record.Offset
	MaxBytes int
}

// FetchResult is what one partition gave. Batches are shared with the broker's caches: read only.
type FetchResult struct {
	TopicPartition
	// Batches as stored. The first may begin before the offset asked for.
	Batches       [][]byte
	Next          record.Offset // what to ask for next
	HighWatermark record.Offset
	LogStart      record.Offset
	LeaderEpoch   int32
	Err           error // an *Error
	// Release, if it is not nil, gives the memory of Batches back to other reads. It may be called once, when nobody reads them any more; to leave it out costs memory
	// that the garbage collector has to find.
	Release func()
}

// PositionKind chooses among the ways to name an offset.
type PositionKind int8

// The kinds of Position.
const (
	PositionEarliest PositionKind = iota + 1
	PositionLatest
	PositionTimestamp    // first record at or after Position.Timestamp
	PositionMaxTimestamp // the record with the largest timestamp
)

// Position names an offset.
type Position struct {
	Kind      PositionKind
	Timestamp int64 // Unix ms
}

// ListedOffset answers ListOffset. Offset is -1 if no record matches.
type ListedOffset struct {
	Offset      record.Offset
	Timestamp   int64 // of the record found, else -1
	LeaderEpoch int32
}

// Topics manages topics. Every broker answers; changes are passed on to the controller and are visible on this broker when
// the call returns.
type Topics interface {
	CreateTopic(ctx context.Context, req CreateTopicRequest) (TopicDescription, error)
	DeleteTopic(ctx context.Context, name string) error
	// AlterTopic sets and unsets settings.
	AlterTopic(ctx context.Context, name string, set map[string]string, unset []string) (TopicDescription, error)
	CreatePartitions(ctx context.Context, req CreatePartitionsRequest) (TopicDescription, error)
	// DescribeTopic asks the partitions' leaders for offsets and sizes; what cannot be learnt is -1.
	DescribeTopic(ctx context.Context, name string) (TopicDescription, error)
	ListTopics(ctx context.Context, internal bool) ([]TopicSummary, error)
}

// CreateTopicRequest asks for a topic. Zero counts mean the cluster's defaults.
type CreateTopicRequest struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Settings          map[string]string
	// Assignment, if not nil, names the brokers of each partition, the preferred leader first, instead of the counts. CodeInvalidReplicaAssignment.
	Assignment   [][]BrokerID
	ValidateOnly bool
}

// CreatePartitionsRequest lets a topic grow to a number of partitions.
type CreatePartitionsRequest struct {
	Name  string
	Total int32
	// Assignment, if not nil, names the brokers of each new partition. CodeInvalidReplicaAssignment.
	Assignment   [][]BrokerID
	ValidateOnly bool
}

// TopicSummary is a line of a topic list.
type TopicSummary struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Internal          bool
}

// TopicDescription is all about a topic.
type TopicDescription struct {
	Name              string
	ID                [16]byte
	Internal          bool
	ReplicationFactor int16
	Settings          []TopicSetting
	Partitions        []PartitionDescription
}

// TopicSetting is one setting in effect.
type TopicSetting struct {
	Key, Value    string
	IsDefault     bool // the topic does not set it
	Documentation string
	Type          ConfigType
	Source        ConfigSource
	// Synonyms are all values that there are, the one in effect first.
	Synonyms []ConfigValue
}

// PartitionDescription is all about a partition. Replicas[0] is the preferred leader.
type PartitionDescription struct {
	Partition     int32
	Leader        BrokerID
	LeaderEpoch   int32
	Replicas      []BrokerID
	Voters        []BrokerID
	LogStart      record.Offset
	HighWatermark record.Offset
	SizeBytes     int64
}

// Cluster tells who is there and changes it.
type Cluster interface {
	Clients
	// Metadata is this broker's view; topics nil means all that are not internal. Unknown topics are reported as such.
	Metadata(topics []string) Metadata
	// MetadataChanged returns a channel that is closed at the next change of what Metadata returns.
	MetadataChanged() <-chan struct{}
	// SyncMetadata brings what Metadata returns up to date with the cluster as of now, or gives up after a second. It is false then: a topic that Metadata calls
	// unknown may exist.
	SyncMetadata(ctx context.Context) bool
	// TopicName finds the topic that has the ID now.
	TopicName(id [16]byte) (name string, ok bool)
	Status(ctx context.Context) (ClusterStatus, error)
	Decommission(ctx context.Context, id BrokerID) (replicasToMove int, err error)
	Recommission(ctx context.Context, id BrokerID) error
	Rebalance(ctx context.Context, dryRun bool) (RebalancePlan, error)
}

// Metadata is what clients route by.
type Metadata struct {
	ClusterID  string
	Controller BrokerID
	Brokers    []Endpoint
	Topics     []TopicMetadata
	Version    uint64
}

// TopicMetadata is a topic as clients see it.
type TopicMetadata struct {
	Name       string
	ID         [16]byte
	Internal   bool
	Partitions []PartitionMetadata
	Unknown    bool
}

// PartitionMetadata is a partition as clients see it.
type PartitionMetadata struct {
	Partition   int32
	Leader      BrokerID
	LeaderEpoch int32
	Replicas    []BrokerID // desired, the preferred leader first; while replicas move, then also those that are to go
	InSync      []BrokerID // those that vote, and whose files are there as far as is known; the broker may be away
}

// BrokerState is what the cluster thinks of a broker.
type BrokerState int8

// States of a broker, numbered as in the gRPC API.
const (
	BrokerAlive BrokerState = iota + 1
	BrokerFailed
	BrokerLeft
	BrokerDraining
	BrokerDrained
)

// BrokerStatus is a line of the cluster's status.
type BrokerStatus struct {
	ID         BrokerID
	GRPCAddr   string
	PeerAddr   string
	GossipAddr string
	// KafkaAddrs are what Kafka clients are told, by listener, sorted by name.
	KafkaAddrs    []KafkaAddr
	Rack          string
	Version       string
	State         BrokerState
	Replicas      int
	Leaders       int
	Controller    bool
	MetadataVoter bool
}

// PartitionProblem is something an operator should know of, in plain words.
type PartitionProblem struct {
	TopicPartition
	Problem string
}

// ClusterStatus is the whole at a glance.
type ClusterStatus struct {
	ClusterID  string
	Controller BrokerID
	Self       BrokerID
	Version    string
	Brokers    []BrokerStatus
	Topics     int
	Partitions int
	Problems   []PartitionProblem
}

// ReplicaMove is one replica on its way from one broker to another.
type ReplicaMove struct {
	TopicPartition
	From, To BrokerID
}

// RebalancePlan is what Rebalance does or would do.
type RebalancePlan struct {
	Moves           []ReplicaMove
	LeaderTransfers int
}
