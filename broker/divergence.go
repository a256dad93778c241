package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog"
)

// Replicas that applied the same entries must have the same state. Each leader asks the others now and then for digests of theirs (partition.Digest)
// and compares. A difference is an alarm: in the log, the cluster's status and the metrics. It names the partition, the entry, and, if a majority
// of the voters agrees, the replica that differs, which is then set aside and rebuilt like a damaged one.
//
// Is that safe? The files are renamed, not deleted, until the partition is whole again. It takes a quorum of voters that agree on the very index at which the other
// one differs, so what was acknowledged is with them as it should be. It is asked twice. And there is a bound: a release with a bug in its state machine would
// make many replicas differ at once, and then an alarm is right and rebuilding everything is not. Brokers of different versions only raise the alarm.

const (
	methodDigests transport.Method = 0x0240 + iota
	methodCondemn
)

// digestsAtOnce bounds the replicas in one call, and digestMarksMax what is taken of each.
const (
	digestsAtOnce  = 256
	digestMarksMax = 64
)

const (
	// condemnMax replicas may be set aside for differing in condemnWindow, by the word of one broker.
	condemnMax    = 3
	condemnWindow = time.Hour
)

type digestsRequest struct {
	Replicas []digestAsked `json:"replicas"`
}

type digestAsked struct {
	replicaName
	// Applied is where the one who asks is: if the other is there, too, marks of earlier places tell nothing more.
	Applied raftlog.Index `json:"applied"`
}

// digestReply is one replica's digest; Open is false if there is none.
type digestReply struct {
	Open   bool             `json:"open"`
	Digest partition.Digest `json:"digest"`
}

func (b *Broker) onDigests(_ context.Context, req digestsRequest) ([]digestReply, error) {
	if err := b.started(); err != nil {
		return nil, err
	}
	out := make([]digestReply, min(len(req.Replicas), digestsAtOnce))
	for i := range out {
		name := req.Replicas[i]
		h := b.replicas.byGroup(name.Group)
		if h == nil || h.serverID != name.ServerID {
			continue
		}
		if r := h.open(); r != nil {
			out[i] = digestReply{Open: true, Digest: r.Digest()}
			if out[i].Digest.Now.Index == name.Applied {
				out[i].Digest.Marks = nil
			}
		}
	}
	return out, nil
}

type condemnRequest struct {
	replicaName
	Reason string `json:"reason"`
}

// onCondemn sets this broker's replica aside. Its name says which one was judged: another one that came since is not meant.
func (b *Broker) onCondemn(_ context.Context, req condemnRequest) (bool, error) {
	if err := b.started(); err != nil {
		return false, err
	}
	h := b.replicas.byGroup(req.Group)
	if h == nil || h.serverID != req.ServerID {
		return false, nil
	}
	r := h.open()
	if r == nil {
		return false, nil
	}
	h.foundBy.CompareAndSwap(nil, &foundByPeers)
	r.Condemn(req.Reason)
	return true, nil
}

// divergence is what is known of a partition that this broker leads; its own goroutine writes it, others read it.
type divergence struct{ text atomic.Pointer[string] }

// compareLoop compares replicas until the broker stops.
func (b *Broker) compareLoop() {
	if b.cfg.CompareEvery < 0 {
		return
	}
	for b.sleep(b.cfg.CompareEvery) == nil {
		b.compareAll()
	}
}

// compared is a partition in a pass: what its leader knows before the others are asked, and what those say.
type compared struct {
	h      *hosted
	r      *partition.Replica
	before partition.Digest
	status partition.Status

	mu        sync.Mutex
	witnesses []witness
}

// compareAll is one pass over the partitions that are led here.
func (b *Broker) compareAll() {
	var list []*compared
	for _, h := range b.replicas.all() {
		if c := begin(h); c != nil {
			list = append(list, c)
		}
	}
	b.ask(list)
	for _, c := range list {
		b.conclude(c)
	}
}

// begin returns nil for partitions that are not led here, or have one replica.
func begin(h *hosted) *compared {
	r := h.open()
	if r == nil || !r.IsLeader() {
		h.divergence.text.Store(nil)
		return nil
	}
	status := r.Status()
	if len(status.Followers) == 0 {
		return nil
	}
	return &compared{h: h, r: r, before: r.Digest(), status: status}
}

