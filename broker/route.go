package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/raftlog"
)

// lead returns this broker's replica of tp if it leads and serves. Otherwise it names the leader (CodeNotLeader), or, in the
// middle of an election, waits for its end up to Timing.LeaderWait and then gives up (CodeLeaderNotAvailable, or CodeStorageFull if nobody can
// lead for lack of space).
func (b *Broker) lead(ctx context.Context, tp api.TopicPartition) (*hosted, error) {
	h, err := b.leadNow(tp)
	if err == nil || !b.worthWaiting(err) {
		return h, err
	}
	if api.CodeOf(err) == api.CodeUnknownTopicOrPartition && !b.syncMetadata(ctx) && b.node.State().Find(tp) == nil {
		return nil, b.cannotTell(tp)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.LeaderWait)
	defer cancel()
	for {
		routes, state := b.route.wait(), b.node.Changed()
		h, err = b.leadNow(tp)
		if err == nil || !leaderless(err) {
			return h, err
		}
		select {
		case <-routes:
		case <-state:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (b *Broker) worthWaiting(err error) bool {
	return leaderless(err) || api.CodeOf(err) == api.CodeUnknownTopicOrPartition
}

// leaderless tells errors of leadNow that an election may end: not where a write has just failed for lack of space.
func leaderless(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeLeaderNotAvailable:
		return true
	case api.CodeStorageFull:
		return !errors.Is(err, raftlog.ErrNoSpace)
	}
	return false
}

// leadNow is lead without waiting.
func (b *Broker) leadNow(tp api.TopicPartition) (*hosted, error) {
	if b.stopping.Load() {
		return b.leadWhileStopping(tp)
	}
	p := b.node.State().Find(tp)
	if p == nil {
		if !b.synced.Load() {
			return nil, b.cannotTell(tp)
		}
		return nil, unknownPartition(tp)
	}
	h := b.replicas.get(p)
	if h != nil && h.leads() {
		return h, nil
	}
	leader := b.leaderOf(p, h)
	if leader == api.NoBroker {
		if err := h.storageFull(); err != nil {
			return nil, &api.Error{Code: api.CodeStorageFull, TP: &tp, Cause: err, Message: fmt.Sprintf(
				"%s/%d has no leader, as the disk is full where its replicas are: it gets one by itself once there is space", tp.Topic, tp.Partition)}
		}
	}
	return nil, b.leaderElsewhere(tp, leader)
}

// leadWhileStopping serves what is led to the end, and sends everyone else away.
func (b *Broker) leadWhileStopping(tp api.TopicPartition) (*hosted, error) {
	if p := b.node.State().Find(tp); p != nil {
		h := b.replicas.get(p)
		if h != nil && h.leads() {
			return h, nil
		}
		if leader := b.leaderOf(p, h); leader != api.NoBroker {
			return nil, b.leaderElsewhere(tp, leader)
		}
	}
	return nil, &api.Error{Code: api.CodeShuttingDown, Message: fmt.Sprintf("broker %d is shutting down", b.cfg.ID), TP: &tp}
}

// leaderOf is the leader of a partition as far as this broker knows: what its own replica says counts, else the metadata. It is
// NoBroker during an election, which is also what a leader that gossip lost or that does not serve yet amounts to.
func (b *Broker) leaderOf(p *metadata.Partition, h *hosted) api.BrokerID {
	leader := p.Leader
	if h != nil {
		if addr, known := h.knownLeader(); known {
			leader = api.NoBroker
			if id, ok := metadata.ParseServerAddress(addr); ok {
				leader = id
			}
		}
	}
	if leader == b.cfg.ID || !b.isAlive(leader) {
		return api.NoBroker
	}
	return leader
}

func (b *Broker) leaderElsewhere(tp api.TopicPartition, leader api.BrokerID) error {
	if leader == api.NoBroker {
		return &api.Error{Code: api.CodeLeaderNotAvailable, TP: &tp,
			Message: fmt.Sprintf("%s/%d has no leader at the moment: try again shortly", tp.Topic, tp.Partition)}
	}
	return &api.Error{Code: api.CodeNotLeader, TP: &tp, Leader: b.endpoint(leader), LeaderEpoch: b.epochOf(tp, leader),
		Message: fmt.Sprintf("broker %d does not lead %s/%d; broker %d does", b.cfg.ID, tp.Topic, tp.Partition, leader)}
}

// epochOf is the epoch in which a broker leads a partition, as far as it is known here; else 0.
func (b *Broker) epochOf(tp api.TopicPartition, leader api.BrokerID) int32 {
	p := b.node.State().Find(tp)
	if p == nil {
		return 0
	}
	if h := b.replicas.get(p); h != nil {
		if r := h.open(); r != nil {
			if addr, term := r.Leader(); addr == metadata.ServerAddress(leader) {
				return int32(term)
			}
		}
	}
	if p.Leader == leader {
		return p.LeaderEpoch
	}
	return 0
}

func unknownPartition(tp api.TopicPartition) error {
	return &api.Error{Code: api.CodeUnknownTopicOrPartition, TP: &tp,
		Message: fmt.Sprintf("there is no partition %d of a topic %q", tp.Partition, tp.Topic)}
}

// cannotTell is the error for what is not in this broker's metadata, when those may lag: right after a start, or without a quorum of the metadata group.
func (b *Broker) cannotTell(tp api.TopicPartition) error {
	return &api.Error{Code: api.CodeLeaderNotAvailable, TP: &tp,
		Message: fmt.Sprintf("broker %d does not know %s/%d, and nobody tells it at the moment whether its metadata is up to date: try again shortly", b.cfg.ID, tp.Topic, tp.Partition)}
}

// endpoint is where clients reach a broker; nil if it is not known.
func (b *Broker) endpoint(id api.BrokerID) *api.Endpoint {
	if id == b.cfg.ID {
		e := b.self()
		return &e
	}
	if r := b.node.State().Brokers[id]; r != nil && r.GRPCAddr != "" {
		e := registered(r)
		return &e
	}
	return nil
}

// self is where clients reach this broker.
func (b *Broker) self() api.Endpoint {
	plain, named := b.kafkaAddrs()
	return api.Endpoint{ID: b.cfg.ID, Host: b.grpcAddr, Kafka: plain, KafkaListeners: named, Rack: b.cfg.Rack}
}

func registered(r *metadata.Broker) api.Endpoint {
	return api.Endpoint{ID: r.ID, Host: r.GRPCAddr, Kafka: r.KafkaAddr, KafkaListeners: r.KafkaListeners, Rack: r.Rack}
}
