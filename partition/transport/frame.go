package transport

import (
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record/crc"
)

// Every message is one frame: a header of 40 bytes and a payload. All numbers are little-endian.
//
//	 0        4        8    9    10     12         16           24        32        40
//	+--------+--------+----+----+------+----------+------------+---------+---------+-------------
//	| length | crc    |kind|flag| code | budgetMs | request id | group   | target  | payload ...
//	| u32    | u32    | u8 | u8 | u16  | u32      | u64        | u64     | u64     | length bytes
//	+--------+--------+----+----+------+----------+------------+---------+---------+-------------
//
// length counts the payload. crc is the CRC-32C of the header from offset 8 on and of the payload: TCP's own
// checksum is too weak for bytes that end up on disk as acknowledged data. code is a call's method, or an
// error's code. budgetMs is the time the caller will wait, 0 for no limit (calls only). A reply repeats the
// request's id and group. target names the replica that a Raft request is meant for: the FNV-1a hash of its server
// ID, 0 for any. flag is 0; a reader ignores bits that it does not know.
const headerSize = 40

const (
	maxName         = 1 << 12   // longest server ID or address, bytes
	maxErrorText    = 1 << 12   // longest error text sent, bytes
	maxControlFrame = 1 << 20   // longest payload on a control connection, bytes
	maxConfigBytes  = 1 << 20   // longest configuration entry, bytes
	snapshotChunk   = 256 << 10 // payload of one snapshot data frame, bytes
	pooledHead      = 64 << 10  // larger encode buffers are not kept
)

const (
	// flagLazy in a request says that its reply may wait for HeartbeatWindow.
	flagLazy = 1
	// flagPrompt in heartbeats says that their replies may not.
	flagPrompt = 2
)

type kind uint8

// The kinds of frames. The numbers are the protocol's.
const (
	kindAppend           kind = 1
	kindAppendReply      kind = 2
	kindVote             kind = 3
	kindVoteReply        kind = 4
	kindPreVote          kind = 5
	kindPreVoteReply     kind = 6
	kindTimeoutNow       kind = 7
	kindTimeoutNowReply  kind = 8
	kindHeartbeats       kind = 9
	kindHeartbeatReplies kind = 10
	kindCall             kind = 11
	kindCallReply        kind = 12
	kindCancel           kind = 13
	kindError            kind = 14
	kindSnapshot         kind = 15
	kindSnapshotData     kind = 16
	kindSnapshotReply    kind = 17
	kindClaims           kind = 18
	kindClaimsReply      kind = 19
)

// errMalformed marks bytes that no correct peer sends. The connection they came on is closed.
var errMalformed = errors.New("malformed frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	length   uint32
	crc      uint32
	kind     kind
	flags    uint8
	code     uint16
	budgetMs uint32
	id       uint64
	group    GroupID
	target   uint64
}

func (h *header) put(b []byte) {
	le.PutUint32(b[0:], h.length)
	le.PutUint32(b[4:], h.crc)
	b[8] = byte(h.kind)
	b[9] = h.flags
	le.PutUint16(b[10:], h.code)
	le.PutUint32(b[12:], h.budgetMs)
	le.PutUint64(b[16:], h.id)
	le.PutUint64(b[24:], uint64(h.group))
	le.PutUint64(b[32:], h.target)
}

func parseHeader(b []byte) header {
	return header{
		length: le.Uint32(b[0:]), crc: le.Uint32(b[4:]), kind: kind(b[8]), flags: b[9],
		code: le.Uint16(b[10:]), budgetMs: le.Uint32(b[12:]), id: le.Uint64(b[16:]), group: GroupID(le.Uint64(b[24:])),
		target: le.Uint64(b[32:]),
	}
}

// serverHash is a server ID on the wire: FNV-1a, 64 bits, 0 for no ID.
func serverHash(id raft.ServerID) uint64 {
	if id == "" {
		return 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(id))
	return h.Sum64()
}

// frame is one encoded message on its way out. bufs[0] begins with the header; later elements may be slices
// of raft's own entries, which nobody changes.
type frame struct {
	bufs   [][]byte
	size   int
	pooled *[]byte
	lazy   bool // may wait for HeartbeatWindow, to share a write with others
}

var headPool = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// newEncoder returns an encoder over a pooled buffer with room for the header and n bytes of payload.
func newEncoder(n int) (*encoder, *[]byte) {
	p := headPool.Get().(*[]byte)
	if cap(*p) < headerSize+n {
		*p = make([]byte, 0, headerSize+n)
	}
	return &encoder{b: (*p)[:headerSize]}, p
}

// seal turns an encoder's whole buffer into a frame.
func seal(h header, e *encoder, pooled *[]byte) *frame {
	*pooled = e.b
	return sealParts(h, [][]byte{e.b}, nil, pooled)
}

// knownSum is the CRC-32C of one of a frame's buffers.
type knownSum struct {
	buf int
	sum uint32
}

// sumMin is from which size on it is quicker to look for the CRC of an entry's data than to compute it.
const sumMin = 2 << 10

// sealParts fills in the header at the start of bufs[0]. known are CRCs of some of the other buffers, in order, which are then not read: what the receiver verifies is
// that their bytes are those that the CRC is of.
func sealParts(h header, bufs [][]byte, known []knownSum, pooled *[]byte) *frame {
	f := &frame{bufs: bufs, pooled: pooled}
	for _, b := range bufs {
		f.size += len(b)
	}
	h.length = uint32(f.size - headerSize)
	h.put(bufs[0])
	h.crc = crc32.Checksum(bufs[0][8:], castagnoli)
	for i, b := range bufs[1:] {
		if len(known) > 0 && known[0].buf == i+1 {
			h.crc = crc.Combine(h.crc, known[0].sum, len(b))
			known = known[1:]
			continue
		}
		h.crc = crc32.Update(h.crc, castagnoli, b)
	}
	le.PutUint32(bufs[0][4:], h.crc)
	return f
}

// release gives the head buffer back after the frame was written or dropped.
func (f *frame) release() {
	if f.pooled != nil && cap(*f.pooled) <= pooledHead {
		*f.pooled = (*f.pooled)[:0]
		headPool.Put(f.pooled)
	}
	f.pooled, f.bufs = nil, nil // a frame itself is not reused
}

// emptyFrame encodes a message without payload.
func emptyFrame(h header) *frame {
	e, p := newEncoder(0)
	return seal(h, e, p)
}

// bytesFrame encodes a message whose payload is a copy of b.
func bytesFrame(h header, b []byte) *frame {
	e, p := newEncoder(len(b))
	e.b = append(e.b, b...)
	return seal(h, e, p)
}

// readFrame reads one frame whose payload is at most limit bytes. The payload is a fresh slice that the
// caller owns. It returns an error wrapping errMalformed for anything but an I/O error.
func readFrame(r io.Reader, limit int) (header, []byte, error) {
	var raw [headerSize]byte
	if _, err := io.ReadFull(r, raw[:]); err != nil {
		return header{}, nil, err
	}
	h := parseHeader(raw[:])
	if int64(h.length) > int64(limit) {
		return h, nil, fmt.Errorf("%w: payload of %d bytes, at most %d are allowed here", errMalformed, h.length, limit)
	}
	payload := uncleared(int(h.length))
	if _, err := io.ReadFull(r, payload); err != nil {
		return h, nil, noEOF(err)
	}
	sum := crc32.Update(crc32.Checksum(raw[8:], castagnoli), castagnoli, payload)
	if sum != h.crc {
		return h, nil, fmt.Errorf("%w: checksum %08x, expected %08x", errMalformed, sum, h.crc)
	}
	return h, payload, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
