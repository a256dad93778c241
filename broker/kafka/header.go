package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errMalformed = errors.New("malformed request")

// header is a request header, of version 0 (without client), 1 or 2 (with tagged fields).
type header struct {
	key, version int16
	correlation  int32
	clientID     string
}

// fixedHeader is the size of what all header versions begin with.
const fixedHeader = 8

// clientIDMax is what is kept of a client ID, in bytes.
const clientIDMax = 256

// parseFixed reads the part of the header that is the same in all versions.
func parseFixed(b []byte) (h header, rest []byte, err error) {
	if len(b) < fixedHeader {
		return h, nil, fmt.Errorf("%w: %d bytes are no header", errMalformed, len(b))
	}
	h.key = int16(binary.BigEndian.Uint16(b))
	h.version = int16(binary.BigEndian.Uint16(b[2:]))
	h.correlation = int32(binary.BigEndian.Uint32(b[4:]))
	return h, b[fixedHeader:], nil
}

// parseClient reads the rest of the header: the client ID (always in the old encoding) and, if flexible, tagged fields, which are skipped.
func (h *header) parseClient(b []byte, flexible bool) (body []byte, err error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: the header is cut", errMalformed)
	}
	n := int(int16(binary.BigEndian.Uint16(b)))
	b = b[2:]
	if n > len(b) || n < -1 {
		return nil, fmt.Errorf("%w: a client ID of %d bytes", errMalformed, n)
	}
	if n > 0 {
		h.clientID = string(b[:min(n, clientIDMax)])
		b = b[n:]
	}
	if !flexible {
		return b, nil
	}
	return skipTags(b)
}

func skipTags(b []byte) ([]byte, error) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b)) {
		return nil, fmt.Errorf("%w: tagged fields of the header", errMalformed)
	}
	b = b[n:]
	for range count {
		_, t := binary.Uvarint(b)
		if t <= 0 {
			return nil, fmt.Errorf("%w: a tag of the header", errMalformed)
		}
		size, s := binary.Uvarint(b[t:])
		if s <= 0 || size > uint64(len(b)-t-s) {
			return nil, fmt.Errorf("%w: a tagged field of the header", errMalformed)
		}
		b = b[t+s+int(size):]
	}
	return b, nil
}

// appendHeader begins a response: four bytes for its size, the correlation ID, and for flexible responses no tagged fields.
func appendHeader(b []byte, correlation int32, flexible bool) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	if flexible {
		b = append(b, 0)
	}
	return b
}
