package raftlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func TestMain(m *testing.M) {
	onReturn = spoil
	goleak.VerifyTestMain(m)
}

const testDir = "/data/p-0"

// testRand returns a generator whose seed is printed when the test fails. RAFTLOG_SEED repeats a run.
func testRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("RAFTLOG_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed: RAFTLOG_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// testOptions are small segments, so that everything happens soon.
func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, SegmentBytes: MinSegmentBytes, TailCacheBytes: 2048, MaxEntryBytes: 1 << 20}
}

func mustOpen(t testing.TB, opts Options) *Log {
	t.Helper()
	l, err := Open(opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

func newMem(t testing.TB) *vfs.Mem {
	t.Helper()
	return vfs.NewMem()
}

// batch makes a record batch of n records with about size bytes of values.
func batch(t testing.TB, base record.Offset, n, size int, ts int64) []byte {
	t.Helper()
	b := record.NewBuilder(record.BuilderOptions{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	for i := range n {
		if err := b.Append(record.Record{Timestamp: ts, Value: bytes.Repeat([]byte{byte('a' + i%26)}, size/n)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	out = append([]byte(nil), out...)
	record.Stamp(out, base, 1)
	return out
}

// appender makes consecutive entries.
type appender struct {
	t     testing.TB
	index Index
	term  uint64
	next  record.Offset
}

func appenderFor(t testing.TB, l *Log) *appender {
	last, err := l.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if last == 0 {
		last = uint64(l.start.index)
	}
	return &appender{t: t, index: Index(last), term: max(l.lastTerm, 1), next: l.NextOffset()}
}

func (a *appender) entry(typ raft.LogType, data []byte) *raft.Log {
	a.index++
	if IsBatch(typ, data) {
		h, err := record.ParseHeader(data)
		if err != nil {
			a.t.Fatal(err)
		}
		record.Stamp(data, h.BaseOffset, int32(a.term))
	}
	e := &raft.Log{Index: uint64(a.index), Term: a.term, Type: typ, Data: data, AppendedAt: time.Unix(1700000000, int64(a.index))}
	a.next, _ = Accept(e, a.next)
	return e
}

func (a *appender) batch(n, size int, ts int64) *raft.Log {
	return a.entry(raft.LogCommand, batch(a.t, a.next, n, size, ts))
}

func (a *appender) dead(n, size int) *raft.Log {
	return a.entry(raft.LogCommand, batch(a.t, a.next+5, n, size, 99))
}

// stale is a batch whose offset fits, and which was stamped in another term.
func (a *appender) stale(n, size int) *raft.Log {
	next := a.next
	e := a.batch(n, size, 98)
	record.Stamp(e.Data, next, int32(a.term)-1)
	a.next = next
	return e
}

func (a *appender) noop() *raft.Log { return a.entry(raft.LogNoop, nil) }

func (a *appender) command(data string) *raft.Log {
	return a.entry(raft.LogCommand, append([]byte{0xF0}, data...))
}

func (a *appender) random(rng *rand.Rand) *raft.Log {
	switch rng.IntN(8) {
	case 0:
		return a.noop()
	case 1:
		return a.command(fmt.Sprint("command ", a.index))
	case 2:
		if rng.IntN(2) == 0 {
			return a.stale(1+rng.IntN(3), 10+rng.IntN(200))
		}
		return a.dead(1+rng.IntN(3), 10+rng.IntN(200))
	case 3:
		e := a.batch(1, 30, rng.Int64N(1000))
		e.Extensions = []byte("extension")
		return e
	}
	return a.batch(1+rng.IntN(5), 10+rng.IntN(1500), rng.Int64N(1000))
}

func mustStore(t testing.TB, l *Log, entries ...*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(entries); err != nil {
		t.Fatalf("store: %v", err)
	}
}

// fill stores n batches of about size bytes, one per call, with timestamps 1000, 1001 and so on.
func fill(t testing.TB, l *Log, n, size int) []*raft.Log {
	t.Helper()
	a := appenderFor(t, l)
	var all []*raft.Log
	for i := range n {
		e := a.batch(2, size, 1000+int64(i))
		mustStore(t, l, e)
		all = append(all, e)
	}
	return all
}

func testConfiguration() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "1-a", Address: "1"}, {Suffrage: raft.Nonvoter, ID: "2-b", Address: "2"}}}
}

// checkpointAt makes the checkpoint that fits the log at an index.
func checkpointAt(t testing.TB, l *Log, i Index) Checkpoint {
	t.Helper()
	term, next, err := l.stateAt(i)
	if err != nil {
		t.Fatal(err)
	}
	return Checkpoint{Index: i, Term: term, NextOffset: next, Configuration: testConfiguration(), ConfigurationIndex: 1, State: []byte(fmt.Sprint("state at ", i))}
}

func mustCheckpoint(t testing.TB, l *Log, i Index) Checkpoint {
	t.Helper()
	c := checkpointAt(t, l, i)
	if err := l.WriteCheckpoint(c); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	return c
}

func sameEntry(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions) &&
		a.AppendedAt.Equal(b.AppendedAt)
}

// contents reads all entries.
func contents(l *Log) ([]*raft.Log, error) {
	first, err := l.FirstIndex()
	if err != nil || first == 0 {
		return nil, err
	}
	last, err := l.LastIndex()
	if err != nil {
		return nil, err
	}
	var out []*raft.Log
	for i := first; i <= last; i++ {
		e := new(raft.Log)
		if err := l.GetLog(i, e); err != nil {
			return nil, fmt.Errorf("entry %d of %d to %d: %w", i, first, last, err)
		}
		out = append(out, e)
	}
	return out, nil
}

func mustContain(t testing.TB, l *Log, want []*raft.Log) {
	t.Helper()
	got, err := contents(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := compareEntries(got, want); err != nil {
		t.Fatal(err)
	}
}

func compareEntries(got, want []*raft.Log) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d entries instead of %d", len(got), len(want))
	}
	for i := range got {
		if !sameEntry(got[i], want[i]) {
			return fmt.Errorf("entry %d is %+v instead of %+v", want[i].Index, brief(got[i]), brief(want[i]))
		}
	}
	return nil
}

func brief(e *raft.Log) string {
	return fmt.Sprintf("{index %d term %d type %v %d bytes at %v}", e.Index, e.Term, e.Type, len(e.Data), e.AppendedAt.UnixNano())
}

// waitIndexes waits until the indexes of sealed segments are written.
func waitIndexes(l *Log) {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.background.Wait()
}

// sizeOf is the size of a file in the log's directory.
func sizeOf(t testing.TB, fs vfs.FS, name string) int64 {
	t.Helper()
	fi, err := fs.Stat(filepath.Join(testDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size
}

// flip inverts a bit of a file, as if the disk had.
func flip(t testing.TB, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenFile(filepath.Join(testDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
