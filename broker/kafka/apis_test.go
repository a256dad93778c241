package kafka

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

func TestEveryErrorHasACode(t *testing.T) {
	for c := api.CodeInternal; c <= api.CodeGroupSubscribedToTopic; c++ {
		row, ok := codes[c]
		if !ok {
			t.Errorf("code %d has no row", c)
		}
		for f, code := range row {
			if code == errNone {
				t.Errorf("code %d is no error in family %d", c, f)
			}
		}
	}
	if codeOf(nil, data) != errNone || codeOf(context.Canceled, group) != errCoordinatorNotAvailable || codeOf(fmt.Errorf("?"), admin) != errUnknownServer {
		t.Error("errors that are no *api.Error")
	}
}

// The hand-written fetch response is what kmsg would write, in every version.
func TestFetchEncoding(t *testing.T) {
	rack := "r"
	for v := int16(4); v <= 18; v++ {
		f := &fetchReply{version: v, topics: []fetchedTopic{{name: "orders", id: topicID, partitions: []fetchedPartition{
			{partition: 1, highWatermark: 9, logStart: 2, batches: [][]byte{[]byte("first"), []byte("second")}, leader: noHint},
			{partition: 2, errorCode: errNotLeader, highWatermark: -1, logStart: -1, leader: leaderHint{4, 7}},
		}}, {name: "none", partitions: nil}}}
		f.hints.brokers = []kafkaBroker{{4, "b4", 9092, &rack}, {5, "b5", 9093, nil}}
		want := kmsg.NewPtrFetchResponse()
		want.Version = v
		for _, ft := range f.topics {
			wt := kmsg.NewFetchResponseTopic()
			wt.Topic, wt.TopicID = ft.name, ft.id
			for _, fp := range ft.partitions {
				wp := kmsg.NewFetchResponseTopicPartition()
				wp.Partition, wp.ErrorCode, wp.HighWatermark, wp.LastStableOffset, wp.LogStartOffset = fp.partition, fp.errorCode, fp.highWatermark, fp.highWatermark, fp.logStart
				wp.AbortedTransactions, wp.PreferredReadReplica, wp.RecordBatches = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}, -1, bytes.Join(fp.batches, nil)
				wp.CurrentLeader.LeaderID, wp.CurrentLeader.LeaderEpoch = fp.leader.id, fp.leader.epoch
				if wp.RecordBatches == nil {
					wp.RecordBatches = []byte{}
				}
				wt.Partitions = append(wt.Partitions, wp)
			}
			want.Topics = append(want.Topics, wt)
		}
		for _, b := range f.hints.brokers {
			if v < 16 { // kmsg does not know from which version on the tag is there
				break
			}
			wb := kmsg.NewFetchResponseBroker()
			wb.NodeID, wb.Host, wb.Port, wb.Rack = b.id, b.host, b.port, b.rack
			want.Brokers = append(want.Brokers, wb)
		}
		if got, want := f.AppendTo(nil), want.AppendTo(nil); !bytes.Equal(got, want) {
			t.Errorf("version %d:\n got %x\nwant %x", v, got, want)
		}
	}
}

