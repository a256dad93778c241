package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// group is a partition's Raft group as far as its configuration goes, and what brokers have of it.
type group struct {
	voters []metadata.Replica
	view   *metadata.Partition // what the leader knows: not older than its election, and perhaps not the newest
	epoch  int32
	told   []metadata.PartitionReport // on their way to the metadata
	hosted map[api.BrokerID]string    // server IDs
}

// lagging is a world in which leaders, brokers and reports take their time, and so may be behind.
type lagging struct {
	*world
	r      *rand.Rand
	groups map[string]*group
	seen   map[api.BrokerID]*metadata.State // what brokers know
}

func newLagging(t *testing.T, r *rand.Rand) *lagging {
	w := &lagging{world: newWorld(t), r: r, groups: map[string]*group{}, seen: map[api.BrokerID]*metadata.State{}}
	brokers := 4 + r.IntN(3)
	for i := range brokers {
		w.broker(api.BrokerID(i), "")
	}
	if err := w.create("t", int32(1+r.IntN(6)), 3); err != nil {
		t.Fatal(err)
	}
	w.each(func(p *metadata.Partition) {
		w.groups[p.String()] = &group{voters: p.Voters, view: p, hosted: map[api.BrokerID]string{}}
	})
	for i := range brokers {
		w.learn(api.BrokerID(i))
	}
	return w
}

// learn brings a broker's metadata up to date. It opens the replica that it is to have, in place of another one, and deletes what is surplus, as broker.replicaManager does:
// neither may be a voter, but for those that are damaged.
func (w *lagging) learn(id api.BrokerID) {
	w.seen[id] = w.s
	inc := w.s.Brokers[id].Incarnation
	w.each(func(p *metadata.Partition) {
		g := w.groups[p.String()]
		old, want := g.hosted[id], ""
		if r, ok := p.Local(id, inc); ok {
			want = r.ServerID
		} else if !p.Surplus(old) && !p.IsQuarantined(old) {
			want = old
		}
		if old != "" && old != want && g.votes(old) && !p.IsQuarantined(old) {
			w.t.Fatalf("broker %d gives up %s for %q, which votes: %+v; voters %v", id, old, want, p, g.voters)
		}
		g.hosted[id] = want
	})
}

func (g *group) votes(serverID string) bool {
	return slices.ContainsFunc(g.voters, func(r metadata.Replica) bool { return r.ServerID == serverID })
}

func (w *lagging) up(g *group, r metadata.Replica) bool {
	return w.alive[r.Broker] && g.hosted[r.Broker] == r.ServerID
}

// quorum says whether a list of voters has one.
func (w *lagging) quorum(g *group, voters []metadata.Replica) bool {
	n := 0
	for _, r := range voters {
		if w.up(g, r) {
			n++
		}
	}
	return 2*n > len(voters)
}

// lead takes a step of a group's leader: partition.Reconcile, with replicas that catch up at once, or a report.
func (w *lagging) lead(g *group) {
	if !w.quorum(g, g.voters) {
		return
	}
	if slices.Equal(sorted(g.voters), sorted(g.view.Replicas)) {
		g.told = append(g.told, g.report(false))
		return
	}
	if next := w.next(g); w.quorum(g, next) {
		g.voters = next
	}
	if w.r.IntN(3) > 0 {
		g.told = append(g.told, g.report(true))
	}
}

func (g *group) report(moving bool) metadata.PartitionReport {
	return metadata.PartitionReport{TP: g.view.TP(), Group: g.view.Group, Leader: g.voters[0].Broker, Epoch: g.epoch, Voters: g.voters, Revision: g.view.Revision, Moving: moving}
}

// next are the voters after one more step: who lost their disks go first, then others come, then those that are not wanted go.
func (w *lagging) next(g *group) []metadata.Replica {
	without := func(i int) []metadata.Replica { return slices.Delete(slices.Clone(g.voters), i, i+1) }
	for i, r := range g.voters {
		if !slices.Contains(g.view.Replicas, r) && slices.ContainsFunc(g.view.Replicas, func(d metadata.Replica) bool { return d.Broker == r.Broker }) {
			return without(i)
		}
	}
	waits := false
	for _, d := range g.view.Replicas {
		if !slices.Contains(g.voters, d) {
			if w.up(g, d) {
				return append(slices.Clone(g.voters), d)
			}
			waits = true
		}
	}
	for i, r := range g.voters {
		if !waits && !slices.Contains(g.view.Replicas, r) {
			return without(i)
		}
	}
	return g.voters
}

func sorted(list []metadata.Replica) []string {
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ServerID
	}
	slices.Sort(ids)
	return ids
}

// newest is the group's partition as the metadata has it.
func (w *lagging) newest(g *group) *metadata.Partition { return w.s.Find(g.view.TP()) }

