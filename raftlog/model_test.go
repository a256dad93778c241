package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// model is a log as a slice.
type model struct {
	start      Index
	startTerm  uint64
	startNext  record.Offset
	entries    []*raft.Log
	checkpoint Index // the newest
}

type modelBatch struct {
	data         []byte
	first, after record.Offset
	ts           int64
}

func (m *model) batches() []modelBatch {
	var out []modelBatch
	next := m.startNext
	for _, e := range m.entries {
		if after, ok := Accept(e, next); ok {
			h, _ := record.ParseHeader(e.Data)
			out = append(out, modelBatch{e.Data, next, after, h.MaxTimestamp})
			next = after
		}
	}
	return out
}

// readBatches is ReadBatches without a limit in bytes.
func (m *model) readBatches(from, limit record.Offset) []modelBatch {
	var out []modelBatch
	for _, b := range m.batches() {
		if b.after > from && b.after <= limit {
			out = append(out, b)
		}
	}
	return out
}

// TestAgainstModel does random operations on a log and on a slice, and compares all that can be read.
func TestAgainstModel(t *testing.T) {
	for round := range 12 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			r := &modelRun{t: t, rng: testRand(t), mem: newMem(t)}
			r.opts = testOptions(r.mem)
			r.opts.TailCacheBytes = []int64{-1, 2048, 1 << 20}[round%3]
			r.opts.Durability = Durability(round % 2)
			r.log = mustOpen(t, r.opts)
			for range 250 {
				r.step()
			}
			if err := r.log.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

type modelRun struct {
	t    *testing.T
	rng  *rand.Rand
	mem  *vfs.Mem
	opts Options
	log  *Log
	m    model
}

func (r *modelRun) step() {
	switch r.rng.IntN(14) {
	case 0, 1, 2, 3, 4:
		r.store()
	case 5:
		r.deleteSuffix()
	case 6:
		r.reopen()
	case 7:
		if err := r.log.Roll(); err != nil {
			r.t.Fatal(err)
		}
	case 8:
		r.writeCheckpoint()
	case 9:
		r.trim()
	case 10:
		r.mem.Kill()
		r.drop()
		r.log = mustOpen(r.t, r.opts)
	default:
		r.compareReads()
		return
	}
	r.compare()
}

// drop lets the goroutines of a log on a dead file system end.
func (r *modelRun) drop() {
	r.log.poison(vfs.ErrCrashed)
	r.log.Close()
}

func (r *modelRun) store() {
	a := appenderFor(r.t, r.log)
	if r.rng.IntN(4) == 0 {
		a.term++
	}
	var entries []*raft.Log
	for range 1 + r.rng.IntN(8) {
		entries = append(entries, a.random(r.rng))
	}
	mustStore(r.t, r.log, entries...)
	r.m.entries = append(r.m.entries, entries...)
}

func (r *modelRun) deleteSuffix() {
	if len(r.m.entries) == 0 {
		return
	}
	n := r.rng.IntN(len(r.m.entries))
	from, to := r.m.entries[n].Index, r.m.entries[len(r.m.entries)-1].Index
	err := r.log.DeleteRange(from, to)
	if Index(from) <= r.m.checkpoint {
		if !errors.Is(err, ErrInvalid) {
			r.t.Fatalf("DeleteRange below a checkpoint: %v", err)
		}
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.m.entries = r.m.entries[:n:n]
}

func (r *modelRun) reopen() {
	if err := r.log.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.log = mustOpen(r.t, r.opts)
	r.log.ServeFollowers()
}

func (r *modelRun) writeCheckpoint() {
	i := r.m.checkpoint
	if b, ok := r.log.Boundary(i); ok && r.rng.IntN(2) == 0 {
		i = b.Index
	} else if n := len(r.m.entries); n > 0 {
		i = max(i, Index(r.m.entries[r.rng.IntN(n)].Index))
	}
	if i > r.m.start {
		mustCheckpoint(r.t, r.log, i)
		r.m.checkpoint = max(r.m.checkpoint, i)
	}
}

func (r *modelRun) trim() {
	upTo := Index(r.rng.IntN(int(r.m.checkpoint) + 1))
	if err := r.log.Trim(record.Offset(r.rng.IntN(int(r.log.NextOffset())+1)), upTo); err != nil {
		r.t.Fatal(err)
	}
	s := r.log.start
	if s.index > upTo && s.index > r.m.start {
		r.t.Fatalf("trimmed up to %d, and only %d was asked for", s.index, upTo)
	}
	r.m.entries = r.m.entries[s.index-r.m.start:]
	r.m.start, r.m.startTerm, r.m.startNext = s.index, s.term, s.nextOffset
}

func (r *modelRun) compare() {
	r.t.Helper()
	mustContain(r.t, r.log, r.m.entries)
	var e raft.Log
	err := r.log.GetLog(uint64(r.m.start), &e)
	if r.m.start > 0 && (err != nil || e.Term != r.m.startTerm || e.Index != uint64(r.m.start)) {
		r.t.Fatalf("stub at %d: %v, %v", r.m.start, brief(&e), err)
	}
	if err := r.log.GetLog(uint64(r.m.start)+uint64(len(r.m.entries))+1, &e); err != raft.ErrLogNotFound {
		r.t.Fatalf("entry behind the end: %v", err)
	}
}

func (r *modelRun) compareReads() {
	next := r.log.NextOffset()
	for range 10 {
		from := r.m.startNext + record.Offset(r.rng.Int64N(int64(next-r.m.startNext)+1))
		limit := from + record.Offset(r.rng.Int64N(int64(next-from)+3))
		r.compareRead(from, limit, r.rng.IntN(5000))
		r.compareTimes(from, limit, r.rng.Int64N(1100))
	}
	r.compareAll(next)
}

func (r *modelRun) compareRead(from, limit record.Offset, maxBytes int) {
	want := r.m.readBatches(from, limit)
	got, err := r.log.ReadBatches(from, limit, maxBytes)
	if err != nil {
		r.t.Fatalf("ReadBatches(%d, %d, %d): %v", from, limit, maxBytes, err)
	}
	if (len(got.Batches) == 0) != (len(want) == 0) || len(got.Batches) > len(want) {
		r.t.Fatalf("ReadBatches(%d, %d, %d): %d batches, want some of %d", from, limit, maxBytes, len(got.Batches), len(want))
	}
	next, total := from, 0
	for i, b := range got.Batches {
		if !bytes.Equal(b, want[i].data) {
			r.t.Fatalf("ReadBatches(%d, %d, %d): batch %d differs", from, limit, maxBytes, i)
		}
		next, total = want[i].after, total+len(b)
	}
	if got.Next != next || got.Bytes != total || (len(got.Batches) > 1 && total > maxBytes) {
		r.t.Fatalf("ReadBatches(%d, %d, %d): next %d, %d bytes; want %d, %d", from, limit, maxBytes, got.Next, got.Bytes, next, total)
	}
}

// compareAll reads the whole log as a consumer would.
func (r *modelRun) compareAll(next record.Offset) {
	var got [][]byte
	at := r.m.startNext
	for at < next {
		res, err := r.log.ReadBatches(at, next, 3000)
		if err != nil || len(res.Batches) == 0 {
			r.t.Fatalf("ReadBatches(%d, %d): %d batches, %v", at, next, len(res.Batches), err)
		}
		got, at = append(got, res.Batches...), res.Next
	}
	want := r.m.batches()
	if len(got) != len(want) {
		r.t.Fatalf("%d batches, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i].data) {
			r.t.Fatalf("batch %d differs", i)
		}
	}
}

func (r *modelRun) compareTimes(from, limit record.Offset, ms int64) {
	var first, most *modelBatch
	for _, b := range r.m.readBatches(from, limit) {
		if first == nil && b.ts >= ms {
			first = &b
		}
		if most == nil || b.ts > most.ts {
			most = &b
		}
	}
	got, ok, err := r.log.BatchForTimestamp(ms, from, limit)
	r.compareBatch(fmt.Sprintf("BatchForTimestamp(%d, %d, %d)", ms, from, limit), got, ok, err, first)
	got, ok, err = r.log.MaxTimestampBatch(from, limit)
	r.compareBatch(fmt.Sprintf("MaxTimestampBatch(%d, %d)", from, limit), got, ok, err, most)
}

func (r *modelRun) compareBatch(what string, got []byte, ok bool, err error, want *modelBatch) {
	r.t.Helper()
	if err != nil || ok != (want != nil) || (ok && !bytes.Equal(got, want.data)) {
		h, _ := record.ParseHeader(got)
		r.t.Fatalf("%s: ok %v, offset %d, timestamp %d, error %v; want %+v", what, ok, h.BaseOffset, h.MaxTimestamp, err, want)
	}
}
