package transport

import (
	"fmt"
	"hash/crc32"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// staleFollower starts broker 2's raft with the log
//
//	index  1 (configuration)  2    3    4        5
//	term   1                  1    1    2        2
//	data                      a    b    stale-4  stale-5
//
// where 4 and 5 never reached a quorum: the leader of term 3 has other entries there.
func staleFollower(t *testing.T, tr raft.Transport) (*recordFSM, *raft.InmemStore) {
	t.Helper()
	cfg := raftConfig("2")
	store, snaps, fsm := raft.NewInmemStore(), raft.NewInmemSnapshotStore(), &recordFSM{}
	conf := raft.Configuration{Servers: servers("1", "2", "3")}
	if err := raft.BootstrapCluster(cfg, store, store, snaps, tr, conf); err != nil {
		t.Fatal(err)
	}
	for i, data := range []string{"a", "b", "stale-4", "stale-5"} {
		if err := store.StoreLog(&raft.Log{Index: uint64(i + 2), Term: uint64(1 + i/2), Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(cfg, fsm, store, store, snaps, tr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	})
	return fsm, store
}

// shortened is a request of the leader of term 3, whose log goes on to index 6, all committed, but whose entries were
// cut after index 3, which the follower has.
func shortened() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 3, Leader: []byte("1"), PrevLogEntry: 2, PrevLogTerm: 1,
		Entries: []*raft.Log{{Index: 3, Term: 1, Data: []byte("b")}}, LeaderCommitIndex: 6}
}

// rest is what follows it.
func rest() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 3, Leader: []byte("1"), PrevLogEntry: 3, PrevLogTerm: 1,
		Entries:           []*raft.Log{{Index: 4, Term: 3, Data: []byte("d")}, {Index: 5, Term: 3, Data: []byte("e")}, {Index: 6, Term: 3, Data: []byte("f")}},
		LeaderCommitIndex: 6}
}

func commands(f *recordFSM) (out []string) {
	for _, c := range f.applied() {
		out = append(out, string(c))
	}
	return out
}

// What the clamping is for: over raft's own transport, the follower commits and applies entries that no quorum had.
func TestUnclampedCommitAppliesStaleEntries(t *testing.T) {
	addr, tr := raft.NewInmemTransport("2")
	fsm, _ := staleFollower(t, tr)
	_, leader := raft.NewInmemTransport("1")
	leader.Connect(addr, tr)
	var resp raft.AppendEntriesResponse
	if err := leader.AppendEntries("2", addr, shortened(), &resp); err != nil || !resp.Success {
		t.Fatalf("%+v, %v", resp, err)
	}
	want := []string{"a", "b", "stale-4", "stale-5"}
	eventually(t, "stale entries applied", func() bool { return len(fsm.applied()) == len(want) })
	if got := commands(fsm); !reflect.DeepEqual(got, want) {
		t.Fatalf("applied %q: raft has changed; is the clamping still needed?", got)
	}
}

func TestCommitIsClamped(t *testing.T) {
	for name, send := range map[string]func(*testing.T, *fleet, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse){
		"by the sender":   sendByGroup,
		"by the receiver": sendUnclamped,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			follower := f.start("2")
			fsm, store := staleFollower(t, f.group(follower, 1, GroupOptions{}))
			var resp raft.AppendEntriesResponse
			send(t, f, shortened(), &resp)
			if !resp.Success || resp.LastLog != 5 {
				t.Fatalf("first response %+v", resp)
			}
			send(t, f, rest(), &resp)
			if !resp.Success {
				t.Fatalf("second response %+v", resp)
			}
			want := []string{"a", "b", "d", "e", "f"}
			eventually(t, "all applied", func() bool { return len(fsm.applied()) >= len(want) })
			if got := commands(fsm); !reflect.DeepEqual(got, want) {
				t.Errorf("applied %q", got)
			}
			var l raft.Log
			if err := store.GetLog(4, &l); err != nil || l.Term != 3 {
				t.Errorf("entry 4 in the log: %+v, %v", l, err)
			}
		})
	}
}

func sendByGroup(t *testing.T, f *fleet, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	t.Helper()
	leader := f.start("1")
	defer leader.Close()
	if err := f.group(leader, 1, GroupOptions{}).AppendEntries("2", "2", req, resp); err != nil {
		t.Fatal(err)
	}
}

