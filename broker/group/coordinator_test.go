package group

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
)

var ctx = context.Background()

func wantCode(t *testing.T, err error, code api.Code) {
	t.Helper()
	if err == nil || api.CodeOf(err) != code {
		t.Fatalf("got %v (code %d), want code %d", err, api.CodeOf(err), code)
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// joinRequest is a Kafka consumer's.
func joinRequest(id string) api.JoinRequest {
	m := assign.Member{Topics: []string{"t"}, Generation: -1}
	return api.JoinRequest{
		MemberRef: api.MemberRef{Group: "g", MemberID: id, Generation: -1}, ClientID: "kafka", ClientHost: "host",
		SessionTimeout: 10 * time.Second, RebalanceTimeout: time.Minute, ProtocolType: assign.ProtocolType,
		Protocols: []api.GroupProtocol{{Name: assign.Range, Metadata: assign.EncodeSubscription(assign.Range, m)}},
	}
}

func nativeRequest(id string) api.NativeJoinRequest {
	return api.NativeJoinRequest{
		MemberRef: api.MemberRef{Group: "g", MemberID: id, Generation: -1}, ClientID: "native",
		SessionTimeout: 10 * time.Second, RebalanceTimeout: time.Minute, Topics: []string{"t"}, Strategies: []string{assign.Range},
	}
}

// joinAll lets requests run at once and returns their results by position.
func joinAll[Req, Res any](t *testing.T, join func(context.Context, Req) (Res, error), reqs ...Req) []Res {
	t.Helper()
	res, errs := make([]Res, len(reqs)), make([]error, len(reqs))
	var wg sync.WaitGroup
	for i := range reqs {
		wg.Go(func() { res[i], errs[i] = join(ctx, reqs[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return res
}

func (r refOf) sync(t *testing.T, b *fakeBroker) api.SyncResult {
	t.Helper()
	req := api.SyncRequest{MemberRef: api.MemberRef(r.ref), Assignments: r.assignments}
	return must[api.SyncResult](t)(b.SyncGroup(ctx, req))
}

// refOf is a member after its join, with the assignment it makes if it leads (every member gets its own ID for bytes).
type refOf struct {
	ref         api.MemberRef
	assignments map[string][]byte
}

func joinedAs(res api.JoinResult) refOf {
	r := refOf{ref: api.MemberRef{Group: "g", MemberID: res.MemberID, Generation: res.Generation}}
	if res.Leader == res.MemberID {
		r.assignments = map[string][]byte{}
		for _, m := range res.Members {
			r.assignments[m.MemberID] = []byte(m.MemberID)
		}
	}
	return r
}

func syncAll(t *testing.T, b *fakeBroker, joined []api.JoinResult) {
	t.Helper()
	var wg sync.WaitGroup
	for _, j := range joined {
		wg.Go(func() {
			if got := string(joinedAs(j).sync(t, b).Assignment); got != j.MemberID {
				t.Errorf("%s got the assignment of %q", j.MemberID, got)
			}
		})
	}
	wg.Wait()
}

func TestKafkaMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		began := time.Now()
		joined := joinAll(t, b.JoinGroup, joinRequest(""), joinRequest(""), joinRequest(""))
		if took := time.Since(began); took < 100*time.Millisecond || took > 300*time.Millisecond {
			t.Errorf("the first join phase took %v", took)
		}
		leaders := 0
		for _, j := range joined {
			if j.Generation != 1 || j.Protocol != assign.Range {
				t.Errorf("%+v", j)
			}
			leaders += len(j.Members) / 3
		}
		if leaders != 1 {
			t.Errorf("%d leaders", leaders)
		}
		syncAll(t, b, joined)
		d := must[api.GroupDescription](t)(b.Describe(ctx, "g"))
		if d.State != "Stable" || len(d.Members) != 3 || d.Members[0].Topics[0] != "t" {
			t.Errorf("%+v", d)
		}
	})
}

func TestNativeMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		l.topics.Store("t", int32(12))
		b := l.start(0)
		defer l.stop()
		seen := map[api.TopicPartition]bool{}
		for _, r := range joinAll(t, b.JoinAndSync, nativeRequest(""), nativeRequest(""), nativeRequest("")) {
			if len(r.Assignment) != 4 || r.Strategy != assign.Range || r.Generation != 1 {
				t.Errorf("%+v", r)
			}
			for _, tp := range r.Assignment {
				seen[tp] = true
			}
		}
		if len(seen) != 12 {
			t.Errorf("%d partitions", len(seen))
		}
		d := must[api.GroupDescription](t)(b.Describe(ctx, "g"))
		if len(d.Offsets) != 12 || d.Offsets[3].MemberID == "" || d.Offsets[3].Offset != -1 {
			t.Errorf("%+v", d.Offsets)
		}
	})
}

// TestMixedMembers: a native member follows a Kafka leader, and a Kafka member a native one.
func TestMixedMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		l.topics.Store("t", int32(4))
		b := l.start(0)
		defer l.stop()
		kafka := make(chan api.JoinResult, 1)
		join := func(id string) {
			res, err := b.JoinGroup(ctx, joinRequest(id))
			if err != nil {
				t.Error(err)
			}
			kafka <- res
		}
		native := make(chan api.NativeJoinResult, 1)
		joinNative := func(id string) {
			res, err := b.JoinAndSync(ctx, nativeRequest(id))
			if err != nil {
				t.Error(err)
			}
			native <- res
		}
		go join("")
		synctest.Wait()
		time.Sleep(5 * time.Millisecond)
		go joinNative("")
		k := <-kafka
		if k.Leader != k.MemberID || len(k.Members) != 2 {
			t.Fatalf("%+v", k)
		}
		assignments := map[string][]byte{}
		for _, m := range k.Members {
			assignments[m.MemberID] = assign.EncodeAssignment([]api.TopicPartition{{Topic: "t", Partition: 3}})
		}
		must[api.SyncResult](t)(b.SyncGroup(ctx, api.SyncRequest{MemberRef: joinedAs(k).ref, Assignments: assignments}))
		if n := <-native; len(n.Assignment) != 1 || n.Assignment[0].Partition != 3 {
			t.Fatalf("%+v", n)
		} else if err := b.LeaveGroup(ctx, joinedAs(k).ref); err != nil {
			t.Fatal(err)
		} else {
			go joinNative(n.MemberID)
		}
		n := <-native
		go join("")
		time.Sleep(10 * time.Millisecond)
		wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g", MemberID: n.MemberID, Generation: n.Generation}), api.CodeRebalanceInProgress)
		go joinNative(n.MemberID)
		k = <-kafka
		if k.Leader == k.MemberID {
			t.Fatalf("%+v", k)
		}
		res := joinedAs(k).sync(t, b)
		if tps, err := assign.DecodeAssignment(res.Assignment); err != nil || len(tps) != 2 {
			t.Fatalf("%v %v", tps, err)
		}
		<-native
	})
}

func TestHeartbeatsKeepMembersAndWriteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		joined := joinAll(t, b.JoinGroup, joinRequest(""), joinRequest(""))
		syncAll(t, b, joined)
		before := l.count()
		for range 500 {
			time.Sleep(9 * time.Second)
			for _, j := range joined {
				if err := b.Heartbeat(ctx, joinedAs(j).ref); err != nil {
					t.Fatal(err)
				}
			}
		}
		if l.count() != before {
			t.Errorf("heartbeats made %d proposals", l.count()-before)
		}
		// One falls silent.
		for range 3 {
			time.Sleep(4 * time.Second)
			_ = b.Heartbeat(ctx, joinedAs(joined[0]).ref)
		}
		wantCode(t, b.Heartbeat(ctx, joinedAs(joined[0]).ref), api.CodeRebalanceInProgress)
		wantCode(t, b.Heartbeat(ctx, joinedAs(joined[1]).ref), api.CodeUnknownMember)
		again := must[api.JoinResult](t)(b.JoinGroup(ctx, joinRequest(joined[0].MemberID)))
		if again.Generation != 2 || len(again.Members) != 1 {
			t.Errorf("%+v", again)
		}
	})
}

// TestFailover: the next coordinator knows generation, assignment and offsets; sessions start afresh; nothing rebalances.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 2, Settings{})
		old := l.start(0)
		defer l.stop()
		joined := joinAll(t, old.JoinGroup, joinRequest(""), joinRequest(""))
		syncAll(t, old, joined)
		ref := joinedAs(joined[0]).ref
		tp := api.TopicPartition{Topic: "t", Partition: 1}
		if err := old.CommitOffsets(ctx, ref, []api.OffsetCommit{{TopicPartition: tp, Offset: 42, Metadata: "m"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second) // sessions have one second left
		next := l.start(1)
		wantCode(t, old.CommitOffsets(ctx, ref, nil), api.CodeNotCoordinator)
		_, err := old.FetchOffsets(ctx, "g", nil) // it has not been told yet
		wantCode(t, err, api.CodeNotCoordinator)
		old.LeaderStop()
		wantCode(t, old.Heartbeat(ctx, ref), api.CodeNotCoordinator)
		time.Sleep(9 * time.Second)
		for _, j := range joined {
			if err := next.Heartbeat(ctx, joinedAs(j).ref); err != nil {
				t.Fatal(err)
			}
			if got := joinedAs(j).sync(t, next); string(got.Assignment) != j.MemberID {
				t.Errorf("assignment %q", got.Assignment)
			}
		}
		got := must[[]api.OffsetCommit](t)(next.FetchOffsets(ctx, "g", nil))
		if len(got) != 1 || got[0].Offset != 42 || got[0].Metadata != "m" || got[0].CommitTime == 0 {
			t.Errorf("%+v", got)
		}
		time.Sleep(11 * time.Second)
		wantCode(t, next.Heartbeat(ctx, ref), api.CodeUnknownMember)
	})
}

