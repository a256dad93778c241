package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

const (
	// refreshPause is the least time between two metadata requests of one client.
	refreshPause = 20 * time.Millisecond
	// metadataTry is how long the first broker may take to answer; each next one twice as long, so that a frozen one does not hold up all.
	metadataTry = 500 * time.Millisecond
	// unknownTopicWait is how long a topic may be unknown before that is an error: brokers learn of a new topic one after another.
	unknownTopicWait = 2 * time.Second
	// hintAge is how long the leader that a broker named is believed more than metadata of the same leader epoch.
	hintAge = 5 * time.Second
)

// Metadata is what a client routes by.
type Metadata struct {
	ClusterID string `json:"cluster_id"`
	// Controller is a broker ID; -1: none at the moment.
	Controller int32           `json:"controller_id"`
	Brokers    []Broker        `json:"brokers"`
	Topics     []TopicMetadata `json:"topics"`
	// Version grows with every change of the cluster's metadata.
	Version uint64 `json:"version"`
}

// TopicMetadata is a topic in Metadata.
type TopicMetadata struct {
	Topic      string              `json:"topic"`
	ID         []byte              `json:"topic_id,omitempty"`
	Internal   bool                `json:"internal"`
	Partitions []PartitionMetadata `json:"partitions"`
	// Unknown says that the topic was asked for by name and does not exist.
	Unknown bool `json:"unknown,omitempty"`
}

// PartitionMetadata is a partition in Metadata. Leader is -1 if there is none at the moment.
type PartitionMetadata struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
}

// Metadata asks a broker for the cluster's metadata; without topics, for that of all that are not internal.
func (c *Client) Metadata(ctx context.Context, topics ...string) (Metadata, error) {
	m, err := c.fetchMetadata(ctx, topics)
	if err != nil {
		return Metadata{}, err
	}
	return metadataFrom(m), nil
}

// WatchMetadata yields the metadata at once and again after every change, until ctx ends or the loop is left. It reconnects by itself; an
// error that it yields is the last one.
func (c *Client) WatchMetadata(ctx context.Context, topics ...string) iter.Seq2[Metadata, error] {
	return func(yield func(Metadata, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		for attempt := 0; ; attempt++ {
			got, err := c.watchOnce(ctx, topics, yield)
			if err == nil {
				return // the loop was left
			}
			if ctx.Err() != nil || !retryElsewhere(err) {
				yield(Metadata{}, err)
				return
			}
			if got {
				attempt = 0
			}
			if err := c.pause(ctx, attempt); err != nil {
				yield(Metadata{}, giveUp("WatchMetadata", ctx, err))
				return
			}
		}
	}
}

func (c *Client) watchOnce(ctx context.Context, topics []string, yield func(Metadata, error) bool) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cn, err := c.pool.get(c.candidates()[0])
	if err != nil {
		return false, err
	}
	stream, err := cn.cluster.WatchMetadata(ctx, &pb.GetMetadataRequest{Topics: topics})
	if err != nil {
		return false, toError(ctx, "WatchMetadata", err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return got, streamError(ctx, "WatchMetadata", err)
		}
		got = true
		c.meta.apply(m)
		if !yield(metadataFrom(m), nil) {
			return true, nil
		}
	}
}

func (c *Client) fetchMetadata(ctx context.Context, topics []string) (*pb.Metadata, error) {
	var m *pb.Metadata
	try := metadataTry
	err := c.callAny(ctx, "GetMetadata", func(ctx context.Context, cn *conn) (err error) {
		ctx, cancel := context.WithTimeout(ctx, try)
		defer cancel()
		try = min(2*try, c.cfg.requestTimeout)
		m, err = cn.cluster.GetMetadata(ctx, &pb.GetMetadataRequest{Topics: topics})
		return err
	})
	if err == nil {
		c.meta.apply(m)
	}
	return m, err
}

