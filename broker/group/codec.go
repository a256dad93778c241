package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrMalformed comes for bytes that no proposer writes: nothing is done with them.
var ErrMalformed = errors.New("group: malformed bytes")

// ErrNewerFormat comes for a command or checkpoint of a later release. The machine must not go on: what it cannot read, the
// other replicas may have applied.
var ErrNewerFormat = errors.New("group: format of a later release")

// The encoding is a plain sequence of varints, length-prefixed strings and bytes, and counted lists.

func putUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
func putInt(b []byte, v int64) []byte   { return binary.AppendVarint(b, v) }
func putString(b []byte, s string) []byte {
	return append(putUint(b, uint64(len(s))), s...)
}
func putBytes(b, v []byte) []byte {
	return append(putUint(b, uint64(len(v))), v...)
}
func putBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func putList[T any](b []byte, list []T, put func([]byte, T) []byte) []byte {
	b = putUint(b, uint64(len(list)))
	for _, v := range list {
		b = put(b, v)
	}
	return b
}

// reader decodes. After the first failure it returns zero values; err tells. It never keeps the input: strings and bytes are
// copies, since commands lie in the log's cache.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// bool accepts 0 and 1 only, so that everything has one encoding.
func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("a flag that is neither 0 nor 1")
	}
	return v == 1
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 {
	v := r.int()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail("number out of range")
		return 0
	}
	return int32(v)
}

// count reads a number of things that take at least size bytes each, so it cannot ask for more memory than the input is long.
func (r *reader) count(size int) int {
	v := r.uint()
	if v > uint64(len(r.b)/size) {
		r.fail("a length beyond the end")
		return 0
	}
	return int(v)
}

func (r *reader) raw() []byte {
	n := r.count(1)
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.raw()) }

func (r *reader) bytes() []byte {
	if v := r.raw(); len(v) > 0 {
		return slices.Clone(v)
	}
	return nil
}

// end fails if anything is left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end")
	}
	return r.err
}

func getList[T any](r *reader, size int, get func() T) []T {
	n := r.count(size)
	if n == 0 {
		return nil
	}
	list := make([]T, 0, min(n, 1024))
	for range n {
		list = append(list, get())
		if r.err != nil {
			return nil
		}
	}
	return list
}
