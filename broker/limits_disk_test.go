package broker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/client"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// disks are the brokers' disks.
type disks map[api.BrokerID]*vfs.Faulty

// startOnDisks starts three brokers on disks that can be filled.
func startOnDisks(t *testing.T) (*brokertest.Cluster, disks) {
	t.Helper()
	d := disks{}
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		d[cfg.ID] = vfs.NewFaulty(vfs.OS())
		cfg.DiskReserve = 1 << 20
		cfg.Seams.PartitionFS = d[cfg.ID]
	}})
	return c, d
}

// run out of free space: what is preallocated can still be written, as on most file systems.
func (d disks) runOut(ids ...api.BrokerID) {
	for _, id := range ids {
		d[id].SetFreeBytes(0)
		for _, op := range []vfs.Op{vfs.OpPreallocate, vfs.OpCreate} {
			d[id].Add(vfs.Rule{Op: op, Err: vfs.ErrNoSpace})
		}
	}
}

// fill is worse: not one more byte can be written, as where file systems copy on write.
func (d disks) fill(ids ...api.BrokerID) {
	for _, id := range ids {
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpPreallocate, vfs.OpCreate} {
			d[id].Add(vfs.Rule{Op: op, Err: vfs.ErrNoSpace})
		}
	}
}

func (d disks) free(ids ...api.BrokerID) {
	for _, id := range ids {
		d[id].Clear()
	}
}

// The disks of all brokers run out of space. Producers are told so and may try again, consumers read on, and once there is space, what waits is
// delivered, without anybody doing anything.
func TestClientsOnFullDisks(t *testing.T) {
	c, d := startOnDisks(t)
	c.CreateTopic("t", 1, 3)
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c)
	patient := newProducer(t, cl)
	if err := patient.Produce(ctx, &client.Record{Topic: "t", Value: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	d.runOut(1, 2, 3)
	c.Eventually("the producer is told that the disk is full", func() error { return toldOfFullDisk(ctx, newProducer(t, cl, client.WithDeliveryTimeout(time.Second))) })
	c.Eventually("the status says so", func() error { return problemSays(c, "disk is full", "bytes are free") })
	waiting := make(chan error, 1)
	go func() { waiting <- patient.Produce(ctx, &client.Record{Topic: "t", Value: []byte("waited")}) }()
	k := newConsumer(t, cl)
	if err := k.AssignTopic(ctx, "t", client.Earliest()); err != nil {
		t.Fatal(err)
	}
	if rs, err := k.Poll(ctx); err != nil || string(rs[0].Value) != "before" {
		t.Errorf("reading on full disks: %v %v", rs, err)
	}
	d.free(1, 2, 3)
	if err := <-waiting; err != nil {
		t.Errorf("the record that waited for space: %v", err)
	}
	c.EnsureSame("t", 0)
	c.Eventually("the status is well again", func() error {
		if problemSays(c, "disk is full") == nil {
			return errors.New("it still tells of the full disk")
		}
		return nil
	})
	var values []string
	for _, r := range c.ReadAll("t", 0) {
		values = append(values, string(r.Value))
	}
	// Appends that were refused for certain are not there; those whose outcome was unknown may be.
	values = slices.DeleteFunc(values, func(v string) bool { return v == "refused" })
	if !slices.Equal(values, []string{"before", "waited"}) {
		t.Errorf("stored: %v", values)
	}
}

func toldOfFullDisk(ctx context.Context, p *client.Producer) error {
	_, err := p.Append(ctx, "t", 0, []*client.Record{{Value: []byte("refused")}})
	if !errors.Is(err, client.CodeStorageFull) || !strings.Contains(err.Error(), "disk is full") || !strings.Contains(err.Error(), "t/0") || !client.IsRetriable(err) {
		return fmt.Errorf("got %w", err)
	}
	return nil
}

// Not one byte more can be written by any broker, so that none can even begin to lead. The errors say why all the same, nothing that was acknowledged is
// lost, and it ends by itself.
func TestCrammedDisks(t *testing.T) {
	c, d := startOnDisks(t)
	c.CreateTopic("t", 1, 3)
	load := c.Load("t", 1)
	load.AwaitProgress(10)
	d.fill(1, 2, 3)
	cl := newClient(t, c)
	ctx, cancel := c.Context()
	defer cancel()
	c.Eventually("the producer is told that the disk is full", func() error {
		return toldOfFullDisk(ctx, newProducer(t, cl, client.WithDeliveryTimeout(4*time.Second)))
	})
	d.free(1, 2, 3)
	load.AwaitProgress(10)
	c.EnsureSame("t", 0)
}

// Where only one disk of three is full, nothing is refused for longer than it takes another broker to lead.
func TestOneFullDisk(t *testing.T) {
	for _, who := range []string{"follower", "leader"} {
		t.Run(who, func(t *testing.T) {
			c, d := startOnDisks(t)
			c.CreateTopic("t", 1, 3)
			load := c.Load("t", 1)
			load.AwaitProgress(10)
			victim := c.Leader("t", 0)
			if who == "follower" {
				victim = victim%3 + 1
			}
			// The disk is full at once, before anything could be refused for the reserve.
			for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpPreallocate, vfs.OpCreate} {
				d[victim].Add(vfs.Rule{Op: op, Err: vfs.ErrNoSpace})
			}
			load.AwaitProgress(30)
			d.free(victim)
			load.AwaitProgress(10)
			load.StopAndVerify()
			c.WaitReplicated("t", 0, 1, 2, 3)
			c.EnsureSame("t", 0)
		})
	}
}

