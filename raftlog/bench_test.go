package raftlog

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func benchLog(b *testing.B, change func(*Options)) *Log {
	b.Helper()
	opts := Options{FS: vfs.OS(), Dir: b.TempDir()}
	change(&opts)
	l := mustOpen(b, opts)
	b.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkStoreLogs stores groups of batches; each call ends in one fdatasync, or none.
func BenchmarkStoreLogs(b *testing.B) {
	for _, d := range []Durability{DurabilityQuorum, DurabilityOS} {
		for _, c := range []struct{ entries, size int }{{1, 1 << 10}, {16, 1 << 10}, {16, 64 << 10}} {
			b.Run(fmt.Sprintf("%v/%dx%d", d, c.entries, c.size), func(b *testing.B) {
				l := benchLog(b, func(o *Options) { o.Durability = d })
				data := batch(b, 0, 1, c.size, 1)
				b.SetBytes(int64(c.entries * len(data)))
				b.ReportAllocs()
				index := uint64(0)
				for b.Loop() {
					logs := make([]*raft.Log, c.entries)
					for i := range logs {
						index++
						logs[i] = &raft.Log{Index: index, Term: 1, Data: data}
					}
					if err := l.StoreLogs(logs); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkGetLog(b *testing.B) {
	for name, cache := range map[string]int64{"tail": 64 << 20, "disk": -1} {
		b.Run(name, func(b *testing.B) {
			l := benchLog(b, func(o *Options) { o.TailCacheBytes, o.Durability = cache, DurabilityOS })
			fill(b, l, 2000, 2000)
			i := uint64(0)
			var e raft.Log
			b.ReportAllocs()
			for b.Loop() {
				i = i%2000 + 1
				if err := l.GetLog(i, &e); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(2000)
		})
	}
}

// BenchmarkReadBatches reads a log from its beginning again and again, 1 MiB at a time.
func BenchmarkReadBatches(b *testing.B) {
	defer func(f func([]byte)) { onReturn = f }(onReturn)
	onReturn = nil
	for name, cache := range map[string]int64{"tail": 64 << 20, "disk": -1} {
		b.Run(name, func(b *testing.B) {
			l := benchLog(b, func(o *Options) { o.TailCacheBytes, o.Durability = cache, DurabilityOS })
			fill(b, l, 2000, 16<<10)
			at, end := l.FirstOffset(), l.NextOffset()
			bytes, calls := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				if at == end {
					at = 0
				}
				res, err := l.ReadBatches(at, end, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				at, bytes, calls = res.Next, bytes+res.Bytes, calls+1
				if res.Release != nil {
					res.Release()
				}
			}
			b.SetBytes(int64(bytes / calls))
		})
	}
}

// BenchmarkEncodeFrames makes the frames of 16 entries, as StoreLogs does before it writes.
func BenchmarkEncodeFrames(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg := newSegment("", segmentHeader{salt: 1, first: 1})
			logs := make([]*raft.Log, 16)
			data := batch(b, 0, 1, size, 1)
			for i := range logs {
				logs[i] = &raft.Log{Index: uint64(i + 1), Term: 1, Data: data}
			}
			b.SetBytes(int64(len(logs) * len(data)))
			b.ReportAllocs()
			for b.Loop() {
				newRun(seg, logs).close()
			}
		})
	}
}

// BenchmarkDecodeFrame verifies and decodes one frame, as each read from the disk does.
func BenchmarkDecodeFrame(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg := newSegment("", segmentHeader{salt: 1, first: 1})
			r := newRun(seg, []*raft.Log{{Index: 1, Term: 1, Data: batch(b, 0, 1, size, 1)}})
			var raw []byte
			for _, v := range r.vec {
				raw = append(raw, v...)
			}
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if !checkFrame(seg.saltCRC, raw) {
					b.Fatal("not valid")
				}
				if e := readFrameHeader(raw).entry(raw); e.Index != 1 {
					b.Fatal(e.Index)
				}
			}
		})
	}
}
