package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Groups with members of both kinds: of the gRPC API, which leave the assignment to the coordinator, and of Kafka's, one of which makes it.

const (
	kafkaInconsistentProtocol = 23
	kafkaRebalance            = 27
	kafkaMemberIDRequired     = 79
	kafkaSubscribed           = 86
)

// kafkaMember is a consumer that speaks Kafka's protocol by hand. Its methods return errors, as they run on goroutines of their own.
type kafkaMember struct {
	c          *brokertest.Cluster
	at         api.BrokerID
	group, id  string
	generation int32
	joined     *kmsg.JoinGroupResponse
	assigned   []string // "orders/0"
}

// join returns when the join phase has ended.
func (m *kafkaMember) join(topic string, protocols ...string) error {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 7, m.group, "consumer", 30000, 30000
	for _, name := range protocols {
		meta := kmsg.NewConsumerMemberMetadata()
		meta.Topics = []string{topic}
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = name, meta.AppendTo(nil)
		req.Protocols = append(req.Protocols, p)
	}
	for {
		req.MemberID = m.id
		r, err := m.c.TryKafka(m.at, req)
		if err != nil {
			return err
		}
		m.joined = r.(*kmsg.JoinGroupResponse)
		m.id = m.joined.MemberID
		switch m.joined.ErrorCode {
		case 0:
			m.generation = m.joined.Generation
			return nil
		case kafkaMemberIDRequired:
		default:
			return fmt.Errorf("error %d", m.joined.ErrorCode)
		}
	}
}

// sync brings the assignment, if this member leads the group, with the partitions of orders dealt out in turn; and fetches its own.
func (m *kafkaMember) sync(partitions int32) error {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 5, m.group, m.id, m.generation
	req.ProtocolType, req.Protocol = m.joined.ProtocolType, m.joined.Protocol
	if m.joined.LeaderID == m.id {
		req.GroupAssignment = deal(m.joined.Members, partitions)
	}
	r, err := m.c.TryKafka(m.at, req)
	if err != nil {
		return err
	}
	resp := r.(*kmsg.SyncGroupResponse)
	if resp.ErrorCode != 0 {
		return fmt.Errorf("error %d", resp.ErrorCode)
	}
	a := kmsg.NewConsumerMemberAssignment()
	if err := a.ReadFrom(resp.MemberAssignment); err != nil {
		return err
	}
	m.assigned = nil
	for _, t := range a.Topics {
		for _, p := range t.Partitions {
			m.assigned = append(m.assigned, fmt.Sprintf("%s/%d", t.Topic, p))
		}
	}
	return nil
}

func deal(members []kmsg.JoinGroupResponseMember, partitions int32) []kmsg.SyncGroupRequestGroupAssignment {
	var out []kmsg.SyncGroupRequestGroupAssignment
	for i, member := range members {
		t := kmsg.NewConsumerMemberAssignmentTopic()
		t.Topic = "orders"
		for p := int32(i); p < partitions; p += int32(len(members)) {
			t.Partitions = append(t.Partitions, p)
		}
		a := kmsg.NewConsumerMemberAssignment()
		a.Topics = append(a.Topics, t)
		s := kmsg.NewSyncGroupRequestGroupAssignment()
		s.MemberID, s.MemberAssignment = member.MemberID, a.AppendTo(nil)
		out = append(out, s)
	}
	return out
}

func (m *kafkaMember) heartbeat() int16 {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 4, m.group, m.id, m.generation
	r, err := m.c.TryKafka(m.at, req)
	if err != nil {
		return -1
	}
	return r.(*kmsg.HeartbeatResponse).ErrorCode
}

// nativeMember is one of the gRPC API.
type nativeMember struct {
	groups  pb.GroupsClient
	request *pb.JoinRequest
	last    *pb.JoinResponse
}

func (m *nativeMember) join(ctx context.Context) error {
	if m.last != nil {
		m.request.MemberId, m.request.Owned, m.request.OwnedGeneration = m.last.MemberId, m.last.Assignment, m.last.Generation
	}
	r, err := m.groups.Join(ctx, m.request)
	if err == nil {
		m.last = r
	}
	return err
}

