package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
)

// How a cluster begins.
//
// Every broker that is started with --bootstrap-expect N advertises the N lowest IDs that it sees expect N too. When all members of
// such a set advertise that very set, the lowest of them begins: it makes up the cluster's ID and asks all N for a pledge. A broker
// writes its pledge to broker.json before it answers and never pledges itself twice; as any two beginnings that share a broker need
// that broker's pledge, only one of them can succeed, however late or wrong gossip is. With all pledges in hand the beginner fixes the list of
// servers in its own broker.json and tells all N to begin with that list; each of these steps can be repeated after a crash. The first
// leader records the cluster's ID as the first command.
//
// If a pledged broker loses its data directory before the cluster has begun, the beginning is stuck: nothing was stored yet, so
// the other directories can be emptied and the brokers started again.

// tellAtOnce bounds the brokers that are told to begin at the same time.
const tellAtOnce = 8

// Candidate is a broker as gossip shows it before there is a cluster.
type Candidate struct {
	ID          api.BrokerID
	Incarnation string
	ClusterID   string // empty: none yet
	Expect      int    // --bootstrap-expect; 0: does not take part
	Set         []api.BrokerID
}

// Founder is a broker that a cluster begins with.
type Founder struct {
	Broker      api.BrokerID `json:"broker"`
	Incarnation string       `json:"incarnation"`
}

// pledgeMessage is the request of MethodPledge (without Founders) and MethodBootstrap (with them).
type pledgeMessage struct {
	Pledge   Pledge    `json:"pledge"`
	Founders []Founder `json:"founders,omitempty"`
}

// pledgeReply answers both.
type pledgeReply struct {
	Incarnation string `json:"incarnation"`
	Refused     string `json:"refused,omitempty"`
}

// BootstrapSet is the set of brokers that this one would begin a cluster with, to be advertised through gossip: the expect lowest IDs of the
// candidates that expect that number too; nil if there are too few, or if some broker already belongs to a cluster. Once the broker has
// pledged itself it is the pledge's set.
func (n *Node) BootstrapSet(expect int, alive []Candidate) []api.BrokerID {
	rec := n.cfg.Identity.record()
	if rec.ClusterID != "" || n.HasCluster() {
		return nil
	}
	if rec.Pledge != nil {
		return slices.Clone(rec.Pledge.Set)
	}
	return bootstrapSet(expect, alive)
}

func bootstrapSet(expect int, alive []Candidate) []api.BrokerID {
	var ids []api.BrokerID
	for _, c := range alive {
		if c.ClusterID != "" {
			return nil
		}
		if c.Expect == expect && !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	if expect < 1 || len(ids) < expect {
		return nil
	}
	slices.Sort(ids)
	return ids[:expect]
}

// mayBegin says whether it is for self to begin with set: it is the lowest, and all of the set are there and agree.
func mayBegin(self api.BrokerID, set []api.BrokerID, alive []Candidate) bool {
	if len(set) == 0 || set[0] != self {
		return false
	}
	agreed := 0
	for _, c := range alive {
		if c.ClusterID != "" {
			return false
		}
		if slices.Contains(set, c.ID) && slices.Equal(c.Set, set) {
			agreed++
		}
	}
	return agreed == len(set)
}

// TryBootstrap begins the cluster if it is for this broker to do so: it has the lowest ID of its set, and all of the set advertise the very
// same set and belong to no cluster. Call it whenever the candidates change and once a second until HasCluster; it returns false, nil while it is
// not the time, and ErrPledged when a broker is pledged elsewhere. alive includes this broker.
func (n *Node) TryBootstrap(ctx context.Context, expect int, alive []Candidate) (bool, error) {
	if !n.bootstrapping.TryLock() {
		return false, nil
	}
	defer n.bootstrapping.Unlock()
	set := n.BootstrapSet(expect, alive)
	if !mayBegin(n.cfg.Identity.Broker(), set, alive) {
		return false, nil
	}
	founders, err := n.gather(ctx, set)
	if err != nil {
		return false, fmt.Errorf("metadata: bootstrap with brokers %v: %w", set, err)
	}
	if err := n.begin(ctx, founders); err != nil {
		return false, fmt.Errorf("metadata: bootstrap with brokers %v: %w", set, err)
	}
	return true, nil
}

// gather collects the pledges and fixes the founders, or returns those fixed by an earlier attempt.
func (n *Node) gather(ctx context.Context, set []api.BrokerID) ([]Founder, error) {
	p := Pledge{ClusterID: randomName(), Set: set}
	if earlier := n.cfg.Identity.record().Pledge; earlier != nil {
		p = *earlier
	}
	if err := n.cfg.Identity.pledge(p); err != nil {
		return nil, err
	}
	if founders := n.cfg.Identity.record().Founders; len(founders) > 0 {
		return founders, nil
	}
	founders := []Founder{{n.cfg.Identity.Broker(), n.cfg.Identity.Incarnation()}}
	for _, id := range set[1:] { // one after the other: who is behind one that refuses stays free
		reply, err := n.ask(ctx, id, MethodPledge, pledgeMessage{Pledge: p})
		if err != nil {
			return nil, err
		}
		founders = append(founders, Founder{id, reply.Incarnation})
	}
	return founders, n.cfg.Identity.setFounders(founders)
}

// begin tells the founders, this broker last, to begin. One that misses the message is told by the leader's first append.
func (n *Node) begin(ctx context.Context, founders []Founder) error {
	p := n.cfg.Identity.record().Pledge
	var telling errgroup.Group
	telling.SetLimit(tellAtOnce)
	for _, f := range founders[1:] {
		telling.Go(func() error {
			if _, err := n.ask(ctx, f.Broker, MethodBootstrap, pledgeMessage{Pledge: *p, Founders: founders}); err != nil {
				n.log.Warn("a broker that the cluster begins with did not take part at once", "broker", f.Broker, "error", err)
			}
			return nil
		})
	}
	_ = telling.Wait()
	return n.bootstrapRaft(ctx, founders)
}

// firstConfiguration makes the founders voters.
func firstConfiguration(founders []Founder) (c raft.Configuration) {
	for _, f := range founders {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: MemberID(f.Broker, f.Incarnation), Address: ServerAddress(f.Broker)})
	}
	return c
}

