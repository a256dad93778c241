package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// stateVersion is the format of the state inside a checkpoint:
//
//	u8       1, the version
//	uvarint  next offset
//	uvarint  log start
//	uvarint  clock, ns since 1970
//	uvarint  clock at the newest accepted batch, ns since 1970
//	uvarint  writing clock, ns
//	u64le    digest
//	uvarint  index up to which a machine group was trimmed
//	uvarint  number of producers, each, the one unheard of for longest first:
//	           varint ID, varint epoch, uvarint writing clock at its newest batch, u8 number of batches, each, oldest first:
//	             uvarint base offset, uvarint base sequence, uvarint records, varint max timestamp
//	uvarint  length of the Machine's state + 1, or 0 if the group has none; then that state
//
// Index, term, configuration and a CRC are in the checkpoint around it (package raftlog).
const stateVersion = 1

var errState = errors.New("checkpoint of the state machine is not understood")

// snapshot is the encodable part of the state machine.
type snapshot struct {
	next, logStart record.Offset
	clock          int64 // ns since 1970: the largest time at which a leader appended an entry
	lastBatch      int64 // the clock at the newest accepted batch
	// writing is the time, in ns, during which batches came: the clock without its jumps. Producers are forgotten by it, so that a leader whose clock is days ahead does not make
	// the others' retries unknown.
	writing   int64
	digest    uint64
	trimIndex raftlog.Index
	producers producerTable
	machine   []byte // nil: none
}

func (s *snapshot) encode() []byte {
	b := make([]byte, 0, 64+s.producers.len()*maxProducerBytes/4+len(s.machine))
	b = append(b, stateVersion)
	b = binary.AppendUvarint(b, uint64(s.next))
	b = binary.AppendUvarint(b, uint64(s.logStart))
	b = binary.AppendUvarint(b, uint64(s.clock))
	b = binary.AppendUvarint(b, uint64(s.lastBatch))
	b = binary.AppendUvarint(b, uint64(s.writing))
	b = binary.LittleEndian.AppendUint64(b, s.digest)
	b = binary.AppendUvarint(b, uint64(s.trimIndex))
	b = binary.AppendUvarint(b, uint64(s.producers.len()))
	for p := s.producers.oldest; p != nil; p = p.newer {
		b = p.encode(b)
	}
	if s.machine == nil {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(s.machine))+1)
	return append(b, s.machine...)
}

func (p *producer) encode(b []byte) []byte {
	b = binary.AppendVarint(b, p.id)
	b = binary.AppendVarint(b, int64(p.epoch))
	b = binary.AppendUvarint(b, uint64(p.seen))
	b = append(b, byte(p.n))
	for _, m := range p.batches[:p.n] {
		b = binary.AppendUvarint(b, uint64(m.base))
		b = binary.AppendUvarint(b, uint64(m.sequence))
		b = binary.AppendUvarint(b, uint64(m.count))
		b = binary.AppendVarint(b, m.timestamp)
	}
	return b
}

func decodeSnapshot(b []byte) (*snapshot, error) {
	r := reader{b: b}
	if v := r.byte(); v != stateVersion {
		return nil, fmt.Errorf("%w: version %d, and this release knows %d", errState, v, stateVersion)
	}
	s := &snapshot{next: r.offset(), logStart: r.offset(), clock: r.int63(), lastBatch: r.int63(), writing: r.int63(), digest: r.uint64(), trimIndex: raftlog.Index(r.uvarint())}
	for n := r.count(maxProducers); n > 0 && r.err == nil; n-- {
		r.producer(&s.producers)
	}
	s.machine = r.optionalBytes()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	if s.logStart > s.next {
		return nil, fmt.Errorf("%w: log start %d is beyond the next offset %d", errState, s.logStart, s.next)
	}
	return s, nil
}

// reader decodes; after the first error it returns zeros.
type reader struct {
	b   []byte
	err error
}

var (
	errShort = errors.New("cut short")
	errRange = errors.New("a value is out of range")
)

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// end returns the first error, or an error if bytes are left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return fmt.Errorf("%d bytes too many", len(r.b))
	}
	return r.err
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail(errShort)
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int63() int64 {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail(errRange)
		return 0
	}
	return int64(v)
}

func (r *reader) offset() record.Offset { return record.Offset(r.int63()) }

func (r *reader) int31() int32 {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail(errRange)
		return 0
	}
	return int32(v)
}

func (r *reader) count(limit uint64) uint64 {
	v := r.uvarint()
	if v > limit {
		r.fail(errRange)
		return 0
	}
	return v
}

func (r *reader) optionalBytes() []byte {
	n := r.uvarint()
	switch {
	case n == 0:
		return nil
	case n-1 > uint64(len(r.b)):
		r.fail(errShort)
		return nil
	}
	v := append([]byte{}, r.b[:n-1]...)
	r.b = r.b[n-1:]
	return v
}

// producer decodes one producer into the table, as its newest.
func (r *reader) producer(t *producerTable) {
	id, epoch := r.varint(), r.varint()
	seen, n := r.int63(), r.byte()
	if epoch < 0 || epoch > math.MaxInt16 || n == 0 || n > rememberedBatches || t.get(id) != nil {
		r.fail(errRange)
		return
	}
	p := producer{id: id, epoch: int16(epoch), seen: seen}
	for ; n > 0; n-- {
		m := remembered{base: r.offset(), sequence: r.int31(), count: r.int31(), timestamp: r.varint()}
		if m.count < 1 {
			r.fail(errRange)
			return
		}
		p.remember(m)
	}
	entry := t.touch(id)
	p.newer, p.older = entry.newer, entry.older
	*entry = p
}
