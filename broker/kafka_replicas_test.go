package broker_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
)

// What operators ask of replicas through Kafka's protocol, in real clusters.

// Codes of Kafka that tests wait for.
const (
	kafkaUnknownTopic           = 3
	kafkaNotLeader              = 6
	kafkaInvalidAssignment      = 39
	kafkaPreferredNotAvailable  = 80
	kafkaEligibleNotAvailable   = 83
	kafkaElectionNotNeeded      = 84
	kafkaNoReassignment         = 85
	kafkaInvalidReplicationFact = 38
)

// produceIdempotent appends one batch of a producer to the partition's leader.
func produceIdempotent(c *brokertest.Cluster, topic string, partition int32, producer int64, epoch int16, first int32, values ...string) {
	c.T.Helper()
	b := record.NewBuilder(record.BuilderOptions{ProducerID: producer, ProducerEpoch: epoch, BaseSequence: first})
	for i, v := range values {
		if err := b.Append(record.Record{Value: []byte(v), Timestamp: int64(1000 + i)}); err != nil {
			c.T.Fatal(err)
		}
	}
	batch, err := b.Build()
	if err != nil {
		c.T.Fatal(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, -1, 5000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp := brokertest.AskKafka[*kmsg.ProduceResponse](c, c.Leader(topic, partition), req)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		c.T.Fatalf("producing to %s/%d: error %d", topic, partition, code)
	}
}

func TestKafkaLogDirs(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 2, 3)
	c.CreateTopic("other", 1, 1)
	value := string(make([]byte, 64<<10))
	for range 4 {
		c.Produce("orders", 0, value)
	}
	c.WaitReplicated("orders", 0, c.Running()...)
	for _, id := range c.Running() {
		for version := int16(0); version <= 5; version++ {
			c.Eventually(fmt.Sprintf("broker %d has all of orders/0 by version %d", id, version), func() error {
				req := kmsg.NewPtrDescribeLogDirsRequest()
				req.Version = version
				rt := kmsg.NewDescribeLogDirsRequestTopic()
				rt.Topic, rt.Partitions = "orders", []int32{0, 7}
				req.Topics = append(req.Topics, rt)
				resp := brokertest.AskKafka[*kmsg.DescribeLogDirsResponse](c, id, req)
				return checkLogDir(c, id, version, resp)
			})
		}
	}
	// All of them, internal topics too, without a lag where a broker follows.
	resp := brokertest.AskKafka[*kmsg.DescribeLogDirsResponse](c, 1, func() kmsg.Request {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = 4
		return req
	}())
	var topics []string
	for _, rt := range resp.Dirs[0].Topics {
		topics = append(topics, rt.Topic)
	}
	want := []string{"orders"}
	if slices.Contains(c.ReplicasOf("other", 0), 1) {
		want = append(want, "other")
	}
	if !slices.Equal(topics, want) {
		t.Errorf("broker 1 has %v, want %v", topics, want)
	}
}

func checkLogDir(c *brokertest.Cluster, id api.BrokerID, version int16, resp *kmsg.DescribeLogDirsResponse) error {
	if resp.ErrorCode != 0 || len(resp.Dirs) != 1 || resp.Dirs[0].ErrorCode != 0 || resp.Dirs[0].Dir != c.Node(id).Dir {
		return fmt.Errorf("directories: %+v", resp)
	}
	d := resp.Dirs[0]
	if version >= 4 && (d.UsableBytes <= 0 || d.TotalBytes < d.UsableBytes) {
		return fmt.Errorf("the volume: %d of %d", d.UsableBytes, d.TotalBytes)
	}
	if len(d.Topics) != 1 || len(d.Topics[0].Partitions) != 1 {
		return fmt.Errorf("topics: %+v", d.Topics)
	}
	st, ok := c.Broker(id).LocalReplica(api.TopicPartition{Topic: "orders"})
	p := d.Topics[0].Partitions[0]
	if !ok || p.Partition != 0 || p.IsFuture || p.Size != st.Bytes || p.Size < 4*64<<10 || p.OffsetLag != 0 {
		return fmt.Errorf("partition: %+v, the replica has %d bytes", p, st.Bytes)
	}
	return nil
}