// ask gets the digests of all followers, in few calls for each broker. Who does not answer is left out.
func (b *Broker) ask(list []*compared) {
	type question struct {
		c *compared
		s raft.Server
	}
	questions := map[raft.ServerAddress][]question{}
	for _, c := range list {
		for _, f := range c.status.Followers {
			if !f.Gone {
				questions[f.Server.Address] = append(questions[f.Server.Address], question{c, f.Server})
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(8)
	for addr, qs := range questions {
		g.Go(func() error {
			for len(qs) > 0 {
				n := min(len(qs), digestsAtOnce)
				req := digestsRequest{Replicas: make([]digestAsked, n)}
				for i, q := range qs[:n] {
					req.Replicas[i] = digestAsked{replicaName{q.c.h.group, string(q.s.ID)}, q.c.before.Now.Index}
				}
				for i, r := range b.askBroker(addr, req) {
					if i < n && r.Open {
						qs[i].c.add(qs[i].s, r.Digest)
					}
				}
				qs = qs[n:]
			}
			return nil
		})
	}
	_ = g.Wait()
}

func (b *Broker) askBroker(addr raft.ServerAddress, req digestsRequest) []digestReply {
	ctx, cancel := context.WithTimeout(b.ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	replies, err := call[digestsRequest, []digestReply](ctx, b, addr, methodDigests, req)
	if err != nil && b.ctx.Err() == nil {
		b.log.Debug("asking for digests", "broker", addr, "error", err)
	}
	return replies
}

// add takes a follower's word, if its digests are made as those here are.
func (c *compared) add(s raft.Server, d partition.Digest) {
	id, ok := metadata.ParseServerAddress(s.Address)
	if !ok || d.Format != c.before.Format {
		return
	}
	d.Marks = d.Marks[:min(len(d.Marks), digestMarksMax)]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.witnesses = append(c.witnesses, witness{broker: id, serverID: string(s.ID), voter: s.Suffrage == raft.Voter, digest: d})
}

// judged adds the leader's own word, before and after the others', and compares.
func (c *compared) judged(self api.BrokerID) verdict {
	own := c.r.Digest()
	own.Marks = append(own.Marks, c.before.Marks...)
	own.Marks = append(own.Marks, c.before.Now)
	quorum := 0
	voter := false
	for _, s := range c.status.Servers {
		if s.Suffrage == raft.Voter {
			quorum++
			voter = voter || s.ID == c.status.LocalID
		}
	}
	leader := witness{broker: self, serverID: string(c.status.LocalID), voter: voter, digest: own}
	return judge(append([]witness{leader}, c.witnesses...), quorum/2+1)
}

// conclude raises the alarm, or takes it back, and has a replica set aside that is wrong beyond doubt.
func (b *Broker) conclude(c *compared) {
	v := c.judged(b.cfg.ID)
	b.metrics.DigestChecks.Add(float64(len(c.witnesses)))
	text := v.String()
	if text == "" {
		if v.compared > 0 {
			c.h.divergence.text.Store(nil)
		}
		return
	}
	if old := c.h.divergence.text.Swap(&text); old == nil || *old != text {
		b.metrics.Divergences.Inc()
		b.log.Error("replicas of a partition differ", "partition", c.h.name, "index", v.differs, "problem", text)
	}
	if len(v.odd) == 0 {
		return
	}
	again := begin(c.h)
	if again == nil {
		return
	}
	b.ask([]*compared{again})
	confirmed := again.judged(b.cfg.ID)
	for _, w := range confirmed.odd {
		if knows(v.odd, w) && b.mayCondemn(c.h, confirmed, w) {
			b.condemn(c.h, w, text)
		}
	}
}

func knows(list []witness, w witness) bool {
	for _, x := range list {
		if x.serverID == w.serverID {
			return true
		}
	}
	return false
}

// mayCondemn holds back where the difference may be a release's and not a replica's.
func (b *Broker) mayCondemn(h *hosted, v verdict, w witness) bool {
	state := b.node.State()
	version := ""
	for i, x := range append(v.agree, w) {
		r := state.Brokers[x.broker]
		if r == nil || i > 0 && r.Version != version {
			b.log.Warn("a replica differs, but the brokers are of different versions: it is not set aside", "partition", h.name, "broker", w.broker)
			return false
		}
		version = r.Version
	}
	if !b.condemned.allow(b.cfg.Seams.Now()) {
		b.log.Warn("a replica differs, but several have been set aside for that already: look into it before more are rebuilt", "partition", h.name, "broker", w.broker)
		return false
	}
	return true
}

func (b *Broker) condemn(h *hosted, w witness, reason string) {
	ctx, cancel := context.WithTimeout(b.ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	req := condemnRequest{replicaName{h.group, w.serverID}, reason}
	if _, err := call[condemnRequest, bool](ctx, b, metadata.ServerAddress(w.broker), methodCondemn, req); err != nil {
		b.log.Warn("having a replica that differs set aside", "partition", h.name, "broker", w.broker, "error", err)
	}
}

// condemned remembers when replicas were set aside by this broker's word.
type condemned struct {
	mu    sync.Mutex
	times []time.Time
}

func (c *condemned) allow(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var recent []time.Time
	for _, t := range c.times {
		if now.Sub(t) < condemnWindow {
			recent = append(recent, t)
		}
	}
	c.times = recent
	if len(recent) >= condemnMax {
		return false
	}
	c.times = append(c.times, now)
	return true
}
