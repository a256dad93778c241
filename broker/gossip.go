package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/controller"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/membership"
)

func (b *Broker) gossipMeta(set []int32) membership.Meta {
	kafkaAddr, kafkaListeners := b.kafkaAddrs()
	return membership.Meta{
		ID: int32(b.cfg.ID), Incarnation: b.identity.Incarnation(), ClusterID: b.identity.ClusterID(),
		GRPCAddr: b.grpcAddr, PeerAddr: b.peerAddr, KafkaAddr: kafkaAddr, KafkaListeners: kafkaListeners, Rack: b.cfg.Rack, Version: b.cfg.Version,
		Bootstrap: membership.Bootstrap{Expect: b.cfg.BootstrapExpect, Set: set},
	}
}

func (b *Broker) startGossip(ctx context.Context) error {
	m, err := membership.New(ctx, membership.Config{
		Meta: b.gossipMeta(nil), BindAddr: b.cfg.GossipAddr, AdvertiseAddr: b.gossipAdvertise(), Join: b.cfg.Join,
		OnEvent: b.onMember,
		OnConflict: func(err error) {
			b.log.Error("a broker that must not be here takes part in the gossip", "error", err)
		},
		Fast: b.cfg.Timing.FastGossip, Logger: b.log.Named("gossip"), Transport: b.cfg.Seams.Gossip,
	})
	if err != nil {
		return err
	}
	b.members.Store(m)
	b.closers = append(b.closers, func() { _ = m.Close() })
	b.wg.Go(b.bootstrapLoop)
	return nil
}

// onMember is called by the gossip, one event at a time. It only wakes those who look.
func (b *Broker) onMember(e membership.Event) {
	level := hclog.Info
	if e.Type == membership.EventUpdated {
		level = hclog.Debug
	}
	b.log.Log(level, "gossip", "broker", e.Member.ID, "event", eventName(e.Type), "address", e.Member.GossipAddr)
	if c := b.controller.Load(); c != nil {
		c.Wake()
	}
	b.bootstrap.notify()
	b.route.notify()
	b.replicas.wakeAll()
}

func eventName(t membership.EventType) string {
	switch t {
	case membership.EventJoined:
		return "joined"
	case membership.EventLeft:
		return "left"
	case membership.EventFailed:
		return "failed"
	case membership.EventUpdated:
		return "updated"
	}
	return fmt.Sprintf("event %d", t)
}

// bootstrapLoop lets the broker take part in making a new cluster until it belongs to one, and tells the gossip when it does.
func (b *Broker) bootstrapLoop() {
	every := time.Second
	if b.cfg.Timing.FastGossip {
		every = 100 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var told []int32
	for {
		candidates, known := b.bootstrap.wait(), b.identity.Changed()
		if b.identity.ClusterID() != "" {
			b.tellGossip(nil)
			return
		}
		if b.cfg.BootstrapExpect > 0 && !b.node.HasCluster() {
			told = b.tryBootstrap(told)
		}
		select {
		case <-candidates:
		case <-known:
		case <-tick.C:
		case <-b.ctx.Done():
			return
		}
	}
}

// tryBootstrap advertises with whom this broker would begin, and begins if all agree. It returns what it advertises.
func (b *Broker) tryBootstrap(told []int32) []int32 {
	candidates := b.candidates()
	set := toInt32s(b.node.BootstrapSet(b.cfg.BootstrapExpect, candidates))
	if !slices.Equal(set, told) {
		// The others wait for it: nobody begins before all have said the same.
		b.sayGossip(b.members.Load().TellNow(b.gossipMeta(set), set))
		told, candidates = set, b.candidates()
	}
	began, err := b.node.TryBootstrap(b.ctx, b.cfg.BootstrapExpect, candidates)
	if err != nil && b.ctx.Err() == nil {
		b.log.Warn("the new cluster could not begin yet", "error", err)
	}
	if began {
		b.log.Info("began a new cluster", "brokers", set)
	}
	return told
}

func (b *Broker) tellGossip(set []int32) {
	b.sayGossip(b.members.Load().UpdateMeta(b.gossipMeta(set)))
}

func (b *Broker) sayGossip(err error) {
	if err != nil {
		b.log.Warn("telling the gossip about this broker", "error", err)
	}
}

func toInt32s(ids []api.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func (b *Broker) candidates() []metadata.Candidate {
	var out []metadata.Candidate
	for _, m := range b.members.Load().Members() {
		if m.State != membership.Alive {
			continue
		}
		c := metadata.Candidate{ID: api.BrokerID(m.ID), Incarnation: m.Incarnation, ClusterID: m.ClusterID, Expect: m.Bootstrap.Expect}
		for _, id := range m.Bootstrap.Set {
			c.Set = append(c.Set, api.BrokerID(id))
		}
		out = append(out, c)
	}
	return out
}

// isAlive is what gossip says; this broker itself always is.
func (b *Broker) isAlive(id api.BrokerID) bool {
	if id == b.cfg.ID {
		return true
	}
	m := b.members.Load()
	if m == nil || id == api.NoBroker {
		return false
	}
	member, ok := m.Member(int32(id))
	return ok && member.State == membership.Alive
}

// view is what the planner looks at.
func (b *Broker) view() controller.View {
	v := controller.View{State: b.node.State(), Alive: map[api.BrokerID]bool{b.cfg.ID: true}, Now: b.cfg.Seams.Now()}
	if m := b.members.Load(); m != nil {
		for _, member := range m.Members() {
			if member.State == membership.Alive {
				v.Alive[api.BrokerID(member.ID)] = true
			}
		}
	}
	return v
}

// resolve finds a peer. Gossip knows first where a broker is; the metadata remembers it when gossip is silent.
func (b *Broker) resolve(addr raft.ServerAddress) (string, error) {
	id, ok := metadata.ParseServerAddress(addr)
	if !ok {
		return "", fmt.Errorf("%q is not a broker's address", addr)
	}
	if m := b.members.Load(); m != nil {
		if member, ok := m.Member(int32(id)); ok && member.PeerAddr != "" {
			return member.PeerAddr, nil
		}
	}
	if n := b.nodeRef.Load(); n != nil {
		if r := n.State().Brokers[id]; r != nil && r.PeerAddr != "" {
			return r.PeerAddr, nil
		}
	}
	return "", fmt.Errorf("the address of broker %d is not known (yet)", id)
}