// TestFailoverInJoinPhase: the calls that wait fail; the members come back with their IDs and the phase goes on.
func TestFailoverInJoinPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 2, Settings{})
		old := l.start(0)
		defer l.stop()
		joined := joinAll(t, old.JoinGroup, joinRequest(""), joinRequest(""))
		syncAll(t, old, joined)
		waiting := make(chan error, 1)
		go func() {
			_, err := old.JoinGroup(ctx, changed(joinRequest(joined[0].MemberID)))
			waiting <- err
		}()
		time.Sleep(time.Second)
		next := l.start(1)
		old.LeaderStop()
		wantCode(t, <-waiting, api.CodeNotCoordinator)
		again := joinAll(t, next.JoinGroup, changed(joinRequest(joined[0].MemberID)), joinRequest(joined[1].MemberID))
		if again[0].Generation != 2 || again[1].Generation != 2 {
			t.Errorf("%+v", again)
		}
		syncAll(t, next, again)
	})
}

func changed(req api.JoinRequest) api.JoinRequest {
	m := assign.Member{Topics: []string{"t", "u"}, Generation: -1}
	req.Protocols = []api.GroupProtocol{{Name: assign.Range, Metadata: assign.EncodeSubscription(assign.Range, m)}}
	return req
}

// TestFailoverInSyncPhase: the assignment that the old coordinator could not replicate is made by the new one.
func TestFailoverInSyncPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 2, Settings{})
		l.topics.Store("t", int32(4))
		old := l.start(0)
		defer l.stop()
		l.sent = func(cmd []byte) {
			if _, events, _ := DecodeCommand(cmd); events[0].kind() == kindJoinDeadline {
				l.fail = func() (error, bool) { return errors.New("cut off"), false }
			}
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := old.JoinAndSync(ctx, nativeRequest(""))
			waiting <- err
		}()
		time.Sleep(5 * time.Second)
		d := must[api.GroupDescription](t)(old.Describe(ctx, "g"))
		if d.State != "CompletingRebalance" {
			t.Fatalf("%+v", d)
		}
		l.set(func() { l.fail, l.sent = nil, nil })
		next := l.start(1)
		old.LeaderStop()
		wantCode(t, <-waiting, api.CodeNotCoordinator)
		res := must[api.NativeJoinResult](t)(next.JoinAndSync(ctx, nativeRequest(d.Members[0].MemberID)))
		if res.Generation != 1 || len(res.Assignment) != 4 {
			t.Errorf("%+v", res)
		}
	})
}

