package assign

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// describe writes an assignment as "a: t/0 t/1; b: u/0".
func describe(a Assignment) string {
	var members []string
	for _, id := range slices.Sorted(maps.Keys(a)) {
		s := id + ":"
		for _, tp := range a[id] {
			s += fmt.Sprintf(" %s/%d", tp.Topic, tp.Partition)
		}
		members = append(members, s)
	}
	return strings.Join(members, "; ")
}

func tps(topic string, ps ...int32) []api.TopicPartition { return appendPartitions(nil, topic, ps) }

// The expectations of range and roundrobin are those of Kafka's RangeAssignorTest, RoundRobinAssignorTest and documentation.
func TestAssign(t *testing.T) {
	sub := func(id string, topics ...string) Member { return Member{ID: id, Topics: topics, Generation: -1} }
	static := func(id, instance string, topics ...string) Member {
		return Member{ID: id, InstanceID: instance, Topics: topics, Generation: -1}
	}
	owns := func(m Member, generation int32, owned ...api.TopicPartition) Member {
		m.Owned, m.Generation = owned, generation
		return m
	}
	for _, tc := range []struct {
		name, strategy string
		members        []Member
		partitions     map[string]int32
		want           string
	}{
		{"no topic", Range, []Member{sub("a")}, nil, "a:"},
		{"no such topic", RoundRobin, []Member{sub("a", "x")}, map[string]int32{"t": 3}, "a:"},
		{"nobody", CooperativeSticky, nil, map[string]int32{"t": 3}, ""},
		{"one", Range, []Member{sub("a", "t")}, map[string]int32{"t": 3, "u": 3}, "a: t/0 t/1 t/2"},
		{"two, two topics", Range, []Member{sub("a", "t", "u"), sub("b", "u", "t")}, map[string]int32{"t": 3, "u": 3}, "a: t/0 t/1 u/0 u/1; b: t/2 u/2"},
		{"more members than partitions", Range, []Member{sub("b", "t"), sub("a", "t")}, map[string]int32{"t": 1}, "a: t/0; b:"},
		{"mixed", Range, []Member{sub("a", "t"), sub("b", "t", "u"), sub("c", "t")}, map[string]int32{"t": 3, "u": 2}, "a: t/0; b: t/1 u/0 u/1; c: t/2"},
		{"static first, by instance", Range, []Member{static("a9", "z", "t"), static("z9", "a", "t"), sub("0", "t")}, map[string]int32{"t": 4}, "0: t/3; a9: t/2; z9: t/0 t/1"},
		{"two, two topics", RoundRobin, []Member{sub("a", "t", "u"), sub("b", "t", "u")}, map[string]int32{"t": 3, "u": 3}, "a: t/0 t/2 u/1; b: t/1 u/0 u/2"},
		{"mixed, as documented", RoundRobin, []Member{sub("C0", "t0"), sub("C1", "t0", "t1"), sub("C2", "t0", "t1", "t2")}, map[string]int32{"t0": 1, "t1": 2, "t2": 3}, "C0: t0/0; C1: t1/0; C2: t1/1 t2/0 t2/1 t2/2"},
		{"static first, by instance", RoundRobin, []Member{static("a9", "z", "t"), static("z9", "a", "t"), sub("0", "t")}, map[string]int32{"t": 4}, "0: t/2; a9: t/1; z9: t/0 t/3"},
		{"mixed, as in KIP-54", Sticky, []Member{sub("C0", "t0"), sub("C1", "t0", "t1"), sub("C2", "t0", "t1", "t2")}, map[string]int32{"t0": 1, "t1": 2, "t2": 3}, "C0: t0/0; C1: t1/0 t1/1; C2: t2/0 t2/1 t2/2"},
		{"a member is gone", Sticky, []Member{owns(sub("a", "t"), 1, tps("t", 0, 3)...), owns(sub("b", "t"), 1, tps("t", 1, 4)...)}, map[string]int32{"t": 6}, "a: t/0 t/2 t/3; b: t/1 t/4 t/5"},
		{"a member is new", Sticky, []Member{owns(sub("a", "t"), 1, tps("t", 0, 1, 2, 3)...), sub("b", "t")}, map[string]int32{"t": 4}, "a: t/0 t/1; b: t/2 t/3"},
		{"a chain of hand-overs", Sticky, []Member{owns(sub("a", "t"), 1, tps("t", 0)...), owns(sub("b", "t", "u"), 1, tps("t", 1, 2)...), owns(sub("c", "u"), 1, tps("u", 0, 1, 2)...)}, map[string]int32{"t": 3, "u": 3}, "a: t/0 t/2; b: t/1 u/2; c: u/0 u/1"},
		{"an old claim loses", Sticky, []Member{owns(sub("a", "t"), 1, tps("t", 0, 1)...), owns(sub("b", "t"), 2, tps("t", 0, 1)...)}, map[string]int32{"t": 3}, "a: t/2; b: t/0 t/1"},
		{"partitions that are gone", Sticky, []Member{owns(sub("a", "t", "u"), 1, tps("t", 5, -1)...), owns(sub("b", "t", "u"), 1, tps("gone", 0)...)}, map[string]int32{"t": 2}, "a: t/0; b: t/1"},
		{"withheld until given up", CooperativeSticky, []Member{owns(sub("a", "t"), 1, tps("t", 0, 1, 2, 3)...), sub("b", "t")}, map[string]int32{"t": 4}, "a: t/0 t/1; b:"},
		{"then handed over", CooperativeSticky, []Member{owns(sub("a", "t"), 2, tps("t", 0, 1)...), sub("b", "t")}, map[string]int32{"t": 4}, "a: t/0 t/1; b: t/2 t/3"},
		{"two claim the same", CooperativeSticky, []Member{owns(sub("a", "t"), 2, tps("t", 0)...), owns(sub("b", "t"), 2, tps("t", 0)...)}, map[string]int32{"t": 2}, "a:; b: t/1"},
	} {
		t.Run(tc.strategy+"/"+tc.name, func(t *testing.T) {
			got, err := Assign(tc.strategy, tc.members, tc.partitions)
			if err != nil {
				t.Fatal(err)
			}
			if d := describe(got); d != tc.want {
				t.Errorf("got  %s\nwant %s", d, tc.want)
			}
		})
	}
	if _, err := Assign("by-colour", nil, nil); err == nil {
		t.Error("an unknown strategy is accepted")
	}
}

