package metadata

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// Group is the Raft group of the metadata itself. Partitions get IDs from 1.
const Group transport.GroupID = 0

// State is the cluster's metadata after some command. It is never changed once published: read it without locks, keep it as
// long as you like, and do not modify anything reachable from it.
type State struct {
	// ClusterID is empty only before the cluster's very first command.
	ClusterID string `json:"cluster_id"`
	// Version is the Raft index of the last command that changed anything.
	Version uint64 `json:"version"`
	// NextGroup is the ID that the next partition gets. All IDs below it have been given out, and none is ever reused: a group
	// below it that no partition has is that of a deleted partition (see GroupDeleted).
	NextGroup transport.GroupID `json:"next_group"`
	// NextProducerID is the first producer ID not yet allocated to a broker; the very first is 1.
	NextProducerID int64 `json:"next_producer_id"`
	// Rebalance asks the controller to spread replicas and leaders evenly; it clears the flag when nothing is left to do.
	Rebalance bool `json:"rebalance,omitempty"`
	// BrokerSettings is what was set at run time: by broker ID in decimal, and for all brokers under "". See SetAt.
	BrokerSettings map[string]map[string]string `json:"broker_settings,omitempty"`

	Brokers map[api.BrokerID]*Broker `json:"brokers"`
	Topics  map[string]*Topic        `json:"topics"`
}

// Broker is what the cluster has on record about a broker.
type Broker struct {
	ID api.BrokerID `json:"id"`
	// Incarnation names the broker's data directory. It contains no '-'.
	Incarnation string `json:"incarnation"`
	GRPCAddr    string `json:"grpc_addr"`
	PeerAddr    string `json:"peer_addr"`
	GossipAddr  string `json:"gossip_addr"`
	KafkaAddr   string `json:"kafka_addr,omitempty"`
	// KafkaListeners are those with names, NAME=host:port, separated by commas.
	KafkaListeners string `json:"kafka_listeners,omitempty"`
	Rack           string `json:"rack,omitempty"`
	Version        string `json:"version,omitempty"`
	// Draining: an operator decommissioned the broker.
	Draining bool `json:"draining,omitempty"`
	// AwaySinceMs is when the controller saw the broker go, in Unix ms; 0 while it is there.
	AwaySinceMs int64 `json:"away_since_ms,omitempty"`
	// Left: it said goodbye when it went.
	Left bool `json:"left,omitempty"`
}

// Kind says what a topic's partitions run besides the log.
type Kind string

// The kinds of topic.
const (
	KindData        Kind = "data"
	KindCoordinator Kind = "coordinator" // consumer groups
)

// Topic is a topic with its partitions, which are in order: Partitions[i].Partition == i.
type Topic struct {
	Name              string            `json:"name"`
	ID                [16]byte          `json:"id"`
	Internal          bool              `json:"internal,omitempty"`
	Kind              Kind              `json:"kind"`
	ReplicationFactor int16             `json:"replication_factor"`
	Settings          map[string]string `json:"settings,omitempty"` // only those set
	Partitions        []*Partition      `json:"partitions"`
}

// Partition is one partition's assignment and what its leader last reported.
type Partition struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Group     transport.GroupID `json:"group"`
	// Replicas is what should be; [0] is the preferred leader.
	Replicas []Replica `json:"replicas"`
	// Initial are the replicas that the partition was created with. A broker bootstraps the Raft group with exactly this list, and
	// only as one of these very servers.
	Initial []Replica `json:"initial"`
	// Voters is what is: the voters of the group's latest configuration, as its leader reported them; Initial before the first report.
	Voters []Replica `json:"voters"`
	// Former are replicas that were desired since the voters last were those desired, and are no more: a leader may make, or have made, them voters without a report of it. There are no more
	// of them than brokers.
	Former []Replica `json:"former,omitempty"`
	// Leader is the reported leader, api.NoBroker before the first report or after a report of its loss.
	Leader api.BrokerID `json:"leader"`
	// LeaderEpoch is the Raft term of the last report.
	LeaderEpoch int32 `json:"leader_epoch"`
	// Quarantined are replicas whose files are damaged, as long as they are Known.
	Quarantined []Quarantine `json:"quarantined,omitempty"`
	// Generation is the last one used in a replica's name.
	Generation int32 `json:"generation"`
	// Reassignment, if not nil, is where an operator wants the replicas.
	Reassignment *Reassignment `json:"reassignment,omitempty"`
	// ByHand: an operator chose the brokers, so only an operator's rebalance moves replicas that are well.
	ByHand bool `json:"by_hand,omitempty"`
	// Revision counts the changes of Replicas and Reassignment.
	Revision uint64 `json:"revision"`
	// Settled is the Revision that the leader knew when it last reported that Voters are those desired. See Surplus.
	Settled uint64 `json:"settled"`
}

