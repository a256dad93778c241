package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is what a broker knows when it is asked.
type Source interface {
	// Observe looks around. It must not block on the network.
	Observe() State
}

// State is what a broker looks like at one moment.
type State struct {
	Partitions []Partition // replicas on this broker
	Damaged    int         // replicas on this broker that are damaged and not yet replaced
	Failed     int         // replicas on this broker that are not open, for whatever reason
	Diverged   int         // partitions led here of which a replica is known to differ

	// Of the whole cluster, as the metadata here says.
	ClusterPartitions int
	ClusterOffline    int // without a leader
	ClusterMoving     int // whose replicas are not yet those desired
	BrokersAlive      int
	BrokersAway       int
	Topics            int
	Controller        bool // this broker is the controller
	MetadataLeader    bool // some controller is known

	DiskFree, DiskReserve         int64 // bytes; free -1: not known
	DiskFull                      bool  // producers are refused for it
	InflightBytes, InflightLimit  int64
	ScrubDone, ScrubTotal         int64     // bytes of the pass under way
	ScrubbedAt                    time.Time // when the last whole pass ended
	Connections                   map[string]int
	Groups                        map[string]int // coordinated here, by state
	GroupMembers, GroupPartitions int            // members of those; coordinator partitions led here
	Ready                         bool
}

// Partition is one replica on this broker.
type Partition struct {
	Topic     string
	Bytes     int64
	Leads     bool
	HasLeader bool
	// Of a leader:
	Under     bool             // a desired replica is missing or behind
	Followers map[string]int64 // entries that other brokers' replicas lack, by broker
}

// lookPause is how old an answer may be that a second scrape is given: two monitoring systems should not cost twice as much.
const lookPause = time.Second

// stateCollector turns a State into metrics. Prometheus' registry calls Collect for each scrape.
type stateCollector struct {
	set    *Set
	source Source
	look   chan lookCache // holds the last look; whoever has it may look anew
}

type lookCache struct {
	at    time.Time
	state State
}

// Look registers what is known at scrape time.
func (s *Set) Look(source Source) {
	c := &stateCollector{set: s, source: source, look: make(chan lookCache, 1)}
	c.look <- lookCache{}
	s.registry.MustRegister(c)
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allDescs {
		ch <- d
	}
}

var allDescs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	allDescs = append(allDescs, d)
	return d
}

var (
	descReady       = desc("ready", "1 once the broker serves.")
	descReplicas    = desc("replicas", "Replicas that are open on this broker.")
	descLeaders     = desc("leader_partitions", "Partitions that this broker leads.")
	descUnder       = desc("under_replicated_partitions", "Partitions led here of which a replica is missing, away, or has not been caught up for 10 s.")
	descLeaderless  = desc("leaderless_replicas", "Replicas on this broker that know of no leader.")
	descDamaged     = desc("damaged_replicas", "Replicas on this broker whose files are damaged and that are not yet replaced.")
	descFailed      = desc("failed_replicas", "Replicas on this broker that should be open and are not.")
	descDiverged    = desc("diverged_partitions", "Partitions led here of which a replica is known to differ from the others.")
	descLag         = desc("follower_lag_entries_max", "Most log entries that a replica on the labelled broker lacks, over the partitions led here.", "broker")
	descLagging     = desc("follower_lagging_partitions", "Partitions led here whose replica on the labelled broker lacks more than 128 entries.", "broker")
	descTopicBytes  = desc("topic_log_bytes", "Bytes stored on this broker.", "topic")
	descTopicLeads  = desc("topic_leader_partitions", "Partitions of the topic that this broker leads.", "topic")
	descLogBytes    = desc("log_bytes", "Bytes stored on this broker in partitions.")
	descClusterPart = desc("cluster_partitions", "Partitions of the cluster.")
	descOffline     = desc("cluster_offline_partitions", "Partitions of the cluster without a leader, as this broker sees it.")
	descMoving      = desc("cluster_moving_partitions", "Partitions of the cluster whose replicas are not yet those desired.")
	descBrokers     = desc("cluster_brokers", "Registered brokers, by whether this one sees them.", "state")
	descTopics      = desc("cluster_topics", "Topics of the cluster.")
	descController  = desc("controller", "1 on the broker that is the controller.")
	descHasControl  = desc("controller_known", "1 if this broker knows of a controller; without one, topics and assignments cannot change.")
	descFree        = desc("disk_free_bytes", "Free space where partitions are stored.")
	descReserve     = desc("disk_reserve_bytes", "Free space below which producers are refused (--disk-reserve).")
	descFull        = desc("disk_full", "1 while producers are refused for lack of space.")
	descInflight    = desc("inflight_bytes", "Bytes of batches that were received and are not yet acknowledged.")
	descInflightMax = desc("inflight_limit_bytes", "The most of those (--inflight-bytes); producers wait beyond it.")
	descScrubDone   = desc("scrub_pass_bytes", "Bytes that the background check under way has been through; 0 between two of them.")
	descScrubTotal  = desc("scrub_pass_total_bytes", "Bytes that it has to go through.")
	descScrubbed    = desc("scrub_last_completed_timestamp_seconds", "When the last background check of everything ended; 0: not since the start.")
	descConns       = desc("connections", "Open connections by listener.", "listener")
	descGroups      = desc("groups", "Consumer groups coordinated here, by state.", "state")
	descMembers     = desc("group_members", "Members of those groups.")
	descCoordinates = desc("coordinator_partitions", "Coordinator partitions that this broker leads.")
)

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	last := <-c.look
	if time.Since(last.at) > lookPause {
		last = lookCache{state: c.source.Observe(), at: time.Now()}
	}
	c.look <- last
	e := emitter{ch}
	c.partitions(e, last.state)
	c.cluster(e, last.state)
	c.resources(e, last.state)
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) flag(d *prometheus.Desc, on bool) {
	v := 0.0
	if on {
		v = 1
	}
	e.gauge(d, v)
}

