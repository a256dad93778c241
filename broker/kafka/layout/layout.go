// Package layout walks over Kafka requests before they are decoded.
//
// kmsg decodes what is well-formed. What claims to have elements or tags that are not there makes it allocate, or loop, for as much as was claimed: a request of 50
// bytes may cost minutes. The walk follows the request's layout (text.go) and finds whether all that is claimed is there, in time that is linear in the request's
// length and without allocating.
package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by the errors of Check.
var ErrMalformed = errors.New("arrays or fields that cannot be")

// field is one field of a layout.
type field struct {
	kind     byte // a letter of layoutText; 'f': fixed
	size     int  // of 'f', in bytes
	min, max int16
	tag      int // -1: none
	sub      []field
}

type layout struct {
	flexible int16 // the first flexible version; -1: none
	fields   []field
}

// layouts are by API key. The text is a constant of this program, and the tests read all of it.
var layouts = parseLayouts()

func parseLayouts() map[int16]layout {
	out := map[int16]layout{}
	for line := range strings.Lines(strings.TrimSpace(layoutText)) {
		parts := strings.SplitN(strings.TrimSpace(line), " ", 4)
		key, _ := strconv.Atoi(parts[0])
		l := layout{flexible: -1}
		if parts[2] != "-" {
			l.flexible = int16(number(parts[2], -1))
		}
		if len(parts) == 4 {
			l.fields, _ = parseFields(parts[3])
		}
		out[int16(key)] = l
	}
	return out
}

// number is otherwise if s is none.
func number(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return otherwise
	}
	return n
}

// parseFields reads up to the end of a struct.
func parseFields(s string) (fields []field, rest string) {
	for s = strings.TrimLeft(s, " "); s != "" && s[0] != ']' && s[0] != '}' && s[0] != '>'; s = strings.TrimLeft(s, " ") {
		f := field{kind: s[0], max: 1<<15 - 1, tag: -1}
		s = s[1:]
		switch f.kind {
		case '?':
			s = s[1:] // the brace
			fallthrough
		case '[', '{', '<':
			f.sub, s = parseFields(s)
			s = s[1:]
		case 'u':
			f.kind, f.size = 'f', 16
		case 's', 'b':
		default:
			f.kind, f.size = 'f', int(f.kind-'0')
		}
		s = f.limits(s)
		fields = append(fields, f)
	}
	return fields, s
}

// limits reads what may follow a field.
func (f *field) limits(s string) string {
	end := strings.IndexAny(s, " ]}>")
	if end < 0 {
		end = len(s)
	}
	switch text := s[:end]; {
	case strings.HasPrefix(text, "@"):
		low, high, _ := strings.Cut(text[1:], "-")
		f.min, f.max = int16(number(low, 0)), int16(number(high, 1<<15-1))
	case strings.HasPrefix(text, "#"):
		f.tag = number(text[1:], -1)
	}
	return s[end:]
}

// producePartitionsMax bounds the topics and the partitions of one produce request, which may be large for its records, but not for its arrays.
const producePartitionsMax = 20000

const produceKey = 0

// Known says whether there is a layout for the API.
func Known(key int16) bool {
	_, ok := layouts[key]
	return ok
}

// Check says whether all is there that a request claims to have. An API that is not Known is not checked. body begins after the header.
func Check(key, version int16, body []byte) error {
	l, ok := layouts[key]
	if !ok {
		return nil
	}
	w := walker{b: body, version: version, flexible: l.flexible >= 0 && version >= l.flexible, left: len(body)}
	if key == produceKey {
		w.left = producePartitionsMax
	}
	w.fields(l.fields)
	if w.bad {
		return fmt.Errorf("API key %d version %d: %w", key, version, ErrMalformed)
	}
	return nil
}

// walker steps over encoded fields. Once something does not fit, bad is set and nothing more is there.
type walker struct {
	b        []byte
	version  int16
	flexible bool
	left     int // elements of arrays that may still come
	bad      bool
}

func (w *walker) fail() { w.b, w.bad = nil, true }

// fields walks over a struct.
func (w *walker) fields(fields []field) {
	for i := range fields {
		if f := &fields[i]; f.tag < 0 && f.min <= w.version && w.version <= f.max && !w.bad {
			w.value(f)
		}
	}
	w.tags(fields)
}

func (w *walker) value(f *field) {
	switch f.kind {
	case 'f':
		w.skip(uint64(f.size))
	case 's':
		w.bytes(2)
	case 'b':
		w.bytes(4)
	case '<':
		for range w.array() {
			if w.value(&f.sub[0]); w.bad {
				return
			}
		}
	case '[':
		for range w.array() {
			if w.fields(f.sub); w.bad {
				return
			}
		}
	case '{':
		w.fields(f.sub)
	case '?':
		null := len(w.b) > 0 && w.b[0] == 0xff
		if w.skip(1); !null && !w.bad {
			w.fields(f.sub)
		}
	}
}

func (w *walker) skip(n uint64) {
	if n > uint64(len(w.b)) {
		w.fail()
		return
	}
	w.b = w.b[n:]
}

func (w *walker) uvarint() uint64 {
	v, n := binary.Uvarint(w.b)
	if n <= 0 || v > 1<<31 {
		w.fail()
		return 0
	}
	w.b = w.b[n:]
	return v
}

// length reads a length, which has so many bytes if the encoding is the old one. -1 is null.
func (w *walker) length(width int) int64 {
	if w.flexible {
		return int64(w.uvarint()) - 1
	}
	if len(w.b) < width {
		w.fail()
		return -1
	}
	var n int64
	if width == 2 {
		n = int64(int16(binary.BigEndian.Uint16(w.b)))
	} else {
		n = int64(int32(binary.BigEndian.Uint32(w.b)))
	}
	w.b = w.b[width:]
	return n
}

func (w *walker) bytes(width int) {
	if n := w.length(width); n > 0 {
		w.skip(uint64(n))
	}
}

// array returns the number of elements, each of which has a byte at least.
func (w *walker) array() int {
	n := w.length(4)
	switch {
	case w.bad || n <= 0:
		return 0
	case n > int64(w.left) || n > int64(len(w.b)):
		w.fail()
		return 0
	}
	w.left -= int(n)
	return int(n)
}

// tags walks over the tagged fields at the end of a struct, and into those that are known.
func (w *walker) tags(fields []field) {
	if !w.flexible || w.bad {
		return
	}
	count := w.uvarint()
	if count > uint64(len(w.b)/2) { // each has a number and a size
		w.fail()
		return
	}
	for range count {
		number, size := w.uvarint(), w.uvarint()
		if w.bad || size > uint64(len(w.b)) {
			w.fail()
			return
		}
		inner := walker{b: w.b[:size], version: w.version, flexible: true, left: w.left}
		for i := range fields {
			if f := &fields[i]; f.tag >= 0 && uint64(f.tag) == number {
				inner.value(f)
			}
		}
		w.left = inner.left
		w.b = w.b[size:]
		if inner.bad {
			w.fail()
			return
		}
	}
}
