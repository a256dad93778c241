package kafka

import (
	"container/list"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetch sessions (KIP-227): a client names all of its partitions once, and then only those that have changed; the responses leave out the
// partitions of which there is nothing new. The rules are those of Kafka's FetchSession.
//
// A request has a session ID and an epoch. Epoch 0 asks for a new session, -1 for none; both name all partitions and end the session that the ID
// names. Any other epoch continues a session, and must be the one that follows the epoch of the request before. In a response, session ID 0 says
// that there is no session.

const (
	epochNone = -1
	epochNew  = 0
)

const (
	// sessionEvictable is the age at which a session that is in use may make room for a larger one, and the time after which one that
	// is not used makes room for any.
	sessionEvictable = 2 * time.Minute
	// sessionPartitionBytes is what a partition of a session takes, besides the topic's name.
	sessionPartitionBytes = 384
)

// sessionKey names a partition in a session: by the topic's name or by its ID, never by both.
type sessionKey struct {
	topic     string
	id        [16]byte
	partition int32
}

// sessionPartition is what a session remembers of a partition: what the client asks for, and what it was told.
type sessionPartition struct {
	fetchTarget
	highWatermark, logStart int64 // -1: to be told again
}

// fetchSession is one client's session. mu guards epoch, parts and order; created and what cache says are guarded by the cache's lock, which may be taken
// while mu is held, but not the other way round.
type fetchSession struct {
	id   int32
	byID bool

	mu    sync.Mutex
	epoch int32 // of the next request
	parts map[sessionKey]*list.Element
	// order has the partitions that gave data most recently at its end, so that all get their turn where a response has not room for all.
	order *list.List
	bytes int64

	// cache
	created, used time.Time
	partitions    int
	charged       int64
}

// sessionCache holds the sessions of one broker, at most slots and maxBytes of them.
type sessionCache struct {
	slots    int
	maxBytes int64
	now      func() time.Time

	mu       sync.Mutex
	sessions map[int32]*fetchSession
	bytes    int64
}

func newSessionCache(slots int, maxBytes int64) *sessionCache {
	return &sessionCache{slots: slots, maxBytes: maxBytes, now: time.Now, sessions: map[int32]*fetchSession{}}
}

// sessionFetch is one fetch in, or without, a session.
type sessionFetch struct {
	cache   *sessionCache
	targets []fetchTarget
	// code refuses the whole request.
	code int16
	// create: the client asks for a new session. session is the one that it continues. Neither: it has none.
	create, byID bool
	session      *fetchSession
	epoch        int32 // that the session has after this request
}

// begin finds out what a request is to fetch. The caller fetches the targets and then calls end.
func (c *sessionCache) begin(req *kmsg.FetchRequest) *sessionFetch {
	f := &sessionFetch{cache: c, byID: req.Version >= 13}
	if req.SessionEpoch == epochNew || req.SessionEpoch == epochNone {
		c.remove(req.SessionID)
		f.targets = targetsOf(req)
		f.create = req.SessionEpoch == epochNew && req.Version >= 7
		return f
	}
	c.mu.Lock()
	session := c.sessions[req.SessionID]
	c.mu.Unlock()
	if session == nil {
		f.code = errFetchSessionIDNotFound
		return f
	}
	f.resume(session, req)
	return f
}

// resume continues a session.
func (f *sessionFetch) resume(s *fetchSession, req *kmsg.FetchRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != req.SessionEpoch:
		f.code = errInvalidFetchSessionEpoch
		return
	case s.byID != f.byID:
		f.code = errFetchSessionTopicID
		return
	}
	s.change(req)
	s.epoch = nextEpoch(s.epoch) // a response that is still to be made for the request before is void
	switch {
	case len(s.parts) == 0:
		f.cache.remove(s.id) // and the response says that there is none
		return
	case !f.cache.touch(s):
		f.code = errFetchSessionIDNotFound // it has outgrown the cache
		return
	}
	f.session, f.epoch, f.targets = s, s.epoch, s.targets()
}

func nextEpoch(e int32) int32 {
	if e == math.MaxInt32 {
		return 1
	}
	return e + 1
}

// targetsOf are the partitions that a request names, each once.
func targetsOf(req *kmsg.FetchRequest) []fetchTarget {
	var out []fetchTarget
	at := map[sessionKey]int{}
	for i := range req.Topics {
		t := &req.Topics[i]
		for _, p := range t.Partitions {
			target := fetchTarget{
				topic: t.Topic, id: t.TopicID, name: t.Topic, partition: p.Partition,
				offset: p.FetchOffset, maxBytes: p.PartitionMaxBytes, epoch: p.CurrentLeaderEpoch,
			}
			if j, ok := at[target.key()]; ok {
				out[j] = target
				continue
			}
			at[target.key()] = len(out)
			out = append(out, target)
		}
	}
	return out
}

func (t *fetchTarget) key() sessionKey { return sessionKey{t.topic, t.id, t.partition} }

// change adds and updates the partitions that a request names, and forgets those that it says so of. The caller holds mu.
func (s *fetchSession) change(req *kmsg.FetchRequest) {
	for _, t := range targetsOf(req) {
		s.set(t, -1, -1)
	}
	for i := range req.ForgottenTopics {
		for _, p := range req.ForgottenTopics[i].Partitions {
			s.forget(sessionKey{req.ForgottenTopics[i].Topic, req.ForgottenTopics[i].TopicID, p})
		}
	}
}

