package kafka

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// largeRequest is the size from which on requests without records are decoded one at a time: the decoder makes room for as many
// elements as an array claims to have, which may be a hundred times the bytes received before it finds that they are not there.
const largeRequest = 64 << 10

var decodeLarge sync.Mutex

// decode reads a request's body. The message may keep parts of body. It never panics.
func decode(msg kmsg.Request, body []byte) (err error) {
	if len(body) > largeRequest && msg.Key() != keyProduce {
		decodeLarge.Lock()
		defer decodeLarge.Unlock()
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s version %d: %v", errMalformed, kmsg.NameForKey(msg.Key()), msg.GetVersion(), p)
		}
	}()
	if msg.Key() == keyProduce {
		if err := checkProduce(body, msg.GetVersion()); err != nil {
			return err
		}
	}
	if err := msg.ReadFrom(body); err != nil {
		return fmt.Errorf("%w: %s version %d: %w", errMalformed, kmsg.NameForKey(msg.Key()), msg.GetVersion(), err)
	}
	return nil
}

// producePartitionsMax bounds the topics and the partitions of one produce request.
const producePartitionsMax = 20000

// checkProduce walks over a produce request before it is decoded. Such a request may be large for its records, but not for its arrays.
func checkProduce(b []byte, version int16) error {
	w := walker{b: b, flexible: version >= 9}
	if version >= 3 {
		w.bytes(2) // transactional ID
	}
	w.skip(6) // acks, timeout
	left := producePartitionsMax
	for range w.array(&left) {
		if version >= 13 {
			w.skip(16)
		} else {
			w.bytes(2)
		}
		for range w.array(&left) {
			w.skip(4)
			w.bytes(4)
			w.tags()
		}
		w.tags()
	}
	if w.bad {
		return fmt.Errorf("%w: a produce request with arrays or fields that cannot be", errMalformed)
	}
	return nil
}

// walker steps over encoded fields. Once something does not fit, bad is set and nothing more is there.
type walker struct {
	b        []byte
	flexible bool
	bad      bool
}

func (w *walker) fail() {
	w.b, w.bad = nil, true
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

// array returns the number of elements and takes it off what is left.
func (w *walker) array(left *int) int {
	n := w.length(4)
	if n > int64(*left) {
		w.fail()
		return 0
	}
	if n > 0 && !w.bad {
		*left -= int(n)
		return int(n)
	}
	return 0
}

func (w *walker) tags() {
	if !w.flexible {
		return
	}
	for range min(w.uvarint(), uint64(len(w.b))) {
		w.uvarint()
		w.skip(w.uvarint())
	}
}
