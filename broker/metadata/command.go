package metadata

import (
	"encoding/json"
	"fmt"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// Command is a change of the State. Its fields are all that applying it depends on: the proposer supplies times and random IDs.
// A command that cannot be applied changes nothing and returns an *api.Error.
type Command interface {
	// kind is the command's name in the log.
	kind() string
	// check refuses what this release holds to be wrong, by the proposer's State. It is not part of applying, so that
	// releases with other limits or settings apply the same log alike.
	check(*State) error
	// apply checks only what must be checked in the order of the log.
	apply(*change) (Result, error)
}

// Result is what a command gave.
type Result struct {
	// Index is the Raft index of the command. The State of this broker contains it when Propose returns.
	Index uint64 `json:"index,omitempty"`
	// FirstProducerID is the start of the block that AllocateProducerIDs got.
	FirstProducerID int64 `json:"first_producer_id,omitempty"`
	// Skipped counts the parts of the command that no longer fitted the state (an old revision, a deleted topic, an old epoch).
	Skipped int `json:"skipped,omitempty"`
	// Failures are the parts of the command that were refused, where it says so.
	Failures []PartFailure `json:"failures,omitempty"`
}

// InitCluster is the first command of a cluster. It does nothing if the cluster has that ID already.
type InitCluster struct {
	ClusterID string `json:"cluster_id"`
}

// RegisterBroker adds a broker or updates its addresses, incarnation, rack and version; Draining is kept as it was. The broker counts
// as present afterwards.
type RegisterBroker struct {
	Broker Broker `json:"broker"`
	// Rebalance sets State.Rebalance if the broker is new.
	Rebalance bool `json:"rebalance,omitempty"`
}

// MarkAway records that a broker went, or came back (SinceMs 0).
type MarkAway struct {
	ID      api.BrokerID `json:"id"`
	SinceMs int64        `json:"since_ms"`
	Left    bool         `json:"left,omitempty"`
}

// SetDraining records the wish to decommission a broker, or takes it back. CodeUnknownBroker.
type SetDraining struct {
	ID       api.BrokerID `json:"id"`
	Draining bool         `json:"draining"`
	// Rebalance sets State.Rebalance if the broker comes back.
	Rebalance bool `json:"rebalance,omitempty"`
}

// RemoveBroker forgets a broker. CodePolicyViolation while it has replicas.
type RemoveBroker struct {
	ID api.BrokerID `json:"id"`
}

// SetRebalance sets or clears State.Rebalance.
type SetRebalance struct {
	On bool `json:"on"`
	// Everything includes the partitions whose brokers an operator chose: from then on they are like all others.
	Everything bool `json:"everything,omitempty"`
}

// CreateTopic creates a topic with the placement given. The same command again (same name and ID) succeeds without effect.
// CodeTopicAlreadyExists, CodeInvalidTopic, CodeInvalidConfig, CodeInvalidPartitions, CodeInvalidReplicationFactor, CodeUnknownBroker.
type CreateTopic struct {
	Name              string            `json:"name"`
	ID                [16]byte          `json:"id"` // random, from the proposer
	Internal          bool              `json:"internal,omitempty"`
	Kind              Kind              `json:"kind,omitempty"` // "" is KindData
	ReplicationFactor int16             `json:"replication_factor"`
	Settings          map[string]string `json:"settings,omitempty"`
	// Assignment lists the brokers of each partition, the preferred leader first.
	Assignment [][]api.BrokerID `json:"assignment"`
	// ByHand: an operator chose the brokers.
	ByHand bool `json:"by_hand,omitempty"`
}

// AlterTopic sets and unsets settings. CodeUnknownTopicOrPartition, CodeInvalidConfig.
type AlterTopic struct {
	Name  string            `json:"name"`
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
}

// GrowTopic adds partitions. From is the number of partitions that the proposer saw: CodeInvalidPartitions if it changed.
type GrowTopic struct {
	Name       string           `json:"name"`
	From       int32            `json:"from"`
	Assignment [][]api.BrokerID `json:"assignment"`
	ByHand     bool             `json:"by_hand,omitempty"`
}

// DeleteTopic deletes a topic. CodeUnknownTopicOrPartition, also if the topic has another ID by now (the zero ID matches any).
type DeleteTopic struct {
	Name string   `json:"name"`
	ID   [16]byte `json:"id"`
}

// SetReplicas assigns partitions anew. Parts that were planned on an older revision are skipped and counted.
type SetReplicas struct {
	Changes []ReplicaChange `json:"changes"`
}

// ReplicaChange is the new assignment of one partition. A Replica without ServerID gets a fresh name; one with
// it keeps it and must be one of the partition's present replicas or voters.
type ReplicaChange struct {
	Group    transport.GroupID  `json:"group"`
	TP       api.TopicPartition `json:"tp"`
	Revision uint64             `json:"revision"` // as the planner saw it
	Replicas []Replica          `json:"replicas"`
	// EndReassignment gives up the partition's reassignment, which cannot be carried out any more.
	EndReassignment bool `json:"end_reassignment,omitempty"`
}

// Report tells what the leaders of partitions see. One command carries many partitions.
type Report struct {
	Partitions []PartitionReport `json:"partitions"`
}

// PartitionReport is one leader's word. One of an older epoch than the last is skipped, and so is one whose group is not the
// partition's (any more). A leader should make sure that it still leads (partition.Replica.ConfirmLeader) before it reports voters as settled.
type PartitionReport struct {
	TP    api.TopicPartition `json:"tp"`
	Group transport.GroupID  `json:"group"`
	// Leader reports its own ID; api.NoBroker reports that this epoch's leader stepped down.
	Leader api.BrokerID `json:"leader"`
	Epoch  int32        `json:"epoch"`
	// Voters of the last committed configuration. nil: unchanged.
	Voters []Replica `json:"voters,omitempty"`
	// Revision is the Partition.Revision that the leader had seen before it read Voters.
	Revision uint64 `json:"revision"`
	// Moving: Voters are not those of Revision yet.
	Moving bool `json:"moving,omitempty"`
}

// QuarantineReplica records that a replica's files are damaged. The controller then gives the broker a fresh replica.
type QuarantineReplica struct {
	TP       api.TopicPartition `json:"tp"`
	Group    transport.GroupID  `json:"group"`
	ServerID string             `json:"server_id"`
	Reason   string             `json:"reason"`
}

// AllocateProducerIDs reserves Count producer IDs, beginning at Result.FirstProducerID, for the broker that proposes it.
type AllocateProducerIDs struct {
	Count int64 `json:"count"`
}

// commandVersion is the format version of an encoded command.
const commandVersion = 1

// envelope is a command as the log has it, behind one byte of version.
type envelope struct {
	// Request is random, and the same in every attempt to propose the command: the state machine applies one only once.
	Request string          `json:"request"`
	Kind    string          `json:"kind"`
	Body    json.RawMessage `json:"body"`
}

// kinds makes an empty command of each kind to decode into.
var kinds = map[string]func() Command{
	"init-cluster":       func() Command { return &InitCluster{} },
	"register-broker":    func() Command { return &RegisterBroker{} },
	"mark-away":          func() Command { return &MarkAway{} },
	"set-draining":       func() Command { return &SetDraining{} },
	"remove-broker":      func() Command { return &RemoveBroker{} },
	"set-rebalance":      func() Command { return &SetRebalance{} },
	"create-topic":       func() Command { return &CreateTopic{} },
	"alter-topic":        func() Command { return &AlterTopic{} },
	"grow-topic":         func() Command { return &GrowTopic{} },
	"delete-topic":       func() Command { return &DeleteTopic{} },
	"set-replicas":       func() Command { return &SetReplicas{} },
	"reassign":           func() Command { return &Reassign{} },
	"alter-broker":       func() Command { return &AlterBroker{} },
	"report":             func() Command { return &Report{} },
	"quarantine-replica": func() Command { return &QuarantineReplica{} },
	"allocate-producers": func() Command { return &AllocateProducerIDs{} },
}

func (*InitCluster) kind() string         { return "init-cluster" }
func (*RegisterBroker) kind() string      { return "register-broker" }
func (*MarkAway) kind() string            { return "mark-away" }
func (*SetDraining) kind() string         { return "set-draining" }
func (*RemoveBroker) kind() string        { return "remove-broker" }
func (*SetRebalance) kind() string        { return "set-rebalance" }
func (*CreateTopic) kind() string         { return "create-topic" }
func (*AlterTopic) kind() string          { return "alter-topic" }
func (*GrowTopic) kind() string           { return "grow-topic" }
func (*DeleteTopic) kind() string         { return "delete-topic" }
func (*SetReplicas) kind() string         { return "set-replicas" }
func (*Report) kind() string              { return "report" }
func (*QuarantineReplica) kind() string   { return "quarantine-replica" }
func (*AllocateProducerIDs) kind() string { return "allocate-producers" }

// encodeCommand makes the log entry of a command.
func encodeCommand(request string, c Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("metadata: encode %s: %w", c.kind(), err)
	}
	data, err := json.Marshal(envelope{Request: request, Kind: c.kind(), Body: body})
	if err != nil {
		return nil, fmt.Errorf("metadata: encode %s: %w", c.kind(), err)
	}
	return append([]byte{commandVersion}, data...), nil
}

// decodeCommand is the reverse. The request is returned even where the kind is unknown.
func decodeCommand(data []byte) (request string, c Command, err error) {
	if len(data) == 0 {
		return "", nil, fmt.Errorf("%w: empty command", ErrMalformed)
	}
	if data[0] != commandVersion {
		return "", nil, fmt.Errorf("%w: command version %d, this release knows %d", ErrNewerFormat, data[0], commandVersion)
	}
	var e envelope
	if err := json.Unmarshal(data[1:], &e); err != nil {
		return "", nil, fmt.Errorf("%w: command: %w", ErrMalformed, err)
	}
	makeCommand := kinds[e.Kind]
	if makeCommand == nil {
		return e.Request, nil, fmt.Errorf("%w: unknown command %q", ErrNewerFormat, e.Kind)
	}
	c = makeCommand()
	if err := json.Unmarshal(e.Body, c); err != nil {
		return e.Request, nil, fmt.Errorf("%w: command %s: %w", ErrMalformed, e.Kind, err)
	}
	return e.Request, c, nil
}
