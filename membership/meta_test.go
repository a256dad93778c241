package membership

import (
	"reflect"
	"testing"
	"time"
)

func fullMeta() wireMeta {
	return wireMeta{leaving: true, Meta: Meta{ID: 1<<31 - 1, Incarnation: "a1b2", ClusterID: "c", GRPCAddr: "host.example:7070", KafkaAddr: "host.example:9092", KafkaListeners: "EXTERNAL=outside.example:9093,INTERNAL=10.0.0.1:9094", PeerAddr: "10.0.0.1:7071",
		Rack: "eu-1a", Version: "0.1.0", Bootstrap: Bootstrap{Expect: 3, Set: []int32{0, 1, 70000}}}}
}

func TestMetaRoundTrip(t *testing.T) {
	for _, m := range []wireMeta{fullMeta(), {Meta: Meta{ID: 0, Incarnation: "x"}}} {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeMeta(b)
		if err != nil || !reflect.DeepEqual(*got, m) {
			t.Errorf("got %+v, %v; want %+v", got, err, m)
		}
		// A field of a later release is skipped.
		if got, err = decodeMeta(appendField(b, 200, []byte("later"))); err != nil || !reflect.DeepEqual(*got, m) {
			t.Errorf("with an unknown field: %+v, %v", got, err)
		}
	}
}

func TestMetaRefusesOtherVersions(t *testing.T) {
	m := fullMeta()
	b, _ := m.encode()
	b[0] = metaVersion + 1
	if _, err := decodeMeta(b); err == nil {
		t.Error("a newer version was read")
	}
}

func FuzzDecodeMeta(f *testing.F) {
	m := fullMeta()
	b, _ := m.encode()
	f.Add(b)
	f.Add([]byte{metaVersion, tagID, 1, 5, tagIncarnation, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again, err := m.encode(); err == nil {
			if got, err := decodeMeta(again); err != nil || !reflect.DeepEqual(got, m) {
				t.Fatalf("%+v became %+v, %v", m, got, err)
			}
		}
	})
}

func TestTableCoalescesAndForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	tb := newTable(func() time.Time { return now })
	step := func(id int32, s State, rack string) {
		now = now.Add(time.Second)
		tb.put(Member{Meta: Meta{ID: id, Rack: rack}, State: s})
	}
	take := func() (types []EventType) {
		for {
			e, ok := tb.next()
			if !ok {
				return types
			}
			types = append(types, e.Type)
		}
	}
	check := func(what string, want ...EventType) {
		t.Helper()
		if got := take(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: events %v, want %v", what, got, want)
		}
	}
	step(1, Alive, "")
	step(1, Alive, "r")
	check("joined and updated at once", EventJoined)
	step(1, Alive, "r")
	check("nothing new")
	step(1, Alive, "r2")
	check("updated", EventUpdated)
	step(1, Failed, "r2")
	step(1, Alive, "r2")
	check("gone and back", EventJoined)
	step(1, Left, "r2")
	check("left", EventLeft)
	now = now.Add(keepGone + time.Minute)
	step(2, Alive, "")
	if _, ok := tb.get(1); ok {
		t.Error("a member that left more than a day ago is still known")
	}
}
