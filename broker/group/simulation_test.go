package group

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// simulation runs native consumers with cooperative rebalancing against brokers whose leadership moves and whose proposals fail, in
// virtual time. Each consumer counts up the committed offset of its partitions, which shows any two that own one at a time:
// one's commit would be lost.
type simulation struct {
	t   *testing.T
	log *fakeLog
	rng *rand.Rand

	mu       sync.Mutex
	serving  int
	owners   map[api.TopicPartition]string
	commits  map[api.TopicPartition]record.Offset
	handOver int
}

// consumer is a well-behaved member: it gives up what is taken from it before it says so.
type consumer struct {
	s      *simulation
	name   string
	stop   chan struct{}
	ref    api.MemberRef
	owned  map[api.TopicPartition]record.Offset
	joined bool
	seen   standing // under the simulation's mutex
}

// standing is what a consumer shows of itself after each turn, for those that look on from other goroutines.
type standing struct {
	joined bool
	owned  int
}

func (s *simulation) coordinator() *fakeBroker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.brokers[s.serving]
}

func (c *consumer) run() {
	defer c.release(nil)
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Second):
		}
		c.turn()
		c.show()
	}
}

func (c *consumer) show() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.seen = standing{joined: c.joined, owned: len(c.owned)}
}

func (c *consumer) turn() {
	b := c.s.coordinator()
	if c.joined {
		c.handle(b.Heartbeat(ctx, c.ref))
	}
	if c.joined {
		c.handle(c.work(b))
	}
	if !c.joined {
		c.join(b)
	}
}

// handle decides what an error means, as a client does.
func (c *consumer) handle(err error) {
	switch {
	case err == nil:
	case api.CodeOf(err) == api.CodeRebalanceInProgress:
		c.joined = false
	case api.CodeOf(err) == api.CodeUnknownMember, api.CodeOf(err) == api.CodeIllegalGeneration, api.CodeOf(err) == api.CodeFencedInstance:
		c.release(nil)
		c.joined = false
		c.ref.MemberID, c.ref.Generation = "", -1
	case api.CodeOf(err).Retriable():
	default:
		c.s.t.Errorf("%s: %v", c.name, err)
	}
}

// work reads on in all partitions and commits.
func (c *consumer) work(b *fakeBroker) error {
	var offsets []api.OffsetCommit
	for tp, o := range c.owned {
		offsets = append(offsets, api.OffsetCommit{TopicPartition: tp, Offset: o + 1, LeaderEpoch: -1})
	}
	err := b.CommitOffsets(ctx, c.ref, offsets)
	if err == nil {
		for tp := range c.owned {
			c.owned[tp]++
		}
		c.s.committed(c.owned)
	}
	return err
}

func (c *consumer) join(b *fakeBroker) {
	res, err := b.JoinAndSync(ctx, api.NativeJoinRequest{
		MemberRef: c.ref, Topics: []string{"t"}, SessionTimeout: 10 * time.Second, RebalanceTimeout: 30 * time.Second,
		Owned: slices.Collect(maps.Keys(c.owned)),
	})
	if err != nil {
		c.handle(err)
		return
	}
	c.joined = true
	c.ref.MemberID, c.ref.Generation = res.MemberID, res.Generation
	gone := len(c.owned)
	c.release(res.Assignment)
	if gone -= len(c.owned); gone > 0 {
		c.joined = false // to hand over
	}
	c.take(b, res.Assignment)
}

// release gives up what is not in keep.
func (c *consumer) release(keep []api.TopicPartition) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for tp := range c.owned {
		if !slices.Contains(keep, tp) {
			delete(c.owned, tp)
			if c.s.owners[tp] == c.name {
				delete(c.s.owners, tp)
			}
		}
	}
}