func (m *nativeMember) assigned() []string {
	var out []string
	for _, tp := range m.last.GetAssignment() {
		out = append(out, fmt.Sprintf("%s/%d", tp.Topic, tp.Partition))
	}
	return out
}

// mixed makes a group's two members.
func mixed(c *brokertest.Cluster, group string, strategies ...pb.AssignmentStrategy) (*nativeMember, *kafkaMember) {
	id, groups := coordinator(c, group)
	return &nativeMember{groups: groups, request: &pb.JoinRequest{Group: group, Topics: []string{"orders"}, OwnedGeneration: -1, SessionTimeoutMs: 30000, Strategies: strategies}},
		&kafkaMember{c: c, at: id, group: group}
}

// follow joins when the member is new or is told to join again, as consumers do.
func (m *nativeMember) follow(ctx context.Context) error {
	if m.last == nil {
		return m.join(ctx)
	}
	r, err := m.groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: m.request.Group, MemberId: m.last.MemberId, Generation: m.last.Generation})
	if err == nil && !r.Rebalance {
		return nil
	}
	return m.join(ctx)
}

func (m *kafkaMember) follow() error {
	if m.joined != nil && m.heartbeat() == 0 {
		return nil
	}
	if err := m.join("orders", "range"); err != nil {
		return err
	}
	return m.sync(4)
}

// shares is what the members last had, as their loops in both tell.
type shares struct {
	mu                           sync.Mutex
	native, kafka                []string
	nativeGeneration, generation int32
	nativeErr, kafkaErr          error
}

// loop runs follow again and again, and then note, until ctx ends.
func (s *shares) loop(ctx context.Context, follow func() error, note func(error)) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := follow()
		s.mu.Lock()
		note(err)
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// both lets the members follow the group, each for itself, until they share the four partitions of orders.
func both(c *brokertest.Cluster, n *nativeMember, k *kafkaMember) {
	c.T.Helper()
	ctx, cancel := c.Context()
	var s shares
	var wg sync.WaitGroup
	wg.Go(func() {
		s.loop(ctx, func() error { return n.follow(ctx) }, func(err error) {
			s.native, s.nativeGeneration, s.nativeErr = n.assigned(), n.last.GetGeneration(), err
		})
	})
	wg.Go(func() {
		s.loop(ctx, k.follow, func(err error) { s.kafka, s.generation, s.kafkaErr = k.assigned, k.generation, err })
	})
	defer wg.Wait()
	defer cancel()
	c.Eventually("both members share the partitions", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := errors.Join(s.nativeErr, s.kafkaErr); err != nil {
			return err
		}
		all := slices.Sorted(slices.Values(slices.Concat(s.native, s.kafka)))
		if s.generation != s.nativeGeneration || fmt.Sprint(all) != "[orders/0 orders/1 orders/2 orders/3]" || len(s.kafka) != 2 {
			return fmt.Errorf("native %v in generation %d, Kafka %v in generation %d", s.native, s.nativeGeneration, s.kafka, s.generation)
		}
		return nil
	})
}

// Members of both kinds share a group's partitions, whoever came first and so leads it: then the coordinator, or the Kafka member, makes the assignment.
func TestMixedGroupsShare(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 4, 3)
	t.Run("native first", func(t *testing.T) {
		n, k := mixed(c, "native-first", pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_RANGE)
		ctx, cancel := c.Context()
		defer cancel()
		if err := n.join(ctx); err != nil || len(n.assigned()) != 4 {
			t.Fatalf("alone: %v, %v", n.assigned(), err)
		}
		both(c, n, k)
		if k.joined.LeaderID == k.id {
			t.Error("the Kafka member leads")
		}
		checkShared(c, n, k)
	})
	t.Run("Kafka first", func(t *testing.T) {
		n, k := mixed(c, "kafka-first", pb.AssignmentStrategy_ASSIGNMENT_STRATEGY_RANGE)
		if err := errors.Join(k.join("orders", "range"), k.sync(4)); err != nil || len(k.assigned) != 4 {
			t.Fatalf("alone: %v, %v", k.assigned, err)
		}
		both(c, n, k)
		if k.joined.LeaderID != k.id {
			t.Error("the Kafka member does not lead")
		}
		checkShared(c, n, k)
	})
}