// A follower that is cut off lags by what was committed meanwhile.
func TestKafkaLogDirsLag(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 1, 3)
	c.Produce("orders", 0, "a")
	c.WaitReplicated("orders", 0, c.Running()...)
	leader := c.Leader("orders", 0)
	follower := c.ReplicasOf("orders", 0)[slices.IndexFunc(c.ReplicasOf("orders", 0), func(id api.BrokerID) bool { return id != leader })]
	lag := func() int64 {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = 4
		resp := brokertest.AskKafka[*kmsg.DescribeLogDirsResponse](c, follower, req)
		for _, rt := range resp.Dirs[0].Topics {
			if rt.Topic == "orders" {
				return rt.Partitions[0].OffsetLag
			}
		}
		return -2
	}
	c.Isolate(follower)
	c.Eventually("what cannot be learnt is -1", func() error {
		if n := lag(); n != -1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	c.Produce("orders", 0, "b", "c", "d")
	c.Heal(follower)
	c.Eventually("the follower has caught up", func() error {
		if n := lag(); n != 0 {
			return fmt.Errorf("lag %d", n)
		}
		return nil
	})
}

func describeProducers(c *brokertest.Cluster, id api.BrokerID, topic string, partition int32) kmsg.DescribeProducersResponseTopicPartition {
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = topic, []int32{partition}
	req.Topics = append(req.Topics, rt)
	return brokertest.AskKafka[*kmsg.DescribeProducersResponse](c, id, req).Topics[0].Partitions[0]
}

func TestKafkaDescribeProducers(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 1, 3)
	produceIdempotent(c, "orders", 0, 500, 0, 0, "a", "b")
	produceIdempotent(c, "orders", 0, 400, 3, 0, "c")
	produceIdempotent(c, "orders", 0, 500, 0, 2, "d", "e", "f")
	check := func(leader api.BrokerID) {
		t.Helper()
		p := describeProducers(c, leader, "orders", 0)
		if p.ErrorCode != 0 || len(p.ActiveProducers) != 2 {
			t.Fatalf("producers: %+v", p)
		}
		got := fmt.Sprintf("%+v", p.ActiveProducers)
		for i, want := range []kmsg.DescribeProducersResponseTopicPartitionActiveProducer{
			{ProducerID: 400, ProducerEpoch: 3, LastSequence: 0, LastTimestamp: 1000, CoordinatorEpoch: -1, CurrentTxnStartOffset: -1},
			{ProducerID: 500, ProducerEpoch: 0, LastSequence: 4, LastTimestamp: 1002, CoordinatorEpoch: -1, CurrentTxnStartOffset: -1},
		} {
			if !reflect.DeepEqual(p.ActiveProducers[i], want) {
				t.Errorf("producers: %s", got)
			}
		}
	}
	leader := c.Leader("orders", 0)
	check(leader)
	for _, id := range c.Running() {
		if p := describeProducers(c, id, "orders", 0); id != leader && p.ErrorCode != kafkaNotLeader {
			t.Errorf("broker %d, which does not lead, says %d", id, p.ErrorCode)
		}
	}
	if p := describeProducers(c, leader, "nope", 0); p.ErrorCode != kafkaUnknownTopic {
		t.Errorf("an unknown topic: %d", p.ErrorCode)
	}
	c.Crash(leader)
	check(c.Leader("orders", 0)) // the table is replicated
}

// elect asks some broker for elections and returns the codes by partition.
func elect(c *brokertest.Cluster, version int16, kind int8, partitions map[string][]int32) map[string]int16 {
	req := kmsg.NewPtrElectLeadersRequest()
	req.Version, req.ElectionType, req.TimeoutMillis = version, kind, 15000
	for topic, ps := range partitions {
		rt := kmsg.NewElectLeadersRequestTopic()
		rt.Topic, rt.Partitions = topic, ps
		req.Topics = append(req.Topics, rt)
	}
	resp := brokertest.AskKafka[*kmsg.ElectLeadersResponse](c, c.Running()[0], req)
	out := map[string]int16{}
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			out[fmt.Sprintf("%s/%d", rt.Topic, p.Partition)] = p.ErrorCode
			if (p.ErrorCode == 0) != (p.ErrorMessage == nil) {
				c.T.Errorf("%s/%d: code %d with message %v", rt.Topic, p.Partition, p.ErrorCode, p.ErrorMessage)
			}
		}
	}
	if resp.ErrorCode != 0 {
		c.T.Errorf("error %d for the whole", resp.ErrorCode)
	}
	return out
}

