package transport

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/hashicorp/raft"
)

// benchRequest carries 16 entries of 64 KiB.
func benchRequest() *raft.AppendEntriesRequest {
	r := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 2, Leader: []byte("1"), PrevLogTerm: 1}
	data := make([]byte, 64<<10)
	for i := range 16 {
		r.Entries = append(r.Entries, &raft.Log{Index: uint64(i + 1), Term: 2, Data: data})
	}
	return r
}

// BenchmarkEncodeAppend makes a frame, with the CRCs of its entries known, as they are of those that were just stored, or not.
func BenchmarkEncodeAppend(b *testing.B) {
	r := benchRequest()
	sum := crc32.Checksum(r.Entries[0].Data, castagnoli)
	for name, sums := range map[string]payloadSums{"known": func(uint64, []byte) (uint32, bool) { return sum, true }, "unknown": nil} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(16 * 64 << 10)
			b.ReportAllocs()
			for b.Loop() {
				f, err := encodeAppend(header{}, r, sums)
				if err != nil {
					b.Fatal(err)
				}
				f.release()
			}
		})
	}
}

// BenchmarkDecodeAppend reads, verifies and decodes a frame.
func BenchmarkDecodeAppend(b *testing.B) {
	f, err := encodeAppend(header{}, benchRequest(), nil)
	if err != nil {
		b.Fatal(err)
	}
	raw := flatten(f)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		_, payload, err := readFrame(bytes.NewReader(raw), 64<<20)
		if err == nil {
			_, err = decodeAppend(payload)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is one small entry at a time to a follower that answers at once: what the transport adds to the latency of an append.
func BenchmarkRoundTrip(b *testing.B) {
	f := newFleet(b)
	a, c := f.start("1"), f.start("2")
	leader, follower := f.group(a, 1, GroupOptions{}), f.group(c, 1, GroupOptions{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case rpc := <-follower.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	p, err := leader.AppendEntriesPipeline("2", "2")
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	data, index := make([]byte, 100), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		req := &raft.AppendEntriesRequest{RPCHeader: testHeader("1"), Term: 2, Leader: []byte("1"), PrevLogEntry: index, PrevLogTerm: 1}
		index++
		req.Entries = []*raft.Log{{Index: index, Term: 2, Data: data}}
		if _, err := p.AppendEntries(req, &raft.AppendEntriesResponse{}); err != nil {
			b.Fatal(err)
		}
		if fut := <-p.Consumer(); fut.Error() != nil {
			b.Fatal(fut.Error())
		}
	}
}
