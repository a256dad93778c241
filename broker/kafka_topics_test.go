package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// newTopic is a topic to create: with numbers, or with the brokers of each partition.
func newTopic(name string, partitions int32, rf int16, assignment ...[]int32) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, rf
	for i, brokers := range assignment {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(i), brokers
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

func withConfig(t kmsg.CreateTopicsRequestTopic, key string, value *string) kmsg.CreateTopicsRequestTopic {
	c := kmsg.NewCreateTopicsRequestTopicConfig()
	c.Name, c.Value = key, value
	t.Configs = append(t.Configs, c)
	return t
}

func createTopics(c *brokertest.Cluster, version int16, validateOnly bool, topics ...kmsg.CreateTopicsRequestTopic) []kmsg.CreateTopicsResponseTopic {
	c.T.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.ValidateOnly, req.Topics = version, validateOnly, topics
	resp := brokertest.AskKafka[*kmsg.CreateTopicsResponse](c, 1, req)
	if len(resp.Topics) != len(topics) {
		c.T.Fatalf("%d answers for %d topics", len(resp.Topics), len(topics))
	}
	return resp.Topics
}

func TestKafkaCreateTopics(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	for version := int16(0); version <= 7; version++ {
		name := fmt.Sprint("v", version)
		r := createTopics(c, version, false, withConfig(newTopic(name, 2, 3), "retention.ms", kmsg.StringPtr("5000")))[0]
		if r.ErrorCode != 0 {
			t.Fatalf("version %d: %+v", version, r)
		}
		if version >= 5 {
			i := slices.IndexFunc(r.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == "retention.ms" })
			if r.NumPartitions != 2 || r.ReplicationFactor != 3 || i < 0 || *r.Configs[i].Value != "5000" || kmsg.ConfigSource(r.Configs[i].Source) != kmsg.ConfigSourceDynamicTopicConfig {
				t.Errorf("version %d: %+v", version, r)
			}
		}
		if (version >= 7) != (r.TopicID != [16]byte{}) {
			t.Errorf("version %d: topic ID %x", version, r.TopicID)
		}
	}
	r := createTopics(c, 7, true, newTopic("planned", -1, -1), newTopic("v0", 1, 1))
	if r[0].ErrorCode != 0 || r[0].NumPartitions != 1 || r[0].ReplicationFactor != 3 || r[0].TopicID != [16]byte{} || len(r[0].Configs) == 0 || r[1].ErrorCode != kafkaTopicExists {
		t.Errorf("validating only: %+v", r)
	}
	if _, err := describeConfig(c, 1, topicConfig, "planned", "retention.ms"); err == nil {
		t.Error("validating created the topic")
	}
	for _, q := range []struct {
		topic kmsg.CreateTopicsRequestTopic
		want  int16
	}{
		{newTopic("bad name", 1, 1), kafkaInvalidTopic}, {newTopic("", 1, 1), kafkaInvalidTopic}, {newTopic("..", 1, 1), kafkaInvalidTopic},
		{newTopic("x", 0, 1), kafkaInvalidPartition}, {newTopic("x", -2, 1), kafkaInvalidPartition},
		{newTopic("x", 1, 0), kafkaInvalidReplicationFact}, {newTopic("x", 1, 4), kafkaInvalidReplicationFact},
		{withConfig(newTopic("x", 1, 1), "no.such", kmsg.StringPtr("1")), kafkaInvalidConfig}, {withConfig(newTopic("x", 1, 1), "retention.ms", nil), kafkaInvalidConfig},
		{newTopic("x", 1, -1, []int32{1}), kafkaInvalidRequest}, {newTopic("x", -1, 1, []int32{1}), kafkaInvalidRequest},
		{newTopic("x", -1, -1, []int32{1}, []int32{1, 2}), kafkaInvalidAssignment}, {newTopic("x", -1, -1, []int32{9}), kafkaInvalidAssignment},
		{newTopic("x", -1, -1, []int32{1, 1}), kafkaInvalidAssignment}, {newTopic("x", -1, -1, []int32{}), kafkaInvalidAssignment},
	} {
		for _, validateOnly := range []bool{true, false} {
			if r := createTopics(c, 6, validateOnly, q.topic)[0]; r.ErrorCode != q.want || r.ErrorMessage == nil {
				t.Errorf("%+v: %+v, want %d", q.topic, r, q.want)
			}
		}
	}
	if r := createTopics(c, 4, false, newTopic("twice", 1, 1), newTopic("twice", 2, 1)); r[0].ErrorCode != kafkaInvalidRequest || r[1].ErrorCode != kafkaInvalidRequest {
		t.Errorf("a topic named twice: %+v", r)
	}
}