func TestKafkaElectLeaders(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) { cfg.AutoBalanceLeaders = false }})
	c.CreateTopic("orders", 3, 3)
	for p := range int32(3) {
		c.Produce("orders", p, "a")
	}
	preferred := c.ReplicasOf("orders", 0)[0]
	var others []int32
	for p := range int32(3) {
		if c.ReplicasOf("orders", p)[0] != preferred {
			others = append(others, p)
		}
	}
	if got := elect(c, 2, 0, map[string][]int32{"orders": {0}, "nope": {0}}); got["orders/0"] != kafkaElectionNotNeeded || got["nope/0"] != kafkaUnknownTopic {
		t.Errorf("where nothing is to be done: %v", got)
	}
	if got := elect(c, 1, 1, map[string][]int32{"orders": {0}}); got["orders/0"] != kafkaElectionNotNeeded {
		t.Errorf("an unclean election where there is a leader: %v", got)
	}
	c.Crash(preferred)
	c.Eventually("another broker leads orders/0", func() error {
		if l := c.Leader("orders", 0); l == preferred {
			return fmt.Errorf("broker %d", l)
		}
		return nil
	})
	c.Eventually("the preferred leader is known to be away", func() error {
		if got := elect(c, 2, 0, map[string][]int32{"orders": {0}}); got["orders/0"] != kafkaPreferredNotAvailable {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	c.Restart(preferred)
	before := map[int32]api.BrokerID{}
	for _, p := range others {
		before[p] = c.Leader("orders", p)
	}
	c.Eventually("the preferred leader leads again", func() error {
		// Null is all partitions; those that needed none are left out.
		got := elect(c, 2, 0, nil)
		if code, there := got["orders/0"]; there && code != 0 {
			return fmt.Errorf("%v", got)
		}
		for _, p := range others {
			if _, there := got[fmt.Sprintf("orders/%d", p)]; there && before[p] == c.ReplicasOf("orders", p)[0] {
				return fmt.Errorf("partition %d needed no election, but the broker may not know yet that it is led: %v", p, got)
			}
		}
		if l := c.Leader("orders", 0); l != preferred {
			return fmt.Errorf("broker %d leads", l)
		}
		return nil
	})
	if got := elect(c, 0, 0, map[string][]int32{"orders": {0}}); got["orders/0"] != kafkaElectionNotNeeded {
		t.Errorf("afterwards: %v", got)
	}
	c.Produce("orders", 0, "b")
}

// Without a quorum nobody is elected, whatever is asked for: acknowledged records come first.
func TestKafkaUncleanElectionIsRefused(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 3})
	c.CreateTopic("orders", 1, 2)
	c.Produce("orders", 0, "a")
	replicas := c.ReplicasOf("orders", 0)
	c.Crash(replicas[0])
	c.Eventually("the refusal names the reason", func() error {
		got := elect(c, 2, 1, map[string][]int32{"orders": {0}})
		if got["orders/0"] != kafkaEligibleNotAvailable {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	c.Restart(replicas[0])
	c.Produce("orders", 0, "b")
}

// reassign asks for targets ("orders/0" -> brokers, nil to cancel), and returns the codes.
func reassign(c *brokertest.Cluster, id api.BrokerID, topic string, targets map[int32][]int32) map[int32]int16 {
	c.T.Helper()
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.Version = 1
	rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	rt.Topic = topic
	for p, brokers := range targets {
		rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		rp.Partition, rp.Replicas = p, brokers
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	resp := brokertest.AskKafka[*kmsg.AlterPartitionAssignmentsResponse](c, id, req)
	out := map[int32]int16{}
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 {
		c.T.Fatalf("reassigning: %+v", resp)
	}
	for _, p := range resp.Topics[0].Partitions {
		out[p.Partition] = p.ErrorCode
	}
	return out
}

// underWay lists the reassignments as "orders/0 [all] +[adding] -[removing]".
func underWay(c *brokertest.Cluster, id api.BrokerID) []string {
	c.T.Helper()
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	resp := brokertest.AskKafka[*kmsg.ListPartitionReassignmentsResponse](c, id, req)
	if resp.ErrorCode != 0 {
		c.T.Fatalf("listing reassignments: %d", resp.ErrorCode)
	}
	var out []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%s/%d %v +%v -%v", t.Topic, p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas))
		}
	}
	return out
}

// kafkaPartition is what Metadata says of a partition.
func kafkaPartition(c *brokertest.Cluster, id api.BrokerID, topic string, partition int32) kmsg.MetadataResponseTopicPartition {
	c.T.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, rt)
	resp := brokertest.AskKafka[*kmsg.MetadataResponse](c, id, req)
	for _, p := range resp.Topics[0].Partitions {
		if p.Partition == partition {
			return p
		}
	}
	c.T.Fatalf("%s has no partition %d: %+v", topic, partition, resp)
	return kmsg.MetadataResponseTopicPartition{}
}

func sortedIDs(list []int32) string { return fmt.Sprint(slices.Sorted(slices.Values(list))) }

// awaitReplicas waits until a partition is on exactly the brokers, in that order, and all of them are in sync.
func awaitReplicas(c *brokertest.Cluster, topic string, partition int32, want ...int32) {
	c.T.Helper()
	c.Eventually(fmt.Sprintf("%s/%d is on %v", topic, partition, want), func() error {
		id := c.Running()[0]
		if p := kafkaPartition(c, id, topic, partition); fmt.Sprint(p.Replicas) != fmt.Sprint(want) || sortedIDs(p.ISR) != sortedIDs(want) {
			return fmt.Errorf("replicas %v, in sync %v", p.Replicas, p.ISR)
		}
		if list := underWay(c, id); len(list) > 0 {
			return fmt.Errorf("under way: %v", list)
		}
		return nil
	})
}

// A partition moves to the brokers that an operator names, with all that is in it, while it is written to; more and fewer replicas are possible too.
func TestKafkaReassignment(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 4})
	c.CreateTopic("orders", 1, 2)
	load := c.Load("orders", 1)
	before := c.ReplicasOf("orders", 0)
	var target []int32
	for id := range int32(4) {
		if !slices.Contains(before, api.BrokerID(id+1)) {
			target = append(target, id+1)
		}
	}
	for i, refused := range []struct {
		brokers []int32
		code    int16
	}{{[]int32{}, kafkaInvalidAssignment}, {[]int32{9}, kafkaInvalidAssignment}, {[]int32{1, 1}, kafkaInvalidAssignment}, {[]int32{-1}, kafkaInvalidAssignment}, {nil, kafkaNoReassignment}} {
		if got := reassign(c, 1, "orders", map[int32][]int32{0: refused.brokers}); got[0] != refused.code {
			t.Errorf("%d: to %v: %d, want %d", i, refused.brokers, got[0], refused.code)
		}
	}
	if got := reassign(c, 2, "orders", map[int32][]int32{0: target, 5: {1}}); got[0] != 0 || got[5] != kafkaUnknownTopic {
		t.Fatalf("reassigning: %v", got)
	}
	awaitReplicas(c, "orders", 0, target...)
	if l := int32(c.Leader("orders", 0)); !slices.Contains(target, l) {
		t.Errorf("broker %d leads", l)
	}
	if got := reassign(c, 3, "orders", map[int32][]int32{0: {1, 2, 3, 4}}); got[0] != 0 {
		t.Fatalf("to more replicas: %v", got)
	}
	awaitReplicas(c, "orders", 0, 1, 2, 3, 4)
	if got := reassign(c, 3, "orders", map[int32][]int32{0: {4}}); got[0] != 0 {
		t.Fatalf("to one replica: %v", got)
	}
	awaitReplicas(c, "orders", 0, 4)
	c.Eventually("the topic's replication factor follows", func() error {
		if d := c.Describe("orders"); d.ReplicationFactor != 1 {
			return fmt.Errorf("it is %d", d.ReplicationFactor)
		}
		return nil
	})
	load.StopAndVerify()
	c.Eventually("what is not needed any more is deleted", func() error { return c.FilesMatch("orders") })
}