// world is a random group, to be changed and assigned again and again.
type world struct {
	rng        *rand.Rand
	members    []Member
	partitions map[string]int32
	uniform    bool
	next       int
}

func newWorld(rng *rand.Rand) *world {
	w := &world{rng: rng, partitions: map[string]int32{}, uniform: rng.IntN(2) == 0}
	for i := range 1 + rng.IntN(6) {
		w.partitions[fmt.Sprintf("t%d", i)] = rng.Int32N(12)
	}
	for range 1 + rng.IntN(8) {
		w.join()
	}
	return w
}

func (w *world) topics() []string {
	all := slices.Sorted(maps.Keys(w.partitions))
	if w.uniform {
		return all
	}
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:w.rng.IntN(len(all)+1)]
}

func (w *world) join() {
	m := Member{ID: fmt.Sprintf("m%d", w.next), Topics: w.topics(), Generation: -1}
	if w.rng.IntN(4) == 0 {
		m.InstanceID = fmt.Sprintf("i%d", w.rng.IntN(1000))
	}
	w.next++
	w.members = append(w.members, m)
}

func (w *world) change() {
	switch w.rng.IntN(4) {
	case 0:
		w.join()
	case 1:
		if len(w.members) > 1 {
			i := w.rng.IntN(len(w.members))
			w.members = slices.Delete(w.members, i, i+1)
		}
	case 2:
		w.partitions[fmt.Sprintf("t%d", w.rng.IntN(len(w.partitions)))] += 2
	case 3:
		if !w.uniform {
			w.members[w.rng.IntN(len(w.members))].Topics = w.topics()
		}
	}
}

// own lets members own what they were assigned.
func (w *world) own(a Assignment, generation int32) {
	for i := range w.members {
		w.members[i].Owned, w.members[i].Generation = a[w.members[i].ID], generation
	}
}

// checkWhole: every partition with a subscriber is assigned once, to a subscriber; withheld ones may be missing.
func (w *world) checkWhole(t *testing.T, a Assignment, partial bool) {
	t.Helper()
	seen := map[api.TopicPartition]string{}
	subscribed := map[string]bool{}
	for _, m := range w.members {
		for _, topic := range m.Topics {
			subscribed[topic] = true
		}
		for _, tp := range a[m.ID] {
			if by, ok := seen[tp]; ok {
				t.Fatalf("%v is assigned to %s and %s", tp, by, m.ID)
			}
			seen[tp] = m.ID
			if !slices.Contains(m.Topics, tp.Topic) || tp.Partition >= w.partitions[tp.Topic] {
				t.Fatalf("%s got %v", m.ID, tp)
			}
		}
	}
	want := 0
	for topic := range subscribed {
		want += int(w.partitions[topic])
	}
	if len(a) != len(w.members) || len(seen) > want || (!partial && len(seen) != want) {
		t.Fatalf("%d of %d partitions assigned to %d of %d members", len(seen), want, len(a), len(w.members))
	}
}