// completeBootstrap does, before Raft runs on an empty log, what is left of a bootstrap that was interrupted here. hashicorp/raft stores term 1 and then, as entry 1, the
// configuration; with the term alone there it refuses to bootstrap ever after. The entry is the same on all founders. A larger term came from a founder that has it,
// and will send it.
func (n *Node) completeBootstrap() error {
	founders := n.cfg.Identity.record().Founders
	if len(founders) == 0 {
		return nil
	}
	if term, err := n.cfg.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term != 1 {
		return nil // raft looks at it again, and says what is wrong
	}
	return n.logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(firstConfiguration(founders))})
}

// bootstrapRaft waits while there is no space for raft's term. Raft that could not store it at all stands still and answers no more: then the goroutine that asked it stays.
func (n *Node) bootstrapRaft(ctx context.Context, founders []Founder) error {
	done := make(chan error, 1)
	go func() { done <- n.raft.BootstrapCluster(firstConfiguration(founders)).Error() }()
	var err error
	select {
	case err = <-done:
	case <-n.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	if errors.Is(err, raft.ErrCantBootstrap) && n.HasCluster() {
		return nil
	}
	if err == nil {
		n.log.Info("a new cluster begins", "cluster", n.cfg.Identity.record().Pledge.ClusterID, "brokers", len(founders))
		n.fsm.changed.raise()
		n.elector.Consider()
	}
	return err
}

func (n *Node) ask(ctx context.Context, id api.BrokerID, m method, msg pledgeMessage) (pledgeReply, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var reply pledgeReply
	payload, err := json.Marshal(msg)
	if err == nil {
		err = n.call(ctx, ServerAddress(id), m, payload, &reply)
	}
	if err == nil && reply.Refused != "" {
		err = fmt.Errorf("%w: %s", ErrPledged, reply.Refused)
	}
	return reply, err
}

func (n *Node) servePledge(_ context.Context, from raft.ServerAddress, payload []byte) ([]byte, error) {
	return n.servePledged(from, payload, func(pledgeMessage) error { return nil })
}

func (n *Node) serveBootstrap(ctx context.Context, from raft.ServerAddress, payload []byte) ([]byte, error) {
	return n.servePledged(from, payload, func(msg pledgeMessage) error {
		self := Founder{n.cfg.Identity.Broker(), n.cfg.Identity.Incarnation()}
		if !slices.Contains(msg.Founders, self) {
			return fmt.Errorf("%w: broker %d, incarnation %s, is not among the founders", ErrPledged, self.Broker, self.Incarnation)
		}
		return n.bootstrapRaft(ctx, msg.Founders)
	})
}

// servePledged takes the pledge (again) and then does what the message asks for.
func (n *Node) servePledged(from raft.ServerAddress, payload []byte, then func(pledgeMessage) error) ([]byte, error) {
	var msg pledgeMessage
	if err := json.Unmarshal(payload, &msg); err != nil {
		return nil, fmt.Errorf("%w: pledge: %w", ErrMalformed, err)
	}
	reply := pledgeReply{Incarnation: n.cfg.Identity.Incarnation()}
	err := n.checkPledge(from, msg)
	if err == nil {
		err = n.cfg.Identity.pledge(msg.Pledge)
	}
	if err == nil {
		err = then(msg)
	}
	if err != nil {
		reply.Refused = err.Error()
	}
	return json.Marshal(reply)
}

func (n *Node) checkPledge(from raft.ServerAddress, msg pledgeMessage) error {
	set := msg.Pledge.Set
	switch {
	case n.ctx.Err() != nil:
		return ErrClosed
	case msg.Pledge.ClusterID == "" || !slices.IsSorted(set) || !slices.Contains(set, n.cfg.Identity.Broker()):
		return fmt.Errorf("%w: pledge for cluster %q with brokers %v", ErrMalformed, msg.Pledge.ClusterID, set)
	case ServerAddress(set[0]) != from:
		return fmt.Errorf("%w: broker %s may not begin for brokers %v", ErrPledged, from, set)
	case n.HasCluster() && n.cfg.Identity.record().Pledge == nil:
		return fmt.Errorf("%w: broker %d belongs to a cluster", ErrPledged, n.cfg.Identity.Broker())
	}
	return nil
}