// set keeps what was told of a partition that is known already.
func (s *fetchSession) set(t fetchTarget, highWatermark, logStart int64) {
	if e, ok := s.parts[t.key()]; ok {
		p := e.Value.(*sessionPartition)
		p.offset, p.maxBytes, p.epoch = t.offset, t.maxBytes, t.epoch
		return
	}
	s.parts[t.key()] = s.order.PushBack(&sessionPartition{fetchTarget: t, highWatermark: highWatermark, logStart: logStart})
	s.bytes += sessionCost(&t)
}

func (s *fetchSession) forget(k sessionKey) {
	if e, ok := s.parts[k]; ok {
		s.bytes -= sessionCost(&e.Value.(*sessionPartition).fetchTarget)
		s.order.Remove(e)
		delete(s.parts, k)
	}
}

func sessionCost(t *fetchTarget) int64 { return sessionPartitionBytes + int64(len(t.topic)) }

func (s *fetchSession) targets() []fetchTarget {
	out := make([]fetchTarget, 0, len(s.parts))
	for e := s.order.Front(); e != nil; e = e.Next() {
		out = append(out, e.Value.(*sessionPartition).fetchTarget)
	}
	return out
}

// end puts into the response what the client is to be told of the partitions that were fetched, got[i] being of targets[i], and returns
// the response's session ID and error.
func (f *sessionFetch) end(got []fetchedPartition, out *fetchReply) (int32, int16) {
	if f.session != nil {
		return f.endIncremental(got, out)
	}
	for i := range got {
		out.add(&f.targets[i], got[i])
	}
	if !f.create || len(got) == 0 {
		return 0, errNone
	}
	return f.cache.create(f, got), errNone
}

func (f *sessionFetch) endIncremental(got []fetchedPartition, out *fetchReply) (int32, int16) {
	s := f.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != f.epoch { // another request has come in between
		return s.id, errInvalidFetchSessionEpoch
	}
	for i := range got {
		e := s.parts[f.targets[i].key()]
		p := e.Value.(*sessionPartition)
		if !p.news(&f.targets[i], &got[i]) {
			continue
		}
		out.add(&f.targets[i], got[i])
		if len(got[i].batches) > 0 {
			s.order.MoveToBack(e)
		}
	}
	return s.id, errNone
}

// news says whether the client is to be told of the partition, and remembers that it was. An error is told every time, and
// what comes after it too.
func (p *sessionPartition) news(t *fetchTarget, got *fetchedPartition) bool {
	p.name, p.told = t.name, t.unknown != errNone
	news := len(got.batches) > 0 || got.highWatermark != p.highWatermark || got.logStart != p.logStart || got.errorCode != errNone
	p.highWatermark, p.logStart = got.highWatermark, got.logStart
	return news
}

// create makes a session of a fetch that was for all partitions, if there is room, and returns its ID; else 0.
func (c *sessionCache) create(f *sessionFetch, got []fetchedPartition) int32 {
	s := &fetchSession{byID: f.byID, epoch: epochNew + 1, parts: make(map[sessionKey]*list.Element, len(got)), order: list.New()}
	for i := range got {
		t := f.targets[i]
		t.told = t.unknown != errNone
		s.set(t, got[i].highWatermark, got[i].logStart)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.created = c.now()
	s.used, s.partitions, s.charged = s.created, len(s.parts), s.bytes
	if !c.makeRoom(s) {
		return 0
	}
	for s.id == 0 || c.sessions[s.id] != nil {
		s.id = rand.Int32()
	}
	c.sessions[s.id] = s
	c.bytes += s.charged
	return s.id
}

// makeRoom ends sessions for the sake of s, as far as they may be ended.
func (c *sessionCache) makeRoom(s *fetchSession) bool {
	if s.charged > c.maxBytes {
		return false
	}
	for len(c.sessions) >= c.slots || c.bytes+s.charged > c.maxBytes {
		victim := c.victim(s)
		if victim == nil {
			return false
		}
		c.removeLocked(victim)
	}
	return true
}

// victim is the session that makes room for s: the one that was not used for the longest time, if that is long enough; else the smallest of those
// that are old enough, if s is not smaller.
func (c *sessionCache) victim(s *fetchSession) *fetchSession {
	var oldest, smallest *fetchSession
	for _, other := range c.sessions {
		if oldest == nil || other.used.Before(oldest.used) {
			oldest = other
		}
		if s.created.Sub(other.created) > sessionEvictable && (smallest == nil || other.partitions < smallest.partitions) {
			smallest = other
		}
	}
	switch {
	case oldest != nil && s.created.Sub(oldest.used) > sessionEvictable:
		return oldest
	case smallest != nil && smallest.partitions <= s.partitions:
		return smallest
	}
	return nil
}

// touch notes that the session, whose mu the caller holds, is in use and how large it is now. It is false, and the session is
// no more, if that is too large.
func (c *sessionCache) touch(s *fetchSession) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[s.id] != s {
		return false
	}
	c.bytes += s.bytes - s.charged
	s.used, s.partitions, s.charged = c.now(), len(s.parts), s.bytes
	if c.bytes > c.maxBytes {
		c.removeLocked(s)
		return false
	}
	return true
}

func (c *sessionCache) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		c.removeLocked(s)
	}
}

func (c *sessionCache) removeLocked(s *fetchSession) {
	delete(c.sessions, s.id)
	c.bytes -= s.charged
}

// size is how many sessions there are, and what they take.
func (c *sessionCache) size() (sessions int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions), c.bytes
}