// A move that waits for a broker which is away survives the controller, can be cancelled, and is listed meanwhile.
func TestKafkaReassignmentIsCancelled(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 5, Tune: func(cfg *broker.Config) { cfg.CatchUpBytesPerSecond = 1 << 20 }})
	c.CreateTopic("orders", 1, 3)
	value := string(make([]byte, 512<<10))
	for range 48 { // some seconds' worth of catching up
		c.Produce("orders", 0, value)
	}
	before := c.ReplicasOf("orders", 0)
	var original, target []int32
	for _, id := range before {
		original = append(original, int32(id))
	}
	for id := range int32(5) {
		if !slices.Contains(original, id+1) {
			target = append(target, id+1)
		}
	}
	target = append(target, original[0])
	ask := api.BrokerID(original[1])
	if got := reassign(c, ask, "orders", map[int32][]int32{0: target}); got[0] != 0 {
		t.Fatalf("reassigning: %v", got)
	}
	want := fmt.Sprintf("orders/0 %v +%v -%v", slices.Concat(target, original[1:]), target[:2], original[1:])
	if list := underWay(c, ask); len(list) != 1 || list[0] != want {
		t.Errorf("under way: %v, want %s", list, want)
	}
	p := kafkaPartition(c, ask, "orders", 0)
	if slices.Contains(p.ISR, target[0]) {
		t.Errorf("a replica that is being built is in sync: %+v", p)
	}
	var old api.BrokerID
	c.Eventually("there is a controller", func() error {
		old = c.Broker(ask).Metadata([]string{}).Controller
		if old == api.NoBroker {
			return errors.New("none")
		}
		return nil
	})
	c.Crash(old)
	for _, id := range c.Running() {
		ask = id
	}
	c.Eventually("the move goes on, or can be taken back, under another controller", func() error {
		if list := underWay(c, ask); len(list) != 1 {
			return fmt.Errorf("under way: %v", list)
		}
		if got := reassign(c, ask, "orders", map[int32][]int32{0: nil}); got[0] != 0 {
			return fmt.Errorf("cancelling: %v", got)
		}
		return nil
	})
	c.Restart(old)
	awaitReplicas(c, "orders", 0, original...)
	if got := reassign(c, ask, "orders", map[int32][]int32{0: nil}); got[0] != kafkaNoReassignment {
		t.Errorf("cancelling again: %v", got)
	}
	c.Produce("orders", 0, "a")
	c.EnsureSame("orders", 0)
}