// checkBalance: no chain of hand-overs leads to somebody with two fewer. It closes over "could give something to" by brute force.
func (w *world) checkBalance(t *testing.T, a Assignment) {
	t.Helper()
	gives := map[string]map[string]bool{}
	for _, m := range w.members {
		gives[m.ID] = map[string]bool{}
		for _, tp := range a[m.ID] {
			for _, o := range w.members {
				if slices.Contains(o.Topics, tp.Topic) {
					gives[m.ID][o.ID] = true
				}
			}
		}
	}
	for _, k := range w.members {
		for _, i := range w.members {
			for _, j := range w.members {
				if gives[i.ID][k.ID] && gives[k.ID][j.ID] {
					gives[i.ID][j.ID] = true
				}
			}
		}
	}
	for from, tos := range gives {
		for to := range tos {
			if len(a[from])-len(a[to]) >= 2 {
				t.Fatalf("%s has %d, and could give to %s with %d: %s", from, len(a[from]), to, len(a[to]), describe(a))
			}
		}
	}
}

// kept counts the partitions that stay with their owners.
func kept(members []Member, a Assignment) int {
	n := 0
	for _, m := range members {
		for _, tp := range m.Owned {
			if slices.Contains(a[m.ID], tp) {
				n++
			}
		}
	}
	return n
}

// keepable is the most that a balanced assignment of equal subscriptions can leave with the owners: all may keep the lower quota, and as
// many as may have one more keep one more.
func (w *world) keepable() int {
	total := 0
	for _, n := range w.partitions {
		total += int(n)
	}
	low, extra, n := total/len(w.members), total%len(w.members), 0
	for _, m := range w.members {
		if len(m.Owned) > low && extra > 0 {
			extra--
			n++
		}
		n += min(len(m.Owned), low)
	}
	return n
}

func TestProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(300) {
		w := newWorld(rand.New(rand.NewPCG(seed, round)))
		for generation := range int32(8) {
			before, _ := Assign(Sticky, w.members, w.partitions)
			w.own(before, generation)
			w.change()
			for _, strategy := range []string{Range, RoundRobin, Sticky, CooperativeSticky} {
				a, err := Assign(strategy, w.members, w.partitions)
				if err != nil {
					t.Fatal(err)
				}
				w.checkWhole(t, a, strategy == CooperativeSticky)
				shuffled := slices.Clone(w.members)
				w.rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				if again, _ := Assign(strategy, shuffled, w.partitions); !reflect.DeepEqual(a, again) && !sameInstances(w.members) {
					t.Fatalf("%s depends on the members' order:\n%s\n%s", strategy, describe(a), describe(again))
				}
			}
			w.checkSticky(t)
			w.checkCooperative(t, generation)
		}
	}
}

func sameInstances(members []Member) bool {
	seen := map[string]bool{}
	for _, m := range members {
		if m.InstanceID != "" && seen[m.InstanceID] {
			return true
		}
		seen[m.InstanceID] = true
	}
	return false
}

func (w *world) checkSticky(t *testing.T) {
	t.Helper()
	a, _ := Assign(Sticky, w.members, w.partitions)
	w.checkBalance(t, a)
	if w.uniform {
		if got, want := kept(w.members, a), w.keepable(); got != want {
			t.Fatalf("%d partitions stay, %d could", got, want)
		}
	}
	settled := slices.Clone(w.members)
	for i := range settled {
		settled[i].Owned, settled[i].Generation = a[settled[i].ID], 100
	}
	if again, _ := Assign(Sticky, settled, w.partitions); !reflect.DeepEqual(a, again) {
		t.Fatalf("a balanced assignment changes without reason:\n%s\n%s", describe(a), describe(again))
	}
}

// checkCooperative plays a cooperative rebalance to its end: nothing is in two hands at any time, and it ends as balanced as an eager
// one. With equal subscriptions it takes two halves; else handing over what was withheld may now and then free more.
func (w *world) checkCooperative(t *testing.T, generation int32) {
	t.Helper()
	next := &world{rng: w.rng, members: slices.Clone(w.members), partitions: w.partitions}
	for half := 1; ; half++ {
		a, _ := Assign(CooperativeSticky, next.members, w.partitions)
		next.checkHandOver(t, a)
		whole, _ := Assign(RoundRobin, next.members, w.partitions)
		if half >= 2 && total(a) == total(whole) {
			next.checkWhole(t, a, false)
			next.checkBalance(t, a)
			return
		}
		if half >= 5 || (w.uniform && half >= 2) {
			t.Fatalf("after %d halves there are still partitions withheld: %s", half, describe(a))
		}
		generation++
		next.own(a, generation)
	}
}

