package transport

import (
	"strings"
	"unsafe"
)

// unclearedMin is from which size on memory is taken without being cleared: to clear the small costs nothing.
const unclearedMin = 4 << 10

// uncleared is make([]byte, n) for memory that is about to be overwritten: what it holds is arbitrary. The runtime clears what make returns, which for the payloads of
// frames was a twentieth of a broker's CPU; it does not for a strings.Builder, whose memory cannot be read before it was written.
func uncleared(n int) []byte {
	if n < unclearedMin {
		return make([]byte, n)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0) // the address of an empty string's bytes is not specified
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}
