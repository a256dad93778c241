package brokertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Context is for one request of a test.
func (c *Cluster) Context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

// Any is a connection to some broker that runs.
func (c *Cluster) Any() *grpc.ClientConn {
	c.T.Helper()
	for _, id := range c.Running() {
		if conn := c.Conn(id); conn != nil {
			return conn
		}
	}
	c.T.Fatal("no broker is running")
	return nil
}

// CreateTopic creates a topic and waits until its partitions have leaders.
func (c *Cluster) CreateTopic(name string, partitions, rf int32, settings ...string) *pb.TopicDescription {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	req := &pb.CreateTopicRequest{Topic: name, Partitions: partitions, ReplicationFactor: rf, Settings: map[string]string{}}
	for i := 0; i+1 < len(settings); i += 2 {
		req.Settings[settings[i]] = settings[i+1]
	}
	resp, err := pb.NewAdminClient(c.Any()).CreateTopic(ctx, req)
	if err != nil {
		c.T.Fatalf("creating %s: %v", name, err)
	}
	for _, p := range resp.GetTopic().GetPartitions() {
		if p.GetLeader() < 0 {
			c.T.Fatalf("%s/%d has no leader after its creation", name, p.GetPartition())
		}
	}
	return resp.GetTopic()
}

// Leader waits for a partition to have a leader that runs and knows it, and returns that broker.
func (c *Cluster) Leader(topic string, partition int32) api.BrokerID {
	c.T.Helper()
	leader := api.NoBroker
	c.Eventually(fmt.Sprintf("%s/%d has a leader", topic, partition), func() error {
		for _, id := range c.Running() {
			if st, ok := c.Broker(id).LocalReplica(api.TopicPartition{Topic: topic, Partition: partition}); ok && st.Ready {
				leader = id
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}

// Produce appends values as one batch, following the leader and trying again until it is acknowledged, and returns the batch's offset. A
// value may then be there twice, as the batch is not idempotent. Any goroutine may call TryProduce.
func (c *Cluster) Produce(topic string, partition int32, values ...string) int64 {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	offset, err := c.TryProduce(ctx, topic, partition, values...)
	if err != nil {
		c.T.Fatalf("producing to %s/%d: %v", topic, partition, err)
	}
	return offset
}

// TryProduce is Produce until ctx ends or the error is a final one.
func (c *Cluster) TryProduce(ctx context.Context, topic string, partition int32, values ...string) (int64, error) {
	req := &pb.ProduceRequest{Topic: topic, Partition: partition, Payload: &pb.ProduceRequest_Records{Records: records(values)}}
	var resp *pb.ProduceResponse
	err := c.retry(ctx, func(conn *grpc.ClientConn) error {
		var err error
		resp, err = pb.NewLogClient(conn).Produce(ctx, req)
		return err
	})
	return resp.GetBaseOffset(), err
}

func records(values []string) *pb.Records {
	rs := &pb.Records{}
	for _, v := range values {
		rs.Records = append(rs.Records, &pb.Record{Value: []byte(v)})
	}
	return rs
}

// retry runs f on brokers in turn, until it succeeds or fails for good: first on the one where the last request succeeded, and after an
// error on the one that the error names.
func (c *Cluster) retry(ctx context.Context, f func(*grpc.ClientConn) error) error {
	hint := api.BrokerID(c.last.Load())
	for attempt := 0; ; attempt++ {
		running := c.Running()
		id := hint
		if c.Conn(id) == nil && len(running) > 0 {
			id = running[attempt%len(running)]
		}
		hint = 0
		if conn := c.Conn(id); conn != nil {
			err := f(conn)
			if err == nil {
				c.last.Store(int32(id))
				return nil
			}
			d := Detail(err)
			if d == nil && status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled || d != nil && !d.Retriable {
				return err
			}
			if d.GetLeader() != nil {
				hint = api.BrokerID(d.GetLeader().GetBrokerId())
			}
			if ctx.Err() != nil {
				return err
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Detail is the ErrorDetail of a gRPC error, or nil.
func Detail(err error) *pb.ErrorDetail {
	for _, d := range status.Convert(err).Details() {
		if e, ok := d.(*pb.ErrorDetail); ok {
			return e
		}
	}
	return nil
}

// ReadAll reads a partition from its start to its present end.
func (c *Cluster) ReadAll(topic string, partition int32) []*pb.Record {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	var out []*pb.Record
	for next := int64(0); ; {
		var resp *pb.ReadResponse
		err := c.retry(ctx, func(conn *grpc.ClientConn) error {
			var err error
			resp, err = pb.NewLogClient(conn).Read(ctx, &pb.ReadRequest{Topic: topic, Partition: partition, Offset: next, Decode: true})
			return err
		})
		if err != nil {
			c.T.Fatalf("reading %s/%d at %d: %v", topic, partition, next, err)
		}
		d := resp.GetData()
		out = append(out, d.GetRecords()...)
		if d.GetNextOffset() >= d.GetHighWatermark() {
			return out
		}
		next = d.GetNextOffset()
	}
}

// WaitReplicated waits until every broker of want, and no other, has an open replica of the partition with the leader's
// high watermark, and metadata knows them as the voters.
func (c *Cluster) WaitReplicated(topic string, partition int32, want ...api.BrokerID) {
	c.T.Helper()
	c.Eventually(fmt.Sprintf("%s/%d is replicated on %v", topic, partition, want), func() error {
		return c.replicated(api.TopicPartition{Topic: topic, Partition: partition}, want)
	})
}

func (c *Cluster) replicated(tp api.TopicPartition, want []api.BrokerID) error {
	var high record.Offset = -1
	wanted := map[api.BrokerID]bool{}
	for _, id := range want {
		wanted[id] = true
		st, ok := c.Broker(id).LocalReplica(tp)
		if !ok {
			return fmt.Errorf("broker %d has no open replica", id)
		}
		if len(st.Servers) != len(want) {
			return fmt.Errorf("broker %d knows %d servers", id, len(st.Servers))
		}
		if high >= 0 && st.HighWatermark != high {
			return fmt.Errorf("broker %d is at %d, another at %d", id, st.HighWatermark, high)
		}
		high = st.HighWatermark
	}
	for _, id := range c.Running() {
		if _, ok := c.Broker(id).LocalReplica(tp); ok && !wanted[id] {
			return fmt.Errorf("broker %d still has a replica", id)
		}
	}
	return nil
}

// EnsureSame waits until all open replicas of a partition have the same content.
func (c *Cluster) EnsureSame(topic string, partition int32) {
	c.T.Helper()
	tp := api.TopicPartition{Topic: topic, Partition: partition}
	c.Eventually(fmt.Sprintf("all replicas of %s/%d are the same", topic, partition), func() error {
		seen := map[string][]api.BrokerID{}
		for _, id := range c.Running() {
			if st, ok := c.Broker(id).LocalReplica(tp); ok {
				key := fmt.Sprintf("%d records, digest %x", st.HighWatermark, st.Digest)
				seen[key] = append(seen[key], id)
			}
		}
		if len(seen) != 1 {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
}

// Describe returns what the cluster says about a topic.
func (c *Cluster) Describe(topic string) *pb.TopicDescription {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	var out *pb.TopicDescription
	err := c.retry(ctx, func(conn *grpc.ClientConn) error {
		resp, err := pb.NewAdminClient(conn).DescribeTopic(ctx, &pb.DescribeTopicRequest{Topic: topic})
		out = resp.GetTopic()
		return err
	})
	if err != nil {
		c.T.Fatalf("describing %s: %v", topic, err)
	}
	return out
}

// ReplicasOf lists the brokers that should hold a partition.
func (c *Cluster) ReplicasOf(topic string, partition int32) []api.BrokerID {
	c.T.Helper()
	var out []api.BrokerID
	for _, id := range c.Describe(topic).GetPartitions()[partition].GetReplicas() {
		out = append(out, api.BrokerID(id))
	}
	return out
}

// ReplicaDirs lists the directories of replicas on a broker's disk, those set aside included. The broker may be down.
func (c *Cluster) ReplicaDirs(id api.BrokerID) []string {
	c.T.Helper()
	entries, err := os.ReadDir(filepath.Join(c.Node(id).Dir, "partitions"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.T.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// FilesMatch says whether each broker has as many directories as it should have replicas of the topic, the only one there is.
func (c *Cluster) FilesMatch(topic string) error {
	c.T.Helper()
	want := map[api.BrokerID]int{}
	for _, p := range c.Describe(topic).GetPartitions() {
		for _, id := range p.GetReplicas() {
			want[api.BrokerID(id)]++
		}
	}
	for _, id := range c.Running() {
		if dirs := c.ReplicaDirs(id); len(dirs) != want[id] {
			return fmt.Errorf("broker %d should hold %d replicas and has %v", id, want[id], dirs)
		}
	}
	return nil
}
