package broker

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
)

// leadState is what a leader remembers from one step to the next.
type leadState struct {
	term           uint64    // in which this replica leads; 0 while it does not
	preferredSince time.Time // since when the preferred leader could take over; zero if it cannot
	progress       progress  // where the log ended lately; see caughtUp
	// current: the metadata here are not older than this leadership. Only then are voters changed: what an earlier leader has reported as settled is known then, and
	// files that were deleted because of that are not counted on.
	current bool
}

// maxLag is how many entries a replica may be behind to count as caught up: what remains passes in a moment.
const maxLag = 128

// leadStep does what is due for the leader of a partition, and says after how long to look again; 0 means when woken.
// Each part is idempotent and compares what is with what should be, so nothing is lost if a step fails or a report gets lost.
func (h *hosted) leadStep() time.Duration {
	r := h.open()
	if r == nil || !r.IsLeader() {
		h.stepDown()
		return 0
	}
	if _, term := r.Leader(); term != h.lead.term {
		h.stepDown()
		h.lead = leadState{term: term}
	}
	again := h.startCoordinator()
	if h.m.b.stopping.Load() {
		return again
	}
	again = sooner(again, h.announce())
	again = sooner(again, h.reconcile(r))
	return sooner(again, h.preferLeader(r))
}

// sooner is the smaller of two pauses, of which 0 is the longest.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// stepDown ends what belongs to leadership.
func (h *hosted) stepDown() {
	h.lead = leadState{}
	h.mu.Lock()
	c, serving := h.coordinator, h.serving
	h.serving = false
	h.mu.Unlock()
	if serving {
		c.LeaderStop()
	}
}

// startCoordinator lets the group coordinator serve. Until then, members are told to come again.
func (h *hosted) startCoordinator() time.Duration {
	h.mu.Lock()
	c, serving := h.coordinator, h.serving
	h.mu.Unlock()
	if c == nil || serving {
		return 0
	}
	ctx, cancel := context.WithTimeout(h.ctx, h.m.b.cfg.Timing.CallTimeout)
	defer cancel()
	if err := c.LeaderStart(ctx); err != nil {
		h.log.Warn("the group coordinator could not start yet", "error", err)
		return 200 * time.Millisecond
	}
	h.mu.Lock()
	h.serving = true
	h.mu.Unlock()
	h.m.b.route.notify()
	return 0
}

// announce reports this leadership, at once and without voters, until the metadata knows of it: a report may get lost, and the move under way that
// would bring the next one can take as long as a broker is away.
func (h *hosted) announce() time.Duration {
	_, p := h.assigned()
	if p.Leader == h.m.b.cfg.ID && p.LeaderEpoch == int32(h.lead.term) {
		return 0
	}
	h.m.b.reporter.post(metadata.PartitionReport{
		TP: h.tp, Group: h.group, Leader: h.m.b.cfg.ID, Epoch: int32(h.lead.term), Revision: p.Revision,
	})
	return h.m.b.cfg.Timing.ReconcileEvery
}

// reconcile moves the Raft configuration to the replicas that the metadata wants, step by step, and reports the voters.
func (h *hosted) reconcile(r *partition.Replica) time.Duration {
	if p := h.newest(); p == nil || h.settled(p, r) {
		return 0
	}
	every := h.m.b.cfg.Timing.ReconcileEvery
	ctx, cancel := context.WithTimeout(h.ctx, 3*h.m.b.cfg.Timing.CallTimeout)
	defer cancel()
	p := h.toReconcile(ctx, r)
	if p == nil {
		return every
	}
	done, err := r.Reconcile(ctx, metadata.Servers(p.Replicas), func(s raft.Server) bool { return h.caughtUp(ctx, r, s) })
	h.report(r, p, done)
	switch {
	case err != nil:
		h.log.Debug("moving the replicas", "error", err)
		return every
	case !done:
		return min(every, 200*time.Millisecond)
	}
	return every // until the metadata says so
}

// newest is the partition as this broker's metadata has it now; nil if there is no such partition any more.
func (h *hosted) newest() *metadata.Partition {
	if p := h.m.b.node.State().Find(h.tp); p != nil && p.Group == h.group {
		return p
	}
	return nil
}

// toReconcile is newest, from metadata that is not older than this leadership if voters have to be changed; nil if it cannot be told.
func (h *hosted) toReconcile(ctx context.Context, r *partition.Replica) *metadata.Partition {
	if p := h.newest(); p == nil || h.lead.current || h.arrived(p, r) {
		return p
	}
	if h.lead.current = h.m.b.syncMetadata(ctx); !h.lead.current {
		return nil
	}
	return h.newest()
}

// report tells the metadata the voters: while they move, as the controller plans with them, and as settled when they are those of p. Only then: what is reported as settled may cost the
// others their files.
func (h *hosted) report(r *partition.Replica, p *metadata.Partition, done bool) {
	voters := p.Replicas
	if !done {
		voters = committedVoters(r)
		if len(voters) == 0 || metadata.SameReplicas(voters, p.Voters) {
			return
		}
	}
	h.m.b.reporter.post(metadata.PartitionReport{
		TP: h.tp, Group: h.group, Leader: h.m.b.cfg.ID, Epoch: int32(h.lead.term), Voters: voters, Revision: p.Revision, Moving: !done,
	})
}

