// Package fakebroker is a cluster in memory that speaks the gRPC API, for the client's tests: brokers on loopback that share
// partitions kept as slices, with faults to order. It keeps no promise beyond what the tests need.
package fakebroker

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/flotilla-log/flotilla/proto/record"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Cluster is a number of brokers with shared state.
type Cluster struct {
	mu         sync.Mutex
	brokers    []*Broker
	topics     map[string]*topic
	version    uint64
	nextID     int64
	changed    chan struct{} // closed at every append and change
	faults     []Fault
	groups     map[string]*group
	committed  map[string]map[tp]*pb.OffsetCommit
	coordinate int            // broker that coordinates all groups
	cutFetch   chan struct{}  // closed to break all Fetch streams
	mute       map[int32]bool // brokers whose Fetch streams bring nothing
	corrupt    int            // batches still to be damaged
	sent       int64
	heartbeats int
	fetches    atomic.Int32
}

// Broker is one broker.
type Broker struct {
	c      *Cluster
	id     int32
	addr   string
	server *grpc.Server

	lookups atomic.Int32
}

type tp struct {
	topic     string
	partition int32
}

type topic struct{ partitions []*partition }

type partition struct {
	leader    int32
	epoch     int32
	batches   [][]byte
	next      record.Offset
	start     record.Offset
	producers map[int64]*producer
}

type producer struct {
	epoch int16
	last  []appended // newest last, five at most
}

type appended struct {
	first, final int32
	base         record.Offset
}

// Start runs a cluster of n brokers until the test ends.
func Start(t testing.TB, n int) *Cluster {
	c := &Cluster{
		topics: make(map[string]*topic), changed: make(chan struct{}), groups: make(map[string]*group), version: 1, cutFetch: make(chan struct{}), mute: make(map[int32]bool),
		committed: make(map[string]map[tp]*pb.OffsetCommit),
	}
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b := &Broker{c: c, id: int32(i)}
		c.brokers = append(c.brokers, b)
		b.serve(l)
	}
	t.Cleanup(c.Stop)
	return c
}

func (b *Broker) serve(l net.Listener) {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	pb.RegisterLogServer(s, &logServer{b: b})
	pb.RegisterClusterServer(s, &clusterServer{b: b})
	pb.RegisterGroupsServer(s, &groupsServer{b: b})
	pb.RegisterAdminServer(s, &adminServer{b: b})
	b.c.mu.Lock()
	b.addr, b.server = l.Addr().String(), s
	b.c.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

// Stop stops all brokers.
func (c *Cluster) Stop() {
	for i := range c.brokers {
		c.Kill(i)
	}
}

// Kill stops one broker with all its connections at once.
func (c *Cluster) Kill(i int) {
	c.mu.Lock()
	s := c.brokers[i].server
	c.brokers[i].server = nil
	c.mu.Unlock()
	if s != nil {
		s.Stop()
	}
}

// Restart brings a killed broker back at its address.
func (c *Cluster) Restart(t testing.TB, i int) {
	l, err := net.Listen("tcp", c.brokers[i].addr)
	if err != nil {
		t.Fatal(err)
	}
	c.brokers[i].serve(l)
}

// Addrs are the brokers' addresses.
func (c *Cluster) Addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.addr)
	}
	return addrs
}

// CreateTopic makes a topic whose partitions are led by the brokers in turn.
func (c *Cluster) CreateTopic(name string, partitions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.createTopic(name, partitions)
}

func (c *Cluster) createTopic(name string, partitions int) {
	t := c.topics[name]
	if t == nil {
		t = &topic{}
		c.topics[name] = t
	}
	for i := len(t.partitions); i < partitions; i++ {
		t.partitions = append(t.partitions, &partition{leader: int32(i % len(c.brokers)), epoch: 1, producers: make(map[int64]*producer)})
	}
	c.announce()
}

// announce wakes whoever waits for a change. mu is held.
func (c *Cluster) announce() {
	c.version++
	close(c.changed)
	c.changed = make(chan struct{})
}

// MoveLeader gives a partition another leader (-1: none).
func (c *Cluster) MoveLeader(topic string, partition, broker int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[topic].partitions[partition]
	p.leader = broker
	p.epoch++
	c.announce()
}

// Leader is the broker that leads a partition.
func (c *Cluster) Leader(topic string, partition int32) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[topic].partitions[partition].leader
}

// Lookups is how often metadata were asked for.
func (c *Cluster) Lookups() (n int) {
	for i := range c.brokers {
		n += c.LookupsAt(i)
	}
	return n
}

// LookupsAt is how often one broker was asked for metadata.
func (c *Cluster) LookupsAt(i int) int { return int(c.brokers[i].lookups.Load()) }

// ForgetProducers drops all producer state, as if it had expired.
func (c *Cluster) ForgetProducers(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.topics[topic].partitions {
		clear(p.producers)
	}
}

// TrimTo moves a partition's log start.
func (c *Cluster) TrimTo(topic string, partition int32, start int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.topics[topic].partitions[partition].start = record.Offset(start)
	c.announce()
}

// Append stores a batch as a producer without idempotence would.
func (c *Cluster) Append(topic string, partition int32, batch []byte) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.topics[topic].partitions[partition].append(c, append([]byte(nil), batch...)))
}

// Values returns the values stored in a partition, in order.
func (c *Cluster) Values(topic string, partition int32) []string {
	var out []string
	for _, r := range c.Records(topic, partition) {
		out = append(out, string(r.Value))
	}
	return out
}

// Records returns the records stored in a partition, in order.
func (c *Cluster) Records(topic string, partition int32) []record.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []record.Record
	for _, b := range c.topics[topic].partitions[partition].batches {
		rs, err := record.Decode(b, 64<<20)
		if err != nil {
			panic(err)
		}
		out = append(out, rs...)
	}
	return out
}

// Batches is the number of batches stored in a partition.
func (c *Cluster) Batches(topic string, partition int32) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.topics[topic].partitions[partition].batches)
}

func (p *partition) append(c *Cluster, batch []byte) record.Offset {
	base := p.next
	record.Stamp(batch, base, p.epoch)
	h, err := record.Validate(batch)
	if err != nil {
		panic(err)
	}
	p.batches = append(p.batches, batch)
	p.next = h.Next()
	c.announce()
	return base
}

// get returns a partition. mu is held.
func (c *Cluster) get(topic string, partition int32) *partition {
	t := c.topics[topic]
	if t == nil || partition < 0 || int(partition) >= len(t.partitions) {
		return nil
	}
	return t.partitions[partition]
}

func (c *Cluster) endpoint(id int32) *pb.BrokerEndpoint {
	if id < 0 || int(id) >= len(c.brokers) {
		return nil
	}
	return &pb.BrokerEndpoint{BrokerId: id, Address: c.brokers[id].addr}
}

func (b *Broker) String() string { return fmt.Sprintf("broker %d", b.id) }
