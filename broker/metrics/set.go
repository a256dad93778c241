package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// namespace begins every name but those of the Go runtime and the process.
const namespace = "flotilla"

// The listeners that requests and connections come from, as labels have them.
const (
	ListenerGRPC  = "grpc"
	ListenerKafka = "kafka"
	ListenerPeer  = "peer"
)

// The ways in which damage is found, as labels have them.
const (
	FoundAtOpen  = "open"  // recovery, when a replica is opened
	FoundInUse   = "use"   // by a read or write
	FoundByScrub = "scrub" // in the background
	FoundByPeers = "digest"
)

// Set is everything that a broker counts, and a registry of its own, so that several brokers in one process do not share it. All fields may be used
// by many goroutines at once.
type Set struct {
	registry *prometheus.Registry
	topics   topicMeters

	requests    *prometheus.HistogramVec // listener, api
	operations  *prometheus.CounterVec   // listener, operation
	errors      *prometheus.CounterVec   // listener, operation, code
	appendTime  prometheus.Histogram
	syncTime    prometheus.Histogram
	recordBytes counters

	// Elections are leaderships that began on this broker.
	Elections prometheus.Counter
	// Rebalances are new generations of groups coordinated here.
	Rebalances prometheus.Counter
	// Damage counts damage found, by how (FoundAtOpen and so on).
	Damage *prometheus.CounterVec
	// Quarantines are replicas whose files were set aside; Rebuilds those of them that are whole again.
	Quarantines, Rebuilds prometheus.Counter
	// Repairs are index files that were damaged and written anew from their segments.
	Repairs prometheus.Counter
	// ReplicaFailures counts replicas that were closed and opened again after a failure that is no damage.
	ReplicaFailures prometheus.Counter
	// Divergences are alarms: replicas that applied the same entries and differ.
	Divergences prometheus.Counter
	// DigestChecks counts comparisons of digests with one other replica.
	DigestChecks prometheus.Counter
	// ScrubBytes were read and checked in the background; ScrubPasses went over all replicas.
	ScrubBytes, ScrubPasses prometheus.Counter
}

// counters are the metrics by topic.
type counters struct{ appendedBytes, appendedRecords, ackedBytes, ackedRecords, fetchedBytes, fetchedRecords *prometheus.CounterVec }

// syncBuckets are for one fsync: a good disk takes a tenth of a millisecond, a bad moment of a shared one seconds.
var syncBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}

// waitBuckets are for what includes an fsync, a network and perhaps an election.
var waitBuckets = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// requestBuckets are fewer: there are many series of them.
var requestBuckets = []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30}

// New makes a set in which everything is zero. Version is told in flotilla_build_info.
func New(version string) *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	s.makeTraffic()
	s.makeHealth()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1; the label has the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	s.registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

func (s *Set) makeTraffic() {
	s.requests = s.histogramVec("request_duration_seconds",
		"Requests that were answered, by listener and API, and the time from a request's arrival to its response; of those that wait for records (Fetch) or for members (JoinGroup) that is waiting too.",
		requestBuckets, "listener", "api")
	s.operations = s.counterVec("operations_total", "What requests asked of the broker; a produce request is one operation per partition.", "listener", "operation")
	s.errors = s.counterVec("operation_errors_total", "Operations that failed, by error code.", "listener", "operation", "code")
	s.appendTime = s.histogram("append_duration_seconds", "Batches stored by leaders here, and the time from their acceptance to their commit: fsync and quorum.", waitBuckets)
	s.syncTime = s.histogram("log_sync_duration_seconds", "fdatasync calls of partitions' logs, leaders' and followers', and how long they took.", syncBuckets)
	s.recordBytes = counters{
		appendedBytes:   s.counterVec("topic_appended_bytes_total", "Bytes of batches that leaders here took in.", "topic"),
		appendedRecords: s.counterVec("topic_appended_records_total", "Records that leaders here took in.", "topic"),
		ackedBytes:      s.counterVec("topic_acknowledged_bytes_total", "Bytes of batches that leaders here stored on a quorum.", "topic"),
		ackedRecords:    s.counterVec("topic_acknowledged_records_total", "Records that leaders here stored on a quorum.", "topic"),
		fetchedBytes:    s.counterVec("topic_fetched_bytes_total", "Bytes of batches that consumers fetched from leaders here.", "topic"),
		fetchedRecords:  s.counterVec("topic_fetched_records_total", "Records in those batches.", "topic"),
	}
	s.topics = topicMeters{set: s}
}

func (s *Set) makeHealth() {
	s.Elections = s.counter("leader_elections_total", "Leaderships of partitions that began on this broker.")
	s.Rebalances = s.counter("group_rebalances_total", "New generations of consumer groups that are coordinated here.")
	s.Damage = s.counterVec("damage_detected_total", "Damaged files found, by what found them: open (recovery), use (a read or write), scrub, digest (a replica differs from the others).", "found_by")
	for _, by := range []string{FoundAtOpen, FoundInUse, FoundByScrub, FoundByPeers} {
		s.Damage.WithLabelValues(by) // so that a rate can be taken from the start
	}
	s.Quarantines = s.counter("replica_quarantines_total", "Replicas whose files were set aside for damage.")
	s.Rebuilds = s.counter("replica_rebuilds_total", "Quarantined replicas that were rebuilt from the others and vote again.")
	s.Repairs = s.counter("index_repairs_total", "Index files that were damaged and written anew from their segments.")
	s.ReplicaFailures = s.counter("replica_failures_total", "Replicas that failed without damage and were opened again.")
	s.Divergences = s.counter("divergence_alarms_total", "Replicas found to differ although they applied the same entries. Anything above 0 needs a look at the log.")
	s.DigestChecks = s.counter("digest_checks_total", "Comparisons of a leader's digest with another replica's.")
	s.ScrubBytes = s.counter("scrub_bytes_total", "Bytes read and checked in the background.")
	s.ScrubPasses = s.counter("scrub_passes_total", "Times that the background check went over all replicas.")
}

func (s *Set) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	s.registry.MustRegister(c)
	return c
}

func (s *Set) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	s.registry.MustRegister(c)
	return c
}

func (s *Set) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	s.registry.MustRegister(h)
	return h
}

func (s *Set) histogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	s.registry.MustRegister(h)
	return h
}

// Requests returns what a front end calls when it has answered a request. The API's name is the front end's and must come from a fixed list.
func (s *Set) Requests(listener string) func(api string, took time.Duration) {
	return func(api string, took time.Duration) {
		s.requests.WithLabelValues(listener, api).Observe(took.Seconds())
	}
}

// Synced is called after each fdatasync of a partition's log.
func (s *Set) Synced(took time.Duration) { s.syncTime.Observe(took.Seconds()) }
