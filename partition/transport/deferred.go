package transport

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// Deferred entries.
//
// hashicorp/raft reads up to MaxAppendEntries entries for a follower, whatever their size, before it asks the transport to send them. With entries of 1 MiB, and a hundred
// followers that were away and come back, or are not there yet and are tried again and again, that would be gigabytes of memory. So a raft.LogStore may answer with entries whose
// data stays where it is (Defer), and the transport reads it (GroupOptions.Load) frame by frame, when a frame is about to be sent, and forgets it when that is in the connection's
// queue: per connection at most loadBytes, and what its queue holds.

// loadBytes bounds the data that is read for one connection and not yet in its queue. One frame always passes.
const loadBytes = 16 << 20

// deferMark begins the Extensions of a deferred entry; the size follows. Nothing here sets Extensions otherwise.
const deferMark = "\xf1otilla: deferred"

// Defer turns an entry into one whose size bytes of data, extensions included, are read later. Index, Term and Type stay.
func Defer(l *raft.Log, size int) {
	l.Data, l.Extensions = nil, binary.LittleEndian.AppendUint64([]byte(deferMark), uint64(size))
}

// deferred returns the size of a deferred entry.
func deferred(l *raft.Log) (size int, ok bool) {
	n := len(deferMark)
	if len(l.Data) > 0 || len(l.Extensions) != n+8 || string(l.Extensions[:n]) != deferMark {
		return 0, false
	}
	return int(binary.LittleEndian.Uint64(l.Extensions[n:])), true
}

// logBytes is the size of an entry's data and extensions, wherever they are.
func logBytes(l *raft.Log) int {
	if n, ok := deferred(l); ok {
		return n
	}
	return len(l.Data) + len(l.Extensions)
}

// load returns args with the data of all entries, and what to call once they are in the connection's queue. args is not changed: it lives until the answer comes.
func (g *Group) load(c *conn, args *raft.AppendEntriesRequest, stop <-chan struct{}) (full *raft.AppendEntriesRequest, release func(), err error) {
	if err := g.prove(args); err != nil {
		return nil, nil, err
	}
	full, release, err = g.loadEntries(c, args, stop)
	if n := len(args.Entries); err == nil && n > 0 {
		g.proven.set(args.Entries[n-1].Index, args.Entries[n-1].Term)
	}
	return full, release, err
}

// loadEntries is load without the entry before.
func (g *Group) loadEntries(c *conn, args *raft.AppendEntriesRequest, stop <-chan struct{}) (full *raft.AppendEntriesRequest, release func(), err error) {
	size := int64(0)
	for _, l := range args.Entries {
		if n, ok := deferred(l); ok {
			size += int64(n)
		}
	}
	if size == 0 {
		return args, func() {}, nil
	}
	if !c.loads.enter(size, c.done, stop) {
		if err := c.failure(); err != nil {
			return nil, nil, err
		}
		return nil, nil, errStopped
	}
	leave := func() { c.loads.leave(1, size) }
	loaded := false
	defer func() { // also when Load ends the goroutine, as a log does that is damaged
		if !loaded {
			leave()
		}
	}()
	whole := *args
	whole.Entries = make([]*raft.Log, len(args.Entries))
	for i, l := range args.Entries {
		if whole.Entries[i], err = g.loadEntry(l); err != nil {
			return nil, nil, err
		}
	}
	loaded = true
	return &whole, leave, nil
}

// proven is an entry whose term is known from more than a header.
type proven struct {
	mu          sync.Mutex
	index, term uint64
}

func (p *proven) is(index, term uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index == index && p.term == term
}

func (p *proven) set(index, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index, p.term = index, term
}

// prove makes sure of the term of the entry that a request's follow, by which a follower decides whether its log is the leader's: raft may have it from a header, which nothing verifies.
// Mostly it is the last entry of the request before.
func (g *Group) prove(args *raft.AppendEntriesRequest) error {
	if g.opts.Load == nil || args.PrevLogEntry == 0 || g.proven.is(args.PrevLogEntry, args.PrevLogTerm) {
		return nil
	}
	if _, err := g.read(args.PrevLogEntry, args.PrevLogTerm); err != nil {
		return err
	}
	g.proven.set(args.PrevLogEntry, args.PrevLogTerm)
	return nil
}

func (g *Group) loadEntry(l *raft.Log) (*raft.Log, error) {
	if _, ok := deferred(l); !ok {
		return l, nil
	}
	return g.read(l.Index, l.Term)
}

// read reads and verifies an entry that is to be of a term.
func (g *Group) read(index, term uint64) (*raft.Log, error) {
	e := new(raft.Log)
	if err := g.opts.Load(index, e); err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	if e.Term != term {
		return nil, fmt.Errorf("entry %d is of term %d, and was of term %d when it was to be sent", index, e.Term, term)
	}
	return e, nil
}