// hear lets the oldest report of a group arrive.
func (w *lagging) hear(g *group) {
	if len(g.told) > 0 {
		w.do(&metadata.Report{Partitions: g.told[:1]})
		g.told = g.told[1:]
	}
}

func (w *lagging) plan() {
	w.apply(MakePlan(w.view(), w.limits))
}

// act does one random thing.
func (w *lagging) act() {
	ids := w.s.SortedBrokers()
	b := ids[w.r.IntN(len(ids))]
	g := w.groups[fmt.Sprintf("t/%d", w.r.IntN(len(w.groups)))]
	switch n := w.r.IntN(100); {
	case n < 2:
		w.kill(b.ID)
	case n < 4:
		w.wipe(b.ID)
	case n < 10:
		w.revive(b.ID, false)
	case n < 13:
		w.do(&metadata.SetDraining{ID: b.ID, Draining: !b.Draining, Rebalance: true})
	case n < 14:
		w.do(&metadata.SetRebalance{On: true, Everything: true})
	case n < 16:
		w.quarantine(g, b.ID)
	case n < 20:
		w.reassign(g)
	case n < 22:
		w.now = w.now.Add(time.Duration(w.r.IntN(8)) * time.Minute)
	case n < 26: // another leader
		g.epoch++
		g.view = w.newest(g)
		g.told = append(g.told, metadata.PartitionReport{TP: g.view.TP(), Group: g.view.Group, Leader: g.voters[0].Broker, Epoch: g.epoch, Revision: g.view.Revision})
	case n < 34:
		g.view = w.newest(g)
	case n < 56:
		w.lead(g)
	case n < 68:
		w.hear(g)
	case n < 73:
		w.learn(b.ID)
	default:
		w.plan()
	}
}

func (w *lagging) wipe(id api.BrokerID) {
	for _, g := range w.groups {
		delete(g.hosted, id)
	}
	w.revive(id, true)
}

func (w *lagging) quarantine(g *group, id api.BrokerID) {
	if serverID := g.hosted[id]; serverID != "" {
		delete(g.hosted, id)
		w.do(&metadata.QuarantineReplica{TP: g.view.TP(), Group: g.view.Group, ServerID: serverID, Reason: "flipped"})
	}
}

func (w *lagging) reassign(g *group) {
	p := w.newest(g)
	c := metadata.TargetChange{Group: p.Group, TP: p.TP()}
	if all := w.brokerIDs(); w.r.IntN(3) > 0 && len(all) >= 3 {
		w.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		c.Target = all[:3]
	}
	w.do(&metadata.Reassign{Changes: []metadata.TargetChange{c}}) // it may be refused, as a broker drains
}

// However often the desired replicas change while leaders, brokers and reports lag behind: no broker gives up a replica that votes, neither for another one nor because nobody seems to want it,
// and every partition that did not lose its quorum to lost disks and damage gets to where it should be.
func TestVotersAreKept(t *testing.T) {
	r := rng(t)
	for range 150 {
		w := newLagging(t, r)
		lost := map[*group]bool{}
		w.limits.MaxMoving, w.limits.MaxBuilding = 1+r.IntN(6), r.IntN(4)
		for range 300 {
			w.act()
			for _, g := range w.groups {
				there := 0
				for _, v := range g.voters {
					if g.hosted[v.Broker] == v.ServerID {
						there++
					}
				}
				lost[g] = lost[g] || 2*there <= len(g.voters)
			}
		}
		w.settleAll(lost)
	}
}

// settleAll brings all brokers back and lets everything go on until it is done.
func (w *lagging) settleAll(lost map[*group]bool) {
	w.t.Helper()
	w.limits.MaxMoving, w.limits.MaxBuilding = len(w.groups), 0 // a group may have lost its quorum without a report of it, and keeps its slot
	for _, b := range w.s.SortedBrokers() {
		w.revive(b.ID, false)
		w.do(&metadata.SetDraining{ID: b.ID})
	}
	for range 300 {
		w.plan()
		for _, b := range w.s.SortedBrokers() {
			w.learn(b.ID)
		}
		for _, g := range w.groups {
			g.view = w.newest(g)
			w.lead(g)
			for len(g.told) > 0 {
				w.hear(g)
			}
		}
	}
	for _, g := range w.groups {
		if p := w.newest(g); !lost[g] && (p.Moving() || p.Settled != p.Revision || p.Former != nil || p.Quarantined != nil) {
			w.t.Fatalf("%s has not settled: desired %v, reported %v, former %v, revision %d, settled %d, quarantined %v; voters %v, on %v; blocked: %v", p, p.Replicas, p.Voters, p.Former,
				p.Revision, p.Settled, p.Quarantined, g.voters, g.hosted, MakePlan(w.view(), w.limits).Blocked)
		}
	}
}
