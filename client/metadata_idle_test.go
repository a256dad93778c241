package client

import (
	"fmt"
	"testing"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

func topicOf(name string) *pb.TopicMetadata {
	return &pb.TopicMetadata{Topic: name, Partitions: []*pb.PartitionMetadata{{Partition: 0, Leader: 1}}}
}

// TestIdleTopicsAreForgotten: a client that goes from topic to topic asks for those of late only, and keeps nothing of the others. Whoever asks of one again makes it one of those in use, known or not.
func TestIdleTopicsAreForgotten(t *testing.T) {
	m := newMetaCache()
	for i := range 1000 {
		name := fmt.Sprint("t", i)
		m.use(name)
		m.apply(&pb.Metadata{Brokers: []*pb.BrokerEndpoint{{BrokerId: 1, Address: "a:1"}}, Topics: []*pb.TopicMetadata{topicOf(name), topicOf("by the way " + name)}})
	}
	between := time.Now()
	if _, _, ok := m.leadership(TopicPartition{"t7", 0}); !ok {
		t.Error("t7 has no leader")
	}
	if n, ok := m.count("t8"); n != 1 || !ok {
		t.Errorf("t8 has %d partitions", n)
	}
	generation := m.generation.Load()
	m.expire(between)
	if got := m.topicsInUse(); len(got) != 2 || len(m.topics) != 2 {
		t.Errorf("%d topics are in use, %d are known", len(got), len(m.topics))
	}
	if m.generation.Load() == generation {
		t.Error("who has read of topics that are forgotten does not learn of it")
	}
	if _, _, ok := m.leadership(TopicPartition{"t9", 0}); ok {
		t.Error("t9 is still known")
	}
	if got := m.topicsInUse(); len(got) != 3 {
		t.Errorf("%v are in use after another was asked for", got)
	}
	m.expire(between)
	if len(m.topicsInUse()) != 3 || m.generation.Load() != generation+1 {
		t.Error("what is in use was forgotten")
	}
}