func metadataFrom(m *pb.Metadata) Metadata {
	out := Metadata{ClusterID: m.ClusterId, Controller: m.ControllerId, Version: m.Version}
	for _, b := range m.Brokers {
		out.Brokers = append(out.Brokers, Broker{ID: b.BrokerId, Address: b.Address})
	}
	for _, t := range m.Topics {
		tm := TopicMetadata{Topic: t.Topic, ID: t.TopicId, Internal: t.Internal, Unknown: t.Unknown}
		for _, p := range t.Partitions {
			tm.Partitions = append(tm.Partitions, PartitionMetadata{
				Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas,
			})
		}
		out.Topics = append(out.Topics, tm)
	}
	return out
}

// partitions returns how many partitions a topic has, asking the brokers if it is not known yet.
func (c *Client) partitions(ctx context.Context, topic string) (int32, error) {
	c.meta.use(topic) // even if it is known: its leaders must be looked up again when they are found to have moved
	if n, ok := c.meta.count(topic); ok {
		return n, nil
	}
	wait, cancel := context.WithTimeout(ctx, unknownTopicWait)
	defer cancel()
	for {
		changed := c.meta.changedChan()
		n, ok := c.meta.count(topic)
		if ok {
			return n, nil
		}
		c.meta.requestRefresh()
		select {
		case <-changed:
		case <-time.After(5 * refreshPause):
		case <-c.ctx.Done():
			return 0, ErrClosed
		case <-wait.Done():
			switch {
			case errors.Is(ctx.Err(), context.Canceled):
				return 0, fmt.Errorf("looking up topic %s: %w", topic, context.Cause(ctx))
			case c.meta.unknown(topic):
				return 0, noSuchTopic(topic)
			case ctx.Err() != nil:
				return 0, fmt.Errorf("looking up topic %s: no broker could tell: %w", topic, context.Cause(ctx))
			}
			wait, cancel = context.WithCancel(ctx) // no broker has answered yet: the call's own limit counts
			defer cancel()
		}
	}
}

func noSuchTopic(topic string) *Error {
	return &Error{
		Op: "look up", Code: CodeUnknownTopicOrPartition, Retriable: true, Topic: topic, Partition: -1, Message: "the topic does not exist: create it first",
	}
}

// Partitions returns how many partitions a topic has.
func (c *Client) Partitions(ctx context.Context, topic string) (int32, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.partitions(ctx, topic)
}

// refreshLoop is the client's goroutine: it looks the topics in use up when asked to and when they have become old.
func (c *Client) refreshLoop() {
	timer := time.NewTimer(c.cfg.metadataMaxAge)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.meta.wanted:
		case <-timer.C:
		}
		c.meta.expire(time.Now().Add(-c.cfg.idleTopics()))
		if topics := c.meta.topicsInUse(); len(topics) > 0 {
			if _, err := c.fetchMetadata(c.ctx, topics); err != nil && c.ctx.Err() == nil {
				c.cfg.logger.Warn("cannot get metadata", "error", err)
			}
		}
		timer.Reset(c.cfg.metadataMaxAge)
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(refreshPause):
		}
	}
}

// metaCache is what is known of brokers, topics in use and their leaders.
type metaCache struct {
	wanted chan struct{} // capacity 1: a refresh is asked for
	// generation goes up, under mu, with every change of topics: what was read of them since it had its present value still holds.
	generation atomic.Uint64

	mu        sync.Mutex
	clusterID string
	version   uint64
	brokers   map[int32]string
	topics    map[string]*topicLeaders
	used      map[string]time.Time // topics to be looked up, and when somebody last wanted to know of them
	changed   chan struct{}        // closed at the next apply
}

type topicLeaders struct {
	learnt     time.Time
	unknown    bool
	partitions []partitionLeader
}

type partitionLeader struct {
	leader int32
	epoch  int32
	hinted time.Time // when a broker named the leader; zero: it is from metadata
}

func newMetaCache() *metaCache {
	return &metaCache{
		wanted: make(chan struct{}, 1), brokers: make(map[int32]string), topics: make(map[string]*topicLeaders),
		used: make(map[string]time.Time), changed: make(chan struct{}),
	}
}

func (m *metaCache) requestRefresh() {
	select {
	case m.wanted <- struct{}{}:
	default:
	}
}

