package partition

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestReplicates(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	for i := range 50 {
		res := c.mustAppend(recordtest.Batch(3, 20))
		if res.BaseOffset != record.Offset(3*i) || res.Duplicate || res.LogStart != 0 || res.LogAppendTime != -1 {
			t.Fatalf("append %d: %+v", i, res)
		}
	}
	c.ensureSame()
	if got := len(records(t, leader.rep)); got != 150 {
		t.Errorf("%d records are stored", got)
	}
	s := leader.rep.Status()
	if s.State != raft.Leader || !s.Ready || s.Leader != leader.server.Address || s.HighWatermark != 150 || len(s.Servers) != 3 || !s.ConfigurationCommitted {
		t.Errorf("status %+v", s)
	}
	follower := c.followers()[0]
	var nl *NotLeaderError
	if _, err := follower.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 1)}); !errors.As(err, &nl) || nl.Leader != leader.server.Address {
		t.Errorf("append to a follower: %v", err)
	}
	if _, err := follower.rep.Read(0, 1); !errors.Is(err, ErrNotLeader) {
		t.Errorf("read from a follower: %v", err)
	}
}

// producing is an idempotent producer with one batch of value "producer/sequence" at a time, which it repeats until it is acknowledged.
type producing struct {
	c     *cluster
	id    int64
	acked map[int]record.Offset // by sequence
}

func (p *producing) batch(seq int) []byte {
	return recordtest.Batch(1, 0, recordtest.Producer(p.id, 0, int32(seq)), recordtest.Values(func(int) []byte { return fmt.Appendf(nil, "%d/%d", p.id, seq) }))
}

func (p *producing) run(ctx context.Context, stop <-chan struct{}) error {
	for seq := 0; ; seq++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := p.send(ctx, seq); err != nil {
			return err
		}
	}
}

func (p *producing) send(ctx context.Context, seq int) error {
	for ctx.Err() == nil {
		for _, n := range p.c.nodes {
			res, err := n.rep.Append(ctx, AppendRequest{Batch: p.batch(seq)})
			switch {
			case err == nil:
				p.acked[seq] = res.BaseOffset
				return nil
			case !retriable(err):
				return fmt.Errorf("producer %d at %d: %w", p.id, seq, err)
			}
		}
	}
	return ctx.Err()
}

