package transport

import (
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// The payloads. "names" below is: protocol version u8, bits u8 (1: Leader equals Addr and is left out), ID
// str, Addr str, Leader str unless left out; str is a length u16 and the bytes.
//
//	append        term u64, prev index u64, prev term u64, commit u64, count u32, names,
//	              count x { term u64, appended at i64 (ns), type u8, bits u8 (1: time is set), 0 u16,
//	                        extensions length u32, data length u32 },
//	              count x { extensions, data }           entry i has index prev+1+i
//	append reply  term u64, last log u64, bits u8 (1: success, 2: no retry back-off), names
//	vote          term u64, last index u64, last term u64, bits u8 (1: leadership transfer), names
//	vote reply    term u64, bits u8 (1: granted), names    (pre-vote and its reply alike)
//	timeout now   names                                    (and its reply)
//	heartbeats    count u32, count x { id u64, group u64, target u64, term u64, names }
//	    replies   count u32, count x { id u64, code u16, then an append reply, or with code != 0 text str }
//	call          the caller's bytes                       (and its reply)
//	cancel        nothing
//	error         application code u16, text
//	snapshot      version u8, term u64, last index u64, last term u64, configuration index u64, size u64, names,
//	              configuration (to the end)
//	snapshot data up to 256 KiB of the snapshot, until size is reached
//	    reply     term u64, bits u8 (1: success), names
const (
	appendFixed   = 8*4 + 4
	entryFixed    = 8 + 8 + 1 + 1 + 2 + 4 + 4
	inlineBelow   = 512 // entry data shorter than this is copied beside the table instead of taking an iovec
	bitSameLeader = 1
	bitHasTime    = 1
	bitSuccess    = 1
	bitNoBackoff  = 2
)

func (e *encoder) names(h raft.RPCHeader, leader []byte) {
	e.u8(uint8(h.ProtocolVersion))
	same := string(leader) == string(h.Addr)
	e.u8(bit(same, bitSameLeader))
	e.str(h.ID)
	e.str(h.Addr)
	if !same {
		e.str(leader)
	}
}

func (d *decoder) names() (h raft.RPCHeader, leader []byte) {
	h.ProtocolVersion = raft.ProtocolVersion(d.u8())
	bits := d.u8()
	h.ID = d.str()
	h.Addr = d.str()
	if bits&bitSameLeader != 0 {
		return h, h.Addr
	}
	return h, d.str()
}

func namesSize(h raft.RPCHeader, leader []byte) int {
	return 8 + len(h.ID) + len(h.Addr) + len(leader)
}

// checkNames refuses names that do not fit their length field.
func checkNames(names ...[]byte) error {
	for _, n := range names {
		if len(n) > maxName {
			return fmt.Errorf("name of %d bytes: %w", len(n), ErrTooLarge)
		}
	}
	return nil
}

func bit(on bool, b uint8) uint8 {
	if on {
		return b
	}
	return 0
}

// isHeartbeat tells raft's heartbeat() requests from replication, as raft's own transport does. Only these may take
// the path past the log: they verify no log position, so they say nothing about commitment.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.Term != 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}

// clampCommit bounds the commit index by the last entry that the request itself vouches for.
func clampCommit(commit, prev uint64, entries int) uint64 { return min(commit, prev+uint64(entries)) }

// payloadSums knows the CRC-32C of an entry's data without reading it, or does not.
type payloadSums func(index uint64, data []byte) (sum uint32, known bool)

// encodeAppend encodes a request, referring to large entry data instead of copying it. sums may be nil.
func encodeAppend(h header, r *raft.AppendEntriesRequest, sums payloadSums) (*frame, error) {
	if err := checkEntries(r); err != nil {
		return nil, err
	}
	e, pooled := newEncoder(appendHeadSize(r))
	e.appendHead(r)
	bufs := make([][]byte, 0, 8)
	known := make([]knownSum, 0, 8)
	start := 0
	for _, l := range r.Entries {
		for _, piece := range [2][]byte{l.Extensions, l.Data} {
			if len(piece) < inlineBelow {
				e.b = append(e.b, piece...)
				continue
			}
			if start < len(e.b) {
				bufs = append(bufs, e.b[start:len(e.b):len(e.b)])
			}
			if sums != nil && len(piece) >= sumMin {
				if sum, ok := sums(l.Index, piece); ok {
					known = append(known, knownSum{len(bufs), sum})
				}
			}
			bufs = append(bufs, piece)
			start = len(e.b)
		}
	}
	if start < len(e.b) {
		bufs = append(bufs, e.b[start:])
	}
	*pooled = e.b
	h.kind = kindAppend
	return sealParts(h, bufs, known, pooled), nil
}

// appendHeadSize is exact, so that the head never moves while slices of it are in bufs.
func appendHeadSize(r *raft.AppendEntriesRequest) int {
	n := appendFixed + namesSize(r.RPCHeader, r.Leader) + len(r.Entries)*entryFixed
	for _, l := range r.Entries {
		if len(l.Extensions) < inlineBelow {
			n += len(l.Extensions)
		}
		if len(l.Data) < inlineBelow {
			n += len(l.Data)
		}
	}
	return n
}

func (e *encoder) appendHead(r *raft.AppendEntriesRequest) {
	e.u64(r.Term)
	e.u64(r.PrevLogEntry)
	e.u64(r.PrevLogTerm)
	e.u64(clampCommit(r.LeaderCommitIndex, r.PrevLogEntry, len(r.Entries)))
	e.u32(uint32(len(r.Entries)))
	e.names(r.RPCHeader, r.Leader)
	for _, l := range r.Entries {
		e.entry(l)
	}
}

func (e *encoder) entry(l *raft.Log) {
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	e.u64(l.Term)
	e.u64(uint64(at))
	e.u8(uint8(l.Type))
	e.u8(bit(!l.AppendedAt.IsZero(), bitHasTime))
	e.u16(0)
	e.u32(uint32(len(l.Extensions)))
	e.u32(uint32(len(l.Data)))
}

// checkEntries verifies what the format relies on: indexes that follow the previous entry without a gap.
func checkEntries(r *raft.AppendEntriesRequest) error {
	for i, l := range r.Entries {
		if want := r.PrevLogEntry + 1 + uint64(i); l.Index != want {
			return fmt.Errorf("append entries: entry %d has index %d, expected %d", i, l.Index, want)
		}
		if len(l.Data) > math.MaxInt32 || len(l.Extensions) > math.MaxInt32 {
			return fmt.Errorf("append entries: entry %d: %w", l.Index, ErrTooLarge)
		}
	}
	return checkNames(r.ID, r.Addr, r.Leader)
}

// decodeAppend decodes and checks a request. Its entries alias b. The commit index is clamped again: a peer
// of another version may not have done it.
func decodeAppend(b []byte) (*raft.AppendEntriesRequest, error) {
	d := &decoder{b: b}
	r := &raft.AppendEntriesRequest{Term: d.u64(), PrevLogEntry: d.u64(), PrevLogTerm: d.u64(), LeaderCommitIndex: d.u64()}
	count := d.u32()
	r.RPCHeader, r.Leader = d.names()
	if int64(count)*entryFixed > int64(len(d.b)) {
		d.fail("%d entries do not fit into %d bytes", count, len(d.b))
	}
	if d.err != nil {
		return nil, d.err
	}
	if r.PrevLogEntry > math.MaxUint64-uint64(count) {
		d.fail("indexes overflow after %d", r.PrevLogEntry)
		return nil, d.err
	}
	d.entries(r, int(count))
	if err := d.end(); err != nil {
		return nil, err
	}
	r.LeaderCommitIndex = clampCommit(r.LeaderCommitIndex, r.PrevLogEntry, len(r.Entries))
	return r, nil
}

// entries reads the table and the data. Two allocations serve all entries of a frame.
func (d *decoder) entries(r *raft.AppendEntriesRequest, count int) {
	if count == 0 {
		return
	}
	table := &decoder{b: d.take(count * entryFixed)}
	logs := make([]raft.Log, count)
	r.Entries = make([]*raft.Log, count)
	last := r.PrevLogTerm
	for i := range logs {
		l := &logs[i]
		l.Index = r.PrevLogEntry + 1 + uint64(i)
		d.oneEntry(table, l)
		if d.err != nil {
			return
		}
		if l.Term < last || l.Term > r.Term {
			d.fail("entry %d has term %d after term %d in a request of term %d", l.Index, l.Term, last, r.Term)
			return
		}
		last = l.Term
		r.Entries[i] = l
	}
}

func (d *decoder) oneEntry(table *decoder, l *raft.Log) {
	l.Term = table.u64()
	at := int64(table.u64())
	l.Type = raft.LogType(table.u8())
	if table.u8()&bitHasTime != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	table.u16()
	ext, data := table.u32(), table.u32()
	l.Extensions = d.piece(ext)
	l.Data = d.piece(data)
	if d.err != nil {
		return
	}
	if err := checkEntry(l); err != nil {
		d.fail("entry %d: %v", l.Index, err)
	}
}

func (d *decoder) piece(n uint32) []byte {
	if n == 0 {
		return nil
	}
	return d.take(int(n))
}

// checkEntry refuses what raft would panic on.
func checkEntry(l *raft.Log) error {
	switch l.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		return checkConfiguration(l.Data)
	}
	return fmt.Errorf("unknown entry type %d", l.Type)
}

