package broker

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/broker/metrics"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/proto/record"
)

// behindAfter is how long a replica may not have been caught up before its partition counts as under-replicated.
const behindAfter = 10 * time.Second

func (b *Broker) listenMetrics() error {
	if b.cfg.MetricsAddr == "" {
		return nil
	}
	ln, err := net.Listen("tcp", b.cfg.MetricsAddr)
	switch {
	case err != nil && b.cfg.MetricsOptional:
		b.log.Warn("metrics are not served: choose another --metrics-addr", "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("listening for metrics: %w", err)
	}
	b.metricsLn = ln
	b.closers = append(b.closers, func() { _ = ln.Close() })
	return nil
}

func (b *Broker) serveMetrics() {
	if b.metricsLn == nil {
		return
	}
	b.metrics.Look(b)
	b.metricsSrv = metrics.NewServer(b.metrics, metrics.Options{Profiles: b.cfg.Profiles, Logger: b.log.Named("metrics")})
	b.wg.Go(func() {
		if err := b.metricsSrv.Serve(b.metricsLn); err != nil && !b.stopping.Load() {
			b.log.Error("metrics are no longer served", "error", err) // no reason to stop serving records
		}
	})
}

// countFetched counts what a consumer gets.
func (b *Broker) countFetched(results []api.FetchResult) {
	for _, r := range results {
		if len(r.Batches) == 0 {
			continue
		}
		records, bytes := 0, 0
		for _, batch := range r.Batches {
			records += record.CountOf(batch)
			bytes += len(batch)
		}
		b.metrics.Topic(r.Topic).Fetched(records, bytes)
	}
}

// Observe implements metrics.Source. It asks nobody outside of this process.
func (b *Broker) Observe() metrics.State {
	s := metrics.State{DiskFree: -1, DiskReserve: max(b.cfg.DiskReserve, 0), Groups: map[string]int{}, Connections: map[string]int{}}
	s.Ready = isClosed(b.ready)
	b.observeReplicas(&s)
	b.observeCluster(&s)
	if free, err := b.replicas.fs().FreeBytes(b.replicas.dir); err == nil {
		s.DiskFree = free
	}
	s.InflightBytes, s.InflightLimit = b.replicas.budget.Used()
	s.ScrubDone, s.ScrubTotal, s.ScrubbedAt = b.scrubbing.progress()
	s.Connections[metrics.ListenerGRPC] = b.server.Connections()
	s.Connections[metrics.ListenerPeer] = b.transport.Connections()
	if b.kafka != nil {
		s.Connections[metrics.ListenerKafka] = b.kafka.Connections()
	}
	return s
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func (b *Broker) observeReplicas(s *metrics.State) {
	now := time.Now()
	for _, h := range b.replicas.all() {
		if h.damaged.Load() {
			s.Damaged++
		}
		r := h.open()
		if r == nil {
			if !h.opening() {
				s.Failed++
			}
			continue
		}
		if h.divergence.text.Load() != nil {
			s.Diverged++
		}
		if h.storageFull() != nil {
			s.DiskFull = true
		}
		s.Partitions = append(s.Partitions, h.observe(r.Status(), now))
		if c := h.servingCoordinator(); c != nil {
			s.GroupPartitions++
			states, members := c.Count()
			for state, n := range states {
				s.Groups[state] += n
			}
			s.GroupMembers += members
		}
	}
}

// observe is a replica as the metrics have it.
func (h *hosted) observe(st partition.Status, now time.Time) metrics.Partition {
	p := metrics.Partition{Topic: h.tp.Topic, Bytes: st.Bytes, Leads: st.Ready, HasLeader: st.Leader != ""}
	if !p.Leads {
		return p
	}
	_, assigned := h.assigned()
	p.Followers = make(map[string]int64, len(st.Followers))
	caught := map[raft.ServerID]bool{st.LocalID: true}
	for _, f := range st.Followers {
		if id, ok := metadata.ParseServerAddress(f.Server.Address); ok {
			p.Followers[strconv.Itoa(int(id))] = max(int64(st.LastIndex)-int64(f.Match), 0)
		}
		caught[f.Server.ID] = !f.Gone && f.Server.Suffrage == raft.Voter && now.Sub(f.CaughtUp) < behindAfter
	}
	for _, want := range assigned.Replicas {
		p.Under = p.Under || !caught[raft.ServerID(want.ServerID)]
	}
	return p
}

func (b *Broker) observeCluster(s *metrics.State) {
	v := b.view()
	s.Topics = len(v.State.Topics)
	for _, t := range v.State.Topics {
		for _, p := range t.Partitions {
			s.ClusterPartitions++
			if p.Leader == api.NoBroker || !v.Alive[p.Leader] {
				s.ClusterOffline++
			}
			if p.Moving() {
				s.ClusterMoving++
			}
		}
	}
	for id := range v.State.Brokers {
		if v.Alive[id] {
			s.BrokersAlive++
		} else {
			s.BrokersAway++
		}
	}
	controller := b.node.Leader()
	s.Controller, s.MetadataLeader = controller == b.cfg.ID, controller != api.NoBroker
}