func TestFetchLeaderEpochs(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for epoch, want := range map[int32]int16{-1: 0, 3: 0, 2: errFencedLeaderEpoch, 4: errUnknownLeaderEpoch} {
		req := fetchRequest(12, 0, 0, 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
		if got := ask[*kmsg.FetchResponse](w, req).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("epoch %d: error %d, want %d", epoch, got, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	for _, name := range []string{"orders", "nope", "bad name"} {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = text(name)
		req.Topics = append(req.Topics, topic)
	}
	byID := kmsg.NewMetadataRequestTopic()
	byID.TopicID = [16]byte{9}
	req.Topics = append(req.Topics, byID)
	resp := ask[*kmsg.MetadataResponse](w, req)
	if len(resp.Brokers) != 1 || resp.Brokers[0].Host != "b1" || resp.Brokers[0].Port != 9092 || *resp.Brokers[0].Rack != "r" || resp.ControllerID != 1 || *resp.ClusterID != "cluster" {
		t.Errorf("cluster: %+v", resp)
	}
	var got []int16
	for _, topic := range resp.Topics {
		got = append(got, topic.ErrorCode)
	}
	if want := []int16{0, errUnknownTopicOrPartition, errInvalidTopic, errUnknownTopicID}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("errors %v, want %v", got, want)
	}
	f.mu.Lock()
	f.lags = true
	f.mu.Unlock()
	if e := ask[*kmsg.MetadataResponse](w, req).Topics[1].ErrorCode; e != errLeaderNotAvailable {
		t.Errorf("a topic of which the broker cannot tell: error %d", e)
	}
	p := resp.Topics[0].Partitions
	if p[0].Leader != 1 || p[0].LeaderEpoch != 3 || fmt.Sprint(p[0].Replicas, p[0].ISR, p[0].OfflineReplicas) != "[1 9] [1] [9]" {
		t.Errorf("partition 0: %+v", p[0])
	}
	if p[1].Leader != -1 || p[1].ErrorCode != errLeaderNotAvailable {
		t.Errorf("partition 1: %+v", p[1])
	}
	// All topics: none named in version 0, null later. None: an empty list.
	for v, want := range map[int16]int{0: 1, 1: 0, 12: 0} {
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.Topics = v, []kmsg.MetadataRequestTopic{}
		if got := len(ask[*kmsg.MetadataResponse](w, req).Topics); got != want {
			t.Errorf("version %d with no topics: %d, want %d", v, got, want)
		}
	}
}

func TestJoinGroup(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	join := func(v int16) *kmsg.JoinGroupResponse {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group = v, "g"
		return ask[*kmsg.JoinGroupResponse](w, req)
	}
	if r := join(9); r.ErrorCode != errMemberIDRequired || r.MemberID != "m-1" || r.Generation != -1 {
		t.Errorf("a first join: %+v", r)
	}
	var mu sync.Mutex
	var last api.JoinRequest
	joinedWith := func() api.JoinRequest {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
	f.mu.Lock()
	f.join = func(_ context.Context, req api.JoinRequest) (api.JoinResult, error) {
		mu.Lock()
		defer mu.Unlock()
		last = req
		return api.JoinResult{MemberID: "m", Leader: "m", Generation: 2, Protocol: "range", SkipAssignment: true, Members: []api.JoinedMember{{MemberID: "m"}}}, nil
	}
	f.mu.Unlock()
	r, asked := join(9), joinedWith()
	if r.LeaderID != "m" || !r.SkipAssignment || len(r.Members) != 1 || !asked.RequireMemberID || asked.ClientID != "test" || asked.ClientHost != "/127.0.0.1" {
		t.Errorf("version 9: %+v, asked %+v", r, asked)
	}
	// Before version 9 a leader cannot be told to skip the assignment: it does not learn that it leads.
	if r := join(8); r.LeaderID != "" || len(r.Members) != 0 || r.MemberID != "m" {
		t.Errorf("version 8: %+v", r)
	}
	if join(3); joinedWith().RequireMemberID {
		t.Error("clients of version 3 do not know member IDs that are handed out first")
	}
}

// A partition that cannot be committed does not keep the others from it.
func TestOffsetCommitByPartition(t *testing.T) {
	f := newFake()
	var mu sync.Mutex
	var stored []api.OffsetCommit
	f.commit = func(offsets []api.OffsetCommit) error {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range offsets {
			if len(o.Metadata) > 3 {
				tp := o.TopicPartition
				return &api.Error{Code: api.CodeOffsetMetadataTooLarge, TP: &tp, Message: "too large"}
			}
			if err := known(o.TopicPartition); err != nil {
				return err
			}
		}
		stored = append(stored, offsets...)
		return nil
	}
	_, addr := serve(t, f, Options{})
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group = 8, "g"
	add := func(topic string, partition int32, metadata string) {
		rt := kmsg.NewOffsetCommitRequestTopic()
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = partition, 5, text(metadata)
		rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
		req.Topics = append(req.Topics, rt)
	}
	add("orders", 0, "ok")
	add("orders", 1, "too long")
	add("orders", 2, "")
	add("nope", 0, "")
	resp := ask[*kmsg.OffsetCommitResponse](dial(t, addr), req)
	mu.Lock()
	defer mu.Unlock()
	var got []int16
	for _, rt := range resp.Topics {
		got = append(got, rt.Partitions[0].ErrorCode)
	}
	if want := []int16{0, errOffsetMetadataTooLarge, errUnknownTopicOrPartition, errUnknownTopicOrPartition}; fmt.Sprint(got) != fmt.Sprint(want) || len(stored) != 1 {
		t.Errorf("errors %v, want %v; stored %v", got, want, stored)
	}
}

func TestGroupsOfThisBrokerOnly(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for filter, want := range map[string]int{"": 1, "stable": 1, "Empty": 0} {
		req := kmsg.NewPtrListGroupsRequest()
		req.Version = 5
		if filter != "" {
			req.StatesFilter = []string{filter}
		}
		if resp := ask[*kmsg.ListGroupsResponse](w, req); len(resp.Groups) != want {
			t.Errorf("filter %q: %+v", filter, resp.Groups)
		}
	}
}

// Epochs 1, 1, 4, 4, 6 over offsets 0 to 9; the leader's epoch is 8.
func TestOffsetForLeaderEpoch(t *testing.T) {
	f := newFake()
	for _, epoch := range []int32{1, 1, 4, 4, 6} {
		f.epochs[0] = epoch
		if _, err := f.Append(context.Background(), api.AppendRequest{TopicPartition: api.TopicPartition{Topic: "orders"}, Batch: batch(t, "a", "b")}); err != nil {
			t.Fatal(err)
		}
	}
	f.epochs[0] = 8
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	for epoch, want := range map[int32][2]int64{0: {0, 0}, 1: {1, 4}, 2: {1, 4}, 4: {4, 8}, 5: {4, 8}, 6: {6, 10}, 7: {6, 10}, 8: {8, 10}, 9: {-1, -1}, -1: {-1, -1}} {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.Version = 4
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.LeaderEpoch, p.CurrentLeaderEpoch = epoch, 8
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic, rt.Partitions = "orders", append(rt.Partitions, p)
		req.Topics = append(req.Topics, rt)
		got := ask[*kmsg.OffsetForLeaderEpochResponse](w, req).Topics[0].Partitions[0]
		if got.ErrorCode != 0 || int64(got.LeaderEpoch) != want[0] || got.EndOffset != want[1] {
			t.Errorf("epoch %d: %+v, want %v", epoch, got, want)
		}
	}
}

func TestIncrementalLists(t *testing.T) {
	now := func(key string) (string, api.ConfigType) {
		if key == "cleanup.policy" {
			return "delete", api.ConfigList
		}
		return "5", api.ConfigLong
	}
	for _, c := range []struct {
		op          kmsg.IncrementalAlterConfigOp
		name, value string
		want        string
	}{
		{kmsg.IncrementalAlterConfigOpSet, "retention.ms", "7", "7"},
		{kmsg.IncrementalAlterConfigOpAppend, "cleanup.policy", "compact", "delete,compact"},
		{kmsg.IncrementalAlterConfigOpSubtract, "cleanup.policy", "delete", ""},
		{kmsg.IncrementalAlterConfigOpAppend, "retention.ms", "7", "error"},
	} {
		got, err := changed(kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: c.name, Op: c.op, Value: &c.value}, now)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%v %s %s: %q, want %q", c.op, c.name, c.value, got, c.want)
		}
	}
}

func TestDescribeTopicPartitionsPages(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 1
	first := ask[*kmsg.DescribeTopicPartitionsResponse](w, req)
	if len(first.Topics[0].Partitions) != 1 || first.NextCursor == nil || first.NextCursor.Partition != 1 {
		t.Fatalf("first page: %+v", first)
	}
	c := kmsg.NewDescribeTopicPartitionsRequestCursor()
	c.Topic, c.Partition = first.NextCursor.Topic, first.NextCursor.Partition
	req.Cursor = &c
	second := ask[*kmsg.DescribeTopicPartitionsResponse](w, req)
	if len(second.Topics[0].Partitions) != 1 || second.Topics[0].Partitions[0].Partition != 1 || second.NextCursor != nil {
		t.Errorf("second page: %+v", second)
	}
}

// FuzzProduceRecords offers arbitrary bytes as records.
func FuzzProduceRecords(f *testing.F) {
	f.Add(batch(f, "a", "b"))
	f.Add(append(batch(f, "a"), batch(f, "b")...))
	s := New(newFake(), Options{Self: 1})
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = 9, -1
	f.Fuzz(func(t *testing.T, b []byte) {
		got, code, err := s.checkBatch(req, b)
		if (code == errNone) != (err == nil) {
			t.Fatalf("code %d with error %v", code, err)
		}
		if err != nil {
			return
		}
		if one, rest, err := record.Next(got); err != nil || len(rest) > 0 || !bytes.Equal(one, b) {
			t.Fatalf("taken for one batch: %d of %d bytes, %v", len(one), len(b), err)
		}
	})
}