// A leader that refuses records, since little space is left, hands over to a replica that has space, and gets leadership back when it has some, too.
func TestLeaderWithoutSpaceHandsOver(t *testing.T) {
	c, d := startOnDisks(t)
	c.CreateTopic("t", 1, 3)
	load := c.Load("t", 1)
	load.AwaitProgress(10)
	victim := c.Leader("t", 0)
	d[victim].SetFreeBytes(400 << 10)
	c.Eventually("another broker leads", func() error {
		if now := c.Leader("t", 0); now == victim {
			return fmt.Errorf("broker %d still leads", now)
		}
		return nil
	})
	load.AwaitProgress(30)
	if now := c.Leader("t", 0); now == victim {
		t.Errorf("broker %d, whose disk is full, leads again", now)
	}
	d.free(victim)
	load.AwaitProgress(10)
	load.StopAndVerify()
	c.EnsureSame("t", 0)
}

// Offsets cannot be committed on full disks; those that were can be read, and committing works again by itself.
func TestGroupsOnFullDisks(t *testing.T) {
	c, d := startOnDisks(t)
	c.CreateTopic("t", 1, 3)
	ctx, cancel := c.Context()
	defer cancel()
	cl := newClient(t, c, client.WithRequestTimeout(6*time.Second)) // three tries, each longer than a broker waits for a leader
	tp := client.TopicPartition{Topic: "t"}
	commit := func(offset int64) error {
		return cl.Admin().CommitOffsets(ctx, "g", map[client.TopicPartition]client.Commit{tp: {Offset: offset}})
	}
	c.Eventually("the first commit", func() error { return commit(1) })
	for _, disk := range d { // too little for records, and enough for commits
		disk.SetFreeBytes(400 << 10)
	}
	c.Eventually("producers are refused", func() error { return toldOfFullDisk(ctx, newProducer(t, cl, client.WithDeliveryTimeout(time.Second))) })
	if err := commit(1); err != nil {
		t.Errorf("a commit while producers are refused: %v", err)
	}
	d.runOut(1, 2, 3)
	c.Eventually("a commit says that the disk is full", func() error {
		err := commit(2)
		if err == nil || !strings.Contains(err.Error(), "disk is full") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	// Also by a coordinator that was elected since.
	id, _ := coordinator(c, "g")
	c.Crash(id)
	if got, err := cl.Admin().FetchOffsets(ctx, "g", tp); err != nil || got[tp].Offset < 1 {
		t.Errorf("reading the offset on full disks: %v %v", got, err)
	}
	d.free(1, 2, 3)
	c.Restart(id)
	c.Eventually("commits work again", func() error { return commit(3) })
	if got, err := cl.Admin().FetchOffsets(ctx, "g", tp); err != nil || got[tp].Offset != 3 {
		t.Errorf("after all: %v %v", got, err)
	}
}

// stoppable is a disk whose syncs wait while it is stopped.
type stoppable struct {
	vfs.FS
	gate sync.RWMutex
}

type stoppableFile struct {
	vfs.File
	fs *stoppable
}

func (s *stoppable) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &stoppableFile{f, s}, nil
}

func (s *stoppable) Create(name string) (vfs.File, error)   { return s.wrap(s.FS.Create(name)) }
func (s *stoppable) OpenFile(name string) (vfs.File, error) { return s.wrap(s.FS.OpenFile(name)) }

func (f *stoppableFile) Datasync() error {
	f.fs.gate.RLock()
	defer f.fs.gate.RUnlock()
	return f.File.Datasync()
}

// heapMiB is what lives in memory, after collection.
func heapMiB() int {
	for range 3 { // pools keep what they hold for two collections
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

// Many producers offer 256 MiB to a disk that does not move. The broker takes what its limits allow, lets about as much again wait, refuses the rest
// with a retriable error, and its memory stays there. When the disk moves again, everyone who tries again gets through, and nothing that was
// refused is stored.
func TestProducersFasterThanTheDisk(t *testing.T) {
	disk := &stoppable{FS: vfs.OS()}
	const inflight = 8 << 20
	c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) {
		cfg.Seams.PartitionFS = disk
		cfg.Memory.InflightBytes, cfg.Memory.MaxMessageBytes, cfg.Memory.TailCacheBytes = inflight, 1<<20, 1<<20
	}})
	c.CreateTopic("t", 4, 1)
	c.CreateTopic("small", 1, 1)
	c.Produce("t", 0, "warm")
	before := heapMiB()
	disk.gate.Lock()
	stopped := true
	defer func() {
		if stopped {
			disk.gate.Unlock()
		}
	}()
	batch := batchOf(t, 0, strings.Repeat("x", 512<<10))
	const producers = 512
	var refused, stored, other atomic.Int64
	ctx, cancel := c.Context()
	defer cancel()
	var wg sync.WaitGroup
	log := pb.NewLogClient(c.Any())
	for i := range producers {
		wg.Go(func() {
			_, err := log.Produce(ctx, &pb.ProduceRequest{Topic: "t", Partition: int32(i % 4), TimeoutMs: 60_000, Payload: &pb.ProduceRequest_Batch{Batch: batch}})
			d := brokertest.Detail(err)
			switch {
			case err == nil:
				stored.Add(1)
			case d.GetCode() == pb.ErrorCode_ERROR_CODE_THROTTLED && d.Retriable && status.Code(err) == codes.ResourceExhausted &&
				strings.Contains(status.Convert(err).Message(), "try again"):
				refused.Add(1)
			default:
				other.Add(1)
				t.Errorf("a producer got %v", err)
			}
		})
	}
	// All that do not fit are refused: two budgets of 16 batches each are in flight or wait, and some more may be on their way in.
	c.Eventually("most producers are refused", func() error {
		if n := refused.Load(); n < producers-80 || other.Load() > 0 {
			return fmt.Errorf("%d of %d, other errors %d", n, producers, other.Load())
		}
		return nil
	})
	if grown := heapMiB() - before; grown > 64 {
		t.Errorf("the heap grew by %d MiB with %d MiB allowed in flight", grown, inflight>>20)
	}
	disk.gate.Unlock()
	stopped = false
	wg.Wait()
	t.Logf("%d stored, %d refused", stored.Load(), refused.Load())
	c.Produce("t", 1, "after")
	total := int64(0)
	for p := range int32(4) {
		total += int64(len(c.ReadAll("t", p)))
	}
	if total != stored.Load()+2 {
		t.Errorf("%d records are there, %d were acknowledged", total, stored.Load()+2)
	}
}

