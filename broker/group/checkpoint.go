package group

import (
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// A checkpoint is all groups, sorted by name, in the codec's terms:
//
//	byte     version (1)
//	uvarint  number of groups; each: uvarint length, fields
//
// Equal states give equal bytes.
const checkpointVersion = 1

func encodeCheckpoint(groups map[string]*group) []byte {
	b := []byte{checkpointVersion}
	b = putUint(b, uint64(len(groups)))
	var scratch []byte
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		scratch = putGroup(scratch[:0], groups[id])
		b = putBytes(b, scratch)
	}
	return b
}

func putGroup(b []byte, g *group) []byte {
	b = append(putString(b, g.id), byte(g.state))
	b = putStrings(b, g.protocolType, g.protocol, g.leader)
	b = putInt(b, int64(g.generation))
	b = putUint(b, g.round)
	b = putBool(putBool(b, g.initial), g.newcomer)
	b = putInt(putInt(b, g.phaseSince), g.emptySince)
	b = putUint(b, g.nextSeq)
	b = putList(b, g.sorted(), putMember)
	b = putUint(b, uint64(len(g.pending)))
	for _, id := range slices.Sorted(maps.Keys(g.pending)) {
		b = putInt(putString(b, id), int64(g.pending[id]))
	}
	return putGroupOffsets(b, g)
}

func putMember(b []byte, m *member) []byte {
	b = putStrings(b, m.id, m.instanceID, m.clientID, m.clientHost)
	b = putUint(b, m.seq)
	b = putInt(putInt(b, int64(m.sessionMs)), int64(m.rebalanceMs))
	b = putBool(putBool(b, m.native), m.joined)
	b = putList(b, m.protocols, putProtocol)
	return putBytes(b, m.assignment)
}

func putGroupOffsets(b []byte, g *group) []byte {
	b = putUint(b, uint64(g.offsetCount))
	last := ""
	g.eachOffset(func(tp api.TopicPartition, o offset) {
		topic := tp.Topic
		if topic == last {
			topic = ""
		} else {
			last = topic
		}
		b = putInt(putString(b, topic), int64(tp.Partition))
		b = putInt(putInt(putInt(b, int64(o.offset)), int64(o.leaderEpoch)), o.commitTime)
		b = putString(b, o.metadata)
	})
	return b
}

// decodeCheckpoint checks the invariants that the steps rely on.
func decodeCheckpoint(b []byte) (map[string]*group, error) {
	r := &reader{b: b}
	if v := r.byte(); v > checkpointVersion {
		return nil, fmt.Errorf("%w: checkpoint version %d", ErrNewerFormat, v)
	} else if v == 0 {
		return nil, fmt.Errorf("%w: checkpoint version 0", ErrMalformed)
	}
	groups := map[string]*group{}
	for range r.count(2) {
		in := &reader{b: r.raw()}
		g := in.group()
		if err := in.end(); err != nil {
			return nil, err
		}
		if r.err != nil || groups[g.id] != nil {
			r.fail("a group twice")
			return nil, r.err
		}
		groups[g.id] = g
	}
	return groups, r.end()
}

func (r *reader) group() *group {
	g := newGroup(r.string())
	g.state = State(r.byte())
	g.protocolType, g.protocol, g.leader = r.string(), r.string(), r.string()
	g.generation = r.int32()
	g.round = r.uint()
	g.initial, g.newcomer = r.bool(), r.bool()
	g.phaseSince, g.emptySince = r.int(), r.int()
	g.nextSeq = r.uint()
	for _, m := range getList(r, 11, r.member) {
		r.admit(g, m)
	}
	for range r.count(2) {
		g.pending[r.string()] = r.int32()
	}
	r.groupOffsets(g)
	g.recount()
	r.checkGroup(g)
	return g
}

func (r *reader) member() *member {
	return &member{
		id: r.string(), instanceID: r.string(), clientID: r.string(), clientHost: r.string(), seq: r.uint(),
		sessionMs: r.int32(), rebalanceMs: r.int32(), native: r.bool(), joined: r.bool(),
		protocols: getList(r, 2, r.protocol), assignment: r.bytes(),
	}
}

func (r *reader) admit(g *group, m *member) {
	if g.members[m.id] != nil || m.seq >= g.nextSeq || (m.instanceID != "" && g.static[m.instanceID] != "") {
		r.fail("members that cannot be together")
		return
	}
	g.members[m.id] = m
	if m.instanceID != "" {
		g.static[m.instanceID] = m.id
	}
}

func (r *reader) groupOffsets(g *group) {
	last := ""
	for range r.count(6) {
		if topic := r.string(); topic != "" {
			last = topic
		}
		tp := api.TopicPartition{Topic: last, Partition: r.int32()}
		o := offset{offset: record.Offset(r.int()), leaderEpoch: r.int32(), commitTime: r.int(), metadata: r.string()}
		if r.err != nil {
			return
		}
		g.setOffset(tp, o)
	}
}

func (r *reader) checkGroup(g *group) {
	switch {
	case r.err != nil:
	case g.state >= Dead:
		r.fail("a group in a state that does not exist")
	case g.state == Empty && len(g.members) > 0:
		r.fail("an empty group with members")
	case len(g.members) > 0 && g.members[g.leader] == nil:
		r.fail("a leader who is no member")
	case (g.state == CompletingRebalance || g.state == Stable) && len(g.members) == 0:
		r.fail("a generation without members")
	}
}
