package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
)

// electRequest asks a broker to give the partitions that it leads to their preferred leaders. The reply has an error, or nil, for each.
type electRequest struct {
	Partitions []api.TopicPartition `json:"partitions"`
}

// electionsAtOnce bounds the leaderships that one request moves off a broker at the same time.
const electionsAtOnce = 8

// ElectLeaders implements api.Replicas.
func (b *Broker) ElectLeaders(ctx context.Context, req api.ElectRequest) []api.ElectResult {
	b.syncMetadata(ctx)
	out := b.electable(req)
	byLeader := map[api.BrokerID][]int{}
	for i := range out {
		var leader api.BrokerID
		if leader, out[i].Err = b.electionAt(out[i].TopicPartition, req.Unclean); out[i].Err == nil {
			byLeader[leader] = append(byLeader[leader], i)
		}
	}
	var g errgroup.Group
	for leader, indexes := range byLeader {
		g.Go(func() error {
			b.electOn(ctx, leader, out, indexes)
			return nil
		})
	}
	_ = g.Wait()
	for i := range out {
		if out[i].Err == nil {
			out[i].Err = b.awaitPreferred(ctx, out[i].TopicPartition)
		}
	}
	if req.Partitions == nil {
		out = slices.DeleteFunc(out, func(r api.ElectResult) bool { return r.Err != nil && api.CodeOf(r.Err) == api.CodeElectionNotNeeded })
	}
	return out
}

// electable lists the partitions of the request.
func (b *Broker) electable(req api.ElectRequest) []api.ElectResult {
	var out []api.ElectResult
	for _, tp := range req.Partitions {
		out = append(out, api.ElectResult{TopicPartition: tp})
	}
	if req.Partitions != nil {
		return out
	}
	for _, t := range b.node.State().SortedTopics() {
		for _, p := range t.Partitions {
			out = append(out, api.ElectResult{TopicPartition: p.TP()})
		}
	}
	return out
}

// electionAt is the broker to ask for an election, or why there is to be none.
func (b *Broker) electionAt(tp api.TopicPartition, unclean bool) (api.BrokerID, error) {
	p := b.node.State().Find(tp)
	if p == nil {
		return api.NoBroker, unknownPartition(tp)
	}
	leader := b.leaderFor(p)
	switch {
	case leader == api.NoBroker && unclean:
		return leader, api.Errorf(api.CodeEligibleLeadersNotAvailable,
			"%s has no leader, and only a quorum of its replicas can elect one: anyone else might lack acknowledged records", p)
	case leader == api.NoBroker:
		return leader, api.Errorf(api.CodePreferredLeaderNotAvailable, "%s has no leader that could hand over at the moment: try again shortly", p)
	case unclean:
		return leader, api.Errorf(api.CodeElectionNotNeeded, "broker %d leads %s", leader, p)
	case leader == p.Replicas[0].Broker:
		return leader, api.Errorf(api.CodeElectionNotNeeded, "its preferred leader, broker %d, leads %s", leader, p)
	}
	return leader, nil
}

// electOn asks one leader for all that it is to hand over.
func (b *Broker) electOn(ctx context.Context, leader api.BrokerID, out []api.ElectResult, indexes []int) {
	var req electRequest
	for _, i := range indexes {
		req.Partitions = append(req.Partitions, out[i].TopicPartition)
	}
	list, err := call[electRequest, []*wireError](ctx, b, metadata.ServerAddress(leader), methodElect, req)
	if err == nil && len(list) != len(indexes) {
		err = fmt.Errorf("broker %d answered for %d partitions of %d", leader, len(list), len(indexes))
	}
	for j, i := range indexes {
		switch {
		case err != nil:
			out[i].Err = b.apiError(err, &out[i].TopicPartition)
		case list[j] != nil:
			out[i].Err = list[j].err()
		}
	}
}

// awaitPreferred waits until this broker's metadata says that a partition's preferred leader leads it: then clients are told so as well.
func (b *Broker) awaitPreferred(ctx context.Context, tp api.TopicPartition) error {
	for {
		changed := b.node.Changed()
		p := b.node.State().Find(tp)
		if p == nil {
			return unknownPartition(tp)
		}
		if p.Leader == p.Replicas[0].Broker {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.Errorf(api.CodeRequestTimedOut, "%s: broker %d does not lead yet: %w", p, p.Replicas[0].Broker, ctx.Err())
		}
	}
}

func (b *Broker) onElect(ctx context.Context, req electRequest) ([]*wireError, error) {
	if err := b.started(); err != nil {
		return nil, err
	}
	out := make([]*wireError, len(req.Partitions))
	var g errgroup.Group
	g.SetLimit(electionsAtOnce)
	for i, tp := range req.Partitions {
		g.Go(func() error {
			if e, ok := b.apiError(b.handToPreferred(ctx, tp), &tp).(*api.Error); ok {
				out[i] = toWire(e)
			}
			return nil
		})
	}
	return out, g.Wait()
}

// handToPreferred gives leadership of a partition that this broker leads to its preferred leader, if that can take it.
func (b *Broker) handToPreferred(ctx context.Context, tp api.TopicPartition) error {
	h, err := b.lead(ctx, tp)
	if err != nil {
		return err
	}
	r := h.open()
	if r == nil {
		return partition.ErrClosed
	}
	_, p := h.assigned()
	preferred := p.Replicas[0]
	server := preferred.Server()
	switch {
	case preferred.Broker == b.cfg.ID:
		return api.Errorf(api.CodeElectionNotNeeded, "its preferred leader, broker %d, leads %s", b.cfg.ID, p)
	case !b.isAlive(preferred.Broker):
		return api.Errorf(api.CodePreferredLeaderNotAvailable, "the preferred leader of %s, broker %d, is away", p, preferred.Broker)
	case !slices.Contains(r.Status().Servers, server) || !h.mayLead(r, server):
		return api.Errorf(api.CodePreferredLeaderNotAvailable, "the preferred leader of %s, broker %d, is not caught up", p, preferred.Broker)
	}
	return transferTo(ctx, b, r, p, server)
}

func transferTo(ctx context.Context, b *Broker, r *partition.Replica, p *metadata.Partition, server raft.Server) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	if err := r.TransferLeadership(ctx, &server); err != nil {
		return api.Errorf(api.CodePreferredLeaderNotAvailable, "%s: broker %s did not take over: %w", p, server.Address, err)
	}
	return nil
}