// checkShared: commits of one kind are read by the other, deletions are refused while the topic is in use, and when one leaves the other is told.
func checkShared(c *brokertest.Cluster, n *nativeMember, k *kafkaMember) {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	mine := n.last.Assignment[0]
	_, err := n.groups.CommitOffsets(ctx, &pb.CommitOffsetsRequest{Group: k.group, MemberId: n.last.MemberId, Generation: n.last.Generation,
		Offsets: []*pb.OffsetCommit{{Topic: "orders", Partition: mine.Partition, Offset: 11, LeaderEpoch: -1, Metadata: "native"}}})
	if err != nil {
		c.T.Fatalf("a native commit: %v", err)
	}
	var theirs int32
	_, _ = fmt.Sscanf(k.assigned[0], "orders/%d", &theirs)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.MemberID, commit.Generation = 8, k.group, k.id, k.generation
	cp := kmsg.NewOffsetCommitRequestTopicPartition()
	cp.Partition, cp.Offset, cp.Metadata = theirs, 22, kmsg.StringPtr("kafka")
	ct := kmsg.NewOffsetCommitRequestTopic()
	ct.Topic, ct.Partitions = "orders", append(ct.Partitions, cp)
	commit.Topics = append(commit.Topics, ct)
	if r := brokertest.AskKafka[*kmsg.OffsetCommitResponse](c, k.at, commit); r.Topics[0].Partitions[0].ErrorCode != 0 {
		c.T.Fatalf("a Kafka commit: %+v", r)
	}
	want := map[int32]string{mine.Partition: "11 native", theirs: "22 kafka"}
	fetched, err := n.groups.FetchOffsets(ctx, &pb.FetchOffsetsRequest{Group: k.group})
	if err != nil || len(fetched.GetOffsets()) != 2 {
		c.T.Fatalf("over gRPC: %v, %v", fetched, err)
	}
	for _, o := range fetched.Offsets {
		if got := fmt.Sprint(o.Offset, " ", o.Metadata); got != want[o.Partition] {
			c.T.Errorf("over gRPC: %d at %s, want %s", o.Partition, got, want[o.Partition])
		}
	}
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Group, fetch.Topics = 7, k.group, nil
	resp := brokertest.AskKafka[*kmsg.OffsetFetchResponse](c, k.at, fetch)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 2 {
		c.T.Fatalf("through Kafka: %+v", resp)
	}
	for _, o := range resp.Topics[0].Partitions {
		if got := fmt.Sprint(o.Offset, " ", *o.Metadata); got != want[o.Partition] {
			c.T.Errorf("through Kafka: %d at %s, want %s", o.Partition, got, want[o.Partition])
		}
	}
	if codes := deleteOffsets(c, k.at, k.group, theirs); codes[0] != 0 || codes[1] != kafkaSubscribed {
		c.T.Errorf("deleting offsets of a topic in use: %v", codes)
	}
	if _, err := n.groups.Leave(ctx, &pb.LeaveRequest{Group: k.group, MemberId: n.last.MemberId}); err != nil {
		c.T.Fatalf("leaving: %v", err)
	}
	c.Eventually("the Kafka member is told to join again", func() error {
		if code := k.heartbeat(); code != kafkaRebalance {
			return fmt.Errorf("error %d", code)
		}
		return nil
	})
}

