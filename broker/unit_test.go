package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

func TestConfigErrorsSayWhatToDo(t *testing.T) {
	good := func() Config { c := DefaultConfig(); c.ID, c.DataDir = 1, "/tmp/x"; return c }
	c := good()
	if err := c.Validate(); err != nil {
		t.Fatalf("a plain configuration is refused: %v", err)
	}
	for _, x := range []struct {
		want   string
		change func(*Config)
	}{
		{"its own number", func(c *Config) { c.ID = -1 }},
		{"no data directory", func(c *Config) { c.DataDir = "" }},
		{`gRPC address "7070" is not host:port`, func(c *Config) { c.GRPCAddr = "7070" }},
		{"the gossip port", func(c *Config) { c.Join = []string{"hostonly"} }},
		{"bootstrap-expect", func(c *Config) { c.BootstrapExpect = -1 }},
		{"from 1 KiB to 32 MiB", func(c *Config) { c.Memory.MaxMessageBytes = 33 << 20 }},
		{"fetch responses", func(c *Config) { c.Memory.FetchBytes = -1 }},
		{"raise the one or lower the other", func(c *Config) { c.Memory.InflightBytes = 1 << 20 }},
		{"use 100 ms or more", func(c *Config) { c.Timing.Heartbeat = time.Millisecond }},
	} {
		c := good()
		x.change(&c)
		err := c.Validate()
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("want an error about %q, got %v", x.want, err)
		}
	}
	c = good()
	c.ID, c.DataDir = -1, ""
	if err := c.Validate(); strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two mistakes should be told at once: %v", err)
	}
}

func TestDirectoryNames(t *testing.T) {
	long := strings.Repeat("x", 249)
	for _, tp := range []api.TopicPartition{{Topic: "orders", Partition: 3}, {Topic: "a.b-c_d", Partition: 0}, {Topic: long, Partition: 9999}} {
		name := dirName(tp, 12, 4)
		d, ok := parseDirName(name)
		if !ok || d.group != 12 || d.generation != 4 || d.damaged {
			t.Errorf("%s: parsed as %+v, %v", name, d, ok)
		}
		set := damagedName(name, time.Unix(1700000000, 0))
		if d, ok := parseDirName(set); !ok || d.group != 12 || !d.damaged || len(set) > 255 {
			t.Errorf("%s: parsed as %+v, %v", set, d, ok)
		}
	}
	for _, foreign := range []string{"lost+found", "orders-3", "orders-3.x-1", "orders-3.1", "orders-3.0-1", "orders-3.1-0", ".1-1", "notes.txt"} {
		if d, ok := parseDirName(foreign); ok {
			t.Errorf("%q was taken for a replica: %+v", foreign, d)
		}
	}
}

func FuzzParseDirName(f *testing.F) {
	f.Add("orders-3.12-4")
	f.Add("orders-3.12-4.damaged-1700000000")
	f.Fuzz(func(t *testing.T, name string) {
		d, ok := parseDirName(name)
		if ok && (d.group == 0 || d.generation <= 0 || d.name != name) {
			t.Errorf("%q gave %+v", name, d)
		}
	})
}

