package group

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

// oneOfEach has all fields of all events set.
func oneOfEach() []Event {
	tp := api.TopicPartition{Topic: "t", Partition: 3}
	offsets := []api.OffsetCommit{
		{TopicPartition: tp, Offset: 1 << 40, LeaderEpoch: 7, Metadata: "m"},
		{TopicPartition: api.TopicPartition{Topic: "t", Partition: 4}, Offset: 0, LeaderEpoch: -1},
		{TopicPartition: api.TopicPartition{Topic: "u", Partition: 0}, Offset: -1, LeaderEpoch: -1},
	}
	return []Event{
		&Join{"g", "m", "n", "i", "c", "h", 1000, 2000, "consumer", []api.GroupProtocol{{Name: "range", Metadata: []byte{1, 2}}, {Name: "x"}}, true, true},
		&Sync{"g", "m", "i", 4, "consumer", "range", []MemberAssignment{{"m", []byte{9}}, {"n", nil}}},
		&Leave{"g", "m", "i"},
		&ExpireMember{"g", "m"},
		&JoinDeadline{"g", 12},
		&SyncDeadline{"g", 3, []string{"a", "b"}},
		&Rebalance{"g", 3, "because"},
		&Commit{"g", "m", "i", -1, offsets},
		&SetOffsets{"g", offsets}, &Forget{"g", offsets},
		&Delete{"g"},
		&ExpireOffsets{1 << 33},
		&Barrier{},
	}
}

func TestCommandRoundTrip(t *testing.T) {
	limits := Limits{GroupsMax: 1, MembersMax: 2, OffsetsMax: 3, StateBytesMax: 1 << 40}
	want := oneOfEach()
	if len(want) != int(kindForget) {
		t.Fatalf("oneOfEach has %d events of %d kinds", len(want), kindForget)
	}
	b := EncodeCommand(limits, want...)
	if b[0] < 0x80 {
		t.Fatalf("first byte %#x: the log would take the command for a batch", b[0])
	}
	gotLimits, got, err := DecodeCommand(b)
	if err != nil || gotLimits != limits || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v %+v %v", gotLimits, got, err)
	}
}

func TestCommandCutOrLonger(t *testing.T) {
	b := EncodeCommand(Limits{}, oneOfEach()...)
	for n := range b {
		if _, _, err := DecodeCommand(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, _, err := DecodeCommand(append(b, 0)); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a byte too many: %v", err)
	}
}

// TestDecodedEventsDoNotKeepTheCommand: a command lies in the log's cache and must not be kept alive, nor may its reuse change groups.
func TestDecodedEventsDoNotKeepTheCommand(t *testing.T) {
	b := EncodeCommand(Limits{}, oneOfEach()...)
	_, got, err := DecodeCommand(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, oneOfEach()) {
		t.Fatal("events changed with the command's bytes")
	}
}

// TestNewerCommandStopsTheMachine: going on without a command that others applied would make replicas differ.
func TestNewerCommandStopsTheMachine(t *testing.T) {
	newerVersion := EncodeCommand(Limits{}, &Barrier{})
	newerVersion[0]++
	newerKind := encodeCommand(Limits{}, [][]byte{{200, 0}})
	for name, cmd := range map[string][]byte{"version": newerVersion, "event kind": newerKind} {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(nil)
			good := checkpoint(t, m)
			if err, ok := m.Apply(cmd, time.Now(), 1).(error); !ok || !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("apply: %v", err)
			}
			if _, err := m.Checkpoint(); !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("checkpoint: %v", err)
			}
			if _, ok := m.Apply(EncodeCommand(Limits{}, &Barrier{}), time.Now(), 2).(error); !ok {
				t.Fatal("it went on")
			}
			if err := m.Restore(good); err != nil || m.err() != nil {
				t.Fatalf("restore: %v, %v", err, m.err())
			}
		})
	}
}

