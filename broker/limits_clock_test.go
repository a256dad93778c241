package broker_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/client"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// jumpy is a wall clock that can be set.
type jumpy struct{ ahead atomic.Int64 }

func (j *jumpy) Now() time.Time       { return time.Now().Add(time.Duration(j.ahead.Load())) }
func (j *jumpy) set(by time.Duration) { j.ahead.Store(int64(by)) }

const years = 365 * 24 * time.Hour

// The brokers' clocks jump, far ahead and back again. Offsets and order do not depend on them, nor do leaderships, sessions of group members and
// who is taken for dead; times that brokers give are what their clocks said.
func TestClockJumps(t *testing.T) {
	clock := &jumpy{}
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		cfg.Seams.Now = clock.Now
		cfg.ReplaceAfter = time.Hour
	}})
	c.CreateTopic("t", 1, 3, "message.timestamp.type", "LogAppendTime", "retention.ms", "-1")
	members := joinTwo(t, c, "g", "t2", createdWith(c, "t2", 2))
	_, groups := coordinator(c, "g")
	load := c.Load("t", 1)
	load.AwaitProgress(5)
	ctx, cancel := c.Context()
	defer cancel()
	for _, ahead := range []time.Duration{10 * years, -10 * years, 0} {
		clock.set(ahead)
		load.AwaitProgress(10)
		for _, m := range members {
			r, err := groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "g", MemberId: m.MemberId, Generation: m.Generation})
			if err != nil || r.Rebalance {
				t.Errorf("with clocks at %s: a member's heartbeat: %v %v", ahead, r, err)
			}
		}
		st, err := pb.NewClusterClient(c.Any()).Status(ctx, &pb.StatusRequest{})
		if err != nil || len(st.Problems) > 0 {
			t.Errorf("with clocks at %s: %v %v", ahead, st.GetProblems(), err)
		}
		for _, b := range st.GetBrokers() {
			if b.State != pb.BrokerState_BROKER_STATE_ALIVE {
				t.Errorf("with clocks at %s: broker %d is %v", ahead, b.BrokerId, b.State)
			}
		}
	}
	load.StopAndVerify()
	times := map[int]bool{}
	for _, r := range c.ReadAll("t", 0) {
		times[time.UnixMilli(r.TimestampMs).Year()-time.Now().Year()] = true
	}
	if !times[0] || !times[10] && !times[9] || !times[-10] && !times[-9] {
		t.Errorf("the records are of %v years", times)
	}
}

// createdWith creates a topic and returns the number of its partitions.
func createdWith(c *brokertest.Cluster, name string, partitions int) int {
	c.CreateTopic(name, int32(partitions), 3)
	return partitions
}

// Producers may give records whatever times they like; they are stored in the order in which they came, found by time as well as they can be, and do
// not keep a broker from dropping what is old.
func TestTimesOfRecords(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c)
	p := newProducer(t, cl)
	now := time.Now().UnixMilli()
	stamps := []int64{now, 1<<62 - 1, 0, now - 1000, now * 1_000_000, 1, now + 1}
	for i, ms := range stamps {
		if _, err := p.Append(ctx, "t", 0, []*client.Record{{Timestamp: time.UnixMilli(ms), Value: []byte(fmt.Sprint(i))}}); err != nil {
			t.Fatalf("timestamp %d: %v", ms, err)
		}
	}
	got := c.ReadAll("t", 0)
	if len(got) != len(stamps) {
		t.Fatalf("%d records", len(got))
	}
	for i, r := range got {
		if r.TimestampMs != stamps[i] || string(r.Value) != fmt.Sprint(i) {
			t.Errorf("record %d: %v", i, r)
		}
	}
	log := pb.NewLogClient(c.Any())
	for _, x := range []struct{ at, want int64 }{{-1 << 63, 0}, {0, 0}, {now, 0}, {now + 1, 1}, {1<<62 - 1, 1}, {1 << 62, -1}, {1<<63 - 1, -1}} {
		r, err := log.ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsPartition{
			{Topic: "t", Position: &pb.ListOffsetsPartition_TimestampMs{TimestampMs: x.at}}}})
		if err != nil || r.Offsets[0].Offset != x.want || r.Offsets[0].Error != nil {
			t.Errorf("the first record at %d or later: %v %v, want %d", x.at, r, err, x.want)
		}
	}
}