// committedVoters are those of the latest configuration; nil while that is not committed.
func committedVoters(r *partition.Replica) []metadata.Replica {
	st := r.Status()
	if !st.ConfigurationCommitted {
		return nil
	}
	var out []metadata.Replica
	for _, s := range st.Servers {
		if id, ok := metadata.ParseServerAddress(s.Address); ok && s.Suffrage == raft.Voter {
			out = append(out, metadata.Replica{Broker: id, ServerID: string(s.ID)})
		}
	}
	return out
}

// settled says that the metadata and the Raft configuration agree on everything.
func (h *hosted) settled(p *metadata.Partition, r *partition.Replica) bool {
	if p.Leader != h.m.b.cfg.ID || p.LeaderEpoch != int32(h.lead.term) || p.Settled != p.Revision || p.Moving() {
		return false
	}
	return h.arrived(p, r)
}

// arrived says that the Raft configuration is the desired one.
func (h *hosted) arrived(p *metadata.Partition, r *partition.Replica) bool {
	servers := r.Status().Servers
	return len(servers) == len(p.Replicas) && !slices.ContainsFunc(p.Replicas, func(want metadata.Replica) bool { return !slices.Contains(servers, want.Server()) })
}

// caughtUp asks the replica's broker how far it is. It may vote when it lacks few entries, or, where many come all the time, only those of the last moment.
func (h *hosted) caughtUp(ctx context.Context, r *partition.Replica, s raft.Server) bool {
	now, last := time.Now(), r.Status().LastIndex
	h.lead.progress.note(now, last)
	st := h.statusOf(ctx, s)
	return st.Open && (st.LastIndex+maxLag >= last || h.lead.progress.within(now, st.LastIndex))
}

// follows says that a replica is caught up as far as its leader, this one, has heard.
func follows(r *partition.Replica, s raft.Server) bool {
	st := r.Status()
	i := slices.IndexFunc(st.Followers, func(f partition.Follower) bool { return f.Server.ID == s.ID })
	return i >= 0 && !st.Followers[i].Gone && st.Followers[i].Match+maxLag >= st.LastIndex
}

// mayLead says that the replica is caught up on a broker that does not stop and has space.
func (h *hosted) mayLead(r *partition.Replica, s raft.Server) bool {
	target := r.Status().LastIndex
	st := h.statusOf(h.ctx, s)
	return st.Open && !st.Stopping && !st.Full && st.LastIndex+maxLag >= target
}

// statusOf asks for a replica's status; it is not Open if it cannot be learnt.
func (h *hosted) statusOf(ctx context.Context, s raft.Server) replicaStatus {
	ctx, cancel := context.WithTimeout(ctx, h.m.b.cfg.Timing.CallTimeout)
	defer cancel()
	list, err := call[statusRequest, []replicaStatus](ctx, h.m.b, s.Address, methodReplicaStatus,
		statusRequest{Replicas: []replicaName{{Group: h.group, ServerID: string(s.ID)}}})
	if err != nil || len(list) != 1 {
		return replicaStatus{}
	}
	return list[0]
}

// preferLeader gives leadership to the partition's preferred leader (the first of its replicas) when that broker has been there and
// caught up for a while. Throttled over the whole broker, and spread by a share of the pause that depends on the group.
func (h *hosted) preferLeader(r *partition.Replica) time.Duration {
	b := h.m.b
	_, p := h.assigned()
	if !b.balancesLeaders() || len(p.Replicas) == 0 || p.Replicas[0].Broker == b.cfg.ID {
		return 0
	}
	every := b.cfg.Timing.ReconcileEvery
	preferred := p.Replicas[0]
	if p.Moving() || !b.isAlive(preferred.Broker) || !follows(r, preferred.Server()) {
		h.lead.preferredSince = time.Time{}
		return every
	}
	now := time.Now()
	if h.lead.preferredSince.IsZero() {
		h.lead.preferredSince = now
	}
	after := b.cfg.Timing.PreferredAfter
	jitter := time.Duration(uint64(after) / 2 * (uint64(h.group) % 16) / 16)
	if now.Sub(h.lead.preferredSince) < after+jitter || !h.m.transfers.allow(now) {
		return every
	}
	server := preferred.Server()
	if !h.mayLead(r, server) { // asked last: it is a call, and hundreds of partitions may wait for their turn
		h.lead.preferredSince = time.Time{}
		return every
	}
	ctx, cancel := context.WithTimeout(h.ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	if err := r.TransferLeadership(ctx, &server); err != nil {
		h.log.Debug("giving leadership to the preferred leader", "broker", preferred.Broker, "error", err)
		h.lead.preferredSince = time.Time{}
	}
	return every
}

// alone says that there is nobody to hand leadership to.
func (h *hosted) alone() bool {
	r := h.open()
	return r == nil || len(r.Status().Servers) <= 1
}

// transferAway hands leadership to whichever voter is the furthest.
func (h *hosted) transferAway(ctx context.Context) error {
	r := h.open()
	if r == nil {
		return nil
	}
	return r.TransferLeadership(ctx, nil)
}
