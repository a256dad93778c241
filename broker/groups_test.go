package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// coordinator finds the group's coordinator and connects to it.
func coordinator(c *brokertest.Cluster, group string) (api.BrokerID, pb.GroupsClient) {
	c.T.Helper()
	id := api.NoBroker
	var conn *grpc.ClientConn
	c.Eventually("group "+group+" has a coordinator", func() error {
		ctx, cancel := c.Context()
		defer cancel()
		r, err := pb.NewGroupsClient(c.Any()).FindCoordinator(ctx, &pb.FindCoordinatorRequest{Group: group})
		if err != nil {
			return err
		}
		id = api.BrokerID(r.GetCoordinator().GetBrokerId())
		if conn = c.Conn(id); conn == nil {
			return fmt.Errorf("broker %d is down", id)
		}
		return nil
	})
	return id, pb.NewGroupsClient(conn)
}

// joinTwo lets two members join until they share the topic's partitions.
func joinTwo(t *testing.T, c *brokertest.Cluster, group, topic string, partitions int) (members []*pb.JoinResponse) {
	t.Helper()
	_, groups := coordinator(c, group)
	type outcome struct {
		i int
		r *pb.JoinResponse
		e error
	}
	members = make([]*pb.JoinResponse, 2)
	c.Eventually("two members share the partitions", func() error {
		results := make(chan outcome, 2)
		for i := range 2 {
			req := &pb.JoinRequest{Group: group, Topics: []string{topic}, SessionTimeoutMs: 30000, OwnedGeneration: -1, ClientId: fmt.Sprint("c", i)}
			if m := members[i]; m != nil {
				req.MemberId, req.Owned, req.OwnedGeneration = m.MemberId, m.Assignment, m.Generation
			}
			go func() {
				ctx, cancel := c.Context()
				defer cancel()
				r, err := groups.Join(ctx, req)
				results <- outcome{i, r, err}
			}()
		}
		var errs error
		for range 2 {
			o := <-results
			if o.e == nil {
				members[o.i] = o.r
			}
			errs = errors.Join(errs, o.e)
		}
		if errs != nil {
			return errs
		}
		a, b := members[0], members[1]
		if a.Generation != b.Generation || len(a.Assignment) != partitions/2 || len(b.Assignment) != partitions/2 {
			return fmt.Errorf("%v and %v", a, b)
		}
		return nil
	})
	return members
}

func TestGroupSurvivesItsCoordinator(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 4, 3)
	for i := range 40 {
		c.Produce("t", int32(i%4), fmt.Sprint(i))
	}
	members := joinTwo(t, c, "g", "t", 4)
	id, groups := coordinator(c, "g")
	ctx, cancel := c.Context()
	defer cancel()
	for _, m := range members {
		var offsets []*pb.OffsetCommit
		for _, tp := range m.Assignment {
			offsets = append(offsets, &pb.OffsetCommit{Topic: tp.Topic, Partition: tp.Partition, Offset: 7, LeaderEpoch: -1, Metadata: "seven"})
		}
		if _, err := groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", MemberId: m.MemberId, Generation: m.Generation, Offsets: offsets}); err != nil {
			t.Fatal(err)
		}
	}
	c.Crash(id)
	// No commit is lost, and nobody has to join again.
	for _, m := range members {
		c.Eventually("the member goes on at the new coordinator", func() error {
			wantListed(c, "g")
			next, groups := coordinator(c, "g")
			if next == id {
				return errors.New("still the old coordinator")
			}
			r, err := groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "g", MemberId: m.MemberId, Generation: m.Generation})
			if err == nil && r.Rebalance {
				t.Fatal("the failover made the group rebalance")
			}
			if d := brokertest.Detail(err); d != nil && !d.Retriable {
				t.Fatalf("heartbeat: %v", err)
			}
			return err
		})
	}
	_, groups = coordinator(c, "g")
	r, err := groups.FetchOffsets(ctx, &pb.FetchOffsetsRequest{Group: "g"})
	if err != nil || len(r.Offsets) != 4 || slices.ContainsFunc(r.Offsets, func(o *pb.OffsetCommit) bool { return o.Offset != 7 || o.Metadata != "seven" }) {
		t.Errorf("committed offsets after the failover: %v %v", r, err)
	}
	c.Restart(id)
}

// wantListed asks all brokers for the groups: whoever answers must name the group, also in the middle of a failover.
func wantListed(c *brokertest.Cluster, group string) {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	for _, id := range c.Running() {
		r, err := pb.NewAdminClient(c.Conn(id)).ListGroups(ctx, &pb.ListGroupsRequest{})
		if err == nil && !slices.ContainsFunc(r.Groups, func(g *pb.GroupSummary) bool { return g.Group == group }) {
			c.T.Errorf("broker %d leaves group %s out: %v", id, group, r.Groups)
		}
	}
}

// TestNoRecordsAmongGroups: the coordinators' partitions take no records, one by one or by stream.
func TestNoRecordsAmongGroups(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 1, 3)
	_, _ = coordinator(c, "g") // makes the topic
	ctx, cancel := c.Context()
	defer cancel()
	req := &pb.ProduceRequest{Topic: "__consumer_offsets", Payload: &pb.ProduceRequest_Records{Records: &pb.Records{Records: []*pb.Record{{Value: []byte("x")}}}}}
	for _, id := range c.Running() { // one of them leads partition 0; the others say who does
		log := pb.NewLogClient(c.Conn(id))
		_, err := log.Produce(ctx, req)
		stream, serr := log.ProduceStream(ctx)
		if serr != nil {
			t.Fatal(serr)
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		r, rerr := stream.Recv()
		if rerr != nil {
			t.Fatal(rerr)
		}
		for how, got := range map[string]pb.ErrorCode{"alone": brokertest.Detail(err).GetCode(), "by stream": r.GetError().GetCode()} {
			if r.GetError() == nil || got != pb.ErrorCode_ERROR_CODE_INVALID_TOPIC && got != pb.ErrorCode_ERROR_CODE_NOT_LEADER {
				t.Errorf("broker %d, %s: %v", id, how, got)
			}
		}
	}
}

