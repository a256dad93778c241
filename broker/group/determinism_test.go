package group

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
	"github.com/flotilla-log/flotilla/proto/record"
)

// randomEvents makes events that mostly fit the machine's state, so that they get deep.
type randomEvents struct {
	rng *rand.Rand
	m   *Machine
	ids int
}

func (r *randomEvents) pick(of ...string) string { return of[r.rng.IntN(len(of))] }

func (r *randomEvents) group() (*group, string) {
	id := r.pick("g1", "g2", "g3", "g4")
	if g := r.m.groups[id]; g != nil {
		return g, id
	}
	return newGroup(id), id
}

func (r *randomEvents) member(g *group) string {
	ms := g.sorted()
	if len(ms) == 0 || r.rng.IntN(10) == 0 {
		for id := range g.pending {
			return id
		}
		return "nobody"
	}
	return ms[r.rng.IntN(len(ms))].id
}

func (r *randomEvents) generation(g *group) int32 {
	if r.rng.IntN(10) == 0 {
		return g.generation - 1
	}
	return g.generation
}

func (r *randomEvents) next() Event {
	g, id := r.group()
	switch r.rng.IntN(14) {
	case 0, 1, 2:
		return r.join(g, id)
	case 3, 4:
		e := &Sync{Group: id, MemberID: g.leader, Generation: r.generation(g)}
		for _, m := range g.sorted() {
			e.Assignments = append(e.Assignments, MemberAssignment{m.id, assign.EncodeAssignment([]api.TopicPartition{{Topic: "t", Partition: r.rng.Int32N(5)}})})
		}
		return e
	case 5:
		return &Leave{Group: id, MemberID: r.member(g)}
	case 6:
		return &ExpireMember{Group: id, MemberID: r.member(g)}
	case 7, 8:
		return &JoinDeadline{Group: id, Round: g.round}
	case 9:
		return &SyncDeadline{Group: id, Generation: r.generation(g), Missing: []string{r.member(g)}}
	case 10:
		return &Rebalance{Group: id, Generation: r.generation(g), Reason: "why not"}
	case 11, 12:
		return &Commit{Group: id, MemberID: r.member(g), Generation: r.generation(g), Offsets: r.offsets()}
	}
	return r.rare(id)
}

func (r *randomEvents) join(g *group, id string) Event {
	r.ids++
	e := &Join{
		Group: id, NewID: fmt.Sprintf("m%d", r.ids), SessionMs: 10000, RebalanceMs: 1000 * r.rng.Int32N(60), ClientID: "c", ClientHost: "h",
		ProtocolType: assign.ProtocolType, RequireMemberID: r.rng.IntN(4) == 0, Native: r.rng.IntN(2) == 0,
	}
	if r.rng.IntN(2) == 0 {
		e.MemberID = r.member(g)
	}
	if m := g.members[e.MemberID]; m != nil {
		e.InstanceID = m.instanceID
	} else if r.rng.IntN(3) == 0 {
		e.InstanceID = r.pick("i1", "i2", "i3")
	}
	m := assign.Member{Topics: []string{r.pick("t", "u")}, Generation: -1}
	for _, name := range []string{"range", r.pick("sticky", "roundrobin")} {
		e.Protocols = append(e.Protocols, api.GroupProtocol{Name: name, Metadata: assign.EncodeSubscription(name, m)})
	}
	return e
}

func (r *randomEvents) offsets() []api.OffsetCommit {
	var offsets []api.OffsetCommit
	for range r.rng.IntN(4) {
		offsets = append(offsets, api.OffsetCommit{
			TopicPartition: api.TopicPartition{Topic: r.pick("t", "u"), Partition: r.rng.Int32N(4)},
			Offset:         record.Offset(r.rng.IntN(1000)), LeaderEpoch: -1, Metadata: r.pick("", "x", "longer"),
		})
	}
	return offsets
}

