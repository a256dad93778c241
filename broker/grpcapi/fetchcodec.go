package grpcapi

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// fetchMessage is a FetchResponse whose batches are still where they were read: batches[i] belongs to resp.Partitions[i], which has none itself. gRPC
// reads them until they are written to the connection, perhaps after the call has ended; they are never changed. When gRPC lets go of the last one of a
// partition, releases[i] is called, if it is not nil; where the message is never encoded, it is not.
type fetchMessage struct {
	resp     *pb.FetchResponse
	batches  [][][]byte
	releases []func()
	held     *holding // of all of it; nil: it has no data
}

// The numbers of the fields that marshalFetch writes by itself.
const (
	fetchPartitions protowire.Number = 1 // of FetchResponse
	fetchBatches    protowire.Number = 4 // of FetchPartitionData
)

// copiedBytes is the size up to which copying a batch costs less than sending it as a piece of its own.
const copiedBytes = 2 << 10

// Marshal implements encoding.CodecV2.
func (c boundedCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*fetchMessage); ok {
		return m.marshal()
	}
	if r, ok := v.(*pb.ReadResponse); ok {
		if h, ok := c.reads.LoadAndDelete(r); ok {
			return marshalHeld(r, h.(*holding))
		}
	}
	return c.CodecV2.Marshal(v)
}

// marshalHeld counts a response until gRPC lets go of it.
func marshalHeld(r *pb.ReadResponse, h *holding) (mem.BufferSlice, error) {
	b, err := proto.Marshal(r)
	if err != nil || mem.IsBelowBufferPoolingThreshold(len(b)) {
		h.release()
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	l := newLease(h.release)
	defer l.done()
	return mem.BufferSlice{l.buffer(b[:len(b):len(b)])}, nil
}

// marshal makes a FetchResponse out of small pieces of its own and the batches as they are.
func (m *fetchMessage) marshal() (mem.BufferSlice, error) {
	whole := newLease(m.held.release)
	defer whole.done()
	out := messagePieces{whole: whole}
	for i, d := range m.resp.Partitions {
		out.lease = nil
		if len(m.batches[i]) > 0 || m.releases[i] != nil {
			whole.readers.Add(1)
			release := m.releases[i]
			out.lease = newLease(func() {
				if release != nil {
					release()
				}
				whole.done()
			})
		}
		if err := out.partition(d, m.batches[i]); err != nil {
			return nil, err
		}
		if out.lease != nil {
			out.lease.done()
		}
	}
	return out.finish(), nil
}

// messagePieces gathers what has to be written in order; small is the last piece, which more may be copied to.
type messagePieces struct {
	done  mem.BufferSlice
	small []byte
	lease *lease // of what add is given; nil: nobody wants it back
	whole *lease // of the message
}

// lease counts who still reads borrowed memory: each piece of a message that is in it, and, until done, whoever makes the message. The last one gives it back.
type lease struct {
	readers atomic.Int32
	release func()
}

func newLease(release func()) *lease {
	l := &lease{release: release}
	l.readers.Store(1)
	return l
}

// buffer lends b to gRPC, which has to be large enough for gRPC to count references to it.
func (l *lease) buffer(b []byte) mem.Buffer {
	l.readers.Add(1)
	return mem.NewBuffer(&b, l)
}

func (l *lease) done() {
	if l.readers.Add(-1) == 0 {
		l.release()
	}
}

// Get implements mem.BufferPool, of which gRPC only uses Put here.
func (l *lease) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool: gRPC has let go of a piece.
func (l *lease) Put(*[]byte) { l.done() }

func (p *messagePieces) partition(d *pb.FetchPartitionData, batches [][]byte) error {
	size, bytes := proto.Size(d), sizeOf(batches)
	total := size
	if bytes > 0 {
		total += protowire.SizeTag(fetchBatches) + protowire.SizeBytes(bytes)
	}
	p.small = protowire.AppendTag(p.small, fetchPartitions, protowire.BytesType)
	p.small = protowire.AppendVarint(p.small, uint64(total))
	before := len(p.small)
	var err error
	if p.small, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(p.small, d); err != nil {
		return err
	}
	if len(p.small)-before != size {
		return fmt.Errorf("partition %d of topic %q: %d bytes were encoded, not %d", d.GetPartition(), d.GetTopic(), len(p.small)-before, size)
	}
	if bytes == 0 {
		return nil
	}
	p.small = protowire.AppendTag(p.small, fetchBatches, protowire.BytesType)
	p.small = protowire.AppendVarint(p.small, uint64(bytes))
	for _, b := range batches {
		p.add(b)
	}
	return nil
}

func (p *messagePieces) add(b []byte) {
	if len(b) <= copiedBytes {
		p.small = append(p.small, b...)
		return
	}
	p.cut()
	if p.lease != nil && !mem.IsBelowBufferPoolingThreshold(len(b)) {
		p.done = append(p.done, p.lease.buffer(b[:len(b):len(b)]))
		return
	}
	p.done = append(p.done, mem.SliceBuffer(b))
}

// cut ends the small piece. What is appended later goes to the memory behind it, or elsewhere; never over it.
func (p *messagePieces) cut() {
	if n := len(p.small); n > 0 {
		if mem.IsBelowBufferPoolingThreshold(n) {
			p.done = append(p.done, mem.SliceBuffer(p.small))
		} else {
			p.done = append(p.done, p.whole.buffer(p.small[:n:n]))
		}
		p.small = p.small[len(p.small):]
	}
}

func (p *messagePieces) finish() mem.BufferSlice {
	p.cut()
	return p.done
}