func TestMalformedCommandChangesNothing(t *testing.T) {
	m := NewMachine(nil)
	for _, cmd := range [][]byte{nil, {0}, {0xE0}, {0xE1}, {0xF1, 0}, {0xE1, 0, 0, 0, 0, 1, byte(kindDelete), 9}} {
		if err, ok := m.Apply(cmd, time.Now(), 1).(error); !ok || !errors.Is(err, ErrMalformed) {
			t.Fatalf("%x: %v", cmd, err)
		}
	}
	if _, ok := m.Apply(EncodeCommand(Limits{}, &Barrier{}), time.Now(), 2).([]Result); !ok {
		t.Fatal("it stopped")
	}
}

func TestCheckpointRefused(t *testing.T) {
	m := NewMachine(nil)
	m.Apply(EncodeCommand(Limits{}, &Commit{Group: "g", Generation: -1, Offsets: []api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "t"}, Offset: 1}}}), time.Now(), 1)
	b := checkpoint(t, m)
	for n := 1; n < len(b); n++ {
		if err := NewMachine(nil).Restore(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	newer := bytes.Clone(b)
	newer[0]++
	if err := m.Restore(newer); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("newer: %v", err)
	}
	if !bytes.Equal(checkpoint(t, m), b) {
		t.Fatal("a refused checkpoint changed the machine")
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(EncodeCommand(Limits{MembersMax: 3}, oneOfEach()...))
	for _, ev := range oneOfEach() {
		f.Add(EncodeCommand(Limits{}, ev))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMachine(nil)
		m.Apply(EncodeCommand(Limits{}, &Join{Group: "g", NewID: "m", ProtocolType: "consumer", Protocols: []api.GroupProtocol{{Name: "range"}}}), time.UnixMilli(0), 1)
		m.Apply(b, time.UnixMilli(5), 2)
		limits, events, err := DecodeCommand(b)
		if err != nil {
			return
		}
		again, same, err := DecodeCommand(EncodeCommand(limits, events...))
		if err != nil || again != limits || !reflect.DeepEqual(same, events) {
			t.Fatalf("%+v became %+v (%v)", events, same, err)
		}
		restored(t, m)
	})
}

func FuzzCheckpoint(f *testing.F) {
	m := NewMachine(nil)
	m.Apply(EncodeCommand(Limits{}, oneOfEach()...), time.UnixMilli(5), 1)
	m.Apply(EncodeCommand(Limits{}, &Join{Group: "h", NewID: "m", InstanceID: "i", ProtocolType: "consumer", Protocols: []api.GroupProtocol{{Name: "range"}}}), time.UnixMilli(5), 1)
	b, _ := m.Checkpoint()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMachine(nil)
		if m.Restore(b) != nil {
			return
		}
		first := checkpoint(t, m)
		if !bytes.Equal(checkpoint(t, restored(t, m)), first) {
			t.Fatal("a checkpoint changes in a round trip")
		}
		for _, ev := range oneOfEach() { // whatever it holds, the steps cope with it
			m.Apply(EncodeCommand(Limits{}, ev), time.UnixMilli(9), 1)
		}
	})
}

func TestIsBarrier(t *testing.T) {
	l := Limits{GroupsMax: math.MaxInt32, MembersMax: math.MaxInt32, OffsetsMax: math.MaxInt32, StateBytesMax: math.MaxInt64}
	for _, x := range []struct {
		cmd  []byte
		want bool
	}{
		{EncodeCommand(l, &Barrier{}), true},
		{EncodeCommand(Limits{}, &Barrier{}), true},
		{EncodeCommand(l, &Barrier{}, &Barrier{}), false},
		{EncodeCommand(l, &ExpireOffsets{RetentionMs: 1}), false},
		{[]byte{commandBase | commandVersion}, false},
		{nil, false},
	} {
		if got := IsBarrier(x.cmd); got != x.want {
			t.Errorf("%x: %v", x.cmd, got)
		}
	}
}