// The Go producer does not see any of that: it slows down to the speed of the disk within its own buffer, and loses nothing.
func TestClientFasterThanTheDisk(t *testing.T) {
	disk := &stoppable{FS: vfs.OS()}
	c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) {
		cfg.Seams.PartitionFS = disk
		cfg.Memory.InflightBytes, cfg.Memory.MaxMessageBytes, cfg.Memory.TailCacheBytes = 2<<20, 1<<20, 1<<20
	}})
	c.CreateTopic("t", 2, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*brokertest.Patience)
	defer cancel()
	p := newProducer(t, newClient(t, c), client.WithBufferBytes(4<<20), client.WithBatchBytes(256<<10), client.WithMaxBlock(brokertest.Patience))
	if err := p.Produce(ctx, &client.Record{Topic: "t", Value: []byte("warm")}); err != nil {
		t.Fatal(err)
	}
	before := heapMiB()
	disk.gate.Lock()
	var accepted, acked atomic.Int64
	const records, size = 1024, 32 << 10 // 32 MiB
	value := make([]byte, size)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range records {
			p.ProduceAsync(ctx, &client.Record{Topic: "t", Value: value}, func(_ *client.Record, err error) {
				if err != nil {
					t.Error(err)
				}
				acked.Add(1)
			})
			accepted.Add(1)
		}
	}()
	last, steady := int64(-1), 0
	c.Eventually("the producer has come to a halt", func() error {
		n := accepted.Load()
		if n != last || n == 0 {
			last, steady = n, 0
			return fmt.Errorf("%d records were taken", n)
		}
		if steady++; steady < 10 {
			return fmt.Errorf("%d records were taken", n)
		}
		return nil
	})
	if taken := last * size; taken > 5<<20 {
		t.Errorf("the producer took %d bytes into a buffer of 4 MiB", taken)
	}
	if grown := heapMiB() - before; grown > 40 {
		t.Errorf("the heap of client and broker grew by %d MiB", grown)
	}
	disk.gate.Unlock()
	<-done
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	n := 0
	for part := range int32(2) {
		n += len(c.ReadAll("t", part))
	}
	if n != records+1 || acked.Load() != records {
		t.Errorf("%d records are there, %d were acknowledged", n, acked.Load())
	}
}