// Replica is one replica of a partition.
type Replica struct {
	Broker api.BrokerID `json:"broker"`
	// ServerID is the replica's Raft server ID, see ParseServerID.
	ServerID string `json:"server_id"`
}

// Quarantine says why a replica's files cannot be used.
type Quarantine struct {
	Replica
	Reason string `json:"reason"`
}

// ServerAddress is a broker's Raft address: its ID in decimal. The transport resolves it through the broker registry.
func ServerAddress(id api.BrokerID) raft.ServerAddress {
	return raft.ServerAddress(strconv.Itoa(int(id)))
}

// ParseServerAddress is the reverse of ServerAddress.
func ParseServerAddress(addr raft.ServerAddress) (api.BrokerID, bool) {
	n, err := strconv.ParseInt(string(addr), 10, 32)
	if err != nil || n < 0 {
		return api.NoBroker, false
	}
	return api.BrokerID(n), true
}

// ServerID makes a replica's name.
func ServerID(broker api.BrokerID, incarnation string, generation int32) string {
	return strconv.Itoa(int(broker)) + "-" + incarnation + "-" + strconv.Itoa(int(generation))
}

// ParseServerID takes a replica's name apart. It is asked about all replicas at each change of the metadata, and so allocates nothing.
func ParseServerID(id string) (broker api.BrokerID, incarnation string, generation int32, ok bool) {
	number, rest, _ := strings.Cut(id, "-")
	incarnation, count, _ := strings.Cut(rest, "-")
	if incarnation == "" || count == "" || strings.Contains(count, "-") {
		return api.NoBroker, "", 0, false
	}
	broker, ok = ParseServerAddress(raft.ServerAddress(number))
	g, err := strconv.ParseInt(count, 10, 32)
	return broker, incarnation, int32(g), ok && err == nil && g > 0
}

// Server is the replica as Raft's configuration has it, as a voter.
func (r Replica) Server() raft.Server {
	return raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(r.ServerID), Address: ServerAddress(r.Broker)}
}

// Servers converts replicas to Raft servers, all voters.
func Servers(replicas []Replica) []raft.Server {
	out := make([]raft.Server, len(replicas))
	for i, r := range replicas {
		out[i] = r.Server()
	}
	return out
}

// BrokerIDs lists the brokers of replicas, in order.
func BrokerIDs(replicas []Replica) []api.BrokerID {
	out := make([]api.BrokerID, len(replicas))
	for i, r := range replicas {
		out[i] = r.Broker
	}
	return out
}

// Find returns the partition, or nil.
func (s *State) Find(tp api.TopicPartition) *Partition {
	t := s.Topics[tp.Topic]
	if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.Partitions) {
		return nil
	}
	return t.Partitions[tp.Partition]
}

