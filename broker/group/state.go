package group

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// State is a phase in a group's life. Its names are Kafka's.
type State uint8

// The states. README.md has the picture.
const (
	// Empty: no members. The group lives on while it has committed offsets.
	Empty State = iota
	// PreparingRebalance: the join phase. Members are told by their heartbeats to join (again).
	PreparingRebalance
	// CompletingRebalance: the sync phase. A new generation exists and its leader works out the assignment.
	CompletingRebalance
	// Stable: all members have, or can get, their assignment.
	Stable
	// Dead: deleted. No group in a Machine is in this state.
	Dead
)

var stateNames = [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}

// String returns Kafka's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "Unknown"
}

// group is the replicated state of one group. Only a step changes it.
//
// Invariants: static holds exactly the members with an instance ID; leader is a member, or empty if there are none;
// joined members exist in PreparingRebalance only; a group that is Empty has no members.
type group struct {
	id           string
	state        State
	protocolType string
	protocol     string // chosen when the join phase ended; empty while Empty
	generation   int32
	leader       string
	// round names a join phase and its deadline: a JoinDeadline of another round comes too late and is ignored.
	round uint64
	// initial: the join phase began in Empty, so it also waits for members that nobody knows of yet.
	initial bool
	// newcomer: since the (extended) initial join phase began, somebody joined, so it is worth extending.
	newcomer bool
	// phaseSince and emptySince are Unix ms by the proposers' clocks.
	phaseSince, emptySince int64
	// nextSeq numbers members in the order of their first join.
	nextSeq uint64
	members map[string]*member
	static  map[string]string // instance ID -> member ID
	pending map[string]int32  // IDs handed out, not yet used (KIP-394) -> session timeout, ms
	offsets map[string]map[int32]offset

	// What follows is derived, not stored.

	offsetCount int
	offsetBytes int64
	memberBytes int64
	// fresh: the machine did not have the group before this event.
	fresh bool
}

// member is one member's replicated state.
type member struct {
	id, instanceID       string
	seq                  uint64
	clientID, clientHost string
	sessionMs            int32
	rebalanceMs          int32
	// native members leave the assignment to the coordinator.
	native    bool
	protocols []api.GroupProtocol // in the member's order of preference
	// joined: has called JoinGroup in the running join phase.
	joined     bool
	assignment []byte
}

// offset is a committed offset.
type offset struct {
	offset      record.Offset
	leaderEpoch int32
	commitTime  int64 // Unix ms
	metadata    string
}

func newGroup(id string) *group {
	return &group{
		id:      id,
		members: map[string]*member{},
		static:  map[string]string{},
		pending: map[string]int32{},
		offsets: map[string]map[int32]offset{},
	}
}

// sorted returns the members in the order in which they first joined.
func (g *group) sorted() []*member {
	ms := slices.Collect(maps.Values(g.members))
	slices.SortFunc(ms, func(a, b *member) int { return cmp.Compare(a.seq, b.seq) })
	return ms
}

func (g *group) allJoined() bool {
	for _, m := range g.members {
		if !m.joined {
			return false
		}
	}
	return len(g.pending) == 0
}

// rebalanceTimeout is how long the join and the sync phase wait: the longest that a member asked for.
func (g *group) rebalanceTimeout() time.Duration {
	var ms int32
	for _, m := range g.members {
		ms = max(ms, m.rebalanceMs)
	}
	return time.Duration(ms) * time.Millisecond
}

// metadata returns the member's subscription for a protocol; nil if it does not know it.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

func (m *member) supports(protocol string) bool {
	return slices.ContainsFunc(m.protocols, func(p api.GroupProtocol) bool { return p.Name == protocol })
}

// common says whether all members but except know the protocol.
func (g *group) common(protocol string, except *member) bool {
	for _, m := range g.members {
		if m != except && !m.supports(protocol) {
			return false
		}
	}
	return true
}

