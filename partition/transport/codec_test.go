package transport

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func testHeader(addr string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte("1-abc-2"), Addr: []byte(addr)}
}

// flatten gives a frame's bytes as they go over the wire.
func flatten(f *frame) []byte { return bytes.Join(f.bufs, nil) }

func roundTrip(t *testing.T, r *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	t.Helper()
	sums := func(index uint64, data []byte) (uint32, bool) { return crc32.Checksum(data, castagnoli), index%2 == 0 }
	f, err := encodeAppend(header{id: 4, group: 9, target: 77}, r, sums)
	if err != nil {
		t.Fatal(err)
	}
	h, payload, err := readFrame(bytes.NewReader(flatten(f)), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if h.kind != kindAppend || h.id != 4 || h.group != 9 || h.target != 77 {
		t.Fatalf("header %+v", h)
	}
	got, err := decodeAppend(payload)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAppendRoundTrip(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: servers("1", "2")})
	for range 300 {
		r := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 9, Leader: []byte("1"), PrevLogEntry: rng.Uint64N(1 << 40), PrevLogTerm: 2}
		if rng.IntN(4) == 0 {
			r.Leader = []byte("another")
		}
		for i := range rng.IntN(40) {
			l := &raft.Log{Index: r.PrevLogEntry + 1 + uint64(i), Term: 2 + uint64(i)/8, Type: raft.LogCommand}
			switch rng.IntN(5) {
			case 0:
				l.Type = raft.LogNoop
			case 1:
				l.Type, l.Data = raft.LogConfiguration, conf
			default:
				l.Data = randomBytes(rng, 2000)
				l.Extensions = randomBytes(rng, 700)
				l.AppendedAt = time.Unix(0, rng.Int64())
			}
			r.Entries = append(r.Entries, l)
		}
		r.LeaderCommitIndex = r.PrevLogEntry + uint64(len(r.Entries))
		if got := roundTrip(t, r); !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v\nwant %+v", got, r)
		}
	}
}