// sendUnclamped speaks the protocol by hand, as a peer that does not clamp.
func sendUnclamped(t *testing.T, f *fleet, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	t.Helper()
	commit := req.LeaderCommitIndex
	fr, err := encodeAppend(header{id: 1, group: 1}, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw := flatten(fr)
	le.PutUint64(raw[headerSize+3*8:], commit)
	le.PutUint32(raw[4:], crc32.Checksum(raw[8:], castagnoli))
	nc := f.rawDial(t, "2", hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "2"})
	if _, err := nc.Write(raw); err != nil {
		t.Fatal(err)
	}
	h, payload, err := readFrame(nc, 1<<20)
	if err != nil || h.kind != kindAppendReply {
		t.Fatalf("kind %d, %v", h.kind, err)
	}
	cl := newCall(kindAppendReply, resp)
	if err := cl.decode(payload); err != nil {
		t.Fatal(err)
	}
}

// rawDial connects to a transport and shakes hands without one of its own.
func (f *fleet) rawDial(t testing.TB, to raft.ServerAddress, h hello) net.Conn {
	t.Helper()
	nc := f.rawConn(t, to)
	if _, err := nc.Write(h.encode()); err != nil {
		t.Fatal(err)
	}
	body, err := readGreeting(nc)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := decodeWelcome(body); err != nil || w.refused {
		t.Fatalf("%+v, %v", w, err)
	}
	return nc
}

func (f *fleet) rawConn(t testing.TB, to raft.ServerAddress) net.Conn {
	t.Helper()
	addr, err := f.resolve(to)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc
}

// Outside a pipeline a request is shortened in place, because raft looks at what is left of it to see how far it came.
func TestShortenedInPlace(t *testing.T) {
	f := newFleet(t)
	follower, leader := f.start("2"), f.start("1", func(c *Config) { c.MaxAppendBytes = 1000 })
	fg, lg := f.group(follower, 1, GroupOptions{}), f.group(leader, 1, GroupOptions{})
	req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 1, Leader: []byte("1"), LeaderCommitIndex: 10}
	for i := range 10 {
		req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, 300)})
	}
	answered := make(chan *raft.AppendEntriesRequest, 1)
	go func() {
		rpc := <-fg.Consumer()
		got := rpc.Command.(*raft.AppendEntriesRequest)
		answered <- got
		rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true, LastLog: uint64(len(got.Entries))}, nil)
	}()
	var resp raft.AppendEntriesResponse
	if err := lg.AppendEntries("2", "2", req, &resp); err != nil {
		t.Fatal(err)
	}
	got := <-answered
	if len(got.Entries) != 3 || len(req.Entries) != 3 || got.LeaderCommitIndex != 3 {
		t.Errorf("%d entries sent, %d left in the request, commit index %d; expected 3 each", len(got.Entries), len(req.Entries), got.LeaderCommitIndex)
	}
}

// Inside a pipeline it travels whole, in parts; the first refusal is the answer.
func TestPipelineSplits(t *testing.T) {
	for _, refuse := range []int{-1, 0, 2, 4} {
		t.Run(fmt.Sprint("refused part ", refuse), func(t *testing.T) {
			f := newFleet(t)
			follower, leader := f.start("2"), f.start("1", func(c *Config) { c.MaxAppendBytes = 700 })
			fg, lg := f.group(follower, 1, GroupOptions{}), f.group(leader, 1, GroupOptions{MaxInflight: 2})
			req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 1, Leader: []byte("1"), LeaderCommitIndex: 10}
			for i := range 10 {
				req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, 300)})
			}
			go func() {
				for part := range 5 {
					rpc := <-fg.Consumer()
					got := rpc.Command.(*raft.AppendEntriesRequest)
					if got.PrevLogEntry != uint64(2*part) || len(got.Entries) != 2 {
						t.Errorf("part %d: %d entries after %d", part, len(got.Entries), got.PrevLogEntry)
					}
					bad := refuse >= 0 && part >= refuse
					rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: !bad, LastLog: uint64(part)}, nil)
				}
			}()
			p, err := lg.AppendEntriesPipeline("2", "2")
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			future, err := p.AppendEntries(req, &raft.AppendEntriesResponse{})
			if err != nil {
				t.Fatal(err)
			}
			if ready := <-p.Consumer(); ready != future || ready.Error() != nil {
				t.Fatalf("%v, %v", ready, ready.Error())
			}
			want := uint64(4)
			if refuse >= 0 {
				want = uint64(refuse)
			}
			if r := future.Response(); r.Success != (refuse < 0) || r.LastLog != want || len(req.Entries) != 10 {
				t.Errorf("response %+v, %d entries in the request", r, len(req.Entries))
			}
		})
	}
}

// The sender clamps by itself, for the sake of receivers that do not.
func TestSenderClamps(t *testing.T) {
	f, err := encodeAppend(header{}, shortened(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := le.Uint64(flatten(f)[headerSize+3*8:]); got != 3 {
		t.Errorf("commit index %d on the wire, the request vouches for 3", got)
	}
}
