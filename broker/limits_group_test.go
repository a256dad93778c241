package broker_test

import (
	"testing"

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