func randomBytes(rng *rand.Rand, most int) []byte {
	n := rng.IntN(most)
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestAppendRefusals(t *testing.T) {
	base := func() *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 3, PrevLogEntry: 10, PrevLogTerm: 2,
			Entries: []*raft.Log{{Index: 11, Term: 2, Data: []byte("a")}, {Index: 12, Term: 3, Data: []byte("b")}}}
	}
	t.Run("gap", func(t *testing.T) {
		r := base()
		r.Entries[1].Index = 13
		if _, err := encodeAppend(header{}, r, nil); err == nil {
			t.Error("a gap was encoded")
		}
	})
	for name, change := range map[string]func(*raft.AppendEntriesRequest){
		"unknown type":          func(r *raft.AppendEntriesRequest) { r.Entries[0].Type = 17 },
		"deprecated type":       func(r *raft.AppendEntriesRequest) { r.Entries[0].Type = raft.LogAddPeerDeprecated },
		"garbage configuration": func(r *raft.AppendEntriesRequest) { r.Entries[0].Type = raft.LogConfiguration },
		"term goes back":        func(r *raft.AppendEntriesRequest) { r.Entries[0].Term = 1 },
		"term of the future":    func(r *raft.AppendEntriesRequest) { r.Entries[1].Term = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			r := base()
			change(r)
			f, err := encodeAppend(header{}, r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeAppend(flatten(f)[headerSize:]); !errors.Is(err, errMalformed) {
				t.Errorf("decoded: %v", err)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	r := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 5, PrevLogEntry: 100, PrevLogTerm: 1, LeaderCommitIndex: 1000}
	sizes := []int{10, 900, 10, 5000, 10, 10, 400, 400, 400}
	for i, n := range sizes {
		r.Entries = append(r.Entries, &raft.Log{Index: 101 + uint64(i), Term: 1 + uint64(i)/3, Data: make([]byte, n)})
	}
	parts := split(r, 1000)
	if len(parts) < 3 {
		t.Fatalf("%d parts", len(parts))
	}
	next, term := r.PrevLogEntry, r.PrevLogTerm
	for i, p := range parts {
		if p.PrevLogEntry != next || p.PrevLogTerm != term {
			t.Errorf("part %d follows %d of term %d, expected %d of term %d", i, p.PrevLogEntry, p.PrevLogTerm, next, term)
		}
		if n := entryBytes(p.Entries); n > 1000 && len(p.Entries) > 1 || len(p.Entries) == 0 {
			t.Errorf("part %d: %d entries of %d bytes", i, len(p.Entries), n)
		}
		last := p.Entries[len(p.Entries)-1]
		next, term = last.Index, last.Term
	}
	if next != 100+uint64(len(sizes)) || len(r.Entries) != len(sizes) {
		t.Errorf("the parts end at %d; the request has %d entries left", next, len(r.Entries))
	}
}

func TestSmallMessages(t *testing.T) {
	h := testHeader("2")
	check := func(name string, e *encoder, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, want)
		}
	}
	e := &encoder{}
	vote := &raft.RequestVoteRequest{RPCHeader: h, Term: 4, Candidate: []byte("2"), LastLogIndex: 8, LastLogTerm: 3, LeadershipTransfer: true}
	e.voteRequest(vote)
	got, addr, err := decodeControl(kindVote, e.b)
	check("vote", e, got, vote, err)
	if string(addr) != "2" {
		t.Errorf("sender %q", addr)
	}
	got, _, err = decodeControl(kindPreVote, e.b)
	check("pre-vote", e, got, &raft.RequestPreVoteRequest{RPCHeader: h, Term: 4, LastLogIndex: 8, LastLogTerm: 3}, err)

	snap := &raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: 1, Term: 3, Leader: []byte("2"), LastLogIndex: 7, LastLogTerm: 2,
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers("1")}), ConfigurationIndex: 1, Size: 99}
	e = &encoder{}
	e.snapshotRequest(snap)
	sr, err := decodeSnapshotRequest(e.b, 100)
	check("snapshot", e, sr, snap, err)
	if _, err := decodeSnapshotRequest(e.b, 98); !errors.Is(err, errMalformed) {
		t.Errorf("a snapshot above the limit: %v", err)
	}

	reply := raft.AppendEntriesResponse{RPCHeader: h, Term: 4, LastLog: 12, Success: true, NoRetryBackoff: true}
	e = &encoder{}
	e.appendReply(&reply)
	var into raft.AppendEntriesResponse
	cl := newCall(kindAppendReply, &into)
	check("append reply", e, into, into, cl.decode(e.b))
	check("append reply", e, into, reply, nil)
	if err := cl.decode(e.b[:len(e.b)-1]); err == nil || into.Term != 4 {
		t.Errorf("a reply cut short: %v, %+v", err, into)
	}

	hello1 := hello{min: 1, max: 3, purpose: purposeCall, cluster: "c", from: "1", to: "2", pledged: "p"}
	body, err := readGreeting(bytes.NewReader(hello1.encode()))
	if err != nil {
		t.Fatal(err)
	}
	hello2, err := decodeHello(append(body, "more, from a later release"...))
	check("hello", e, hello2, hello1, err)
	hello2, err = decodeHello(body[:len(body)-len(hello1.pledged)-2]) // as the first releases send it
	hello1.pledged = ""
	check("hello without a pledge", e, hello2, hello1, err)
	w1 := welcome{refused: true, version: 2, cluster: "c", text: "why", pledged: "p"}
	body, err = readGreeting(bytes.NewReader(w1.encode()))
	if err != nil {
		t.Fatal(err)
	}
	w2, err := decodeWelcome(body)
	check("welcome", e, w2, w1, err)
}

func TestReadFrameChecks(t *testing.T) {
	good := flatten(bytesFrame(header{kind: kindCall, id: 1}, []byte("payload")))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, _, err := readFrame(bytes.NewReader(bad), 1<<16); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
	if _, _, err := readFrame(bytes.NewReader(good), 6); !errors.Is(err, errMalformed) {
		t.Errorf("a frame above the limit: %v", err)
	}
	if _, _, err := readFrame(bytes.NewReader(good[:len(good)-1]), 1<<16); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame cut short: %v", err)
	}
}

// testConn is a connection without goroutines, for feeding payloads to.
func testConn(t testing.TB, p purpose, dialled bool) *conn {
	tr := &Transport{log: quietLogger(), groups: map[GroupID]*Group{}, peers: map[raft.ServerAddress]*peer{}, start: time.Now(),
		inbound: map[inboundKey]*conn{}, raw: map[net.Conn]struct{}{}, handlers: map[Method]Handler{},
		queued:   window{maxCount: 10, maxBytes: 1 << 20},
		evidence: map[raft.ServerAddress]*evidence{}, closed: true}
	tr.ctx = context.Background()
	tr.cfg.MaxSnapshotBytes, tr.cfg.MaxFrameBytes, tr.cfg.HeartbeatWindow = 1<<20, 1<<20, time.Hour
	a, b := net.Pipe()
	c := newConn(tr, a, nil, "1", p, dialled)
	t.Cleanup(func() { b.Close(); c.fail(ErrClosed) })
	g := &Group{t: tr, id: 1, consumer: make(chan raft.RPC, 1), inflight: make(chan *served, 2), beats: make(chan beat, 1), running: true} // its queues are read here
	tr.groups[1] = g
	return c
}

