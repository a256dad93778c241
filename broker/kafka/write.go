package kafka

import (
	"encoding/binary"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// writeChunk is the most that is given to the connection at a time, each with its own deadline: a large response to a slow client may
// take long, but something must get through.
const writeChunk = 1 << 20

// write sends the answers in order. After an error, and after the last answer, it goes on to free the places of those that follow.
func (c *conn) write() {
	failed := false
	for a := range c.answers {
		<-a.ready
		if !failed && a.reply != nil {
			failed = c.send(a) != nil
		}
		if failed || a.closing {
			failed = true
			c.close()
		}
		if h, ok := a.reply.(holder); ok {
			h.release()
		}
		c.s.opts.OnRequest(kmsg.NameForKey(a.key), time.Since(a.came))
		a.reply = nil
		c.inflight.Release(1)
	}
}

// scattered is a reply that is partly in memory already.
type scattered interface {
	// buffers returns the response in pieces, the first of which begins with the given bytes.
	buffers(begin []byte) [][]byte
}

func (c *conn) send(a *answer) error {
	// The response to ApiVersions has the oldest header, for clients that do not know yet what is spoken here.
	begin := appendHeader(nil, a.correlation, a.reply.IsFlexible() && a.key != keyAPIs)
	var pieces [][]byte
	if s, ok := a.reply.(scattered); ok {
		pieces = s.buffers(begin)
	} else {
		pieces = [][]byte{a.reply.AppendTo(begin)}
	}
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	binary.BigEndian.PutUint32(pieces[0], uint32(size-4))
	return c.sendPieces(pieces)
}

func (c *conn) sendPieces(pieces [][]byte) error {
	for len(pieces) > 0 {
		var chunk net.Buffers
		for size := 0; len(pieces) > 0 && size < writeChunk; {
			p := pieces[0]
			if fits := writeChunk - size; len(p) > fits {
				pieces[0], p = p[fits:], p[:fits]
			} else {
				pieces = pieces[1:]
			}
			chunk, size = append(chunk, p), size+len(p)
		}
		if err := c.nc.SetWriteDeadline(time.Now().Add(c.s.opts.StallTimeout)); err != nil {
			return err
		}
		if _, err := chunk.WriteTo(c.nc); err != nil {
			return err
		}
	}
	return nil
}
