package client

import (
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// TopicSpec asks for a topic.
type TopicSpec struct {
	Name              string
	Partitions        int32             // 0: the cluster's default
	ReplicationFactor int32             // 0: the cluster's default
	Settings          map[string]string // retention.ms and so on; others have their defaults
	ValidateOnly      bool              // check and place, but create nothing
}

// TopicSummary is a line of the list of topics.
type TopicSummary struct {
	Topic             string `json:"topic"`
	Partitions        int32  `json:"partitions"`
	ReplicationFactor int32  `json:"replication_factor"`
	Internal          bool   `json:"internal"`
}

// TopicDescription is all about a topic.
type TopicDescription struct {
	Topic             string                 `json:"topic"`
	ID                []byte                 `json:"topic_id,omitempty"`
	Internal          bool                   `json:"internal"`
	ReplicationFactor int32                  `json:"replication_factor"`
	Settings          []TopicSetting         `json:"settings"`
	Partitions        []PartitionDescription `json:"partitions"`
}

// TopicSetting is one setting in effect.
type TopicSetting struct {
	Key           string `json:"key"`
	Value         string `json:"value"`
	IsDefault     bool   `json:"is_default"`
	Documentation string `json:"documentation,omitempty"`
}

// PartitionDescription is all about a partition. Leader, LogStartOffset, HighWatermark and SizeBytes are -1 where they could not be learnt.
type PartitionDescription struct {
	Partition      int32   `json:"partition"`
	Leader         int32   `json:"leader"`
	LeaderEpoch    int32   `json:"leader_epoch"`
	Replicas       []int32 `json:"replicas"` // the first is the preferred leader
	Voters         []int32 `json:"voters"`
	LogStartOffset int64   `json:"log_start_offset"`
	HighWatermark  int64   `json:"high_watermark"`
	SizeBytes      int64   `json:"size_bytes"`
}

// GroupSummary is a line of the list of groups. State has Kafka's names.
type GroupSummary struct {
	Group        string `json:"group"`
	State        string `json:"state"`
	ProtocolType string `json:"protocol_type"`
	Members      int32  `json:"members"`
	Coordinator  int32  `json:"coordinator"`
}

// GroupDescription is all about a group.
type GroupDescription struct {
	Group          string        `json:"group"`
	State          string        `json:"state"`
	ProtocolType   string        `json:"protocol_type"`
	Protocol       string        `json:"protocol"`
	Generation     int32         `json:"generation"`
	LeaderMemberID string        `json:"leader_member_id"`
	Coordinator    Broker        `json:"coordinator"`
	Members        []GroupMember `json:"members"`
	Offsets        []GroupOffset `json:"offsets"`
}

// GroupMember is a member of a group.
type GroupMember struct {
	MemberID       string           `json:"member_id"`
	InstanceID     string           `json:"instance_id,omitempty"`
	ClientID       string           `json:"client_id"`
	ClientHost     string           `json:"client_host"`
	SessionTimeout time.Duration    `json:"session_timeout_ns"`
	Topics         []string         `json:"topics"`
	Assignment     []TopicPartition `json:"assignment"`
}

// GroupOffset is a committed offset with what is known of the partition; -1 where it is not known.
type GroupOffset struct {
	TopicPartition
	CommittedOffset int64     `json:"committed_offset"`
	Metadata        string    `json:"metadata,omitempty"`
	LogStartOffset  int64     `json:"log_start_offset"`
	HighWatermark   int64     `json:"high_watermark"`
	Lag             int64     `json:"lag"`
	MemberID        string    `json:"member_id,omitempty"`
	CommitTime      time.Time `json:"commit_time"`
}

// ResetTo is where ResetOffsets goes: ToPosition or ByShift.
type ResetTo struct {
	position Position
	shift    int64
	isShift  bool
}

// ToPosition resets to Earliest, Latest, AtOffset or AtTime.
func ToPosition(p Position) ResetTo { return ResetTo{position: p} }

// ByShift moves committed offsets by n, which may be negative, within the log's bounds.
func ByShift(n int64) ResetTo { return ResetTo{shift: n, isShift: true} }

// ResetRequest sets the committed offsets of a group that has no members.
type ResetRequest struct {
	Group      string
	Topics     []string         // none: all for which the group has offsets
	Partitions []TopicPartition // none: all of the topics
	To         ResetTo
	DryRun     bool // only say what would happen
}

// OffsetReset is one offset before (-1: none) and after a reset.
type OffsetReset struct {
	TopicPartition
	From int64 `json:"from_offset"`
	To   int64 `json:"to_offset"`
}

// ListedOffset is an offset that was looked up.
type ListedOffset struct {
	TopicPartition
	Offset      int64     `json:"offset"`    // -1: no record is that young
	Timestamp   time.Time `json:"timestamp"` // of the record found; zero if none was looked for
	LeaderEpoch int32     `json:"leader_epoch"`
	Err         error     `json:"-"` // of this partition alone
}

// BrokerState is what the cluster thinks of a broker.
type BrokerState string

// States of a broker.
const (
	BrokerAlive    BrokerState = "alive"
	BrokerFailed   BrokerState = "failed"   // not heard of
	BrokerLeft     BrokerState = "left"     // stopped, with its replicas kept
	BrokerDraining BrokerState = "draining" // being decommissioned
	BrokerDrained  BrokerState = "drained"  // decommissioned: may be stopped for good
	BrokerUnknown  BrokerState = "unknown"  // a state that this client does not know
)

func brokerState(s pb.BrokerState) BrokerState {
	switch s {
	case pb.BrokerState_BROKER_STATE_ALIVE:
		return BrokerAlive
	case pb.BrokerState_BROKER_STATE_FAILED:
		return BrokerFailed
	case pb.BrokerState_BROKER_STATE_LEFT:
		return BrokerLeft
	case pb.BrokerState_BROKER_STATE_DRAINING:
		return BrokerDraining
	case pb.BrokerState_BROKER_STATE_DRAINED:
		return BrokerDrained
	}
	return BrokerUnknown
}

// BrokerStatus is a broker in ClusterStatus.
type BrokerStatus struct {
	ID            int32       `json:"broker_id"`
	GRPCAddress   string      `json:"grpc_address"`
	PeerAddress   string      `json:"peer_address"`
	GossipAddress string      `json:"gossip_address"`
	Rack          string      `json:"rack,omitempty"`
	Version       string      `json:"version"`
	State         BrokerState `json:"state"`
	Replicas      int32       `json:"replicas"`
	Leaders       int32       `json:"leaders"`
	Controller    bool        `json:"controller"`
	MetadataVoter bool        `json:"metadata_voter"`
	// KafkaListeners are what Kafka clients are told.
	KafkaListeners []KafkaListener `json:"kafka_listeners,omitempty"`
}

// KafkaListener is the address (host:port) of a broker's Kafka listener of that name.
type KafkaListener struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// ClientGroup is connections of one host to one broker's Kafka listener that have the same client ID and software.
type ClientGroup struct {
	Broker   int32  `json:"broker_id"`
	Listener string `json:"listener"`
	Host     string `json:"host"`
	ClientID string `json:"client_id,omitempty"`
	// Software and SoftwareVersion are what the client says of itself (KIP-511).
	Software        string `json:"software,omitempty"`
	SoftwareVersion string `json:"software_version,omitempty"`
	Connections     int32  `json:"connections"`
	// Since is when the oldest of them connected.
	Since time.Time `json:"since"`
}

// ClientList is who is connected to the brokers' Kafka listeners.
type ClientList struct {
	Clients []ClientGroup `json:"clients"`
	// MissingBrokers did not answer.
	MissingBrokers []int32 `json:"missing_brokers,omitempty"`
	// OmittedConnections are in none of the groups: there were too many different ones.
	OmittedConnections int32 `json:"omitted_connections,omitempty"`
}

// PartitionProblem is something an operator should know of, in plain words.
type PartitionProblem struct {
	TopicPartition
	Problem string `json:"problem"`
}

// ClusterStatus is the whole at a glance.
type ClusterStatus struct {
	ClusterID  string             `json:"cluster_id"`
	Controller int32              `json:"controller_id"`
	BrokerID   int32              `json:"broker_id"` // the broker that answered
	Version    string             `json:"version"`
	Brokers    []BrokerStatus     `json:"brokers"`
	Topics     int32              `json:"topics"`
	Partitions int32              `json:"partitions"`
	Problems   []PartitionProblem `json:"problems"` // none: all is well
}

// ReplicaMove is one replica on its way from one broker to another.
type ReplicaMove struct {
	TopicPartition
	From int32 `json:"from_broker"`
	To   int32 `json:"to_broker"`
}

// RebalancePlan is what Rebalance does or would do.
type RebalancePlan struct {
	Moves           []ReplicaMove `json:"moves"`
	LeaderTransfers int32         `json:"leader_transfers"`
}