// Partitions go to the brokers that an operator names, when a topic is created and when it grows.
func TestKafkaAssignmentsByHand(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	if r := createTopics(c, 7, false, newTopic("hand", -1, -1, []int32{2, 1}, []int32{3, 2})); r[0].ErrorCode != 0 || r[0].NumPartitions != 2 || r[0].ReplicationFactor != 2 {
		t.Fatalf("creating: %+v", r)
	}
	grow := func(version int16, total int32, validateOnly bool, assignment ...[]int32) int16 {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Version, req.ValidateOnly = version, validateOnly
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = "hand", total
		for _, brokers := range assignment {
			a := kmsg.NewCreatePartitionsRequestTopicAssignment()
			a.Replicas = brokers
			rt.Assignment = append(rt.Assignment, a)
		}
		req.Topics = append(req.Topics, rt)
		return brokertest.AskKafka[*kmsg.CreatePartitionsResponse](c, 1, req).Topics[0].ErrorCode
	}
	for i, q := range []struct {
		total      int32
		assignment [][]int32
		want       int16
	}{
		{2, nil, kafkaInvalidPartition}, {1, nil, kafkaInvalidPartition}, {3, [][]int32{{1}}, kafkaInvalidAssignment}, {3, [][]int32{{1, 2}, {1, 2}}, kafkaInvalidAssignment},
		{3, [][]int32{{1, 7}}, kafkaInvalidAssignment}, {3, [][]int32{{1, 1}}, kafkaInvalidAssignment},
	} {
		for _, validateOnly := range []bool{true, false} {
			if got := grow(3, q.total, validateOnly, q.assignment...); got != q.want {
				t.Errorf("%d: %d, want %d", i, got, q.want)
			}
		}
	}
	if code := grow(2, 3, true, []int32{3, 1}); code != 0 || len(c.Describe("hand").Partitions) != 2 {
		t.Errorf("validating only: %d", code)
	}
	if code := grow(2, 3, false, []int32{3, 1}); code != 0 {
		t.Errorf("growing by hand: %d", code)
	}
	if code := grow(0, 4, false); code != 0 {
		t.Errorf("growing: %d", code)
	}
	for p, want := range [][]int32{{2, 1}, {3, 2}, {3, 1}} {
		if m := kafkaPartition(c, 1, "hand", int32(p)); fmt.Sprint(m.Replicas) != fmt.Sprint(want) {
			t.Errorf("partition %d is on %v, want %v", p, m.Replicas, want)
		}
	}
	c.Produce("hand", 2, "a")
}

func TestKafkaDeleteTopics(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	var ids [][16]byte
	for _, name := range []string{"a", "b", "c", "d"} {
		ids = append(ids, createTopics(c, 7, false, newTopic(name, 1, 1))[0].TopicID)
	}
	del := func(version int16, edit func(*kmsg.DeleteTopicsRequest)) []kmsg.DeleteTopicsResponseTopic {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Version = version
		edit(req)
		return brokertest.AskKafka[*kmsg.DeleteTopicsResponse](c, 1, req).Topics
	}
	names := func(list ...string) func(*kmsg.DeleteTopicsRequest) {
		return func(r *kmsg.DeleteTopicsRequest) { r.TopicNames = list }
	}
	byID := func(list ...[16]byte) func(*kmsg.DeleteTopicsRequest) {
		return func(r *kmsg.DeleteTopicsRequest) {
			for _, id := range list {
				t := kmsg.NewDeleteTopicsRequestTopic()
				t.TopicID = id
				r.Topics = append(r.Topics, t)
			}
		}
	}
	for i, q := range []struct {
		got  []kmsg.DeleteTopicsResponseTopic
		want []int16
	}{
		{del(0, names("a", "nope")), []int16{0, kafkaUnknownTopic}},
		{del(3, names("b", "b")), []int16{kafkaInvalidRequest, kafkaInvalidRequest}},
		{del(5, names("b")), []int16{0}},
		{del(6, byID(ids[2], [16]byte{9}, [16]byte{})), []int16{0, 100, kafkaInvalidRequest}},
		{del(6, byID(ids[3], ids[3])), []int16{kafkaInvalidRequest, kafkaInvalidRequest}},
		{del(6, byID(ids[3])), []int16{0}},
		{del(1, names("d")), []int16{kafkaUnknownTopic}},
	} {
		var codes []int16
		for _, r := range q.got {
			codes = append(codes, r.ErrorCode)
		}
		if !slices.Equal(codes, q.want) {
			t.Errorf("%d: %v, want %v", i, codes, q.want)
		}
	}
}

// Clients see from ApiVersions that there are no transactions.
func TestKafkaHasNoTransactions(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "test", "1"
	resp := brokertest.AskKafka[*kmsg.ApiVersionsResponse](c, 1, req)
	listed := map[int16]bool{}
	for _, k := range resp.ApiKeys {
		listed[k.ApiKey] = true
	}
	for _, key := range []int16{24, 25, 26, 27, 28, 65, 66} {
		if listed[key] {
			t.Errorf("%s is listed", kmsg.NameForKey(key))
		}
	}
	for _, key := range []int16{35, 43, 45, 46, 61} {
		if !listed[key] {
			t.Errorf("%s is not listed", kmsg.NameForKey(key))
		}
	}
}
