package controller

import (
	"cmp"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// eligible lists the brokers that may get replicas, by ID: alive and not draining.
func (v View) eligible() []*metadata.Broker {
	var out []*metadata.Broker
	for _, b := range v.State.SortedBrokers() {
		if v.Alive[b.ID] && !b.Draining {
			out = append(out, b)
		}
	}
	return out
}

// load counts what brokers have, by the desired replicas.
type load struct {
	replicas, leaders map[api.BrokerID]int
}

func newLoad() load { return load{map[api.BrokerID]int{}, map[api.BrokerID]int{}} }

func (l load) add(brokers []api.BrokerID) {
	for i, id := range brokers {
		l.replicas[id]++
		if i == 0 {
			l.leaders[id]++
		}
	}
}

func loadOf(topics []*metadata.Topic) load {
	l := newLoad()
	for _, t := range topics {
		for _, p := range t.Partitions {
			l.add(metadata.BrokerIDs(p.Replicas))
		}
	}
	return l
}

// Place chooses brokers for count new partitions of a topic that has the partitions of existing already (nil: a new topic): alive, not draining,
// in distinct racks as far as there are racks, balanced first within the topic and then over all, in replicas and in preferred leaders.
// CodeInvalidReplicationFactor if there are too few brokers. The result is for CreateTopic.Assignment or GrowTopic.Assignment.
func Place(v View, existing *metadata.Topic, count int32, rf int16) ([][]api.BrokerID, error) {
	brokers := v.eligible()
	if rf < 1 || int(rf) > len(brokers) {
		return nil, api.Errorf(api.CodeInvalidReplicationFactor, "a replication factor of %d is not possible: %d brokers are alive and not draining", rf, len(brokers))
	}
	p := placer{brokers: brokers, all: loadOf(v.State.SortedTopics()), topic: newLoad(), pairs: map[[2]api.BrokerID]int{}}
	if existing != nil {
		p.topic = loadOf([]*metadata.Topic{existing})
	}
	out := make([][]api.BrokerID, count)
	for i := range out {
		out[i] = p.place(int(rf))
	}
	balanceLeaders(out, p.topic.leaders, func(api.BrokerID) bool { return true })
	return out, nil
}

// placer places partition after partition.
type placer struct {
	brokers    []*metadata.Broker
	all, topic load
	pairs      map[[2]api.BrokerID]int // how often two brokers got the same partition, so that not always the same two do
}

func (p *placer) place(rf int) []api.BrokerID {
	var chosen []*metadata.Broker
	for range rf {
		chosen = append(chosen, p.next(chosen))
	}
	// The leader is the one of them that leads least.
	first := slices.MinFunc(chosen, func(a, b *metadata.Broker) int {
		return cmp.Or(cmp.Compare(p.topic.leaders[a.ID], p.topic.leaders[b.ID]), cmp.Compare(p.all.leaders[a.ID], p.all.leaders[b.ID]),
			slices.Index(chosen, a)-slices.Index(chosen, b))
	})
	ids := []api.BrokerID{first.ID}
	for _, b := range chosen {
		if b != first {
			ids = append(ids, b.ID)
		}
		for _, o := range chosen {
			p.pairs[[2]api.BrokerID{b.ID, o.ID}]++
		}
	}
	p.all.add(ids)
	p.topic.add(ids)
	return ids
}

// next is the best broker to add to those chosen.
func (p *placer) next(chosen []*metadata.Broker) *metadata.Broker {
	var best *metadata.Broker
	var bestRank [4]int
	for _, b := range p.brokers {
		if slices.Contains(chosen, b) {
			continue
		}
		rank := [4]int{0, p.topic.replicas[b.ID], p.all.replicas[b.ID], 0}
		for _, c := range chosen {
			if c.Rack == b.Rack {
				rank[0]++
			}
			rank[3] += p.pairs[[2]api.BrokerID{b.ID, c.ID}]
		}
		if best == nil || slices.Compare(rank[:], bestRank[:]) < 0 {
			best, bestRank = b, rank
		}
	}
	return best
}

// balanceLeaders reorders replica lists so that the numbers of leaders (first replicas) differ by no more than the lists make
// necessary. counts has the present numbers, those of the lists included, and is kept up to date. Only brokers that may lead get more.
//
// A broker that leads too much passes a partition to another of its replicas, that one perhaps one of its own to a third, and so on to a broker
// that leads at least two fewer: such a path exists as long as the numbers can get any closer.
func balanceLeaders(lists [][]api.BrokerID, counts map[api.BrokerID]int, mayLead func(api.BrokerID) bool) {
	led := map[api.BrokerID][]int{} // which lists a broker leads
	for i, l := range lists {
		led[l[0]] = append(led[l[0]], i)
	}
	for range len(lists) * len(lists) {
		path := leaderPath(lists, led, counts, mayLead)
		if path == nil {
			return
		}
		for _, step := range path {
			from := lists[step.list][0]
			promote(lists[step.list], step.to)
			led[from] = slices.DeleteFunc(led[from], func(i int) bool { return i == step.list })
			led[step.to] = append(led[step.to], step.list)
			slices.Sort(led[step.to])
			counts[from]--
			counts[step.to]++
		}
	}
}

// promote puts a broker first and keeps the order of the others.
func promote(l []api.BrokerID, id api.BrokerID) {
	i := slices.Index(l, id)
	copy(l[1:i+1], l[:i])
	l[0] = id
}

type leaderStep struct {
	list int
	to   api.BrokerID
}

// leaderPath searches, from the busiest broker on, a way to one that leads at least two fewer.
func leaderPath(lists [][]api.BrokerID, led map[api.BrokerID][]int, counts map[api.BrokerID]int, mayLead func(api.BrokerID) bool) []leaderStep {
	starts := make([]api.BrokerID, 0, len(led))
	for id := range led {
		starts = append(starts, id)
	}
	slices.SortFunc(starts, func(a, b api.BrokerID) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, start := range starts {
		if path := pathFrom(start, lists, led, counts, mayLead); path != nil {
			return path
		}
	}
	return nil
}

func pathFrom(start api.BrokerID, lists [][]api.BrokerID, led map[api.BrokerID][]int, counts map[api.BrokerID]int, mayLead func(api.BrokerID) bool) []leaderStep {
	type via struct {
		from api.BrokerID
		step leaderStep
	}
	seen := map[api.BrokerID]via{start: {}}
	for queue := []api.BrokerID{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, i := range led[at] {
			for _, to := range lists[i][1:] {
				if _, known := seen[to]; known || !mayLead(to) {
					continue
				}
				seen[to] = via{at, leaderStep{i, to}}
				queue = append(queue, to)
				if counts[to] > counts[start]-2 {
					continue
				}
				var path []leaderStep
				for b := to; b != start; b = seen[b].from {
					path = append(path, seen[b].step)
				}
				return path // last step first, so that every broker on the way still leads what it passes on
			}
		}
	}
	return nil
}
