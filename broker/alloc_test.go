package broker_test

import (
	"bytes"
	"runtime"
	"testing"

	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/broker/brokertest"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

// manyRecords is how many records the one batch has; the other has one record, of about as many bytes.
const manyRecords = 4000

// leastAllocs is how many allocations f makes in all goroutines, those of the background included: the least of several rounds, since a round that the machine delays
// contains more of those.
func leastAllocs(f func()) uint64 {
	const rounds, each = 12, 8
	least := ^uint64(0)
	for range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range each {
			f()
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.Mallocs-before.Mallocs)/each)
	}
	return least
}

// TestNoAllocationPerRecord: what three brokers allocate to store a batch, and one to send it to a consumer, does not depend on how many records it has.
func TestNoAllocationPerRecord(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	many := recordtest.Batch(manyRecords, 2)
	batches := map[string][]byte{"few": recordtest.Batch(1, len(many)), "many": many}
	stored, sent := map[string]uint64{}, map[string]uint64{}
	for topic, batch := range batches {
		c.CreateTopic(topic, 1, 3)
		conn := c.Conn(c.Leader(topic, 0))
		stored[topic] = leastAllocs(func() { storeBatch(t, c, conn, topic, batch) })
		sent[topic] = leastAllocs(fetchBatch(t, c, conn, topic, len(batch)))
	}
	t.Logf("to store a batch of one record %d allocations, of %d records %d; to send it %d and %d", stored["few"], manyRecords, stored["many"], sent["few"], sent["many"])
	for what, n := range map[string]map[string]uint64{"storing": stored, "sending": sent} {
		if n["many"] > n["few"]+manyRecords/4 {
			t.Errorf("%s a batch takes %d allocations with one record and %d with %d", what, n["few"], n["many"], manyRecords)
		}
	}
}

func storeBatch(t *testing.T, c *brokertest.Cluster, conn *grpc.ClientConn, topic string, batch []byte) {
	ctx, cancel := c.Context()
	defer cancel()
	req := &pb.ProduceRequest{Topic: topic, Payload: &pb.ProduceRequest_Batch{Batch: bytes.Clone(batch)}}
	if _, err := pb.NewLogClient(conn).Produce(ctx, req); err != nil {
		t.Fatalf("%s: %v", topic, err)
	}
}

// fetchBatch returns what gets the first batch of a topic through a stream, each time it is called.
func fetchBatch(t *testing.T, c *brokertest.Cluster, conn *grpc.ClientConn, topic string, size int) func() {
	ctx, cancel := c.Context()
	t.Cleanup(cancel)
	stream, err := pb.NewLogClient(conn).Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	session := uint64(0)
	return func() {
		session++
		err := stream.Send(&pb.FetchRequest{CreditBytes: int64(size), Add: []*pb.FetchPartition{{Topic: topic, MaxBytes: 1, Session: session}}})
		for err == nil {
			var m *pb.FetchResponse
			if m, err = stream.Recv(); err == nil && m.Partitions[0].Session == session {
				if n := len(m.Partitions[0].Batches); n != size {
					t.Fatalf("%s: got %d bytes, want %d", topic, n, size)
				}
				return
			}
		}
		t.Fatalf("%s: %v", topic, err)
	}
}
