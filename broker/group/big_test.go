package group

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

// TestLargeGroup: as many members as are allowed join at once, all of them are served, and one more is refused.
func TestLargeGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const members = 1000
		l := newFakeLog(t, 1, Settings{MembersMax: members})
		l.topics.Store("t", int32(3*members))
		b := l.start(0)
		defer l.stop()
		reqs := make([]api.NativeJoinRequest, members)
		for i := range reqs {
			reqs[i] = nativeRequest("")
			reqs[i].Strategies = []string{assign.CooperativeSticky}
			reqs[i].SessionTimeout = time.Minute
		}
		for _, r := range joinAll(t, b.JoinAndSync, reqs...) {
			if r.Generation != 1 || len(r.Assignment) != 3 {
				t.Fatalf("%+v", r)
			}
		}
		_, err := b.JoinAndSync(ctx, reqs[0])
		wantCode(t, err, api.CodeGroupFull)
		if n := l.count(); n > 20 {
			t.Errorf("%d proposals", n)
		}
		time.Sleep(5 * time.Minute) // all fall silent
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); d.State != "Empty" {
			t.Errorf("%s with %d members", d.State, len(d.Members))
		}
	})
}