// checkConfiguration verifies that raft.DecodeConfiguration, which panics on bad bytes, accepts b.
func checkConfiguration(b []byte) (err error) {
	if len(b) > maxConfigBytes {
		return fmt.Errorf("configuration of %d bytes", len(b))
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("undecodable configuration: %v", p)
		}
	}()
	raft.DecodeConfiguration(b)
	return nil
}

func (e *encoder) appendReply(r *raft.AppendEntriesResponse) {
	e.u64(r.Term)
	e.u64(r.LastLog)
	e.u8(bit(r.Success, bitSuccess) | bit(r.NoRetryBackoff, bitNoBackoff))
	e.names(r.RPCHeader, r.Addr)
}

func (d *decoder) appendReply() (r raft.AppendEntriesResponse) {
	r.Term = d.u64()
	r.LastLog = d.u64()
	bits := d.u8()
	r.Success = bits&bitSuccess != 0
	r.NoRetryBackoff = bits&bitNoBackoff != 0
	r.RPCHeader, _ = d.names()
	return r
}

func (e *encoder) voteRequest(r *raft.RequestVoteRequest) {
	e.u64(r.Term)
	e.u64(r.LastLogIndex)
	e.u64(r.LastLogTerm)
	e.u8(bit(r.LeadershipTransfer, 1))
	e.names(r.RPCHeader, r.Candidate)
}

