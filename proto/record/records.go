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
		delta, ok := checkRecord(body)
		if !ok {
			return fmt.Errorf("record %d: %w: does not parse", i, ErrCorrupt)
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
	delta, ok := p.parse(body, r)
	if !ok {
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

// parse reads a record's body into r, all but its offset, of which it returns the delta.
func (p *parser) parse(body []byte, r *Record) (delta int64, ok bool) {
	stamp, delta, b, ok := cutHead(body)
	if !ok {
		return 0, false
	}
	r.Timestamp = p.header.BaseTimestamp + stamp
	if r.Key, b, ok = cutBytes(b); !ok {
		return 0, false
	}
	if r.Value, b, ok = cutBytes(b); !ok {
		return 0, false
	}
	n, b, ok := cutHeaderCount(b)
	if !ok {
		return 0, false
	}
	for range n {
		var key, value []byte
		if key, b, ok = cutBytes(b); !ok || key == nil {
			return 0, false
		}
		if value, b, ok = cutBytes(b); !ok {
			return 0, false
		}
		r.Headers = append(r.Headers, HeaderField{Key: string(key), Value: value})
	}
	return delta, len(b) == 0
}

// checkRecord is parse that keeps nothing.
func checkRecord(body []byte) (delta int64, ok bool) {
	_, delta, b, ok := cutHead(body)
	if !ok {
		return 0, false
	}
	if _, b, ok = cutBytes(b); !ok {
		return 0, false
	}
	if _, b, ok = cutBytes(b); !ok {
		return 0, false
	}
	n, b, ok := cutHeaderCount(b)
	if !ok {
		return 0, false
	}
	for range n {
		var key []byte
		if key, b, ok = cutBytes(b); !ok || key == nil {
			return 0, false
		}
		if _, b, ok = cutBytes(b); !ok {
			return 0, false
		}
	}
	return delta, len(b) == 0
}

// cutHead reads what stands before a record's key: attributes, which mean nothing, and the deltas of timestamp and offset.
func cutHead(body []byte) (stamp, delta int64, rest []byte, ok bool) {
	if len(body) == 0 {
		return 0, 0, nil, false
	}
	stamp, n := readVarint(body[1:])
	if n == 0 {
		return 0, 0, nil, false
	}
	rest = body[1+n:]
	delta, n = readVarint(rest)
	return stamp, delta, rest[n:], n > 0
}

// cutBytes reads a length and that many bytes; nil for null (length -1), which an empty, non-nil slice is not.
func cutBytes(b []byte) (v, rest []byte, ok bool) {
	n, w := readVarint(b)
	switch {
	case w == 0:
		return nil, nil, false
	case n == -1:
		return nil, b[w:], true
	case n < 0 || n > int64(len(b)-w):
		return nil, nil, false
	}
	end := w + int(n)
	return b[w:end:end], b[end:], true
}

// cutHeaderCount reads the number of headers, each of which takes two bytes at least.
func cutHeaderCount(b []byte) (n int, rest []byte, ok bool) {
	v, w := readVarint(b)
	rest = b[w:]
	if w == 0 || v < 0 || v > int64(len(rest)/2) || v > math.MaxInt32 {
		return 0, nil, false
	}
	return int(v), rest, true
}
