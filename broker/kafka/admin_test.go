package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Every code that the broker may return has a row, whatever is added: codes are numbered without gaps, and the last one is found by looking for rows above it.
func TestTheTableOfErrorsIsWhole(t *testing.T) {
	last := api.CodeInternal
	for c := range codes {
		last = max(last, c)
	}
	if len(codes) != int(last)+1 {
		t.Errorf("%d rows for codes 0 to %d", len(codes), last)
	}
	for _, c := range []api.Code{last + 1, -1} {
		if got := codeOf(&api.Error{Code: c}, admin); got != errUnknownServer {
			t.Errorf("code %d, which does not exist: %d", c, got)
		}
	}
}

func TestDescribeLogDirs(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = v
		all := ask[*kmsg.DescribeLogDirsResponse](w, req)
		if len(all.Dirs) != 1 || len(all.Dirs[0].Topics) != 2 || len(all.Dirs[0].Topics[0].Partitions) != 2 {
			t.Fatalf("version %d: %+v", v, all)
		}
		d, p := all.Dirs[0], all.Dirs[0].Topics[0].Partitions[1]
		if p.Partition != 1 || p.Size != 8 || p.OffsetLag != 3 || d.Dir != "/data" || v >= 4 && (d.TotalBytes != 100 || d.UsableBytes != 40) || v < 4 && d.TotalBytes != -1 {
			t.Errorf("version %d: %+v", v, all)
		}
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic, rt.Partitions = "orders", []int32{1}
		req.Topics = append(req.Topics, rt)
		if one := ask[*kmsg.DescribeLogDirsResponse](w, req); len(one.Dirs[0].Topics) != 1 || len(one.Dirs[0].Topics[0].Partitions) != 1 {
			t.Errorf("version %d, one partition: %+v", v, one)
		}
		req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		if none := ask[*kmsg.DescribeLogDirsResponse](w, req); len(none.Dirs) != 1 || len(none.Dirs[0].Topics) != 0 {
			t.Errorf("version %d, no partitions: %+v", v, none)
		}
	}
}

func TestElectLeaders(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrElectLeadersRequest()
		req.Version = v
		if all := ask[*kmsg.ElectLeadersResponse](w, req); len(all.Topics) != 1 || len(all.Topics[0].Partitions) != 1 || all.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Errorf("version %d, all: %+v", v, all)
		}
		rt := kmsg.NewElectLeadersRequestTopic()
		rt.Topic, rt.Partitions = "orders", []int32{0, 1, 7}
		req.Topics = append(req.Topics, rt)
		var got []int16
		for _, p := range ask[*kmsg.ElectLeadersResponse](w, req).Topics[0].Partitions {
			got = append(got, p.ErrorCode)
		}
		if fmt.Sprint(got) != fmt.Sprint([]int16{0, errEligibleLeadersNotAvailable, errUnknownTopicOrPartition}) {
			t.Errorf("version %d: %v", v, got)
		}
	}
	req := kmsg.NewPtrElectLeadersRequest()
	req.Version, req.ElectionType = 2, 7
	if resp := ask[*kmsg.ElectLeadersResponse](w, req); resp.ErrorCode != errInvalidRequest {
		t.Errorf("an unknown type of election: %+v", resp)
	}
}

func TestReassignments(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for v := int16(0); v <= 1; v++ {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.Version, req.AllowReplicationFactorChange = v, false // which version 0 cannot say
		rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		rt.Topic = "orders"
		for _, brokers := range [][]int32{{1}, {1, 2}, {}, nil} {
			p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			p.Replicas = brokers
			rt.Partitions = append(rt.Partitions, p)
		}
		req.Topics = append(req.Topics, rt)
		var got []int16
		for _, p := range ask[*kmsg.AlterPartitionAssignmentsResponse](w, req).Topics[0].Partitions {
			got = append(got, p.ErrorCode)
		}
		want := []int16{0, 0, errInvalidReplicaAssignment, errNoReassignmentInProgress}
		if v == 1 {
			want[1] = errInvalidReplicationFactor
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("version %d: %v, want %v", v, got, want)
		}
	}
	list := ask[*kmsg.ListPartitionReassignmentsResponse](w, kmsg.NewPtrListPartitionReassignmentsRequest())
	if p := list.Topics[0].Partitions[0]; fmt.Sprint(p.Replicas, p.AddingReplicas, p.RemovingReplicas) != "[2 1] [2] [1]" {
		t.Errorf("under way: %+v", list)
	}
}

func TestOffsetDelete(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for group, want := range map[string]string{"g": "0 [0 86 3]", "nobody": "69 []"} {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		rt := kmsg.NewOffsetDeleteRequestTopic()
		rt.Topic = "orders"
		for _, p := range []int32{0, 1, 7} {
			rp := kmsg.NewOffsetDeleteRequestTopicPartition()
			rp.Partition = p
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		resp := ask[*kmsg.OffsetDeleteResponse](w, req)
		codes := []int16{}
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				codes = append(codes, p.ErrorCode)
			}
		}
		if got := fmt.Sprint(resp.ErrorCode, " ", codes); got != want {
			t.Errorf("group %s: %s, want %s", group, got, want)
		}
	}
}

// Positions that came with a version are refused before, and so are partitions that are named twice.
func TestListOffsetsPositions(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	asked := func(v int16, timestamps ...int64) (out []int16) {
		req := kmsg.NewPtrListOffsetsRequest()
		req.Version = v
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = "orders"
		for _, ts := range timestamps {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Timestamp, p.CurrentLeaderEpoch = ts, -1
			rt.Partitions = append(rt.Partitions, p)
		}
		req.Topics = append(req.Topics, rt)
		for _, p := range ask[*kmsg.ListOffsetsResponse](w, req).Topics[0].Partitions {
			out = append(out, p.ErrorCode)
		}
		return out
	}
	for ts, since := range timestampSince {
		for v := int16(1); v <= 11; v++ {
			want := errNone
			if v < since {
				want = errUnsupportedVersion
			}
			if got := asked(v, ts); got[0] != want {
				t.Errorf("%d in version %d: %d, want %d", ts, v, got[0], want)
			}
		}
	}
	if got := asked(5, -1, -2); fmt.Sprint(got) != fmt.Sprint([]int16{errInvalidRequest, errInvalidRequest}) {
		t.Errorf("twice: %v", got)
	}
}
