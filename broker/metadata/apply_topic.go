package metadata

import (
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
)

func (c *CreateTopic) apply(ch *change) (Result, error) {
	if t := ch.s.Topics[c.Name]; t != nil {
		if t.ID == c.ID {
			return Result{}, nil
		}
		return Result{}, api.Errorf(api.CodeTopicAlreadyExists, "topic %q exists already", c.Name)
	}
	if err := ch.checkAssignment(c.Name, 0, c.ReplicationFactor, c.Assignment); err != nil {
		return Result{}, err
	}
	t := &Topic{Name: c.Name, ID: c.ID, Internal: c.Internal, Kind: c.Kind, ReplicationFactor: c.ReplicationFactor, Settings: maps.Clone(c.Settings)}
	if t.Kind == "" {
		t.Kind = KindData
	}
	ch.putTopic(t)
	ch.addPartitions(t, c.Assignment, c.ByHand)
	return Result{}, nil
}

// checkAssignment checks the brokers of partitions to be added to the have that are there.
func (ch *change) checkAssignment(topic string, have int, rf int16, assignment [][]api.BrokerID) error {
	if rf < 1 {
		return api.Errorf(api.CodeInvalidReplicationFactor, "topic %q: a replication factor of %d is not possible", topic, rf)
	}
	for i, brokers := range assignment {
		if len(brokers) != int(rf) {
			return api.Errorf(api.CodeInvalidReplicationFactor, "%s/%d is assigned to %d brokers instead of %d", topic, have+i, len(brokers), rf)
		}
		for j, id := range brokers {
			if ch.s.Brokers[id] == nil {
				return api.Errorf(api.CodeUnknownBroker, "%s/%d is assigned to broker %d, which does not exist", topic, have+i, id)
			}
			if slices.Contains(brokers[:j], id) {
				return api.Errorf(api.CodeInvalidReplicationFactor, "%s/%d is assigned to broker %d twice", topic, have+i, id)
			}
		}
	}
	return nil
}

func (ch *change) addPartitions(t *Topic, assignment [][]api.BrokerID, byHand bool) {
	for _, brokers := range assignment {
		p := &Partition{Topic: t.Name, Partition: int32(len(t.Partitions)), Group: ch.s.NextGroup, Leader: api.NoBroker, ByHand: byHand}
		ch.s.NextGroup++
		for _, id := range brokers {
			p.Replicas = append(p.Replicas, ch.name(p, id))
		}
		p.Initial, p.Voters = p.Replicas, p.Replicas
		t.Partitions = append(t.Partitions, p)
	}
}

// name makes a fresh replica of the partition on a broker, under a name that was never used.
func (ch *change) name(p *Partition, id api.BrokerID) Replica {
	p.Generation++
	return Replica{Broker: id, ServerID: ServerID(id, ch.s.Brokers[id].Incarnation, p.Generation)}
}

func (ch *change) topic(name string) (*Topic, error) {
	if t := ch.s.Topics[name]; t != nil {
		return t, nil
	}
	return nil, api.Errorf(api.CodeUnknownTopicOrPartition, "there is no topic %q", name)
}

func (c *AlterTopic) apply(ch *change) (Result, error) {
	t, err := ch.topic(c.Name)
	if err != nil {
		return Result{}, err
	}
	next := cloneMap(t.Settings)
	for _, key := range c.Unset {
		delete(next, key)
	}
	maps.Copy(next, c.Set)
	if !maps.Equal(next, t.Settings) {
		ch.ownTopic(c.Name).Settings = next
	}
	return Result{}, nil
}

func (c *GrowTopic) apply(ch *change) (Result, error) {
	t, err := ch.topic(c.Name)
	if err != nil {
		return Result{}, err
	}
	if int(c.From) != len(t.Partitions) {
		return Result{}, api.Errorf(api.CodeInvalidPartitions, "topic %q has %d partitions by now, not %d", c.Name, len(t.Partitions), c.From)
	}
	if err := ch.checkAssignment(c.Name, len(t.Partitions), t.ReplicationFactor, c.Assignment); err != nil {
		return Result{}, err
	}
	ch.addPartitions(ch.ownTopic(c.Name), c.Assignment, c.ByHand)
	return Result{}, nil
}

func (c *DeleteTopic) apply(ch *change) (Result, error) {
	t, err := ch.topic(c.Name)
	if err != nil {
		return Result{}, err
	}
	if c.ID != [16]byte{} && c.ID != t.ID {
		return Result{}, api.Errorf(api.CodeUnknownTopicOrPartition, "topic %q was created anew", c.Name)
	}
	ch.ownTopics()
	delete(ch.s.Topics, c.Name)
	return Result{}, nil
}

func (c *SetReplicas) apply(ch *change) (Result, error) {
	var res Result
	for i := range c.Changes {
		r := &c.Changes[i]
		p := ch.s.Find(r.TP)
		if p == nil || p.Group != r.Group || p.Revision != r.Revision || !ch.applicable(p, r) {
			res.Skipped++
			continue
		}
		if r.EndReassignment && p.Reassignment != nil {
			p = ch.ownPartition(p)
			p.Reassignment = nil
			p.Revision++
		}
		ch.setReplicas(p, r.Replicas)
	}
	return res, nil
}