func TestCommitsAreCombined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		const groups = 500
		before := l.count()
		errs := make([]error, groups)
		var wg sync.WaitGroup
		for i := range groups {
			wg.Go(func() {
				ref := api.MemberRef{Group: fmt.Sprintf("g%d", i), Generation: -1}
				if i == 7 {
					ref.Generation = 3
				}
				errs[i] = b.CommitOffsets(ctx, ref, []api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "t"}, Offset: 1}})
			})
		}
		wg.Wait()
		for i, err := range errs {
			if i == 7 {
				wantCode(t, err, api.CodeIllegalGeneration)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n := l.count() - before; n > 3 {
			t.Errorf("%d proposals for %d commits at once", n, groups)
		}
		if all := must[[]api.GroupSummary](t)(b.List(ctx)); len(all) != groups-1 || all[0].State != "Empty" {
			t.Errorf("%d groups", len(all))
		}
		began := time.Now()
		if err := b.CommitOffsets(ctx, api.MemberRef{Group: "g1", Generation: -1}, nil); err != nil || time.Since(began) > l.delay {
			t.Errorf("alone, a commit took %v (%v)", time.Since(began), err)
		}
	})
}

// TestQueueIsBounded: while proposals do not get through, callers are refused instead of filling the memory.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{CommandBytesMax: 64 << 10, QueueBytesMax: 128 << 10, SubscriptionBytesMax: 16 << 10, OffsetMetadataMax: 40 << 10})
		b := l.start(0)
		defer l.stop()
		l.set(func() { l.hold = make(chan struct{}) })
		commit := func(n int) error {
			return b.CommitOffsets(ctx, api.MemberRef{Group: "g", Generation: -1},
				[]api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "t"}, Metadata: strings.Repeat("x", n)}})
		}
		var wg sync.WaitGroup
		errs := make(chan error, 20)
		for range 20 {
			wg.Go(func() { errs <- commit(30 << 10) })
		}
		synctest.Wait()
		refused := len(errs)
		for range refused {
			wantCode(t, <-errs, api.CodeThrottled)
		}
		if refused < 10 || refused > 19 {
			t.Errorf("%d of 20 were refused", refused)
		}
		l.set(func() { close(l.hold); l.hold = nil })
		wg.Wait()
		for range 20 - refused {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		wantCode(t, commit(41<<10), api.CodeOffsetMetadataTooLarge)
		tp := api.TopicPartition{Topic: "t"}
		large := []api.OffsetCommit{{TopicPartition: tp, Metadata: strings.Repeat("x", 40<<10)}, {TopicPartition: tp, Metadata: strings.Repeat("x", 40<<10)}}
		wantCode(t, b.CommitOffsets(ctx, api.MemberRef{Group: "g", Generation: -1}, large), api.CodeMessageTooLarge)
	})
}

// TestProposalsFail: deadlines come again until their events get through, and an outcome that is not known does no harm.
func TestProposalsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		l.topics.Store("t", int32(2))
		b := l.start(0)
		defer l.stop()
		l.set(func() { l.fail = func() (error, bool) { return errors.New("no quorum"), false } })
		_, err := b.JoinAndSync(ctx, nativeRequest(""))
		wantCode(t, err, api.CodeCoordinatorNotAvailable)
		l.set(func() { l.fail = nil })
		res := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest("")))
		l.set(func() { l.fail = func() (error, bool) { return errors.New("no quorum"), false } })
		time.Sleep(15 * time.Second)
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); d.State != "Stable" {
			t.Errorf("%+v", d)
		}
		l.set(func() { l.fail = nil })
		time.Sleep(2 * time.Second)
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); d.State != "Empty" {
			t.Errorf("after its session, %s is still there: %+v", res.MemberID, d)
		}
		l.set(func() { l.fail = func() (error, bool) { return errors.New("timed out"), true } })
		_, err = b.JoinGroup(ctx, joinRequest(""))
		wantCode(t, err, api.CodeCoordinatorNotAvailable)
		l.set(func() { l.fail = nil })
		time.Sleep(time.Minute)
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); len(d.Members) != 0 {
			t.Errorf("a member that never learnt its ID stays: %+v", d)
		}
		l.set(func() {
			l.fail = func() (error, bool) { return &api.Error{Code: api.CodeStorageFull, Message: "full"}, false }
		})
		wantCode(t, b.Delete(ctx, "g"), api.CodeStorageFull)
	})
}

