package assign

import (
	"cmp"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/broker/api"
)

// The sticky assignor gives, in this order:
//
//  1. Balance. No other assignment is more even: no chain of hand-overs (u gives to v, v gives to w, ...) that the subscriptions
//     allow leads from a member to one with at least two partitions fewer. With equal subscriptions all numbers differ by one at most.
//  2. Stickiness. With equal subscriptions, as many partitions stay with their owners as any balanced assignment can leave there.
//     Otherwise members keep what they own, and partitions move only where that makes it more even.
//
// An owner is who says so in the highest generation; if two do in the same generation, nobody is believed.

// holding is one assignment being worked out. Members are indexes into members.
type holding struct {
	members    []Member
	partitions map[string]int32
	topics     []string
	subs       map[string][]int           // topic -> subscribers, in order
	has        []map[string][]int32       // member -> topic -> partitions
	count      []int                      // member -> number of partitions
	owner      map[api.TopicPartition]int // who had it before
}

func sticky(members []Member, partitions map[string]int32) Assignment {
	h := &holding{members: members, partitions: partitions, topics: subscribedTopics(members, partitions), subs: map[string][]int{}}
	h.has = make([]map[string][]int32, len(members))
	h.count = make([]int, len(members))
	for i := range members {
		h.has[i] = map[string][]int32{}
		for _, t := range members[i].Topics {
			h.subs[t] = append(h.subs[t], i)
		}
	}
	h.owner = owners(members, partitions)
	if h.uniform() {
		h.fillEvenly()
	} else {
		h.fillGreedily()
		for h.improve() {
		}
	}
	return h.assignment()
}

// owners says who may keep what: it must exist, be subscribed to, and be claimed by nobody else as recently.
func owners(members []Member, partitions map[string]int32) map[api.TopicPartition]int {
	type claim struct {
		member     int
		generation int32
		disputed   bool
	}
	claims := map[api.TopicPartition]claim{}
	for i := range members {
		m := &members[i]
		for _, tp := range m.Owned {
			if tp.Partition < 0 || tp.Partition >= partitions[tp.Topic] {
				continue
			}
			old, ok := claims[tp]
			switch {
			case !ok || m.Generation > old.generation:
				claims[tp] = claim{member: i, generation: m.Generation}
			case m.Generation == old.generation && old.member != i:
				old.disputed = true
				claims[tp] = old
			}
		}
	}
	owner := map[api.TopicPartition]int{}
	for tp, c := range claims {
		if !c.disputed && members[c.member].subscribes(tp.Topic) {
			owner[tp] = c.member
		}
	}
	return owner
}

func (h *holding) uniform() bool {
	for i := range h.members {
		if !slices.Equal(h.members[i].Topics, h.members[0].Topics) {
			return false
		}
	}
	return true
}

func (h *holding) give(i int, tp api.TopicPartition) {
	h.has[i][tp.Topic] = append(h.has[i][tp.Topic], tp.Partition)
	h.count[i]++
}

// each visits all partitions in order.
func (h *holding) each(f func(tp api.TopicPartition)) {
	for _, t := range h.topics {
		for p := range h.partitions[t] {
			f(api.TopicPartition{Topic: t, Partition: p})
		}
	}
}

// fillEvenly is for equal subscriptions: P partitions, N members, so P mod N members get one more than P/N. Members that own the most
// come first for those places: there, one more partition can stay.
func (h *holding) fillEvenly() {
	quota := h.quotas()
	var free []api.TopicPartition
	h.each(func(tp api.TopicPartition) {
		if i, ok := h.owner[tp]; ok && h.count[i] < quota[i] {
			h.give(i, tp)
		} else {
			free = append(free, tp)
		}
	})
	turn := 0
	for _, tp := range free { // the quotas sum up to all partitions, so the inner loop ends
		for h.count[turn] >= quota[turn] {
			turn = (turn + 1) % len(quota)
		}
		h.give(turn, tp)
		turn = (turn + 1) % len(quota)
	}
}

func (h *holding) quotas() []int {
	n := len(h.members)
	if n == 0 {
		return nil
	}
	total := 0
	for _, t := range h.topics {
		total += int(h.partitions[t])
	}
	owned := make([]int, n)
	for _, i := range h.owner {
		owned[i]++
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(owned[b], owned[a]) })
	quota := make([]int, n)
	for rank, i := range order {
		quota[i] = total / n
		if rank < total%n {
			quota[i]++
		}
	}
	return quota
}