// applicable says whether the replicas to keep are there, the brokers of fresh ones are known, and no broker has two.
func (ch *change) applicable(p *Partition, r *ReplicaChange) bool {
	for i, a := range r.Replicas {
		if hasBroker(r.Replicas[:i], a.Broker) {
			return false
		}
		if a.ServerID == "" && ch.s.Brokers[a.Broker] == nil {
			return false
		}
		if a.ServerID != "" && !slices.Contains(p.Known(), a) {
			return false
		}
	}
	return len(r.Replicas) > 0
}

func (ch *change) setReplicas(p *Partition, replicas []Replica) {
	replicas = ch.withUsable(p, replicas)
	if slices.Equal(p.Replicas, replicas) {
		return
	}
	begun := p.Begun()
	atOriginal := p.Reassignment != nil && slices.Equal(BrokerIDs(p.Replicas), p.Reassignment.Original)
	p = ch.ownPartition(p)
	known := p.Known()
	p.Replicas = nil
	for _, a := range replicas {
		if a.ServerID == "" {
			a = ch.name(p, a.Broker)
		}
		p.Replicas = append(p.Replicas, a)
	}
	p.Former = ch.former(p, known)
	p.Revision++
	p.dropQuarantines()
	switch {
	case begun && !p.Begun(): // a repair needed another broker
		p.Reassignment = nil
	case atOriginal && !p.Begun(): // a repair came first
		p.Reassignment = &Reassignment{Target: p.Reassignment.Target, Original: BrokerIDs(p.Replicas)}
	}
	ch.settleReassignment(p)
}

// withUsable puts in the replicas that brokers have already where the list leaves it open which one a broker is to have.
func (ch *change) withUsable(p *Partition, replicas []Replica) []Replica {
	out := slices.Clone(replicas)
	for i, a := range out {
		if b := ch.s.Brokers[a.Broker]; a.ServerID == "" && b != nil {
			if r, ok := p.Usable(b.ID, b.Incarnation); ok {
				out[i] = r
			}
		}
	}
	return out
}

// former are those of the replicas known until now that are not desired any more. Those whose brokers lost their disks are forgotten: there is nothing to be kept of them.
func (ch *change) former(p *Partition, known []Replica) []Replica {
	var out []Replica
	for _, r := range known {
		b := ch.s.Brokers[r.Broker]
		if b != nil && r.of(b.ID, b.Incarnation) && !contains(p.Replicas, r.ServerID) && !contains(out, r.ServerID) {
			out = append(out, r)
		}
	}
	return out
}

// dropQuarantines forgets replicas that nobody has any use for any more.
func (p *Partition) dropQuarantines() {
	var keep []Quarantine
	for _, q := range p.Quarantined {
		if slices.Contains(p.Known(), q.Replica) {
			keep = append(keep, q)
		}
	}
	p.Quarantined = keep
}

func (c *Report) apply(ch *change) (Result, error) {
	var res Result
	for i := range c.Partitions {
		if !ch.report(&c.Partitions[i]) {
			res.Skipped++
		}
	}
	return res, nil
}

func (ch *change) report(r *PartitionReport) bool {
	p := ch.s.Find(r.TP)
	if p == nil || p.Group != r.Group || r.Epoch < p.LeaderEpoch || r.Revision > p.Revision {
		return false
	}
	next := *p
	next.Leader, next.LeaderEpoch = r.Leader, r.Epoch
	// A new leader whose metadata lags knows less than the last report did about what is desired.
	if known := r.Revision > p.Settled || r.Revision == p.Settled && !r.Moving; len(r.Voters) > 0 && known {
		if !SameReplicas(p.Voters, r.Voters) {
			next.Voters = slices.Clone(r.Voters)
		}
		if !r.Moving {
			next.Settled = r.Revision
		}
		if next.Settled == p.Revision {
			next.Former = nil
		}
	}
	next.dropQuarantines()
	if next.same(p) {
		return true
	}
	own := ch.ownPartition(p)
	*own = next
	ch.settleReassignment(own)
	return true
}

// same compares what reports change.
func (p *Partition) same(q *Partition) bool {
	return p.Leader == q.Leader && p.LeaderEpoch == q.LeaderEpoch && p.Settled == q.Settled &&
		slices.Equal(p.Voters, q.Voters) && slices.Equal(p.Former, q.Former) && slices.Equal(p.Quarantined, q.Quarantined)
}

func (c *QuarantineReplica) apply(ch *change) (Result, error) {
	p := ch.s.Find(c.TP)
	if p == nil || p.Group != c.Group {
		return Result{}, api.Errorf(api.CodeUnknownTopicOrPartition, "there is no partition %s/%d of group %d", c.TP.Topic, c.TP.Partition, c.Group)
	}
	known := p.Known()
	i := slices.IndexFunc(known, func(r Replica) bool { return r.ServerID == c.ServerID })
	if i < 0 || p.IsQuarantined(c.ServerID) {
		return Result{}, nil
	}
	q := Quarantine{Replica: known[i], Reason: c.Reason}
	next := ch.ownPartition(p)
	next.Quarantined = append(slices.Clone(p.Quarantined), q)
	return Result{}, nil
}
