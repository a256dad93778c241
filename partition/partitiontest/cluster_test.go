package partitiontest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/partitiontest"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

func TestMain(m *testing.M) {
	// hashicorp/raft v1.7.3 never resolves the future of a proposal that is in its queue when it shuts down. Whoever waits for the outcome is told by
	// abandon, but the collector itself, and who waits for it, cannot be woken.
	const seq = "github.com/flotilla-log/flotilla/partition.(*sequencer)."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(seq+"collect"), goleak.IgnoreAnyFunction(seq+"wait.func1"))
}

// log appends numbered values to a group and remembers which were acknowledged.
type log struct {
	t     *testing.T
	c     *partitiontest.Cluster
	group transport.GroupID
	sent  int
	acked map[record.Offset]string
}

func newLog(t *testing.T, c *partitiontest.Cluster, group transport.GroupID) *log {
	return &log{t: t, c: c, group: group, acked: map[record.Offset]string{}}
}

func (l *log) try(b *partitiontest.Broker, patience time.Duration) error {
	l.sent++
	value := fmt.Sprintf("value %d of group %d", l.sent, l.group)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := b.Replica(l.group).Append(ctx, partition.AppendRequest{Batch: recordtest.Strings([]string{value})})
	if err == nil {
		l.acked[res.BaseOffset] = value
	}
	return err
}

// must has n values acknowledged by whoever leads among the brokers given (all that run, if none are): on a busy machine a leader may lose its office.
func (l *log) must(n int, among ...*partitiontest.Broker) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); n > 0; {
		switch err := l.try(l.c.Leader(l.group, among...), 20*time.Second); {
		case err == nil:
			n--
		case !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, partition.ErrOutcomeUnknown) || time.Now().After(end):
			l.t.Fatal(err)
		}
	}
}

// verify checks that every acknowledged value is where it was acknowledged to be, on all replicas.
func (l *log) verify() {
	l.t.Helper()
	l.c.EnsureSame(l.group)
	have := map[record.Offset]string{}
	for _, r := range l.c.Records(l.c.Leader(l.group), l.group) {
		have[r.Offset] = string(r.Value)
	}
	for at, want := range l.acked {
		if have[at] != want {
			l.t.Errorf("group %d: %q was acknowledged at offset %d, where now is %q", l.group, want, at, have[at])
		}
	}
	if len(l.acked) == 0 {
		l.t.Error("nothing was acknowledged")
	}
}

func TestGroupsReplicate(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		t.Run(fmt.Sprint("on disk ", onDisk), func(t *testing.T) {
			c := partitiontest.New(t, partitiontest.Options{Groups: []transport.GroupID{1, 2, 3}, OnDisk: onDisk})
			for g := transport.GroupID(1); g <= 3; g++ {
				l := newLog(t, c, g)
				l.must(20)
				l.verify()
			}
		})
	}
}

// A leader that falls silent is replaced, in whichever direction the silence is, and steps down; nothing acknowledged is lost.
func TestSilences(t *testing.T) {
	for name, cut := range map[string]func(*partitiontest.Cluster, *partitiontest.Broker){
		"isolated": (*partitiontest.Cluster).Isolate,
		"mute":     (*partitiontest.Cluster).Mute,
		"deaf":     (*partitiontest.Cluster).Deafen,
	} {
		t.Run(name, func(t *testing.T) {
			c := partitiontest.New(t, partitiontest.Options{})
			l := newLog(t, c, 1)
			l.must(10)
			old := c.Leader(1)
			cut(c, old)
			if err := l.try(old, 100*time.Millisecond); err == nil {
				t.Error("a leader without followers acknowledged")
			}
			l.must(10, c.Others(old)...)
			c.Eventually("the old leader stepping down", func() bool { return !old.Replica(1).IsLeader() })
			c.Heal()
			l.must(10)
			l.verify()
		})
	}
}

// Power loss on all brokers at once, several times over, in the middle of appends.
func TestPowerLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := partitiontest.New(t, partitiontest.Options{})
	l := newLog(t, c, 1)
	for range 3 {
		l.must(30)
		c.CrashAll(rng)
		c.RestartAll()
		l.verify()
	}
}

// Brokers crash and return one after another while appends go on.
func TestRollingCrashes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	c := partitiontest.New(t, partitiontest.Options{})
	l := newLog(t, c, 1)
	for range 4 {
		victim := c.Brokers[rng.IntN(3)]
		l.must(10)
		victim.Crash(rng)
		l.must(10)
		victim.Restart()
		l.must(10)
		l.verify()
	}
}

// A stopped broker comes back on its own disk, with its votes.
func TestStopAndRestart(t *testing.T) {
	c := partitiontest.New(t, partitiontest.Options{OnDisk: true})
	l := newLog(t, c, 1)
	l.must(10)
	for _, b := range c.Brokers {
		b.Stop()
		l.must(5)
		b.Restart()
		c.WaitReplicated(1)
	}
	l.verify()
}
