package broker_test

import (
	"testing"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// A member of an earlier generation can neither stay nor commit: what it would commit belongs to somebody else by now.
func TestStaleGenerations(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 2, 1)
	members := joinTwo(t, c, "g", "t", 2)
	_, groups := coordinator(c, "g")
	ctx, cancel := c.Context()
	defer cancel()
	m := members[0]
	commit := func(generation int32, member string) error {
		return second(groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{
			Group: "g", MemberId: member, Generation: generation, Offsets: []*pb.OffsetCommit{{Topic: "t", Partition: 0, Offset: 7}}}))
	}
	heartbeat := func(generation int32, member string) error {
		return second(groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "g", MemberId: member, Generation: generation}))
	}
	const stale, unknown = pb.ErrorCode_ERROR_CODE_ILLEGAL_GENERATION, pb.ErrorCode_ERROR_CODE_UNKNOWN_MEMBER
	for _, x := range []struct {
		name string
		err  error
		code pb.ErrorCode
		word string
	}{
		{"a commit of the generation before", commit(m.Generation-1, m.MemberId), stale, "join again"},
		{"a commit of the next generation", commit(m.Generation+1, m.MemberId), stale, "join again"},
		{"a commit of the least generation", commit(-1<<31, m.MemberId), stale, "join again"},
		{"a heartbeat of the generation before", heartbeat(m.Generation-1, m.MemberId), stale, "join again"},
		{"a commit of nobody", commit(m.Generation, "nobody"), unknown, "nobody"},
		{"a heartbeat of nobody", heartbeat(m.Generation, "nobody"), unknown, "nobody"},
	} {
		if err := isRefusal(x.err, x.code, false, `"g"`, x.word); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	// A commit from outside would overtake the members.
	if err := commit(-1, ""); err == nil || brokertest.Detail(err).GetRetriable() {
		t.Errorf("a commit from outside of a group with members: %v", err)
	}
	r, err := groups.FetchOffsets(ctx, &pb.FetchOffsetsRequest{Group: "g"})
	if err != nil || len(r.Offsets) != 0 {
		t.Errorf("committed all the same: %v %v", r, err)
	}
	if err := commit(m.Generation, m.MemberId); err != nil {
		t.Errorf("the right generation: %v", err)
	}
}

// A coordinator without a quorum of the metadata group cannot tell whether a partition that it does not know exists: it must not say that it does not.
func TestCommitWhileMetadataMayLag(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) { cfg.OffsetsPartitions, cfg.OffsetsReplicationFactor = 1, 1 }})
	c.CreateTopic("t", 1, 3)
	ctx, cancel := c.Context()
	defer cancel()
	on, groups := coordinator(c, "g")
	commit := func(topic string) error {
		return second(groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", Generation: -1,
			Offsets: []*pb.OffsetCommit{{Topic: topic, Offset: 1, LeaderEpoch: -1}}}))
	}
	want := func(what string, err error, code pb.ErrorCode) {
		t.Helper()
		if got := brokertest.Detail(err).GetCode(); err == nil || got != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := commit("t"); err != nil {
		t.Fatal(err)
	}
	want("an unknown topic", commit("u"), pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION)
	for id := range api.BrokerID(3) {
		if id+1 != on {
			c.Crash(id + 1)
		}
	}
	want("an unknown topic, alone", commit("u"), pb.ErrorCode_ERROR_CODE_COORDINATOR_NOT_AVAILABLE)
	if err := commit("t"); err != nil {
		t.Errorf("a known topic, alone: %v", err)
	}
}