// choose picks the protocol that all members know and most prefer, as Kafka does; of several with as many votes the one that comes
// first in the leader's list (Kafka leaves that to chance). Empty if there is none.
func (g *group) choose() string {
	votes := map[string]int{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.common(p.Name, m) {
				votes[p.Name]++
				break
			}
		}
	}
	leader := g.members[g.leader]
	if leader == nil {
		return ""
	}
	best := ""
	for _, p := range leader.protocols {
		if votes[p.Name] > votes[best] {
			best = p.Name
		}
	}
	return best
}

// joinResult is what a member learns when the join phase has ended.
func (g *group) joinResult(m *member) api.JoinResult {
	res := api.JoinResult{
		MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader,
	}
	if m.id != g.leader {
		return res
	}
	for _, o := range g.sorted() {
		if o.supports(g.protocol) {
			res.Members = append(res.Members, api.JoinedMember{MemberID: o.id, InstanceID: o.instanceID, Metadata: o.metadata(g.protocol)})
		}
	}
	return res
}

func (g *group) offset(tp api.TopicPartition) (offset, bool) {
	o, ok := g.offsets[tp.Topic][tp.Partition]
	return o, ok
}

func (g *group) setOffset(tp api.TopicPartition, o offset) {
	ps := g.offsets[tp.Topic]
	if ps == nil {
		ps = map[int32]offset{}
		g.offsets[tp.Topic] = ps
		g.offsetBytes += topicBytes + int64(len(tp.Topic))
	}
	if old, ok := ps[tp.Partition]; ok {
		g.offsetBytes -= int64(len(old.metadata))
	} else {
		g.offsetCount++
		g.offsetBytes += offsetBytes
	}
	g.offsetBytes += int64(len(o.metadata))
	ps[tp.Partition] = o
}

func (g *group) dropOffset(tp api.TopicPartition) {
	ps := g.offsets[tp.Topic]
	old, ok := ps[tp.Partition]
	if !ok {
		return
	}
	delete(ps, tp.Partition)
	g.offsetCount--
	g.offsetBytes -= offsetBytes + int64(len(old.metadata))
	if len(ps) == 0 {
		delete(g.offsets, tp.Topic)
		g.offsetBytes -= topicBytes + int64(len(tp.Topic))
	}
}

// eachOffset visits the offsets in the order of topic and partition.
func (g *group) eachOffset(f func(tp api.TopicPartition, o offset)) {
	for _, topic := range slices.Sorted(maps.Keys(g.offsets)) {
		ps := g.offsets[topic]
		for _, p := range slices.Sorted(maps.Keys(ps)) {
			f(api.TopicPartition{Topic: topic, Partition: p}, ps[p])
		}
	}
}

// Estimated overheads in memory, in bytes. They are part of the replicated behaviour (a limit counts them): changing one needs a
// new command version.
const (
	groupBytes    = 512
	memberBytes   = 320
	pendingBytes  = 64
	protocolBytes = 48
	topicBytes    = 128
	offsetBytes   = 64
)

func (m *member) bytes() int64 {
	n := memberBytes + 2*len(m.id) + 2*len(m.instanceID) + len(m.clientID) + len(m.clientHost) + len(m.assignment)
	for _, p := range m.protocols {
		n += protocolBytes + len(p.Name) + len(p.Metadata)
	}
	return int64(n)
}

// recount brings memberBytes up to date after a change of membership.
func (g *group) recount() {
	n := groupBytes + int64(len(g.id))
	for _, m := range g.members {
		n += m.bytes()
	}
	for id := range g.pending {
		n += pendingBytes + int64(len(id))
	}
	g.memberBytes = n
}

func (g *group) bytes() int64 { return g.memberBytes + g.offsetBytes }

// worthKeeping is false for a group that an event looked at but left no trace in.
func (g *group) worthKeeping() bool {
	return g.state != Empty || g.generation > 0 || len(g.pending) > 0 || g.offsetCount > 0
}
