package transport

import (
	"encoding/binary"
	"fmt"

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

func (g *Group) loadEntry(l *raft.Log) (*raft.Log, error) {
	if _, ok := deferred(l); !ok {
		return l, nil
	}
	e := new(raft.Log)
	if err := g.opts.Load(l.Index, e); err != nil {
		return nil, fmt.Errorf("entry %d: %w", l.Index, err)
	}
	if e.Term != l.Term {
		return nil, fmt.Errorf("entry %d is of term %d, and was of term %d when it was to be sent", l.Index, e.Term, l.Term)
	}
	return e, nil
}
