package record

import (
	"fmt"
	"math"
)

// Record is one record. A nil Key or Value is Kafka's null, which is not the same as an empty one: a record with a key and a null
// value is a tombstone.
type Record struct {
	Offset    Offset
	Timestamp int64 // Unix ms
	Key       []byte
	Value     []byte
	Headers   []HeaderField
}

// HeaderField is one header of a record. A nil Value is null.
type HeaderField struct {
	Key   string
	Value []byte
}

// decodeAhead is how many records Decode makes room for before it has seen any.
const decodeAhead = 4096

// Decode returns the records of one whole batch. Keys, values and header values share memory with b or, if the batch is compressed,
// with one buffer of at most limit bytes: a batch that decompresses to more fails with ErrTooLarge. The CRC is not checked. With
// LogAppendTime every record has the batch's time.
func Decode(b []byte, limit int) ([]Record, error) {
	p, err := newParser(b, limit)
	if err != nil {
		return nil, err
	}
	// The count is the header's word. Room is made as records turn up, so that a batch which only says that it has millions costs nothing.
	n := int(p.header.Count)
	records := make([]Record, 0, min(n, decodeAhead))
	for len(records) < n {
		records = append(records, Record{})
		if err := p.next(&records[len(records)-1]); err != nil {
			return nil, err
		}
	}
	return records, p.finish()
}

// Walk calls fn for every record of one whole batch, as Decode would return them, without allocating for each. The record and what it
// points to are only valid until fn returns. An error of fn ends the walk and is returned as it is.
func Walk(b []byte, limit int, fn func(*Record) error) error {
	p, err := newParser(b, limit)
	if err != nil {
		return err
	}
	var r Record
	for range p.header.Count {
		r.Headers = r.Headers[:0]
		if err := p.next(&r); err != nil {
			return err
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
	return p.finish()
}

// ValidateRecords looks into one whole batch that has passed Validate: every record must parse, the offset deltas must be 0, 1, 2, ...,
// and nothing may follow the last record. limit bounds the decompressed size in bytes (ErrTooLarge). Errors are those of Decode, and
// ErrInvalid for offsets.
func ValidateRecords(b []byte, limit int) error {
	p, err := newParser(b, limit)
	if err != nil {
		return err
	}
	for i := range p.header.Count {
		body, err := p.cut()
		if err != nil {
			return err
		}
		delta, err := checkRecord(body)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if delta != int64(i) {
			return fmt.Errorf("%w: record %d has offset delta %d", ErrInvalid, i, delta)
		}
	}
	return p.finish()
}

// parser walks over the decompressed records of a batch.
type parser struct {
	header Header
	rest   []byte
	index  int32 // records read so far
	delta  int64 // offset delta of the last one
}

func newParser(b []byte, limit int) (parser, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return parser{}, err
	}
	if h.Size() != len(b) {
		return parser{}, fmt.Errorf("%w: header says %d bytes, there are %d", ErrCorrupt, h.Size(), len(b))
	}
	records := b[HeaderSize:]
	if c := h.Attributes.Compression(); c != None {
		if records, err = Decompress(c, records, limit); err != nil {
			return parser{}, err
		}
	}
	if int(h.Count) > len(records)/minRecordSize {
		return parser{}, fmt.Errorf("%w: %d records in %d bytes", ErrCorrupt, h.Count, len(records))
	}
	return parser{header: h, rest: records, delta: -1}, nil
}

// cut takes the next record's body, which is what follows its length.
func (p *parser) cut() ([]byte, error) {
	n, w := readVarint(p.rest)
	if w == 0 || n < 0 || n > int64(len(p.rest)-w) {
		return nil, fmt.Errorf("%w: record %d: length %d with %d bytes left", ErrCorrupt, p.index, n, len(p.rest)-w)
	}
	body := p.rest[w : w+int(n)]
	p.rest = p.rest[w+int(n):]
	p.index++
	return body, nil
}

// next decodes the next record into r, appending to r.Headers.
func (p *parser) next(r *Record) error {
	i := p.index
	body, err := p.cut()
	if err != nil {
		return err
	}
	s := scanner{b: body}
	s.skip(1) // attributes
	r.Timestamp = p.header.BaseTimestamp + s.varint()
	delta := s.varint()
	r.Key = s.bytes()
	r.Value = s.bytes()
	for range s.headerCount() {
		key := s.bytes()
		if key == nil {
			s.bad = true
		}
		value := s.bytes()
		if s.bad {
			break
		}
		r.Headers = append(r.Headers, HeaderField{Key: string(key), Value: value})
	}
	if s.bad || len(s.b) > 0 {
		return fmt.Errorf("%w: record %d does not parse", ErrCorrupt, i)
	}
	if delta <= p.delta || delta > int64(p.header.LastOffsetDelta) {
		return fmt.Errorf("%w: record %d: offset delta %d after %d, last is %d", ErrCorrupt, i, delta, p.delta, p.header.LastOffsetDelta)
	}
	p.delta = delta
	r.Offset = p.header.BaseOffset + Offset(delta)
	if p.header.Attributes.TimestampType() == LogAppendTime {
		r.Timestamp = p.header.MaxTimestamp
	}
	return nil
}

// finish makes sure that nothing follows the last record.
func (p *parser) finish() error {
	if len(p.rest) > 0 {
		return fmt.Errorf("%w: %d bytes after the last record", ErrCorrupt, len(p.rest))
	}
	return nil
}

// checkRecord parses a record's body without keeping anything of it and returns its offset delta.
func checkRecord(body []byte) (int64, error) {
	s := scanner{b: body}
	s.skip(1)
	s.varint()
	delta := s.varint()
	s.bytes()
	s.bytes()
	for range s.headerCount() {
		if s.bytes() == nil {
			s.bad = true
		}
		s.bytes()
		if s.bad {
			break
		}
	}
	if s.bad || len(s.b) > 0 {
		return 0, fmt.Errorf("%w: does not parse", ErrCorrupt)
	}
	return delta, nil
}

// scanner reads fields one after another; once bad, it gives zeroes.
type scanner struct {
	b   []byte
	bad bool
}

func (s *scanner) skip(n int) {
	if s.bad || len(s.b) < n {
		s.bad = true
		return
	}
	s.b = s.b[n:]
}

func (s *scanner) varint() int64 {
	if s.bad {
		return 0
	}
	v, n := readVarint(s.b)
	if n == 0 {
		s.bad = true
		return 0
	}
	s.b = s.b[n:]
	return v
}

// bytes reads a length and that many bytes; nil for null (length -1), which an empty, non-nil slice is not.
func (s *scanner) bytes() []byte {
	n := s.varint()
	if s.bad || n == -1 {
		return nil
	}
	if n < 0 || n > int64(len(s.b)) {
		s.bad = true
		return nil
	}
	v := s.b[:n:n]
	s.b = s.b[n:]
	return v
}

// headerCount reads the number of headers, each of which takes two bytes at least.
func (s *scanner) headerCount() int {
	n := s.varint()
	if s.bad || n < 0 || n > int64(len(s.b)/2) || n > math.MaxInt32 {
		s.bad = true
		return 0
	}
	return int(n)
}