func (w *world) checkHandOver(t *testing.T, a Assignment) {
	t.Helper()
	for _, m := range w.members {
		for _, tp := range a[m.ID] {
			for _, o := range w.members {
				if o.ID != m.ID && slices.Contains(o.Owned, tp) {
					t.Fatalf("%v goes to %s while %s has it", tp, m.ID, o.ID)
				}
			}
		}
	}
}

func total(a Assignment) int {
	n := 0
	for _, tps := range a {
		n += len(tps)
	}
	return n
}

func TestSubscriptionRoundTrip(t *testing.T) {
	m := Member{Topics: []string{"t", "u"}, Owned: append(tps("t", 0, 2), tps("u", 1)...), Generation: 7}
	for _, strategy := range []string{Range, RoundRobin, Sticky, CooperativeSticky} {
		got, err := DecodeSubscription(strategy, EncodeSubscription(strategy, m))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", strategy, got, err)
		}
	}
}

// TestSubscriptionVersions reads what Kafka's clients of all ages write.
func TestSubscriptionVersions(t *testing.T) {
	rack := "r1"
	user := kmsg.NewStickyMemberMetadata()
	user.Generation = 5
	user.CurrentAssignment = []kmsg.StickyMemberMetadataCurrentAssignment{{Topic: "t", Partitions: []int32{1}}}
	old := user.AppendTo(nil)
	old = old[:len(old)-4] // before the generation was added
	for _, tc := range []struct {
		name, strategy string
		version        int16
		userData       []byte
		want           Member
	}{
		{"v0", Range, 0, nil, Member{Topics: []string{"t"}, Generation: -1}},
		{"v0 with foreign user data", Range, 0, []byte("hello"), Member{Topics: []string{"t"}, Generation: -1}},
		{"v0 sticky", Sticky, 0, user.AppendTo(nil), Member{Topics: []string{"t"}, Owned: tps("t", 1), Generation: 5}},
		{"v0 old sticky", Sticky, 0, old, Member{Topics: []string{"t"}, Owned: tps("t", 1), Generation: -1}},
		{"v1 cooperative", CooperativeSticky, 1, []byte{0, 0, 0, 9}, Member{Topics: []string{"t"}, Owned: tps("t", 2), Generation: 9}},
		{"v2", CooperativeSticky, 2, nil, Member{Topics: []string{"t"}, Owned: tps("t", 2), Generation: 4}},
		{"v3", CooperativeSticky, 3, nil, Member{Topics: []string{"t"}, Owned: tps("t", 2), Generation: 4, Rack: rack}},
		{"later", CooperativeSticky, 9, nil, Member{Topics: []string{"t"}, Owned: tps("t", 2), Generation: 4, Rack: rack}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := kmsg.NewConsumerMemberMetadata()
			k.Version, k.Topics, k.UserData, k.Generation, k.Rack = tc.version, []string{"t", "t"}, tc.userData, 4, &rack
			k.OwnedPartitions = []kmsg.ConsumerMemberMetadataOwnedPartition{{Topic: "t", Partitions: []int32{2}}}
			got, err := DecodeSubscription(tc.strategy, k.AppendTo(nil))
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestAssignmentRoundTrip(t *testing.T) {
	want := append(tps("t", 0, 2), tps("u", 1)...)
	got, err := DecodeAssignment(EncodeAssignment([]api.TopicPartition{want[2], want[1], want[0], want[1]}))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := DecodeAssignment(nil); err != nil || got != nil {
		t.Fatalf("%v %v", got, err)
	}
	if _, err := DecodeAssignment([]byte{0, 0, 0}); !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
}

func FuzzProtocol(f *testing.F) {
	m := Member{Topics: []string{"t", "u"}, Owned: tps("t", 0, 2), Generation: 7}
	f.Add(EncodeSubscription(Sticky, m))
	f.Add(EncodeSubscription(CooperativeSticky, m))
	f.Add(EncodeAssignment(m.Owned))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, strategy := range []string{Range, Sticky, CooperativeSticky} {
			m, err := DecodeSubscription(strategy, b)
			if err != nil {
				continue
			}
			m.ID = "m"
			if _, err := Assign(strategy, []Member{m, {ID: "n", Topics: []string{"t"}}}, map[string]int32{"t": 3}); err != nil {
				t.Fatal(err)
			}
		}
		if tps, err := DecodeAssignment(b); err == nil {
			again, err := DecodeAssignment(EncodeAssignment(tps))
			if err != nil || !reflect.DeepEqual(again, slices.Compact(slices.Clone(tps))) && len(tps) > 0 {
				t.Fatalf("%v became %v (%v)", tps, again, err)
			}
			if !bytes.Equal(EncodeAssignment(again), EncodeAssignment(tps)) {
				t.Fatal("one assignment, two encodings")
			}
		}
	})
}