// deleteOffsets asks for the deletion of a group's offset in orders, and returns the codes of the whole and of the partition.
func deleteOffsets(c *brokertest.Cluster, at api.BrokerID, group string, partition int32) [2]int16 {
	c.T.Helper()
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	p := kmsg.NewOffsetDeleteRequestTopicPartition()
	p.Partition = partition
	t := kmsg.NewOffsetDeleteRequestTopic()
	t.Topic, t.Partitions = "orders", append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp := brokertest.AskKafka[*kmsg.OffsetDeleteResponse](c, at, req)
	if len(resp.Topics) == 0 {
		return [2]int16{resp.ErrorCode, 0}
	}
	return [2]int16{resp.ErrorCode, resp.Topics[0].Partitions[0].ErrorCode}
}

// Where no strategy is known to both, the second is refused, and the first keeps what it has.
func TestMixedGroupsAreRefused(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 4, 3)
	ctx, cancel := c.Context()
	defer cancel()
	n, k := mixed(c, "native-only") // cooperative-sticky, the default
	if err := n.join(ctx); err != nil {
		t.Fatal(err)
	}
	if err := k.join("orders", "range", "roundrobin"); err == nil || k.joined.ErrorCode != kafkaInconsistentProtocol {
		t.Errorf("a Kafka member of another strategy: %v", err)
	}
	if r, err := n.groups.Heartbeat(ctx, &pb.HeartbeatRequest{Group: "native-only", MemberId: n.last.MemberId, Generation: n.last.Generation}); err != nil || r.Rebalance {
		t.Errorf("the native member is disturbed: %v, %v", r, err)
	}
	n, k = mixed(c, "kafka-only")
	if err := errors.Join(k.join("orders", "range"), k.sync(4)); err != nil {
		t.Fatal(err)
	}
	err := n.join(ctx)
	var code pb.ErrorCode
	for _, d := range status.Convert(err).Details() {
		if e, ok := d.(*pb.ErrorDetail); ok {
			code = e.Code
		}
	}
	if err == nil || code != pb.ErrorCode(api.CodeInconsistentProtocol) {
		t.Errorf("a native member of another strategy: %v", err)
	}
	if code := k.heartbeat(); code != 0 {
		t.Errorf("the Kafka member is disturbed: %d", code)
	}
	// Offsets of a topic that nobody subscribes to can go while there are members.
	if codes := deleteOffsets(c, k.at, "nobody", 0); codes[0] != 69 {
		t.Errorf("a group that does not exist: %v", codes)
	}
}

// What is written through one front end is read through the other.
func TestOneLogForBothFrontEnds(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 1, 3)
	produceIdempotent(c, "orders", 0, 77, 0, 0, "through Kafka")
	c.Produce("orders", 0, "over gRPC")
	var got []string
	for _, r := range c.ReadAll("orders", 0) {
		got = append(got, string(r.Value))
	}
	if fmt.Sprint(got) != "[through Kafka over gRPC]" {
		t.Errorf("over gRPC: %v", got)
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version, fetch.MinBytes, fetch.MaxBytes, fetch.MaxWaitMillis, fetch.SessionEpoch = 11, 1, 1<<20, 1000, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes, p.CurrentLeaderEpoch = 1<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.Partitions = "orders", append(rt.Partitions, p)
	fetch.Topics, fetch.IsolationLevel = append(fetch.Topics, rt), 1
	r := brokertest.AskKafka[*kmsg.FetchResponse](c, c.Leader("orders", 0), fetch).Topics[0].Partitions[0]
	if values := valuesOf(t, r.RecordBatches); r.ErrorCode != 0 || fmt.Sprint(values) != fmt.Sprint(got) || len(r.AbortedTransactions) != 0 || r.LastStableOffset != r.HighWatermark {
		t.Errorf("through Kafka: %v, %+v", values, r)
	}
}

// valuesOf decodes the batches of a fetch response.
func valuesOf(t *testing.T, b []byte) []string {
	t.Helper()
	var out []string
	for len(b) > 0 {
		h, err := record.ParseHeader(b)
		if err != nil || h.Size() > len(b) {
			t.Fatalf("%d bytes that are no batch: %v", len(b), err)
		}
		records, err := record.Decode(b[:h.Size()], 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			out = append(out, string(r.Value))
		}
		b = b[h.Size():]
	}
	return out
}
