package group

import (
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// A command is one proposal: limits and a batch of events, applied one after the other.
//
//	byte     0xE0 | version (1)
//	uvarint  limits: groups, members, offsets, state bytes
//	uvarint  number of events; each: kind byte, uvarint length, payload
//
// The first byte is 0x80 or more, so the log never takes a command for a record batch.
const (
	commandBase    = 0xE0
	commandVersion = 1
)

// encodeCommand makes a command of encoded events (see encodeEvent).
func encodeCommand(l Limits, events [][]byte) []byte {
	size := 64
	for _, e := range events {
		size += len(e)
	}
	b := make([]byte, 0, size)
	b = append(b, commandBase|commandVersion)
	b = putUint(b, uint64(l.GroupsMax))
	b = putUint(b, uint64(l.MembersMax))
	b = putUint(b, uint64(l.OffsetsMax))
	b = putUint(b, uint64(l.StateBytesMax))
	b = putUint(b, uint64(len(events)))
	for _, e := range events {
		b = append(b, e...)
	}
	return b
}

// EncodeCommand encodes events for a proposal.
func EncodeCommand(l Limits, events ...Event) []byte {
	encoded := make([][]byte, 0, len(events))
	for _, ev := range events {
		encoded = append(encoded, encodeEvent(ev))
	}
	return encodeCommand(l, encoded)
}

// DecodeCommand is EncodeCommand's inverse. ErrMalformed, ErrNewerFormat.
func DecodeCommand(b []byte) (Limits, []Event, error) {
	r := &reader{b: b}
	first := r.byte()
	switch {
	case r.err != nil || first&0xF0 != commandBase:
		return Limits{}, nil, fmt.Errorf("%w: not a group command", ErrMalformed)
	case first&0x0F > commandVersion:
		return Limits{}, nil, fmt.Errorf("%w: command version %d", ErrNewerFormat, first&0x0F)
	case first&0x0F == 0:
		return Limits{}, nil, fmt.Errorf("%w: command version 0", ErrMalformed)
	}
	l := Limits{GroupsMax: r.limit(), MembersMax: r.limit(), OffsetsMax: r.limit(), StateBytesMax: int64(r.limit())}
	events := getList(r, 2, r.event)
	return l, events, r.end()
}

// IsBarrier says whether a command is but the Barrier with which a coordinator begins.
func IsBarrier(cmd []byte) bool {
	if len(cmd) > barrierSizeMax { // cheap for all others
		return false
	}
	_, events, err := DecodeCommand(cmd)
	if err != nil || len(events) != 1 {
		return false
	}
	_, ok := events[0].(*Barrier)
	return ok
}

// barrierSizeMax is above the size of an encoded Barrier with any Limits.
const barrierSizeMax = 64

func (r *reader) limit() int {
	v := r.uint()
	if v > math.MaxInt64 {
		r.fail("limit out of range")
		return 0
	}
	return int(v)
}

// encodeEvent writes an event with its kind and length.
func encodeEvent(ev Event) []byte {
	payload := payloadOf(ev)
	b := make([]byte, 0, len(payload)+8)
	b = append(b, byte(ev.kind()))
	return putBytes(b, payload)
}

func payloadOf(ev Event) []byte {
	var b []byte
	switch e := ev.(type) {
	case *Join:
		return e.payload()
	case *Sync:
		return e.payload()
	case *Leave:
		return putStrings(b, e.Group, e.MemberID, e.InstanceID)
	case *ExpireMember:
		return putStrings(b, e.Group, e.MemberID)
	case *JoinDeadline:
		return putUint(putString(b, e.Group), e.Round)
	case *SyncDeadline:
		return putList(putInt(putString(b, e.Group), int64(e.Generation)), e.Missing, putString)
	case *Rebalance:
		return putString(putInt(putString(b, e.Group), int64(e.Generation)), e.Reason)
	case *Commit:
		b = putInt(putStrings(b, e.Group, e.MemberID, e.InstanceID), int64(e.Generation))
		return putOffsets(b, e.Offsets)
	case *SetOffsets:
		return putOffsets(putString(b, e.Group), e.Offsets)
	case *Forget:
		return putOffsets(putString(b, e.Group), e.Offsets)
	case *Delete:
		return putString(b, e.Group)
	case *ExpireOffsets:
		return putInt(b, e.RetentionMs)
	}
	return b // Barrier
}

func putStrings(b []byte, ss ...string) []byte {
	for _, s := range ss {
		b = putString(b, s)
	}
	return b
}

func (e *Join) payload() []byte {
	b := putStrings(nil, e.Group, e.MemberID, e.NewID, e.InstanceID, e.ClientID, e.ClientHost)
	b = putInt(b, int64(e.SessionMs))
	b = putInt(b, int64(e.RebalanceMs))
	b = putString(b, e.ProtocolType)
	b = putList(b, e.Protocols, putProtocol)
	b = putBool(b, e.RequireMemberID)
	return putBool(b, e.Native)
}

func putProtocol(b []byte, p api.GroupProtocol) []byte {
	return putBytes(putString(b, p.Name), p.Metadata)
}

func (e *Sync) payload() []byte {
	b := putInt(putStrings(nil, e.Group, e.MemberID, e.InstanceID), int64(e.Generation))
	b = putStrings(b, e.ProtocolType, e.Protocol)
	return putList(b, e.Assignments, func(b []byte, a MemberAssignment) []byte {
		return putBytes(putString(b, a.MemberID), a.Assignment)
	})
}

// putOffsets writes a topic's name once for consecutive offsets of the same topic: an empty name means "as before".
func putOffsets(b []byte, offsets []api.OffsetCommit) []byte {
	last := ""
	return putList(b, offsets, func(b []byte, o api.OffsetCommit) []byte {
		topic := o.Topic
		if topic == last {
			topic = ""
		} else {
			last = topic
		}
		b = putInt(putString(b, topic), int64(o.Partition))
		b = putInt(putInt(b, int64(o.Offset)), int64(o.LeaderEpoch))
		return putString(b, o.Metadata)
	})
}

func (r *reader) event() Event {
	kind := eventKind(r.byte())
	payload := &reader{b: r.raw()}
	ev := payload.payload(kind)
	switch {
	case r.err != nil:
	case ev == nil:
		r.err = fmt.Errorf("%w: event kind %d", ErrNewerFormat, kind)
	case payload.end() != nil:
		r.err = payload.err
	}
	return ev
}

func (r *reader) payload(kind eventKind) Event {
	switch kind {
	case kindJoin:
		return r.join()
	case kindSync:
		return r.sync()
	case kindLeave:
		return &Leave{Group: r.string(), MemberID: r.string(), InstanceID: r.string()}
	case kindExpireMember:
		return &ExpireMember{Group: r.string(), MemberID: r.string()}
	case kindJoinDeadline:
		return &JoinDeadline{Group: r.string(), Round: r.uint()}
	case kindSyncDeadline:
		return &SyncDeadline{Group: r.string(), Generation: r.int32(), Missing: getList(r, 1, r.string)}
	case kindRebalance:
		return &Rebalance{Group: r.string(), Generation: r.int32(), Reason: r.string()}
	case kindCommit:
		return &Commit{Group: r.string(), MemberID: r.string(), InstanceID: r.string(), Generation: r.int32(), Offsets: r.offsets()}
	case kindSetOffsets:
		return &SetOffsets{Group: r.string(), Offsets: r.offsets()}
	case kindDelete:
		return &Delete{Group: r.string()}
	case kindExpireOffsets:
		return &ExpireOffsets{RetentionMs: r.int()}
	case kindForget:
		return &Forget{Group: r.string(), Offsets: r.offsets()}
	case kindBarrier:
		return &Barrier{}
	}
	return nil
}

func (r *reader) join() *Join {
	return &Join{
		Group: r.string(), MemberID: r.string(), NewID: r.string(), InstanceID: r.string(), ClientID: r.string(), ClientHost: r.string(),
		SessionMs: r.int32(), RebalanceMs: r.int32(), ProtocolType: r.string(), Protocols: getList(r, 2, r.protocol),
		RequireMemberID: r.bool(), Native: r.bool(),
	}
}

func (r *reader) protocol() api.GroupProtocol {
	return api.GroupProtocol{Name: r.string(), Metadata: r.bytes()}
}

func (r *reader) sync() *Sync {
	return &Sync{
		Group: r.string(), MemberID: r.string(), InstanceID: r.string(), Generation: r.int32(), ProtocolType: r.string(), Protocol: r.string(),
		Assignments: getList(r, 2, func() MemberAssignment {
			return MemberAssignment{MemberID: r.string(), Assignment: r.bytes()}
		}),
	}
}

func (r *reader) offsets() []api.OffsetCommit {
	last := ""
	return getList(r, 5, func() api.OffsetCommit {
		if topic := r.string(); topic != "" {
			last = topic
		}
		return api.OffsetCommit{
			TopicPartition: api.TopicPartition{Topic: last, Partition: r.int32()},
			Offset:         record.Offset(r.int()), LeaderEpoch: r.int32(), Metadata: r.string(),
		}
	})
}