// tally is what partitions add up to.
type tally struct {
	leaders, under, leaderless int
	bytes                      int64
	topicBytes, topicLeads     map[string]int64
	lag, lagging               map[string]int64
}

// lagEntries is from how many missing entries on a replica counts as lagging: what remains below passes in a moment.
const lagEntries = 128

func (c *stateCollector) tally(list []Partition) tally {
	t := tally{topicBytes: map[string]int64{}, topicLeads: map[string]int64{}, lag: map[string]int64{}, lagging: map[string]int64{}}
	for _, p := range list {
		topic := c.set.label(p.Topic)
		t.bytes += p.Bytes
		t.topicBytes[topic] += p.Bytes
		if !p.HasLeader {
			t.leaderless++
		}
		if !p.Leads {
			continue
		}
		t.leaders++
		t.topicLeads[topic]++
		if p.Under {
			t.under++
		}
		for broker, n := range p.Followers {
			t.lag[broker] = max(t.lag[broker], n)
			if n > lagEntries {
				t.lagging[broker]++
			} else {
				t.lagging[broker] += 0
			}
		}
	}
	return t
}

func (c *stateCollector) partitions(e emitter, s State) {
	t := c.tally(s.Partitions)
	e.gauge(descReplicas, float64(len(s.Partitions)))
	e.gauge(descLeaders, float64(t.leaders))
	e.gauge(descUnder, float64(t.under))
	e.gauge(descLeaderless, float64(t.leaderless))
	e.gauge(descDamaged, float64(s.Damaged))
	e.gauge(descFailed, float64(s.Failed))
	e.gauge(descDiverged, float64(s.Diverged))
	e.gauge(descLogBytes, float64(t.bytes))
	for topic, n := range t.topicBytes {
		e.gauge(descTopicBytes, float64(n), topic)
		e.gauge(descTopicLeads, float64(t.topicLeads[topic]), topic)
	}
	for broker, n := range t.lag {
		e.gauge(descLag, float64(n), broker)
		e.gauge(descLagging, float64(t.lagging[broker]), broker)
	}
}

func (c *stateCollector) cluster(e emitter, s State) {
	e.flag(descReady, s.Ready)
	e.gauge(descClusterPart, float64(s.ClusterPartitions))
	e.gauge(descOffline, float64(s.ClusterOffline))
	e.gauge(descMoving, float64(s.ClusterMoving))
	e.gauge(descBrokers, float64(s.BrokersAlive), "alive")
	e.gauge(descBrokers, float64(s.BrokersAway), "away")
	e.gauge(descTopics, float64(s.Topics))
	e.flag(descController, s.Controller)
	e.flag(descHasControl, s.MetadataLeader)
	for state, n := range s.Groups {
		e.gauge(descGroups, float64(n), state)
	}
	e.gauge(descMembers, float64(s.GroupMembers))
	e.gauge(descCoordinates, float64(s.GroupPartitions))
}

func (c *stateCollector) resources(e emitter, s State) {
	if s.DiskFree >= 0 {
		e.gauge(descFree, float64(s.DiskFree))
	}
	e.gauge(descReserve, float64(s.DiskReserve))
	e.flag(descFull, s.DiskFull)
	e.gauge(descInflight, float64(s.InflightBytes))
	e.gauge(descInflightMax, float64(s.InflightLimit))
	e.gauge(descScrubDone, float64(s.ScrubDone))
	e.gauge(descScrubTotal, float64(s.ScrubTotal))
	at := 0.0
	if !s.ScrubbedAt.IsZero() {
		at = float64(s.ScrubbedAt.UnixMilli()) / 1000
	}
	e.gauge(descScrubbed, at)
	for listener, n := range s.Connections {
		e.gauge(descConns, float64(n), listener)
	}
}