func TestLeaderIsolatedWithIdempotentProducers(t *testing.T) {
	c := newCluster(t, 3)
	c.leader()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	producers := make([]*producing, 4)
	for i := range producers {
		p := &producing{c: c, id: int64(i + 1), acked: map[int]record.Offset{}}
		producers[i] = p
		wg.Go(func() {
			if err := p.run(testContext(t), stop); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		leader := c.leader()
		_, before := leader.rep.Bounds()
		c.eventually("some progress", func() bool { _, hw := c.leader().rep.Bounds(); return hw > before+50 })
		leader = c.leader()
		c.isolate(leader)
		var others []*node
		for _, n := range c.nodes {
			if n != leader {
				others = append(others, n)
			}
		}
		c.leader(others...)
		c.heal()
	}
	close(stop)
	wg.Wait()
	c.ensureSame()
	checkOnceInOrder(t, c, producers)
}

// checkOnceInOrder checks that each producer's records are stored once, in order, where they were acknowledged, and that a retry gets the same offset.
func checkOnceInOrder(t *testing.T, c *cluster, producers []*producing) {
	t.Helper()
	next := map[string]int{}
	for _, rec := range records(t, c.leader().rep) {
		var id int64
		var seq int
		if _, err := fmt.Sscanf(string(rec.Value), "%d/%d", &id, &seq); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(id)
		if seq != next[key] {
			t.Fatalf("producer %d: %d is stored at offset %d after %d", id, seq, rec.Offset, next[key]-1)
		}
		next[key]++
		if at, ok := producers[id-1].acked[seq]; !ok || at != rec.Offset {
			t.Fatalf("producer %d: %d is stored at offset %d and was acknowledged at %d (%v)", id, seq, rec.Offset, at, ok)
		}
	}
	for _, p := range producers {
		last := len(p.acked) - 1
		if next[fmt.Sprint(p.id)] != last+1 || last < 10 {
			t.Errorf("producer %d: %d acknowledged, %d stored", p.id, last+1, next[fmt.Sprint(p.id)])
		}
		if res := c.mustAppend(p.batch(last)); !res.Duplicate || res.BaseOffset != p.acked[last] {
			t.Errorf("producer %d: a retry of %d got %+v, not offset %d", p.id, last, res, p.acked[last])
		}
	}
}

func TestRetryAfterLeaderCrash(t *testing.T) {
	c := newCluster(t, 3)
	batch := recordtest.Batch(2, 10, recordtest.Producer(5, 0, 0))
	first := c.mustAppend(batch)
	c.fill(5, 10)
	old := c.leader()
	old.crash(nil)
	again := c.mustAppend(batch)
	if !again.Duplicate || again.BaseOffset != first.BaseOffset {
		t.Errorf("the retry got %+v, the original %+v", again, first)
	}
	old.disk = vfs.NewFaulty(old.mem)
	old.start()
	c.ensureSame()
}

func TestPowerLossOnAllBrokers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	c := newCluster(t, 3, func(cfg *Config) { cfg.Settings.SegmentBytes = 16 << 10; cfg.Limits.CheckpointBytes = 8 << 10 })
	acked := map[record.Offset][]byte{}
	for round := range 3 {
		for i := range 40 + rng.IntN(40) {
			value := fmt.Appendf(nil, "%d/%d/%s", round, i, bytes.Repeat([]byte("x"), rng.IntN(500)))
			b := recordtest.Batch(1, 0, recordtest.Values(func(int) []byte { return value }))
			acked[c.mustAppend(b).BaseOffset] = value
		}
		for _, n := range c.nodes {
			n.mem.Crash(rng)
		}
		for _, n := range c.nodes {
			n.discard()
			n.disk = vfs.NewFaulty(n.mem)
		}
		for _, n := range c.nodes {
			n.start()
		}
		c.ensureSame()
		stored := map[record.Offset][]byte{}
		for _, r := range records(t, c.leader().rep) {
			stored[r.Offset] = r.Value
		}
		for off, v := range acked {
			if !bytes.Equal(stored[off], v) {
				t.Fatalf("round %d: offset %d was acknowledged with %.20q and holds %.20q", round, off, v, stored[off])
			}
		}
	}
}

func TestCleanStopReplaysNothing(t *testing.T) {
	c := newCluster(t, 3, withMachine, func(cfg *Config) { cfg.Timing.Commit = 10 * time.Millisecond })
	c.fill(20, 100)
	for i := range 5 {
		if _, err := c.leader().rep.Propose(testContext(t), append([]byte{0xE1}, fmt.Sprint("w", i)...)); err != nil {
			t.Fatal(err)
		}
	}
	c.waitReplicated()
	want := map[*node]uint64{}
	for _, n := range c.nodes {
		want[n] = n.rep.Status().AppliedIndex
	}
	for _, n := range c.nodes {
		n.stop()
	}
	one := c.nodes[0]
	c.isolate(one) // so that nothing can be committed: what it has, it has from its checkpoint
	one.start()
	s := one.rep.Status()
	if s.AppliedIndex != want[one] || s.HighWatermark != 20 {
		t.Errorf("after the restart %d is applied and the high watermark is %d; before, %d and 20", s.AppliedIndex, s.HighWatermark, want[one])
	}
	if got := one.words.words; !slices.Equal(got, []string{"w0", "w1", "w2", "w3", "w4"}) {
		t.Errorf("words %v", got)
	}
	c.heal()
	for _, n := range c.nodes[1:] {
		n.start()
	}
	c.ensureSame()
}

func TestMachineGroup(t *testing.T) {
	c := newCluster(t, 3, withMachine, func(cfg *Config) {
		cfg.Settings.SegmentBytes = 8 << 10
		cfg.Settings.MachineTrimBytes = 16 << 10
	})
	value, err := c.leader().rep.Propose(testContext(t), append([]byte{0xE1}, "hello"...))
	if s, ok := value.(string); err != nil || !ok || s[:15] != "hello is word 1" {
		t.Fatalf("propose: %v, %v", value, err)
	}
	for _, bad := range [][]byte{nil, {0x01}, {0xF1, 1}} {
		if _, err := c.leader().rep.Propose(testContext(t), bad); !errors.Is(err, errCommand) {
			t.Errorf("propose %x: %v", bad, err)
		}
	}
	for i := range 100 {
		if _, err := c.leader().rep.Propose(testContext(t), append([]byte{0xE1}, fmt.Sprintf("%d-%0500d", i, 0)...)); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually("the leader trims what its checkpoints cover", func() bool {
		c.leader().rep.upkeep.kick()
		for _, n := range c.nodes {
			if n.rep.log.Size() > 40<<10 {
				return false
			}
		}
		return true
	})
	for _, n := range c.nodes {
		n.stop()
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.leader()
	c.waitReplicated()
	for _, n := range c.nodes {
		n.rep.state.mu.RLock()
		if len(n.words.words) != 101 {
			t.Errorf("%s has %d words", n.server.ID, len(n.words.words))
		}
		n.rep.state.mu.RUnlock()
	}
}

func TestFollowerFarBehind(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Settings.SegmentBytes = 8 << 10
		cfg.Settings.RetentionBytes = 20 << 10
		cfg.Limits.TailCacheBytes = -1
	})
	c.fill(5, 500)
	c.waitReplicated()
	behind := c.followers()[0]
	behind.stop()
	p := recordtest.Batch(1, 10, recordtest.Producer(9, 0, 0))
	first := c.mustAppend(p)
	c.fill(200, 500)
	c.eventually("old segments are removed", func() bool {
		l := c.leader().rep
		l.upkeep.kick()
		idx, _ := l.log.FirstIndex()
		return idx > 100
	})
	behind.start()
	c.ensureSame()
	if start, _ := behind.rep.Bounds(); start < 50 {
		t.Errorf("its log starts at %d", start)
	}
	if first2, _ := behind.rep.log.FirstIndex(); first2 < 50 {
		t.Errorf("its log has entries from index %d: it was not brought up by a checkpoint", first2)
	}
	if err := c.leader().rep.TransferLeadership(testContext(t), &behind.server); err != nil {
		t.Fatal(err)
	}
	c.leader(behind)
	if res := c.mustAppend(p); !res.Duplicate || res.BaseOffset != first.BaseOffset {
		t.Errorf("the retry at the new leader got %+v, the original %+v: the producer table did not come along", res, first)
	}
	c.fill(5, 500)
	c.ensureSame()
}

func TestDeleteRecords(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Settings.SegmentBytes = 4 << 10 })
	for range 30 {
		c.mustAppend(recordtest.Batch(4, 100))
	}
	ctx := testContext(t)
	leader := c.leader().rep
	if start, err := leader.DeleteRecords(ctx, 50); err != nil || start != 50 {
		t.Fatalf("delete before 50: %d, %v", start, err)
	}
	if start, err := leader.DeleteRecords(ctx, 10); err != nil || start != 50 {
		t.Errorf("delete before 10: %d, %v", start, err)
	}
	var rng *RangeError
	if _, err := leader.DeleteRecords(ctx, 121); !errors.As(err, &rng) || rng.HighWatermark != 120 {
		t.Errorf("delete past the end: %v", err)
	}
	if _, err := c.followers()[0].rep.DeleteRecords(ctx, 60); !errors.Is(err, ErrNotLeader) {
		t.Errorf("delete at a follower: %v", err)
	}
	for _, off := range []record.Offset{-1, 0, 49, 121} {
		if _, err := leader.Read(off, 1); !errors.As(err, &rng) || rng.LogStart != 50 || rng.HighWatermark != 120 {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	if res, err := leader.Read(50, 1); err != nil || len(res.Batches) != 1 || res.Next != 52 {
		t.Errorf("read at 50: %d batches, next %d, %v", len(res.Batches), res.Next, err)
	}
	c.ensureSame()
	c.eventually("files are removed on all replicas", func() bool {
		for _, n := range c.nodes {
			if n.rep.log.FirstOffset() < 20 {
				return false
			}
		}
		return true
	})
	if start, err := leader.DeleteRecords(ctx, -1); err != nil || start != 120 {
		t.Fatalf("delete all: %d, %v", start, err)
	}
	for _, n := range c.nodes {
		n.stop()
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.waitReplicated()
	for _, n := range c.nodes {
		if start, hw := n.rep.Bounds(); start != 120 || hw != 120 {
			t.Errorf("after a restart %s has [%d, %d]", n.server.ID, start, hw)
		}
	}
	if res := c.mustAppend(recordtest.Batch(1, 1)); res.BaseOffset != 120 {
		t.Errorf("the next append went to %d", res.BaseOffset)
	}
}

func TestFullDiskRecovers(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(3, 100)
	n := c.leader()
	n.disk.SetFreeBytes(1000)
	time0 := time.Now()
	c.eventually("appends are refused", func() bool {
		_, err := n.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})
		return errors.Is(err, ErrStorageFull)
	})
	if d := time.Since(time0); d > 5*time.Second {
		t.Errorf("it took %s to notice", d)
	}
	if res, err := n.rep.Read(0, 1<<20); err != nil || len(res.Batches) < 3 {
		t.Errorf("read: %d batches, %v", len(res.Batches), err)
	}
	n.disk.Clear()
	c.eventually("it recovers", func() bool {
		_, err := n.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})
		return err == nil
	})
}