// TestCallersGiveUp: who hangs up before the join phase ends leaves nothing behind.
func TestCallersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{InitialRebalanceDelay: time.Second})
		b := l.start(0)
		defer l.stop()
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_, err := b.JoinGroup(short, joinRequest(""))
		wantCode(t, err, api.CodeRequestTimedOut)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.Sleep(10 * time.Millisecond)
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); len(d.Members) != 0 {
			t.Errorf("%+v", d)
		}
		time.Sleep(time.Second)
		if d := must[api.GroupDescription](t)(b.Describe(ctx, "g")); d.State != "Empty" {
			t.Errorf("%+v", d)
		}
	})
}

func TestMemberIDRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		req := joinRequest("")
		req.RequireMemberID = true
		_, err := b.JoinGroup(ctx, req)
		wantCode(t, err, api.CodeMemberIDRequired)
		var e *api.Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.MemberID, "kafka-") {
			t.Fatalf("%+v", err)
		}
		req.MemberID = e.MemberID
		if res := must[api.JoinResult](t)(b.JoinGroup(ctx, req)); res.MemberID != e.MemberID {
			t.Errorf("%+v", res)
		}
		req.MemberID = ""
		_, err = b.JoinGroup(ctx, req)
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		req.MemberID = e.MemberID
		_, err = b.JoinGroup(ctx, req)
		wantCode(t, err, api.CodeUnknownMember)
	})
}

// TestStaticTakeover: the call of the former self that waits is fenced as soon as the new one joins.
func TestStaticTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{InitialRebalanceDelay: time.Second})
		l.topics.Store("t", int32(2))
		b := l.start(0)
		defer l.stop()
		req := nativeRequest("")
		req.InstanceID = "i"
		fenced := make(chan error, 1)
		go func() {
			_, err := b.JoinAndSync(ctx, req)
			fenced <- err
		}()
		time.Sleep(100 * time.Millisecond)
		first := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, req))
		wantCode(t, <-fenced, api.CodeFencedInstance)
		before := l.count()
		again := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, req))
		if again.Generation != first.Generation || len(again.Assignment) != 2 || again.MemberID == first.MemberID || l.count() != before+1 {
			t.Errorf("%+v after %+v, %d proposals", again, first, l.count()-before)
		}
		wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g", MemberID: first.MemberID, InstanceID: "i", Generation: 1}), api.CodeFencedInstance)
		if err := b.LeaveGroup(ctx, api.MemberRef{Group: "g", InstanceID: "i"}); err != nil {
			t.Error(err)
		}
	})
}

// TestSyncDeadline: a member that joins but never fetches its assignment does not hold partitions for ever.
func TestSyncDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		joined := joinAll(t, b.JoinGroup, joinRequest(""), joinRequest(""))
		for _, j := range joined {
			if j.Leader == j.MemberID {
				joinedAs(j).sync(t, b)
			}
		}
		for range 59 / 5 {
			time.Sleep(5 * time.Second)
			for _, j := range joined {
				if err := b.Heartbeat(ctx, joinedAs(j).ref); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(6 * time.Second)
		for _, j := range joined {
			want := api.CodeUnknownMember
			if j.Leader == j.MemberID {
				want = api.CodeRebalanceInProgress
			}
			wantCode(t, b.Heartbeat(ctx, joinedAs(j).ref), want)
		}
	})
}

func TestTopicsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		first := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest("")))
		if len(first.Assignment) != 0 {
			t.Fatalf("%+v", first)
		}
		ref := api.MemberRef{Group: "g", MemberID: first.MemberID, Generation: first.Generation}
		for _, n := range []int32{2, 5, 0} {
			l.topics.Store("t", n)
			b.TopicsChanged()
			time.Sleep(10 * time.Millisecond)
			wantCode(t, b.Heartbeat(ctx, ref), api.CodeRebalanceInProgress)
			res := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest(first.MemberID)))
			if len(res.Assignment) != int(n) {
				t.Errorf("%+v", res)
			}
			ref.Generation = res.Generation
			before := l.count()
			b.TopicsChanged()
			time.Sleep(10 * time.Millisecond)
			if l.count() != before {
				t.Error("a rebalance without a change")
			}
		}
	})
}