func (d *decoder) voteRequest() *raft.RequestVoteRequest {
	r := &raft.RequestVoteRequest{Term: d.u64(), LastLogIndex: d.u64(), LastLogTerm: d.u64()}
	r.LeadershipTransfer = d.u8()&1 != 0
	r.RPCHeader, r.Candidate = d.names()
	return r
}

func (d *decoder) preVoteRequest() *raft.RequestPreVoteRequest {
	v := d.voteRequest()
	return &raft.RequestPreVoteRequest{RPCHeader: v.RPCHeader, Term: v.Term, LastLogIndex: v.LastLogIndex, LastLogTerm: v.LastLogTerm}
}

func (e *encoder) voteReply(h raft.RPCHeader, term uint64, granted bool) {
	e.u64(term)
	e.u8(bit(granted, 1))
	e.names(h, h.Addr)
}

func (d *decoder) voteReply() (h raft.RPCHeader, term uint64, granted bool) {
	term = d.u64()
	granted = d.u8()&1 != 0
	h, _ = d.names()
	return h, term, granted
}

func (e *encoder) snapshotRequest(r *raft.InstallSnapshotRequest) {
	e.u8(uint8(r.SnapshotVersion))
	e.u64(r.Term)
	e.u64(r.LastLogIndex)
	e.u64(r.LastLogTerm)
	e.u64(r.ConfigurationIndex)
	e.u64(uint64(r.Size))
	e.names(r.RPCHeader, r.Leader)
	e.b = append(e.b, r.Configuration...)
}

// decodeSnapshotRequest refuses snapshot version 0, whose peers would come in a format that nobody writes.
func decodeSnapshotRequest(b []byte, maxBytes int64) (*raft.InstallSnapshotRequest, error) {
	d := &decoder{b: b}
	r := &raft.InstallSnapshotRequest{SnapshotVersion: raft.SnapshotVersion(d.u8()), Term: d.u64(),
		LastLogIndex: d.u64(), LastLogTerm: d.u64(), ConfigurationIndex: d.u64(), Size: int64(d.u64())}
	r.RPCHeader, r.Leader = d.names()
	r.Configuration = d.b
	if d.err == nil && (r.SnapshotVersion < 1 || r.SnapshotVersion > raft.SnapshotVersionMax) {
		d.fail("snapshot version %d", r.SnapshotVersion)
	}
	if d.err == nil && (r.Size < 0 || r.Size > maxBytes) {
		d.fail("snapshot of %d bytes, at most %d are allowed", r.Size, maxBytes)
	}
	if d.err == nil {
		if err := checkConfiguration(r.Configuration); err != nil {
			d.fail("snapshot: %v", err)
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return r, nil
}
