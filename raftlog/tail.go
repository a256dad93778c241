package raftlog

import (
	"sort"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// tailOverhead is what an entry in the cache costs besides its bytes.
const tailOverhead = 160

// tailEntry is a cached entry; after > before if it is an accepted batch.
type tailEntry struct {
	log           raft.Log
	before, after record.Offset
	sum           uint32 // CRC of log.Data as it was written; 0: not known
}

func (e *tailEntry) cost() int64 {
	return tailOverhead + int64(len(e.log.Data)) + int64(len(e.log.Extensions))
}

// tailCache keeps the newest entries, without gaps, up to a number of bytes. Log.mu guards it.
type tailCache struct {
	limit   int64
	bytes   int64
	entries []tailEntry // oldest first; those before head are gone
	head    int
}

func (t *tailCache) live() []tailEntry { return t.entries[t.head:] }

// add appends the entry after the newest one. One above the limit empties the cache: it is read from the page cache instead.
func (t *tailCache) add(e tailEntry) {
	cost := e.cost()
	if cost > t.limit {
		t.clear()
		return
	}
	for t.bytes+cost > t.limit {
		t.dropOldest()
	}
	if t.head > 32 && t.head*2 > len(t.entries) {
		t.compact()
	}
	t.entries = append(t.entries, e)
	t.bytes += cost
}

func (t *tailCache) dropOldest() {
	e := &t.entries[t.head]
	t.bytes -= e.cost()
	*e = tailEntry{} // let go of the bytes
	t.head++
}

func (t *tailCache) compact() {
	n := copy(t.entries, t.entries[t.head:])
	clear(t.entries[n:])
	t.entries, t.head = t.entries[:n], 0
}

func (t *tailCache) clear() { t.entries, t.head, t.bytes = nil, 0, 0 }

// get returns an entry, or nil if it is not cached.
func (t *tailCache) get(i Index) *tailEntry {
	live := t.live()
	if len(live) == 0 || i < Index(live[0].log.Index) || i > Index(live[len(live)-1].log.Index) {
		return nil
	}
	return &live[i-Index(live[0].log.Index)]
}

// truncate drops the entries above last.
func (t *tailCache) truncate(last Index) {
	for n := len(t.entries); n > t.head && Index(t.entries[n-1].log.Index) > last; n-- {
		t.bytes -= t.entries[n-1].cost()
		t.entries[n-1] = tailEntry{}
		t.entries = t.entries[:n-1]
	}
}

// dropUpTo drops the entries up to an index.
func (t *tailCache) dropUpTo(i Index) {
	for len(t.live()) > 0 && Index(t.live()[0].log.Index) <= i {
		t.dropOldest()
	}
}

// covers says whether every batch from an offset on is cached.
func (t *tailCache) covers(from record.Offset) bool {
	live := t.live()
	return len(live) > 0 && live[0].before <= from
}

// read collects accepted batches with offsets in [from, limit), at least one if there is one.
func (t *tailCache) read(from, limit record.Offset, maxBytes int) ReadResult {
	live := t.live()
	res := ReadResult{Next: from}
	for i := sort.Search(len(live), func(k int) bool { return live[k].after > from }); i < len(live); i++ {
		e := &live[i]
		if e.after == e.before {
			continue
		}
		if !res.take(e.log.Data, e.after, limit, maxBytes) {
			break
		}
	}
	return res
}

// take adds a batch if it fits; false ends the read.
func (r *ReadResult) take(batch []byte, after, limit record.Offset, maxBytes int) bool {
	if after > limit || (len(r.Batches) > 0 && r.Bytes+len(batch) > maxBytes) {
		return false
	}
	r.Batches = append(r.Batches, batch)
	r.Bytes += len(batch)
	r.Next = after
	return r.Bytes < maxBytes
}