// TestTopicsChangeDuringAssignment lets partitions come at every moment of a rebalance: the group ends up with them.
func TestTopicsChangeDuringAssignment(t *testing.T) {
	for step := range 100 {
		after := time.Duration(step)*2*time.Millisecond + 500*time.Microsecond
		synctest.Test(t, func(t *testing.T) {
			l := newFakeLog(t, 1, Settings{})
			l.delay = 10 * time.Millisecond
			b := l.start(0)
			defer l.stop()
			l.topics.Store("t", int32(2))
			changed := make(chan struct{})
			time.AfterFunc(after, func() {
				defer close(changed)
				l.topics.Store("t", int32(3))
				b.TopicsChanged()
			})
			res := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest("")))
			<-changed
			time.Sleep(300 * time.Millisecond)
			if len(res.Assignment) != 3 {
				wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g", MemberID: res.MemberID, Generation: res.Generation}), api.CodeRebalanceInProgress)
				res = must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest(res.MemberID)))
			}
			if len(res.Assignment) != 3 {
				t.Errorf("a partition that came after %v has no owner: %+v", after, res)
			}
		})
	}
}

// TestCoverage: a partition withheld in a cooperative rebalance is no reason for another one; one that nobody has is.
func TestCoverage(t *testing.T) {
	tps := func(ps ...int32) (list []api.TopicPartition) {
		for _, p := range ps {
			list = append(list, api.TopicPartition{Topic: "t", Partition: p})
		}
		return list
	}
	for _, tc := range []struct {
		name             string
		strategy         string
		owned, assigned  []api.TopicPartition
		partitions       int32
		changed, forNews bool
	}{
		{"covered", assign.Range, nil, tps(0, 1), 2, false, false},
		{"grown", assign.Range, nil, tps(0, 1), 3, true, true},
		{"shrunk, or not known yet", assign.Range, nil, tps(0, 1), 1, true, false},
		{"withheld", assign.CooperativeSticky, tps(0, 1), tps(0), 2, false, false},
		{"withheld and grown", assign.CooperativeSticky, tps(0, 1), tps(0), 3, true, true},
		{"owned before", assign.Sticky, tps(0, 1), tps(0), 2, true, true},
		{"not subscribed any more", assign.CooperativeSticky, append(tps(0), api.TopicPartition{Topic: "u", Partition: 1}), tps(0), 1, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGroup("g")
			g.protocol = tc.strategy
			sub := assign.EncodeSubscription(tc.strategy, assign.Member{Topics: []string{"t"}, Owned: tc.owned, Generation: 1})
			g.members["m"] = &member{id: "m", protocols: []api.GroupProtocol{{Name: tc.strategy, Metadata: sub}}, assignment: assign.EncodeAssignment(tc.assigned)}
			count := func(string) (int32, bool) { return tc.partitions, true }
			if got := g.coverage().outdated(count, lookForAll); got != tc.changed {
				t.Errorf("changed: %v", got)
			}
			if got := g.coverage().outdated(count, lookForNew); got != tc.forNews {
				t.Errorf("new: %v", got)
			}
		})
	}
}

func TestOffsetsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		if err := b.SetOffsets(ctx, "g", []api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "t"}, Offset: 5}}); err != nil {
			t.Fatal(err)
		}
		before := l.count()
		time.Sleep(7*24*time.Hour - time.Minute)
		if got := must[[]api.OffsetCommit](t)(b.FetchOffsets(ctx, "g", nil)); len(got) != 1 || l.count() != before {
			t.Fatalf("%+v, %d proposals", got, l.count()-before)
		}
		time.Sleep(20 * time.Minute)
		if got := must[[]api.GroupSummary](t)(b.List(ctx)); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

func TestAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		l.topics.Store("t", int32(1))
		b := l.start(0)
		defer l.stop()
		_, err := b.Describe(ctx, "g")
		wantCode(t, err, api.CodeUnknownGroup)
		wantCode(t, b.Delete(ctx, "g"), api.CodeUnknownGroup)
		tp := api.TopicPartition{Topic: "t"}
		got := must[[]api.OffsetCommit](t)(b.FetchOffsets(ctx, "g", []api.TopicPartition{tp}))
		if len(got) != 1 || got[0].Offset != -1 {
			t.Errorf("%+v", got)
		}
		res := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest("")))
		wantCode(t, b.Delete(ctx, "g"), api.CodeGroupNotEmpty)
		wantCode(t, b.SetOffsets(ctx, "g", []api.OffsetCommit{{TopicPartition: tp, Offset: 1}}), api.CodeGroupNotEmpty)
		ref := api.MemberRef{Group: "g", MemberID: res.MemberID, Generation: res.Generation}
		if err := b.LeaveGroup(ctx, ref); err != nil {
			t.Fatal(err)
		}
		if err := b.SetOffsets(ctx, "g", []api.OffsetCommit{{TopicPartition: tp, Offset: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(ctx, "g"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		join := func(f func(*api.JoinRequest)) error {
			req := joinRequest("")
			f(&req)
			_, err := b.JoinGroup(ctx, req)
			return err
		}
		commit := func(o api.OffsetCommit) error {
			return b.CommitOffsets(ctx, api.MemberRef{Group: "g", Generation: -1}, []api.OffsetCommit{o})
		}
		native := func(f func(*api.NativeJoinRequest)) error {
			req := nativeRequest("")
			f(&req)
			_, err := b.JoinAndSync(ctx, req)
			return err
		}
		long := strings.Repeat("x", 2000)
		tp := api.TopicPartition{Topic: "t"}
		for name, tc := range map[string]struct {
			err  error
			code api.Code
		}{
			"no group":            {join(func(r *api.JoinRequest) { r.Group = "" }), api.CodeInvalidRequest},
			"group's name":        {join(func(r *api.JoinRequest) { r.Group = long }), api.CodeInvalidRequest},
			"member's ID":         {join(func(r *api.JoinRequest) { r.MemberID = long }), api.CodeInvalidRequest},
			"instance ID":         {join(func(r *api.JoinRequest) { r.InstanceID = long }), api.CodeInvalidRequest},
			"short session":       {join(func(r *api.JoinRequest) { r.SessionTimeout = time.Second }), api.CodeInvalidSessionTimeout},
			"long session":        {join(func(r *api.JoinRequest) { r.SessionTimeout = time.Hour }), api.CodeInvalidSessionTimeout},
			"no protocol":         {join(func(r *api.JoinRequest) { r.Protocols = nil }), api.CodeInconsistentProtocol},
			"no protocol type":    {join(func(r *api.JoinRequest) { r.ProtocolType = "" }), api.CodeInconsistentProtocol},
			"nameless protocol":   {join(func(r *api.JoinRequest) { r.Protocols[0].Name = "" }), api.CodeInvalidRequest},
			"large subscription":  {join(func(r *api.JoinRequest) { r.Protocols[0].Metadata = make([]byte, 600<<10) }), api.CodeMessageTooLarge},
			"unknown member":      {join(func(r *api.JoinRequest) { r.MemberID = "who" }), api.CodeUnknownMember},
			"unknown strategy":    {native(func(r *api.NativeJoinRequest) { r.Strategies = []string{"by-colour"} }), api.CodeInconsistentProtocol},
			"nameless topic":      {native(func(r *api.NativeJoinRequest) { r.Topics = []string{""} }), api.CodeInvalidRequest},
			"owned, no topic":     {native(func(r *api.NativeJoinRequest) { r.Owned = []api.TopicPartition{{}} }), api.CodeInvalidRequest},
			"too many strategies": {native(func(r *api.NativeJoinRequest) { r.Strategies = make([]string, 100) }), api.CodeInvalidRequest},
			"commit, no topic":    {commit(api.OffsetCommit{}), api.CodeInvalidRequest},
			"commit, partition":   {commit(api.OffsetCommit{TopicPartition: api.TopicPartition{Topic: "t", Partition: -1}}), api.CodeInvalidRequest},
			"commit, offset":      {commit(api.OffsetCommit{TopicPartition: tp, Offset: -1}), api.CodeInvalidRequest},
			"commit, metadata":    {commit(api.OffsetCommit{TopicPartition: tp, Metadata: strings.Repeat("x", 5000)}), api.CodeOffsetMetadataTooLarge},
			"heartbeat, no group": {b.Heartbeat(ctx, api.MemberRef{Group: "none", MemberID: "m"}), api.CodeUnknownMember},
			"leave, no group":     {b.LeaveGroup(ctx, api.MemberRef{Group: "none", MemberID: "m"}), api.CodeUnknownMember},
		} {
			if tc.err == nil || api.CodeOf(tc.err) != tc.code {
				t.Errorf("%s: %v, want code %d", name, tc.err, tc.code)
			}
		}
		_, err := b.SyncGroup(ctx, api.SyncRequest{MemberRef: api.MemberRef{Group: "none", MemberID: "m"}})
		wantCode(t, err, api.CodeUnknownMember)
		if b.machine.Stats().Groups != 0 {
			t.Error("refused requests left a group behind")
		}
	})
}

// TestStopWhileStarting: leadership is lost before the barrier got through.
func TestStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.brokers[0]
		wantCode(t, b.LeaderStart(ctx), api.CodeNotCoordinator) // it does not lead yet
		l.hold, l.raftTerm = make(chan struct{}), 1
		wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g"}), api.CodeNotCoordinator)
		started := make(chan error, 1)
		go func() { started <- b.LeaderStart(ctx) }()
		synctest.Wait()
		wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g"}), api.CodeCoordinatorNotAvailable)
		b.LeaderStop()
		wantCode(t, <-started, api.CodeNotCoordinator)
		b.LeaderStop()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		wantCode(t, b.LeaderStart(short), api.CodeRequestTimedOut)
		wantCode(t, b.Heartbeat(ctx, api.MemberRef{Group: "g"}), api.CodeNotCoordinator)
	})
}

