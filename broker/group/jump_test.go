package group

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

const tenYears = 10 * 365 * 24 * time.Hour

// commitFor commits an offset of a group without members.
func commitFor(t *testing.T, b *fakeBroker, group string) {
	t.Helper()
	err := b.CommitOffsets(ctx, api.MemberRef{Group: group, Generation: -1}, []api.OffsetCommit{{TopicPartition: api.TopicPartition{Topic: "t"}, Offset: 7, LeaderEpoch: -1}})
	if err != nil {
		t.Fatal(err)
	}
}

func hasOffsets(t *testing.T, b *fakeBroker, group string) bool {
	t.Helper()
	return len(must[[]api.OffsetCommit](t)(b.FetchOffsets(ctx, group, nil))) > 0
}

// wallClock gives a broker, before it leads, a clock that can be set ahead.
func wallClock(b *fakeBroker) (ahead *atomic.Int64) {
	ahead = new(atomic.Int64)
	b.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	return ahead
}

// TestClockJumpExpiresNothing: a coordinator whose clock is suddenly years ahead lets no offsets expire for a day, in which it is put right; and the next one, whose
// clock is right, counts ages by that, although the machine's time has been ahead since. What is old by then does expire.
func TestClockJumpExpiresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 2, Settings{})
		l.topics.Store("t", int32(1))
		ahead := wallClock(l.brokers[0])
		b := l.start(0)
		defer l.stop()
		commitFor(t, b, "old")
		time.Sleep(5 * 24 * time.Hour)
		commitFor(t, b, "young")
		ahead.Store(int64(tenYears))
		commitFor(t, b, "jumped")
		time.Sleep(20 * time.Hour)
		if !hasOffsets(t, b, "old") || !hasOffsets(t, b, "young") {
			t.Fatal("offsets expired by a clock that had jumped ahead")
		}
		other := l.start(1)
		time.Sleep(2 * 24 * time.Hour)
		if hasOffsets(t, other, "old") {
			t.Error("what is older than the retention did not expire")
		}
		if !hasOffsets(t, other, "young") {
			t.Error("what is younger than the retention expired")
		}
		if !hasOffsets(t, other, "jumped") {
			t.Error("what was committed by the wrong clock expired at once")
		}
	})
}

// TestClockJumpIsBelieved: after a day there the clock counts.
func TestClockJumpIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog(t, 1, Settings{})
		ahead := wallClock(l.brokers[0])
		b := l.start(0)
		defer l.stop()
		commitFor(t, b, "g")
		ahead.Store(int64(tenYears))
		time.Sleep(26 * time.Hour)
		if hasOffsets(t, b, "g") {
			t.Error("the clock has been there for more than a day and is not believed")
		}
	})
}