func TestIncompleteDataDirIsRefused(t *testing.T) {
	touch := func(dir, name string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	replica := partitionsDir + "/orders-0.1-1/x"
	for _, c := range []struct {
		have []string
		bad  bool
	}{
		{nil, false},
		{[]string{identityFile}, false},
		{[]string{identityFile, stableFile, replica}, false},
		{[]string{stableFile}, true},
		{[]string{replica}, true},
		{[]string{identityFile, replica}, true},
	} {
		dir := t.TempDir()
		for _, name := range c.have {
			touch(dir, name)
		}
		if err := checkDataDir(vfs.OS(), dir); errors.Is(err, ErrDataDirIncomplete) != c.bad {
			t.Errorf("with %v: %v", c.have, err)
		}
	}
}

func TestSecondProcessOnADataDir(t *testing.T) {
	dir := t.TempDir()
	l, err := lockDataDir(vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(vfs.OS(), dir); !errors.Is(err, ErrDataDirInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second lock gave %v", err)
	}
	_ = l.Close()
	l, err = lockDataDir(vfs.OS(), dir)
	if err != nil {
		t.Fatalf("after the first was released: %v", err)
	}
	_ = l.Close()
}

func TestErrorTable(t *testing.T) {
	b := &Broker{}
	for _, c := range []struct {
		err  error
		want api.Code
	}{
		{partition.ErrOutcomeUnknown, api.CodeRequestTimedOut},
		{fmt.Errorf("orders/3: %w: %w", partition.ErrOutcomeUnknown, partition.ErrNotLeader), api.CodeRequestTimedOut},
		{partition.ErrFailed, api.CodeStorageError},
		{fmt.Errorf("%w: %w", partition.ErrStorageFull, raftlog.ErrNoSpace), api.CodeStorageFull},
		{record.ErrCorrupt, api.CodeCorruptBatch},
		{metadata.ErrNoLeader, api.CodeControllerNotAvailable},
		{context.DeadlineExceeded, api.CodeRequestTimedOut},
		{errors.New("who knows"), api.CodeInternal},
		{api.Errorf(api.CodeGroupFull, "full"), api.CodeGroupFull},
	} {
		if got := api.CodeOf(b.apiError(c.err, nil)); got != c.want {
			t.Errorf("%v became %d, want %d", c.err, got, c.want)
		}
	}
	var e *api.Error
	err := b.apiError(&partition.RangeError{Offset: 9, LogStart: 2, HighWatermark: 5}, &api.TopicPartition{Topic: "t"})
	if !errors.As(err, &e) || e.LogStart != 2 || e.HighWatermark != 5 || e.TP == nil {
		t.Errorf("out of range became %+v", e)
	}
	// A conditional producer wants to know the offset that it should have expected.
	err = b.apiError(&partition.ExpectedOffsetError{Expected: 1, Next: 7, HighWatermark: 5}, nil)
	if !errors.As(err, &e) || e.Code != api.CodeExpectedOffsetMismatch || e.HighWatermark != 7 {
		t.Errorf("expected offset became %+v", e)
	}
	if b.apiError(nil, nil) != nil {
		t.Error("no error became one")
	}
}

func TestTailSharesStayWithinTheTotal(t *testing.T) {
	const total = 32 << 20
	s := &tailShares{left: total}
	var sum int64
	var taken []int64
	for range 2000 {
		n := s.take()
		sum += n
		taken = append(taken, n)
	}
	if sum > total || taken[0] == 0 || taken[len(taken)-1] != 0 {
		t.Errorf("gave %d of %d; first %d, last %d", sum, total, taken[0], taken[len(taken)-1])
	}
	for _, n := range taken {
		s.giveBack(n)
	}
	if s.left != total {
		t.Errorf("%d of %d came back", s.left, total)
	}
}

// TestLeadershipIsReportedUntilItIsKnown: a report may get lost, for example when the broker that led the metadata group died with the partition's
// leader, and the partition may be on the move, so that no other report follows.
func TestLeadershipIsReportedUntilItIsKnown(t *testing.T) {
	b := &Broker{cfg: Config{ID: 2}}
	b.cfg.Timing.setDefaults()
	b.reporter = newReporter(b)
	defer b.reporter.cancel()
	h := &hosted{m: &replicaManager{b: b}, tp: api.TopicPartition{Topic: "t"}, lead: leadState{term: 5}}
	h.partition = &metadata.Partition{Topic: "t", Leader: 1, LeaderEpoch: 4, Revision: 7}
	for range 2 {
		if again := h.announce(); again == 0 {
			t.Error("nobody looks again whether the report arrived")
		}
		if r := b.reporter.take(); len(r) != 1 || r[0].Leader != 2 || r[0].Epoch != 5 || r[0].Revision != 7 || r[0].Voters != nil {
			t.Errorf("reported %+v", r)
		}
	}
	h.partition = &metadata.Partition{Topic: "t", Leader: 2, LeaderEpoch: 5}
	if again := h.announce(); again != 0 || len(b.reporter.take()) != 0 {
		t.Error("reports go on although the metadata knows")
	}
}

func TestShiftedDoesNotOverflow(t *testing.T) {
	for _, c := range []struct {
		from record.Offset
		by   int64
		want record.Offset
	}{{10, -4, 6}, {10, 5, 15}, {3, -10, -7}, {1<<63 - 2, 100, 1<<63 - 1}} {
		if got := shifted(c.from, c.by); got != c.want {
			t.Errorf("%d by %d: %d, want %d", c.from, c.by, got, c.want)
		}
	}
}

func TestCoordinatorPartitionIsStable(t *testing.T) {
	// Where a group's state lives must never change. In Java, "hello".hashCode() is 99162322, the third one's
	// is Integer.MIN_VALUE, and the fourth is two units long: its hash is 1772899.
	for group, want := range map[string]int32{"": 0, "hello": 99162322 % 16, "polygenelubricants": 0, "\U0001F600": 1772899 % 16} {
		if got := coordinatorPartition(group, 16); got != want {
			t.Errorf("group %q is on partition %d, was on %d", group, got, want)
		}
	}
	if coordinatorPartition("g", 1) != 0 {
		t.Error("one partition takes all groups")
	}
}

func TestNotifierWakesAll(t *testing.T) {
	n := newNotifier()
	a, b := n.wait(), n.wait()
	n.notify()
	for _, ch := range []<-chan struct{}{a, b} {
		select {
		case <-ch:
		default:
			t.Error("a waiter slept on")
		}
	}
	select {
	case <-n.wait():
		t.Error("a wait after the notification was woken by it")
	default:
	}
}