// TestDeadlinesOfAnotherTerm: leadership was lost and won again, and nobody has told the coordinator. The member was heard of elsewhere in between,
// so the deadlines that it has here must not end its session.
func TestDeadlinesOfAnotherTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		l.topics.Store("t", int32(1))
		b := l.start(0)
		defer l.stop()
		joined := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, nativeRequest("")))
		l.mu.Lock()
		l.raftTerm++
		l.mu.Unlock()
		time.Sleep(time.Minute) // virtual; six sessions
		ref := api.MemberRef{Group: "g", MemberID: joined.MemberID, Generation: joined.Generation}
		wantCode(t, b.Heartbeat(ctx, ref), api.CodeNotCoordinator)
		l.start(0)
		if err := b.Heartbeat(ctx, ref); err != nil {
			t.Errorf("the member is gone: %v", err)
		}
	})
}

// TestOnlyTextIsKept: what members say of themselves ends up in protobuf strings, which cannot carry anything else.
func TestOnlyTextIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		b := l.start(0)
		defer l.stop()
		req := nativeRequest("")
		req.ClientID, req.ClientHost = strings.Repeat("\u00fc", 100)[1:], "host\xff"
		joined := must[api.NativeJoinResult](t)(b.JoinAndSync(ctx, req))
		m := must[api.GroupDescription](t)(b.Describe(ctx, "g")).Members[0]
		for _, s := range []string{joined.MemberID, m.MemberID, m.ClientID, m.ClientHost} {
			if !utf8.ValidString(s) || s == "" {
				t.Errorf("%q is not text", s)
			}
		}
		for _, ref := range []api.MemberRef{{Group: "g\xff"}, {Group: "g", MemberID: "\xff"}, {Group: "g", InstanceID: "\xff"}} {
			req := nativeRequest("")
			req.MemberRef = ref
			_, err := b.JoinAndSync(ctx, req)
			wantCode(t, err, api.CodeInvalidRequest)
		}
		o := api.OffsetCommit{TopicPartition: api.TopicPartition{Topic: "t"}, Metadata: "\xff"}
		wantCode(t, b.CommitOffsets(ctx, api.MemberRef{Group: "other", Generation: -1}, []api.OffsetCommit{o}), api.CodeInvalidRequest)
	})
}

func TestSettings(t *testing.T) {
	if err := (Settings{}).Validate(); err != nil {
		t.Error(err)
	}
	for _, s := range []Settings{
		{SessionTimeoutMin: time.Hour}, {InitialRebalanceDelay: -1}, {MembersMax: -1}, {SessionTimeoutMax: 1000 * time.Hour}, {CommandBytesMax: 100}, {QueueBytesMax: 100},
	} {
		if s.Validate() == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	if _, err := NewCoordinator(Config{}); err == nil {
		t.Error("a coordinator without a machine")
	}
}