func TestGroupAdministration(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("t", 2, 3)
	for i := range 20 {
		c.Produce("t", int32(i%2), fmt.Sprint(i))
	}
	members := joinTwo(t, c, "g", "t", 2)
	id, groups := coordinator(c, "g")
	ctx, cancel := c.Context()
	defer cancel()
	// Any broker answers; here, one that does not coordinate.
	other := c.Running()[0]
	if other == id {
		other = c.Running()[1]
	}
	admin := pb.NewAdminClient(c.Conn(other))
	list, err := admin.ListGroups(ctx, &pb.ListGroupsRequest{})
	if err != nil || len(list.Groups) != 1 || list.Groups[0].Group != "g" || list.Groups[0].Members != 2 || api.BrokerID(list.Groups[0].Coordinator) != id {
		t.Errorf("list: %v %v", list, err)
	}
	if _, err := groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: "g", MemberId: members[0].MemberId, Generation: members[0].Generation,
		Offsets: []*pb.OffsetCommit{{Topic: "t", Partition: 0, Offset: 4, LeaderEpoch: -1}}}); err != nil {
		t.Fatal(err)
	}
	d, err := admin.DescribeGroup(ctx, &pb.DescribeGroupRequest{Group: "g"})
	if err != nil || d.Group.State != "Stable" || len(d.Group.Members) != 2 || d.Group.Coordinator.GetBrokerId() != int32(id) {
		t.Fatalf("describe: %v %v", d, err)
	}
	for _, o := range d.Group.Offsets {
		if o.Partition == 0 && (o.CommittedOffset != 4 || o.Lag != 6 || o.HighWatermark != 10) {
			t.Errorf("lag: %v", o)
		}
	}
	reset := &pb.ResetOffsetsRequest{Group: "g", Topics: []string{"t"}, To: &pb.ResetOffsetsRequest_Latest{Latest: true}}
	if _, err := admin.ResetOffsets(ctx, reset); brokertest.Detail(err).GetCode() != pb.ErrorCode_ERROR_CODE_GROUP_NOT_EMPTY {
		t.Errorf("resetting a group with members: %v", err)
	}
	for _, m := range members {
		if _, err := groups.Leave(ctx, &pb.LeaveRequest{Group: "g", MemberId: m.MemberId}); err != nil {
			t.Fatal(err)
		}
	}
	testResets(t, c, admin)
	if _, err := admin.DeleteGroup(ctx, &pb.DeleteGroupRequest{Group: "g"}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := admin.DescribeGroup(ctx, &pb.DescribeGroupRequest{Group: "g"}); brokertest.Detail(err).GetCode() != pb.ErrorCode_ERROR_CODE_UNKNOWN_GROUP {
		t.Errorf("describing the deleted group: %v", err)
	}
}

// testResets moves group g over topic t, whose two partitions have ten records each, from offset 4 in partition 0.
func testResets(t *testing.T, c *brokertest.Cluster, admin pb.AdminClient) {
	ctx, cancel := c.Context()
	defer cancel()
	for _, x := range []struct {
		name string
		req  *pb.ResetOffsetsRequest
		want []int64 // from, to, for each partition
	}{
		{"dry run", &pb.ResetOffsetsRequest{DryRun: true, To: &pb.ResetOffsetsRequest_Latest{Latest: true}}, []int64{4, 10}},
		{"latest", &pb.ResetOffsetsRequest{Topics: []string{"t"}, To: &pb.ResetOffsetsRequest_Latest{Latest: true}}, []int64{4, 10, -1, 10}},
		{"shift", &pb.ResetOffsetsRequest{To: &pb.ResetOffsetsRequest_Shift{Shift: -3}}, []int64{10, 7, 10, 7}},
		{"one partition", &pb.ResetOffsetsRequest{Partitions: []*pb.TopicPartition{{Topic: "t", Partition: 1}}, To: &pb.ResetOffsetsRequest_Offset{Offset: 2}}, []int64{7, 2}},
		{"beyond the end", &pb.ResetOffsetsRequest{Topics: []string{"t"}, To: &pb.ResetOffsetsRequest_Offset{Offset: 99}}, []int64{7, 10, 2, 10}},
		{"time", &pb.ResetOffsetsRequest{To: &pb.ResetOffsetsRequest_TimestampMs{TimestampMs: 1}}, []int64{10, 0, 10, 0}},
		{"earliest", &pb.ResetOffsetsRequest{To: &pb.ResetOffsetsRequest_Earliest{Earliest: true}}, []int64{0, 0, 0, 0}},
	} {
		x.req.Group = "g"
		r, err := admin.ResetOffsets(ctx, x.req)
		var got []int64
		for _, o := range r.GetResets() {
			got = append(got, o.FromOffset, o.ToOffset)
		}
		if err != nil || !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v (%v)", x.name, got, x.want, err)
		}
	}
}
