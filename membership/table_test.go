package membership

import (
	"testing"
	"time"
)

// TestAnotherIncarnationJoins: a broker that comes back on an empty disk before anybody missed it is another one.
func TestAnotherIncarnationJoins(t *testing.T) {
	now := time.Unix(1000, 0)
	table := newTable(func() time.Time { return now })
	for i, x := range []struct {
		incarnation, rack string
		want              EventType
	}{{"a", "r1", EventJoined}, {"a", "r2", EventUpdated}, {"b", "r2", EventJoined}} {
		now = now.Add(time.Second)
		table.put(Member{Meta: Meta{ID: 1, Incarnation: x.incarnation, Rack: x.rack}, State: Alive})
		if e, ok := table.next(); !ok || e.Type != x.want || e.Member.Incarnation != x.incarnation {
			t.Errorf("%d: %+v, want type %d", i, e, x.want)
		}
		if e, ok := table.next(); ok {
			t.Errorf("%d: one event too many: %+v", i, e)
		}
	}
}
