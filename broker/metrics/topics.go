package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// topicsMax bounds the topics that have series of their own, which is what a monitoring system pays for. Those that come later share one.
const topicsMax = 2000

// OtherTopics is the label of topics beyond that bound. No topic can be called so.
const OtherTopics = "(other)"

// Topic counts what passes through the leaders of a topic's partitions on this broker.
type Topic struct {
	set                          *Set
	appendedBytes, appendedCount prometheus.Counter
	ackedBytes, ackedCount       prometheus.Counter
	fetchedBytes, fetchedCount   prometheus.Counter
}

// topicMeters are made when they are first asked for, and stay: a counter that goes away and comes back would look like a restart.
type topicMeters struct {
	set   *Set
	byTag sync.Map // name to *Topic
	n     atomic.Int64
	mu    sync.Mutex
}

// Topic is the topic's meter.
func (s *Set) Topic(name string) *Topic {
	if t, ok := s.topics.byTag.Load(name); ok {
		return t.(*Topic)
	}
	return s.topics.add(name)
}

func (m *topicMeters) add(name string) *Topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n.Load() >= topicsMax {
		name = OtherTopics
	}
	if t, ok := m.byTag.Load(name); ok {
		return t.(*Topic)
	}
	t := m.set.newTopic(name)
	m.byTag.Store(name, t)
	m.n.Add(1)
	return t
}

func (s *Set) newTopic(name string) *Topic {
	c := s.recordBytes
	return &Topic{
		set:           s,
		appendedBytes: c.appendedBytes.WithLabelValues(name), appendedCount: c.appendedRecords.WithLabelValues(name),
		ackedBytes: c.ackedBytes.WithLabelValues(name), ackedCount: c.ackedRecords.WithLabelValues(name),
		fetchedBytes: c.fetchedBytes.WithLabelValues(name), fetchedCount: c.fetchedRecords.WithLabelValues(name),
	}
}

// label is the label under which the topic's series are.
func (s *Set) label(name string) string {
	if _, ok := s.topics.byTag.Load(name); ok || s.topics.n.Load() < topicsMax {
		return name
	}
	return OtherTopics
}

// Appended counts a batch that the leader took in.
func (t *Topic) Appended(records, bytes int) {
	t.appendedBytes.Add(float64(bytes))
	t.appendedCount.Add(float64(records))
}

// Acknowledged counts a batch that a quorum has; took is the time since Appended.
func (t *Topic) Acknowledged(records, bytes int, took time.Duration) {
	t.ackedBytes.Add(float64(bytes))
	t.ackedCount.Add(float64(records))
	t.set.appendTime.Observe(took.Seconds())
}

// Fetched counts batches that a consumer got.
func (t *Topic) Fetched(records, bytes int) {
	t.fetchedBytes.Add(float64(bytes))
	t.fetchedCount.Add(float64(records))
}

// Repaired counts an index file that was damaged and written anew.
func (t *Topic) Repaired() { t.set.Repairs.Inc() }

// Synced counts an fdatasync.
func (t *Topic) Synced(took time.Duration) { t.set.Synced(took) }