func TestWritesFailForLackOfSpace(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(3, 100)
	n := c.leader()
	n.disk.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace})
	for range 3 {
		if _, err := n.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)}); !errors.Is(err, ErrStorageFull) && !errors.Is(err, ErrNotLeader) {
			t.Errorf("append: %v", err)
		}
	}
	c.eventually("the error says that the disk is full", func() bool {
		_, err := n.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})
		return errors.Is(err, ErrStorageFull)
	})
	n.disk.Clear()
	res := c.mustAppend(recordtest.Batch(1, 10))
	if res.BaseOffset != 3 || n.count(EventFailed) != 0 {
		t.Errorf("after it recovered an append went to offset %d; %d failures were reported", res.BaseOffset, n.count(EventFailed))
	}
	if got := len(records(t, n.rep)); got != 4 {
		t.Errorf("%d records are stored", got)
	}
}

func TestFollowerWithFullDisk(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(3, 100)
	full := c.followers()[0]
	full.disk.Add(vfs.Rule{Op: vfs.OpWrite, Err: vfs.ErrNoSpace})
	c.fill(20, 100)
	full.disk.Clear()
	c.fill(1, 100)
	c.ensureSame()
	if idx, _ := full.rep.log.FirstIndex(); idx != 1 {
		t.Errorf("it has entries from index %d: it was sent a checkpoint, although it lacked nothing", idx)
	}
}