func (c *consumer) take(b *fakeBroker, tps []api.TopicPartition) {
	var fresh []api.TopicPartition
	for _, tp := range tps {
		if _, ok := c.owned[tp]; !ok {
			fresh = append(fresh, tp)
		}
	}
	if len(fresh) == 0 {
		return
	}
	offsets, err := b.FetchOffsets(ctx, "g", fresh)
	if err != nil {
		return // joins again as the owner of less, and is given the rest again
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, o := range offsets {
		c.s.owners[o.TopicPartition] = c.name
		c.owned[o.TopicPartition] = max(o.Offset, 0)
		if last, ok := c.s.commits[o.TopicPartition]; ok && o.Offset < last {
			c.s.t.Errorf("%s resumes %v at %d, behind the acknowledged %d", c.name, o.TopicPartition, o.Offset, last)
		}
		c.s.handOver++
	}
}

// committed notes acknowledged commits. An owner whose partition is another's now would have been fenced.
func (s *simulation) committed(owned map[api.TopicPartition]record.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, o := range owned {
		if o < s.commits[tp] {
			s.t.Errorf("%v: a commit of %d was acknowledged after %d", tp, o, s.commits[tp])
		}
		s.commits[tp] = o
	}
}

// disturb does something to the cluster.
func (s *simulation) disturb(consumers map[string]*consumer, wg *sync.WaitGroup) {
	switch s.rng.IntN(6) {
	case 0:
		s.failover()
	case 1:
		s.log.set(func() { s.log.fail = func() (error, bool) { return errors.New("disturbed"), true } })
	case 2:
		s.log.set(func() { s.log.fail = func() (error, bool) { return errors.New("disturbed"), false } })
	case 3:
		s.log.topics.Store("t", int32(6+s.rng.IntN(8)))
		s.coordinator().TopicsChanged()
	case 4:
		for _, name := range slices.Sorted(maps.Keys(consumers)) {
			close(consumers[name].stop) // dies without a word
			delete(consumers, name)
			break
		}
	case 5:
		if len(consumers) < 6 {
			s.add(consumers, wg)
		}
	}
}

func (s *simulation) add(consumers map[string]*consumer, wg *sync.WaitGroup) {
	name := fmt.Sprintf("c%d", s.rng.IntN(1<<30))
	c := &consumer{s: s, name: name, stop: make(chan struct{}), owned: map[api.TopicPartition]record.Offset{}}
	c.ref = api.MemberRef{Group: "g", Generation: -1}
	if s.rng.IntN(3) == 0 {
		c.ref.InstanceID = "instance-" + name
	}
	consumers[name] = c
	wg.Go(c.run)
}

func (s *simulation) failover() {
	old := s.coordinator()
	s.mu.Lock()
	s.serving = (s.serving + 1) % len(s.log.brokers)
	next := s.serving
	s.mu.Unlock()
	s.log.set(func() { s.log.fail = nil })
	s.log.start(next)
	old.LeaderStop()
}

// TestSimulation disturbs a group at random, then lets it settle: it must come to rest with every partition owned once, and no
// acknowledged commit may ever have gone back.
func TestSimulation(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(15) {
		synctest.Test(t, func(t *testing.T) { simulate(t, rand.New(rand.NewPCG(seed, round))) })
	}
}

func simulate(t *testing.T, rng *rand.Rand) {
	l := newFakeLog(t, 3, Settings{})
	l.topics.Store("t", int32(8))
	s := &simulation{t: t, log: l, rng: rng, owners: map[api.TopicPartition]string{}, commits: map[api.TopicPartition]record.Offset{}}
	l.start(0)
	consumers := map[string]*consumer{}
	var wg sync.WaitGroup
	for range 3 {
		s.add(consumers, &wg)
	}
	for range 40 {
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
		s.disturb(consumers, &wg)
		if rng.IntN(2) == 0 {
			l.set(func() { l.fail = nil })
		}
	}
	l.set(func() { l.fail = nil })
	if len(consumers) == 0 {
		s.add(consumers, &wg)
	}
	time.Sleep(3 * time.Minute)
	s.checkSettled(consumers)
	for _, c := range consumers {
		close(c.stop)
	}
	wg.Wait()
	l.stop()
	s.checkReplicas()
}

func (s *simulation) checkSettled(consumers map[string]*consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := s.log.partitions("t")
	counts := map[string]int{}
	for p := range n {
		owner := s.owners[api.TopicPartition{Topic: "t", Partition: p}]
		if consumers[owner] == nil {
			s.t.Errorf("nobody reads partition %d (%q)", p, owner)
		}
		counts[owner]++
	}
	for name, c := range consumers {
		if !c.seen.joined || counts[name] < int(n)/len(consumers) || c.seen.owned != counts[name] {
			s.t.Errorf("%s (%+v) has %d of %d partitions among %d", name, c.seen, counts[name], n, len(consumers))
		}
	}
	if s.handOver == 0 {
		s.t.Error("nothing happened")
	}
}

func (s *simulation) checkReplicas() {
	want := checkpoint(s.t, s.log.brokers[0].machine)
	for _, b := range s.log.brokers {
		checkMachine(s.t, b.machine)
		if string(checkpoint(s.t, b.machine)) != string(want) {
			s.t.Error("replicas differ")
		}
	}
}