// The same through the gRPC API and the Go client.
func TestClientReassigns(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 1, 1)
	c.Produce("orders", 0, "a")
	cl, err := client.New([]string{c.Broker(1).GRPCAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := c.Context()
	defer cancel()
	tp := client.TopicPartition{Topic: "orders"}
	target := int32(c.ReplicasOf("orders", 0)[0])%3 + 1
	errs, err := cl.Admin().Reassign(ctx, []client.PartitionTarget{
		{TopicPartition: tp, Replicas: []int32{target}}, {TopicPartition: client.TopicPartition{Topic: "nope"}, Replicas: []int32{1}}, {TopicPartition: tp, Cancel: true},
	})
	if err != nil || len(errs) != 3 || errs[0] != nil || !errors.Is(errs[1], client.CodeUnknownTopicOrPartition) || !errors.Is(errs[2], client.CodeInvalidRequest) {
		t.Fatalf("reassigning: %v, %v", errs, err)
	}
	awaitReplicas(c, "orders", 0, target)
	if list, err := cl.Admin().Reassignments(ctx); err != nil || len(list) > 0 {
		t.Errorf("under way: %v, %v", list, err)
	}
	errs, err = cl.Admin().Reassign(ctx, []client.PartitionTarget{{TopicPartition: tp, Cancel: true}})
	if err != nil || !errors.Is(errs[0], client.CodeNoReassignmentInProgress) {
		t.Errorf("cancelling: %v, %v", errs, err)
	}
	errs, err = cl.Admin().Reassign(ctx, []client.PartitionTarget{{TopicPartition: tp, Replicas: []int32{9}}})
	if err != nil || !errors.Is(errs[0], client.CodeInvalidReplicaAssignment) {
		t.Errorf("to a broker that does not exist: %v, %v", errs, err)
	}
}