func (m *metaCache) changedChan() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// use makes a topic one of those that are kept fresh, as long as it is used again now and then. Those who ask for a count or for leaders use the topic by that.
func (m *metaCache) use(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[topic] = time.Now()
}

// expire forgets the topics that nobody has wanted to know of since, so that a client which uses many in its life does not ask for all of them for ever. Who needs one again looks it up again.
func (m *metaCache) expire(since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	forgotten := false
	for topic, at := range m.used {
		if at.Before(since) {
			delete(m.used, topic)
		}
	}
	for topic, t := range m.topics {
		if _, used := m.used[topic]; !used && t.learnt.Before(since) {
			delete(m.topics, topic)
			forgotten = true
		}
	}
	if forgotten {
		m.generation.Add(1)
	}
}

func (m *metaCache) topicsInUse() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	topics := make([]string, 0, len(m.used))
	for t := range m.used {
		topics = append(topics, t)
	}
	return topics
}

// address is where a broker listens.
func (m *metaCache) address(id int32) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	addr, ok := m.brokers[id]
	return addr, ok
}

func (m *metaCache) addresses() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := make([]string, 0, len(m.brokers)+4)
	for _, a := range m.brokers {
		addrs = append(addrs, a)
	}
	return addrs
}

func (m *metaCache) count(topic string) (int32, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[topic] = time.Now()
	t := m.topics[topic]
	if t == nil || t.unknown || len(t.partitions) == 0 {
		return 0, false
	}
	return int32(len(t.partitions)), true
}

func (m *metaCache) unknown(topic string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[topic]
	return t != nil && t.unknown
}

// leader returns the broker that leads a partition as far as is known.
func (m *metaCache) leader(tp TopicPartition) (Broker, bool) {
	b, _, ok := m.leadership(tp)
	return b, ok
}

// leadership is leader with the leader epoch.
func (m *metaCache) leadership(tp TopicPartition) (leader Broker, epoch int32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[tp.Topic] = time.Now()
	t := m.topics[tp.Topic]
	if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.partitions) {
		return Broker{}, 0, false
	}
	p := t.partitions[tp.Partition]
	addr, ok := m.brokers[p.leader]
	return Broker{ID: p.leader, Address: addr}, p.epoch, ok
}

// setLeader believes a broker that says who leads.
func (m *metaCache) setLeader(tp TopicPartition, b Broker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[tp.Topic]
	if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.partitions) {
		return
	}
	m.brokers[b.ID] = b.Address
	p := &t.partitions[tp.Partition]
	p.leader, p.hinted = b.ID, time.Now()
	m.announce()
}

func (m *metaCache) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// apply takes metadata over unless it is older than what is known: brokers learn of changes one after another.
func (m *metaCache) apply(md *pb.Metadata) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if md.ClusterId == m.clusterID && md.Version < m.version {
		return
	}
	m.clusterID, m.version = md.ClusterId, md.Version
	if len(md.Brokers) > 0 {
		clear(m.brokers)
	}
	for _, b := range md.Brokers {
		m.brokers[b.BrokerId] = b.Address
	}
	for _, t := range md.Topics {
		m.topics[t.Topic] = mergeTopic(m.topics[t.Topic], t)
	}
	m.generation.Add(1)
	m.announce()
}

func mergeTopic(old *topicLeaders, t *pb.TopicMetadata) *topicLeaders {
	out := &topicLeaders{learnt: time.Now(), unknown: t.Unknown, partitions: make([]partitionLeader, len(t.Partitions))}
	for i := range out.partitions {
		out.partitions[i].leader = -1
	}
	for _, p := range t.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(out.partitions) {
			continue // partitions are numbered without gaps
		}
		l := partitionLeader{leader: p.Leader, epoch: p.LeaderEpoch}
		if old != nil && int(p.Partition) < len(old.partitions) {
			if was := old.partitions[p.Partition]; was.epoch >= l.epoch && time.Since(was.hinted) < hintAge {
				l = was
			}
		}
		out.partitions[p.Partition] = l
	}
	return out
}