// fillGreedily leaves everything with its owner and gives the rest, topics with few subscribers first, to whoever has least.
func (h *holding) fillGreedily() {
	topics := slices.Clone(h.topics)
	slices.SortStableFunc(topics, func(a, b string) int { return cmp.Compare(len(h.subs[a]), len(h.subs[b])) })
	h.each(func(tp api.TopicPartition) {
		if i, ok := h.owner[tp]; ok {
			h.give(i, tp)
		}
	})
	for _, t := range topics {
		for p := range h.partitions[t] {
			tp := api.TopicPartition{Topic: t, Partition: p}
			if _, ok := h.owner[tp]; !ok {
				h.give(h.least(h.subs[t]), tp)
			}
		}
	}
}

func (h *holding) least(among []int) int {
	return slices.MinFunc(among, func(a, b int) int { return cmp.Compare(h.count[a], h.count[b]) })
}

// improve looks, from the fullest member down, for the shortest chain of hand-overs to a member with at least two partitions fewer,
// and carries it out. Each one lowers the sum of the squares of the counts, so it ends; when there is none, the assignment
// is as even as it can be.
func (h *holding) improve() bool {
	order := make([]int, len(h.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(h.count[b], h.count[a]) })
	low := h.count[h.least(order)]
	seen := newSearch(len(h.members)) // what one search has reached without success, a fuller member's search covers for the rest
	for _, from := range order {
		if h.count[from]-low < 2 {
			return false
		}
		if chain := h.search(seen, from); chain != nil {
			h.carryOut(chain)
			return true
		}
	}
	return false
}

// link is one hand-over: member `from` gives a partition of topic to member `to`.
type link struct {
	from, to int
	topic    string
}

type search struct {
	by     []link // how a member was reached
	seen   []bool
	topics map[string]bool
}

func newSearch(n int) *search {
	return &search{by: make([]link, n), seen: make([]bool, n), topics: map[string]bool{}}
}

// search goes breadth-first from a member. What earlier searches of the same round have seen need not be seen again: they began at
// fuller members and found nobody with two fewer than those; but for a member less full than the start of that search nobody
// reachable can be two fewer than it either.
func (h *holding) search(s *search, from int) []link {
	if s.seen[from] {
		return nil
	}
	s.seen[from] = true
	queue := []int{from}
	for len(queue) > 0 {
		u := queue[0]
		queue = queue[1:]
		for _, topic := range slices.Sorted(maps.Keys(h.has[u])) {
			if s.topics[topic] || len(h.has[u][topic]) == 0 {
				continue
			}
			s.topics[topic] = true
			for _, v := range h.subs[topic] {
				if s.seen[v] {
					continue
				}
				s.seen[v] = true
				s.by[v] = link{from: u, to: v, topic: topic}
				if h.count[from]-h.count[v] >= 2 {
					return s.chain(from, v)
				}
				queue = append(queue, v)
			}
		}
	}
	return nil
}

func (s *search) chain(from, to int) []link {
	var links []link
	for to != from {
		links = append(links, s.by[to])
		to = s.by[to].from
	}
	return links
}

// carryOut moves one partition along each link. A topic occurs in one link only, so their order does not matter.
func (h *holding) carryOut(chain []link) {
	for _, l := range chain {
		p := h.pick(l)
		h.has[l.from][l.topic] = slices.DeleteFunc(h.has[l.from][l.topic], func(q int32) bool { return q == p })
		h.count[l.from]--
		h.give(l.to, api.TopicPartition{Topic: l.topic, Partition: p})
	}
}

// pick chooses what to hand over: best what the receiver owned, else what the giver did not own, else the highest number.
func (h *holding) pick(l link) int32 {
	best, bestRank := int32(-1), -1
	for _, p := range h.has[l.from][l.topic] {
		rank := 0
		switch i, ok := h.owner[api.TopicPartition{Topic: l.topic, Partition: p}]; {
		case ok && i == l.to:
			rank = 2
		case !ok || i != l.from:
			rank = 1
		}
		if rank > bestRank || (rank == bestRank && p > best) {
			best, bestRank = p, rank
		}
	}
	return best
}

func (h *holding) assignment() Assignment {
	a := newAssignment(h.members)
	for i := range h.members {
		for topic, ps := range h.has[i] {
			for _, p := range ps {
				a[h.members[i].ID] = append(a[h.members[i].ID], api.TopicPartition{Topic: topic, Partition: p})
			}
		}
	}
	return a
}

// withhold makes an assignment cooperative (KIP-429): what is to move stays unassigned while anybody still says that he owns it. When he has
// given it up he joins again, and the next assignment hands it over. Claims count whatever their generation, since their
// maker may still be reading.
func withhold(members []Member, a Assignment) Assignment {
	claimed := map[api.TopicPartition][]string{}
	for _, m := range members {
		for _, tp := range m.Owned {
			claimed[tp] = append(claimed[tp], m.ID)
		}
	}
	for id, tps := range a {
		a[id] = slices.DeleteFunc(tps, func(tp api.TopicPartition) bool {
			return slices.ContainsFunc(claimed[tp], func(by string) bool { return by != id })
		})
	}
	return a
}
