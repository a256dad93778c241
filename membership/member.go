package membership

import "time"

// Meta is what a broker tells about itself. It travels in every gossip message about the broker, within 512 bytes.
type Meta struct {
	ID int32 // the broker's ID, 0 or more
	// Incarnation names the broker's data directory.
	Incarnation string
	// ClusterID is empty for a broker that belongs to no cluster yet.
	ClusterID string
	// GRPCAddr and PeerAddr are host:port as others should use them.
	GRPCAddr, PeerAddr string
	// KafkaAddr is the same of the Kafka listener; empty for a broker without one.
	KafkaAddr string
	// KafkaListeners are those with names, NAME=host:port, separated by commas.
	KafkaListeners string
	Rack           string
	Version        string
	Bootstrap      Bootstrap
}

// Bootstrap is a broker's part in forming a new cluster.
type Bootstrap struct {
	Expect int     // how many brokers shall begin it; 0: none of its business
	Set    []int32 // the IDs that this broker would begin it with
}

// State is what gossip thinks of a member.
type State int8

// The states of a member.
const (
	Alive  State = iota + 1
	Failed       // not heard of any more
	Left         // said goodbye
)

// Member is a broker as gossip knows it.
type Member struct {
	Meta
	GossipAddr string // host:port
	State      State
	// Since is when this broker learnt of State, by its own clock.
	Since time.Time
}

// EventType says what happened to a member.
type EventType int8

// The types of event.
const (
	EventJoined EventType = iota + 1 // new, or back
	EventLeft
	EventFailed
	EventUpdated // its Meta or address changed
)

// Event is a change of one member. Several changes in quick succession may be reported as one.
type Event struct {
	Type   EventType
	Member Member
}