// FuzzDispatch feeds frames to every kind of connection: nothing may panic, whatever the bytes.
func FuzzDispatch(f *testing.F) {
	req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 3, PrevLogEntry: 10, PrevLogTerm: 2, LeaderCommitIndex: 12,
		Entries: []*raft.Log{{Index: 11, Term: 2, Data: bytes.Repeat([]byte("a"), 600)},
			{Index: 12, Term: 3, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: servers("1")})}}}
	fr, err := encodeAppend(header{}, req, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(purposeData), uint8(kindAppend), false, flatten(fr)[headerSize:])
	e := &encoder{}
	e.voteRequest(&raft.RequestVoteRequest{RPCHeader: testHeader("1"), Term: 4})
	f.Add(uint8(purposeControl), uint8(kindVote), false, e.b)
	e = &encoder{}
	e.u32(1)
	for range 4 {
		e.u64(1)
	}
	e.names(testHeader("1"), []byte("1"))
	f.Add(uint8(purposeControl), uint8(kindHeartbeats), false, e.b)
	e = &encoder{}
	e.u32(2)
	e.u64(1)
	e.u16(codeOK)
	e.appendReply(&raft.AppendEntriesResponse{RPCHeader: testHeader("1")})
	e.u64(2)
	e.u16(codeBusy)
	e.str([]byte("busy"))
	f.Add(uint8(purposeControl), uint8(kindHeartbeatReplies), true, e.b)
	f.Add(uint8(purposeData), uint8(kindError), true, []byte{1, 0, 'x'})
	f.Add(uint8(purposeCall), uint8(kindCall), false, []byte("hello"))
	f.Fuzz(func(t *testing.T, p, k uint8, dialled bool, payload []byte) {
		c := testConn(t, purpose(p), dialled)
		var resp raft.AppendEntriesResponse
		if dialled {
			cl := newCall(kindAppendReply, &resp)
			if err := c.register(cl, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.dispatch(header{kind: kind(k), id: 1, group: 1}, payload)
		select {
		case rpc := <-c.t.groups[1].consumer:
			checkDelivered(t, rpc)
		default:
		}
	})
}

// checkDelivered verifies what raft relies on.
func checkDelivered(t *testing.T, rpc raft.RPC) {
	r, ok := rpc.Command.(*raft.AppendEntriesRequest)
	if !ok {
		return
	}
	if r.LeaderCommitIndex > r.PrevLogEntry+uint64(len(r.Entries)) {
		t.Fatalf("commit index %d beyond entry %d", r.LeaderCommitIndex, r.PrevLogEntry+uint64(len(r.Entries)))
	}
	for i, l := range r.Entries {
		if l.Index != r.PrevLogEntry+1+uint64(i) || l.Type > raft.LogConfiguration {
			t.Fatalf("entry %+v delivered", l)
		}
		if l.Type == raft.LogConfiguration {
			raft.DecodeConfiguration(l.Data)
		}
	}
}

// FuzzStream feeds raw bytes to what reads the start of a connection, frames, and snapshot requests.
func FuzzStream(f *testing.F) {
	f.Add(hello{min: 1, max: 1, purpose: purposeData, from: "1", to: "2"}.encode())
	f.Add(welcome{version: 1, cluster: "c"}.encode())
	f.Add(flatten(bytesFrame(header{kind: kindSnapshotData}, []byte("abc"))))
	e := &encoder{}
	e.snapshotRequest(&raft.InstallSnapshotRequest{RPCHeader: testHeader("1"), SnapshotVersion: 1,
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers("1")})})
	f.Add(e.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if body, err := readGreeting(bytes.NewReader(b)); err == nil {
			_, _ = decodeHello(body)
			_, _ = decodeWelcome(body)
		}
		_, _ = decodeSnapshotRequest(b, 1<<20)
		if h, payload, err := readFrame(bytes.NewReader(b), 1<<16); err == nil {
			_ = decodeError(h, payload)
		}
	})
}