func TestPoisonedLog(t *testing.T) {
	c := newCluster(t, 3)
	c.fill(5, 100)
	bad := c.leader()
	bad.disk.Add(vfs.Rule{Op: vfs.OpSync, Err: errors.New("the disk is on fire")})
	_, err := bad.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})
	if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrFailed) {
		t.Errorf("append: %v", err)
	}
	c.eventually("the failure is reported", func() bool { return bad.count(EventFailed) == 1 })
	var others []*node
	for _, n := range c.nodes {
		if n != bad {
			others = append(others, n)
		}
	}
	leader := c.leader(others...)
	if _, err := leader.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)}); err != nil {
		t.Errorf("the others cannot go on: %v", err)
	}
	for name, err := range map[string]error{
		"append": second(bad.rep.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})),
		"read":   second(bad.rep.Read(0, 1)),
		"delete": second(bad.rep.DeleteRecords(testContext(t), 1)),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := bad.rep.Close(testContext(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if bad.count(EventFailed) != 1 {
		t.Errorf("%d failures were reported", bad.count(EventFailed))
	}
	bad.disk.Clear()
	bad.start() // what was acknowledged before a failed fsync is intact
	c.fill(1, 10)
	c.ensureSame()
}

func second[T any](_ T, err error) error { return err }

func TestCloseRefusesEverything(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(1, 10)
	r := c.leader().rep
	if err := r.Destroy(); err == nil {
		t.Error("an open replica was destroyed")
	}
	c.nodes[0].stop()
	for name, err := range map[string]error{
		"append":    second(r.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 10)})),
		"read":      second(r.Read(0, 1)),
		"fetch":     second(r.Fetch(testContext(t), FetchRequest{})),
		"reconcile": second(r.Reconcile(testContext(t), []raft.Server{{ID: "x", Address: "1"}}, nil)),
		"transfer":  r.TransferLeadership(testContext(t), nil),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Close(testContext(t)); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := r.Destroy(); err != nil {
		t.Error(err)
	}
	if infos, err := c.nodes[0].mem.ReadDir("/log"); err == nil && len(infos) > 0 {
		t.Errorf("destroy left %v", infos)
	}
}

