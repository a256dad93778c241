package transport

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// shelf is a log whose entries are read one by one; it counts what is read.
type shelf struct {
	size  int
	reads atomic.Int64
}

func (s *shelf) load(index uint64, out *raft.Log) error {
	s.reads.Add(1)
	*out = raft.Log{Index: index, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(index)}, s.size), Extensions: []byte("ext")}
	return nil
}

// request is one for n deferred entries behind another.
func (s *shelf) request(after uint64, n int, commit uint64) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 3, Leader: []byte("1"), PrevLogEntry: after, PrevLogTerm: 3, LeaderCommitIndex: commit}
	for i := range n {
		e := &raft.Log{Index: after + 1 + uint64(i), Term: 3, Type: raft.LogCommand}
		Defer(e, s.size+3)
		req.Entries = append(req.Entries, e)
	}
	return req
}

// takeAll answers a follower's requests, and returns the entries that came when the group is closed.
func takeAll(g *Group) (entries func() []*raft.Log) {
	var all []*raft.Log
	var mu sync.Mutex
	go func() {
		for {
			select {
			case rpc := <-g.Consumer():
				mu.Lock()
				all = append(all, rpc.Command.(*raft.AppendEntriesRequest).Entries...)
				mu.Unlock()
				rpc.Respond(success, nil)
			case <-g.closed:
				return
			}
		}
	}()
	return func() []*raft.Log {
		mu.Lock()
		defer mu.Unlock()
		return append([]*raft.Log(nil), all...)
	}
}

// Deferred entries arrive as they are on the leader's disk, by each of the ways that a request can take, and the request itself never holds their data.
func TestDeferredEntriesArrive(t *testing.T) {
	for name, far := range map[string]bool{"live": false, "catching up": true, "pipeline": false} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{size: 200 << 10}
			_, leader, follower := pair(t, GroupOptions{})
			leader.opts.Load = s.load
			got := takeAll(follower)
			const n = 30
			commit := uint64(n)
			if far {
				commit = 10000
			}
			send := func(req *raft.AppendEntriesRequest) {
				if name != "pipeline" {
					if err := leader.AppendEntries("2", "2", req, &raft.AppendEntriesResponse{}); err != nil {
						t.Error(err)
					}
					return
				}
				p, err := leader.AppendEntriesPipeline("2", "2")
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				f, err := p.AppendEntries(req, &raft.AppendEntriesResponse{})
				if err != nil {
					t.Fatal(err)
				}
				if f.Error() != nil {
					t.Error(f.Error())
				}
			}
			if name == "pipeline" { // it is only for groups that are not quiet
				send = func(next func(*raft.AppendEntriesRequest)) func(*raft.AppendEntriesRequest) {
					if err := leader.AppendEntries("2", "2", entry(0, 10), &raft.AppendEntriesResponse{}); err != nil {
						t.Fatal(err)
					}
					return next
				}(send)
			}
			sent := uint64(0)
			for sent < n {
				req := s.request(sent, n-int(sent), commit)
				send(req)
				if len(req.Entries) == 0 {
					t.Fatal("nothing was taken")
				}
				for _, e := range req.Entries {
					if len(e.Data) > 0 {
						t.Errorf("entry %d holds its data", e.Index)
					}
				}
				sent += uint64(len(req.Entries))
			}
			eventually(t, "all entries", func() bool { return len(got()) >= n })
			all := got()
			for i, e := range all[len(all)-n:] {
				var want raft.Log
				_ = s.load(uint64(i+1), &want)
				if e.Index != want.Index || e.Term != want.Term || !bytes.Equal(e.Data, want.Data) || string(e.Extensions) != "ext" {
					t.Errorf("entry %d: %d of term %d with %d bytes", i+1, e.Index, e.Term, len(e.Data))
				}
			}
		})
	}
}

// A hundred groups whose follower takes nothing off its connection hold no more than what fits into that, however much each of them has to send.
func TestDeferredEntriesAreBounded(t *testing.T) {
	s := &shelf{size: 1 << 20}
	_, leader, follower := pair(t, GroupOptions{}, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stuckConn{Conn: nc, room: 4 << 10, closed: make(chan struct{})}, nil
		}
	})
	const groups = 100
	var wg sync.WaitGroup
	var closers []*Group
	for i := range groups {
		lg, fg := groupPair(t, leader.t, follower.t, GroupID(10+i))
		lg.opts.Load = s.load
		closers = append(closers, lg, fg)
		for range 4 {
			wg.Go(func() {
				_ = lg.AppendEntries("2", "2", s.request(0, 64, 64), &raft.AppendEntriesResponse{})
			})
		}
	}
	last, same := int64(-1), 0
	eventually(t, "no more is read", func() bool {
		if now := s.reads.Load(); now != last || now == 0 {
			last, same = now, 0
		}
		same++
		return same > 50
	})
	// One MiB each: 16 that are read and not in the queue, 16 in the queue, and a frame that is one too many in each.
	if most := int64(40); s.reads.Load() > most {
		t.Errorf("%d MiB were read for one connection, and %d is the bound", s.reads.Load(), most)
	}
	for _, g := range closers {
		g.Close()
	}
	wg.Wait()
}

// An entry that has gone, or is another one by now, ends the request with an error, and the room that it took is free again.
func TestDeferredEntryGone(t *testing.T) {
	gone := errors.New("gone")
	s := &shelf{size: 100}
	_, leader, follower := pair(t, GroupOptions{})
	leader.opts.Load = func(i uint64, out *raft.Log) error {
		if i == 2 {
			return gone
		}
		err := s.load(i, out)
		if i == 5 {
			out.Term = 4
		}
		return err
	}
	takeAll(follower)
	for after, want := range map[uint64]error{0: gone, 1: gone, 4: nil} {
		err := leader.AppendEntries("2", "2", s.request(after, 3, 0), &raft.AppendEntriesResponse{})
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("behind %d: %v", after, err)
		}
	}
	if err := leader.AppendEntries("2", "2", s.request(10, 3, 0), &raft.AppendEntriesResponse{}); err != nil {
		t.Error(err)
	}
	c, err := leader.t.connTo("2", purposeData, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.loads.bytes != 0 || c.loads.count != 0 {
		t.Errorf("%d bytes, %d requests are still counted", c.loads.bytes, c.loads.count)
	}
}

// What a request's entries follow is read and verified once, unless it was the last of the request before; if it is of another term, nothing is sent.
func TestPreviousEntryIsProven(t *testing.T) {
	s := &shelf{size: 100}
	_, leader, follower := pair(t, GroupOptions{})
	var read []uint64
	leader.opts.Load = func(i uint64, out *raft.Log) error {
		read = append(read, i)
		err := s.load(i, out)
		if i == 50 {
			out.Term = 2
		}
		return err
	}
	takeAll(follower)
	for _, c := range []struct {
		after uint64
		n     int
		reads []uint64
		fails bool
	}{{10, 2, []uint64{10, 11, 12}, false}, {12, 1, []uint64{13}, false}, {12, 1, []uint64{12, 13}, false}, {50, 1, []uint64{50}, true}, {50, 1, []uint64{50}, true}, {0, 1, []uint64{1}, false}} {
		read = nil
		err := leader.AppendEntries("2", "2", s.request(c.after, c.n, 100), &raft.AppendEntriesResponse{})
		if (err != nil) != c.fails || !slices.Equal(read, c.reads) {
			t.Errorf("%d entries behind %d: %v was read, not %v; %v", c.n, c.after, read, c.reads, err)
		}
	}
}