func (r *randomEvents) rare(id string) Event {
	switch r.rng.IntN(6) {
	case 0:
		return &Delete{Group: id}
	case 1:
		return &SetOffsets{Group: id, Offsets: r.offsets()}
	case 2:
		return &ExpireOffsets{RetentionMs: 60_000}
	case 3:
		return &Barrier{}
	case 4:
		return &Forget{Group: id, Offsets: r.offsets()}
	}
	return &Commit{Group: id, Generation: -1, Offsets: r.offsets()}
}

// TestDeterminism applies the same commands to three machines, one of which goes through a checkpoint now and then. They stay
// equal to the byte, all answers included, and the invariants hold throughout.
func TestDeterminism(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, round))
		a, b, c := NewMachine(nil), NewMachine(nil), NewMachine(nil)
		events := &randomEvents{rng: rng, m: a}
		now := time.UnixMilli(0)
		for range 1500 {
			now = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
			cmd := EncodeCommand(Limits{MembersMax: 6, GroupsMax: 3, OffsetsMax: 6, StateBytesMax: 12_000}, events.next())
			want := a.Apply(cmd, now, 1)
			for _, m := range []*Machine{b, c} {
				if got := m.Apply(cmd, now, 1); !reflect.DeepEqual(got, want) {
					t.Fatalf("answers differ: %+v and %+v", got, want)
				}
			}
			checkMachine(t, a)
			if rng.IntN(20) == 0 {
				c = restored(t, c)
			}
		}
		if !bytes.Equal(checkpoint(t, a), checkpoint(t, b)) || !bytes.Equal(checkpoint(t, a), checkpoint(t, c)) {
			t.Fatal("checkpoints differ")
		}
	}
}

func checkpoint(t *testing.T, m *Machine) []byte {
	t.Helper()
	b, err := m.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func restored(t *testing.T, m *Machine) *Machine {
	t.Helper()
	fresh := NewMachine(nil)
	if err := fresh.Restore(checkpoint(t, m)); err != nil {
		t.Fatal(err)
	}
	return fresh
}

// checkMachine checks the invariants of group's comment, and that the sizes kept on the way are those counted anew.
func checkMachine(t *testing.T, m *Machine) {
	t.Helper()
	total := int64(0)
	for _, g := range m.groups {
		checkGroup(t, g)
		fresh := restoredGroup(t, g)
		if g.bytes() != fresh.bytes() || g.offsetCount != fresh.offsetCount {
			t.Fatalf("group %s: %d bytes and %d offsets are booked, %d and %d are there", g.id, g.bytes(), g.offsetCount, fresh.bytes(), fresh.offsetCount)
		}
		total += g.bytes()
	}
	if total != m.bytes {
		t.Fatalf("the machine books %d bytes, its groups %d", m.bytes, total)
	}
}

func restoredGroup(t *testing.T, g *group) *group {
	t.Helper()
	r := &reader{b: putGroup(nil, g)}
	fresh := r.group()
	if err := r.end(); err != nil {
		t.Fatalf("group %s: %v", g.id, err)
	}
	return fresh
}

func checkGroup(t *testing.T, g *group) {
	t.Helper()
	static := 0
	for _, m := range g.members {
		if m.joined && g.state != PreparingRebalance {
			t.Fatalf("group %s: %s has joined in state %v", g.id, m.id, g.state)
		}
		if m.instanceID != "" {
			static++
			if g.static[m.instanceID] != m.id {
				t.Fatalf("group %s: instance %s is %s, not %s", g.id, m.instanceID, g.static[m.instanceID], m.id)
			}
		}
		if (g.state == Stable || g.state == CompletingRebalance) && !m.supports(g.protocol) {
			t.Fatalf("group %s: %s does not know %s", g.id, m.id, g.protocol)
		}
	}
	if static != len(g.static) {
		t.Fatalf("group %s: %d instances, %d static members", g.id, len(g.static), static)
	}
	if g.state == PreparingRebalance && !g.initial && g.allJoined() && len(g.members) > 0 {
		t.Fatalf("group %s: all have joined, and still it waits", g.id)
	}
	if (len(g.members) == 0) != (g.leader == "") && g.state != PreparingRebalance {
		t.Fatalf("group %s: leader %q of %d members", g.id, g.leader, len(g.members))
	}
}
