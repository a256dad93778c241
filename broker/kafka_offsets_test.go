package broker_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

const (
	kafkaOutOfRange         = 1
	kafkaUnsupportedVersion = 35
	kafkaFencedEpoch        = 74
	kafkaUnknownEpoch       = 75
)

// listOffset asks a broker for one position of orders/0.
func listOffset(c *brokertest.Cluster, ask api.BrokerID, version int16, timestamp int64, epoch int32, isolation int8) kmsg.ListOffsetsResponseTopicPartition {
	c.T.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.IsolationLevel = version, isolation
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp, p.CurrentLeaderEpoch = timestamp, epoch
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic, rt.Partitions = "orders", append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return brokertest.AskKafka[*kmsg.ListOffsetsResponse](c, ask, req).Topics[0].Partitions[0]
}

// termOf is the epoch of orders/0 as its leader knows it, which the metadata may not yet.
func termOf(c *brokertest.Cluster, leader api.BrokerID) int32 {
	st, _ := c.Broker(leader).LocalReplica(api.TopicPartition{Topic: "orders"})
	return int32(st.Term)
}

func TestKafkaListOffsets(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) { cfg.AutoBalanceLeaders = false }})
	c.CreateTopic("orders", 1, 3, "retention.ms", "-1")        // the records have old times
	produceIdempotent(c, "orders", 0, 10, 0, 0, "a", "b", "c") // at 1000, 1001, 1002
	first := c.Leader("orders", 0)
	epoch := termOf(c, first)
	c.Crash(first)
	produceIdempotent(c, "orders", 0, 10, 0, 3, "d", "e") // at 1000, 1001
	leader := c.Leader("orders", 0)
	now := termOf(c, leader)
	for _, q := range []struct {
		since                   int16
		timestamp, offset, time int64
		epoch                   int32
	}{
		{1, -1, 5, -1, now}, {1, -2, 0, -1, epoch}, {7, -3, 2, 1002, epoch}, {8, -4, 0, -1, epoch}, {9, -5, -1, -1, -1}, {11, -6, -1, -1, -1},
		{1, 0, 0, 1000, epoch}, {1, 1001, 1, 1001, epoch}, {1, 1003, -1, -1, -1},
	} {
		for version := int16(1); version <= 11; version++ {
			for isolation := range int8(2) {
				got := listOffset(c, leader, version, q.timestamp, -1, isolation)
				if version < q.since {
					if got.ErrorCode != kafkaUnsupportedVersion {
						t.Errorf("version %d, %d: %+v", version, q.timestamp, got)
					}
					continue
				}
				want := q.epoch
				if version < 4 {
					want = -1
				}
				if got.ErrorCode != 0 || got.Offset != q.offset || got.Timestamp != q.time || got.LeaderEpoch != want {
					t.Errorf("version %d, %d: %+v, want %+v", version, q.timestamp, got, q)
				}
			}
		}
	}
	if got := listOffset(c, leader, 11, -7, -1, 0); got.ErrorCode != kafkaUnsupportedVersion {
		t.Errorf("-7: %+v", got)
	}
	for e, want := range map[int32]int16{now: 0, now - 1: kafkaFencedEpoch, now + 1: kafkaUnknownEpoch} {
		if got := listOffset(c, leader, 6, -1, e, 0); got.ErrorCode != want {
			t.Errorf("epoch %d: %+v, want %d", e, got, want)
		}
	}
	for _, id := range c.Running() {
		if got := listOffset(c, id, 6, -5, -1, 0); id != leader && got.ErrorCode != kafkaUnsupportedVersion {
			t.Errorf("broker %d: %+v", id, got)
		}
		if got := listOffset(c, id, 9, -5, -1, 0); id != leader && got.ErrorCode != kafkaNotLeader {
			t.Errorf("broker %d, which does not lead: %+v", id, got)
		}
	}
	checkEpochEnds(c, leader, epoch, now)
}

// checkEpochEnds asks where the two epochs end in which there are 3 and 2 records.
func checkEpochEnds(c *brokertest.Cluster, leader api.BrokerID, first, now int32) {
	c.T.Helper()
	for version := int16(0); version <= 4; version++ {
		for _, q := range []struct {
			ask, epoch int32
			end        int64
		}{{first, first, 3}, {now, now, 5}, {now + 1, -1, -1}, {first - 1, first - 1, 0}} {
			req := kmsg.NewPtrOffsetForLeaderEpochRequest()
			req.Version = version
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.LeaderEpoch, p.CurrentLeaderEpoch = q.ask, now
			rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
			rt.Topic, rt.Partitions = "orders", append(rt.Partitions, p)
			req.Topics = append(req.Topics, rt)
			got := brokertest.AskKafka[*kmsg.OffsetForLeaderEpochResponse](c, leader, req).Topics[0].Partitions[0]
			want := q.epoch
			if version < 1 {
				want = -1 // the default of what is not in the response
			}
			if got.ErrorCode != 0 || got.EndOffset != q.end || got.LeaderEpoch != want {
				c.T.Errorf("version %d: the end of epoch %d: %+v, want %+v", version, q.ask, got, q)
			}
		}
	}
}

func TestKafkaDeleteRecords(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("orders", 2, 1)
	c.Produce("orders", 0, "a", "b", "c", "d")
	del := func(version int16, partition int32, before int64) kmsg.DeleteRecordsResponseTopicPartition {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.Version = version
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = partition, before
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic, rt.Partitions = "orders", append(rt.Partitions, p)
		req.Topics = append(req.Topics, rt)
		return brokertest.AskKafka[*kmsg.DeleteRecordsResponse](c, 1, req).Topics[0].Partitions[0]
	}
	for i, q := range []struct {
		version   int16
		partition int32
		before    int64
		low       int64
		code      int16
	}{{0, 0, 1, 1, 0}, {1, 0, 0, 1, 0}, {2, 0, 2, 2, 0}, {2, 0, 9, -1, kafkaOutOfRange}, {2, 0, -2, -1, kafkaOutOfRange}, {2, 7, 0, -1, kafkaUnknownTopic}, {2, 0, -1, 4, 0}, {2, 1, -1, 0, 0}} {
		if got := del(q.version, q.partition, q.before); got.LowWatermark != q.low || got.ErrorCode != q.code {
			t.Errorf("%d: before %d: %+v, want %+v", i, q.before, got, q)
		}
	}
	if got := listOffset(c, 1, 4, -2, -1, 0); got.Offset != 4 {
		t.Errorf("the log begins at %d", got.Offset)
	}
	if c.Produce("orders", 0, "e") != 4 {
		t.Error(fmt.Errorf("offsets did not go on"))
	}
}