// SortedTopics returns all topics by name.
func (s *State) SortedTopics() []*Topic {
	out := make([]*Topic, 0, len(s.Topics))
	for _, t := range s.Topics {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// SortedBrokers returns all brokers by ID.
func (s *State) SortedBrokers() []*Broker {
	out := make([]*Broker, 0, len(s.Brokers))
	for _, b := range s.Brokers {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *Broker) int { return int(a.ID) - int(b.ID) })
	return out
}

// PartitionCount counts the partitions of all topics.
func (s *State) PartitionCount() int {
	n := 0
	for _, t := range s.Topics {
		n += len(t.Partitions)
	}
	return n
}

// GroupDeleted says that the group's partition was deleted, so that its files may go. It is safe to ask a State that lags behind: a group
// that is not known yet is at or above NextGroup. groups is the set of groups of all partitions, as Groups returns it.
func (s *State) GroupDeleted(id transport.GroupID, groups map[transport.GroupID]*Partition) bool {
	return id != Group && id < s.NextGroup && groups[id] == nil
}

// Groups maps Raft groups to partitions.
func (s *State) Groups() map[transport.GroupID]*Partition {
	out := make(map[transport.GroupID]*Partition, s.PartitionCount())
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			out[p.Group] = p
		}
	}
	return out
}

// TP names the partition.
func (p *Partition) TP() api.TopicPartition {
	return api.TopicPartition{Topic: p.Topic, Partition: p.Partition}
}

// String is "topic/partition", as messages have it.
func (p *Partition) String() string { return p.Topic + "/" + strconv.Itoa(int(p.Partition)) }

// Local returns the replica that the broker, in this incarnation, should have open: the desired one, else the one that still votes.
// Both can exist at once when the broker got a fresh name; then the desired one counts.
func (p *Partition) Local(broker api.BrokerID, incarnation string) (Replica, bool) {
	for _, list := range [][]Replica{p.Replicas, p.Voters} {
		for _, r := range list {
			if r.of(broker, incarnation) && !p.IsQuarantined(r.ServerID) {
				return r, true
			}
		}
	}
	return Replica{}, false
}

// Known lists the replicas that may have a vote, or shall: those desired, the reported voters, and those desired in between. It may name one twice.
func (p *Partition) Known() []Replica { return slices.Concat(p.Replicas, p.Voters, p.Former) }

// On says whether the broker has one of the replicas that may have a vote, or shall.
func (p *Partition) On(id api.BrokerID) bool { return hasBroker(p.Known(), id) }

// Usable is the replica that a broker, in an incarnation, has already, if its files are there and undamaged as far as is known. A desired replica on that broker is this one:
// a fresh one would take its place, with its vote and what it acknowledged, and the group may need them for its quorum.
func (p *Partition) Usable(broker api.BrokerID, incarnation string) (Replica, bool) {
	for _, r := range p.Known() {
		if r.of(broker, incarnation) && !p.IsQuarantined(r.ServerID) {
			return r, true
		}
	}
	return Replica{}, false
}

func (r Replica) of(broker api.BrokerID, incarnation string) bool {
	b, inc, _, ok := ParseServerID(r.ServerID)
	return ok && b == broker && inc == incarnation
}

// Bootstraps says whether the replica is one of those that the group starts with.
func (p *Partition) Bootstraps(serverID string) bool { return contains(p.Initial, serverID) }

// IsQuarantined says whether the replica was reported as damaged.
func (p *Partition) IsQuarantined(serverID string) bool {
	return slices.ContainsFunc(p.Quarantined, func(q Quarantine) bool { return q.ServerID == serverID })
}

// Surplus says that the replica's files may be deleted: the name was given out once (so this State does not merely lag behind), it is not
// desired, it does not vote, and the leader that reported so knew that it is not desired, and thus will not make it a voter any more.
func (p *Partition) Surplus(serverID string) bool {
	_, _, generation, ok := ParseServerID(serverID)
	return ok && generation <= p.Generation && p.Settled == p.Revision &&
		!contains(p.Replicas, serverID) && !contains(p.Voters, serverID)
}

// Moving says that the voters are not (yet) those desired.
func (p *Partition) Moving() bool { return !SameReplicas(p.Voters, p.Replicas) }

func contains(list []Replica, serverID string) bool {
	return slices.ContainsFunc(list, func(r Replica) bool { return r.ServerID == serverID })
}

// SameReplicas compares as sets.
func SameReplicas(a, b []Replica) bool {
	if len(a) != len(b) {
		return false
	}
	for _, r := range a {
		if !contains(b, r.ServerID) {
			return false
		}
	}
	return true
}