func TestAppendsInFlightAtClose(t *testing.T) {
	c := newCluster(t, 1)
	n := c.leader()
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for range 200 {
		wg.Add(1)
		n.rep.AppendAsync(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 100)}, func(_ AppendResult, err error) {
			defer wg.Done()
			if err == nil {
				mu.Lock()
				stored++
				mu.Unlock()
			}
		})
	}
	n.stop()
	wg.Wait()
	n.start()
	c.leader()
	if got := len(records(t, n.rep)); got != stored || stored != 200 {
		t.Errorf("%d were acknowledged, %d are stored", stored, got)
	}
}

func TestAppendAsyncKeepsOrder(t *testing.T) {
	c := newCluster(t, 3)
	r := c.leader().rep
	const n = 500
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range n {
		b := recordtest.Batch(1, 0, recordtest.Values(func(int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }))
		r.AppendAsync(testContext(t), AppendRequest{Batch: b}, func(res AppendResult, err error) {
			defer wg.Done()
			if err != nil || res.BaseOffset != record.Offset(i) {
				t.Errorf("append %d went to %d, %v", i, res.BaseOffset, err)
			}
		})
	}
	wg.Wait()
	c.ensureSame()
}

func TestBadBatches(t *testing.T) {
	small := record.Gzip
	c := newCluster(t, 1, func(cfg *Config) {
		cfg.Settings.MaxMessageBytes = 1000
		cfg.Settings.Compression = &small
		cfg.Limits.StateBytes = 50_000
	})
	r := c.leader().rep
	corrupt := recordtest.Batch(1, 10)
	corrupt[len(corrupt)-1] ^= 1
	b := record.NewBuilder(record.BuilderOptions{Compression: record.Zstd, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	if err := b.Append(record.Record{Timestamp: 1, Value: make([]byte, 100_000)}); err != nil {
		t.Fatal(err)
	}
	bomb, err := b.Build()
	if err != nil || len(bomb) > 1000 {
		t.Fatal(len(bomb), err)
	}
	for name, tc := range map[string]struct {
		batch []byte
		want  error
	}{
		"empty":         {nil, record.ErrCorrupt},
		"corrupt":       {corrupt, record.ErrCorrupt},
		"too large":     {recordtest.Batch(1, 1000), ErrTooLarge},
		"control":       {recordtest.Batch(1, 1, recordtest.Attributes(0x20)), record.ErrInvalid},
		"transactional": {recordtest.Batch(1, 1, recordtest.Producer(1, 0, 0), recordtest.Attributes(0x10)), record.ErrInvalid},
		"large inside":  {bomb, record.ErrTooLarge},
		"before 1970":   {recordtest.Batch(1, 1, recordtest.Time(-5)), record.ErrInvalid},
	} {
		if _, err := r.Append(testContext(t), AppendRequest{Batch: tc.batch}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.fill(1, 100)
	if h, err := record.ParseHeader(readAll(t, r)); err != nil || h.Attributes.Compression() != record.Gzip {
		t.Errorf("stored as %v, %v", h.Attributes.Compression(), err)
	}
}

func TestLogAppendTime(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	c := newCluster(t, 1, func(cfg *Config) { cfg.Settings.LogAppendTime = true; cfg.Now = func() time.Time { return now } })
	p := recordtest.Batch(3, 10, recordtest.Producer(1, 0, 0))
	res := c.mustAppend(p)
	if res.LogAppendTime != now.UnixMilli() {
		t.Errorf("append: %+v", res)
	}
	for _, rec := range records(t, c.leader().rep) {
		if rec.Timestamp != now.UnixMilli() {
			t.Errorf("record %d has time %d", rec.Offset, rec.Timestamp)
		}
	}
	now = now.Add(time.Hour)
	if again := c.mustAppend(p); !again.Duplicate || again.LogAppendTime != res.LogAppendTime {
		t.Errorf("a retry got %+v", again)
	}
}

func TestExpectedOffset(t *testing.T) {
	c := newCluster(t, 1)
	c.fill(4, 10)
	r := c.leader().rep
	at := record.Offset(3)
	var mismatch *ExpectedOffsetError
	if _, err := r.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 1), Expected: &at}); !errors.As(err, &mismatch) || mismatch.Next != 4 || mismatch.HighWatermark != 4 {
		t.Errorf("append: %v", err)
	}
	at = 4
	if res, err := r.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 1), Expected: &at}); err != nil || res.BaseOffset != 4 {
		t.Errorf("append: %+v, %v", res, err)
	}
}
