package broker_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/proto/record"
)

// comparing brokers compare their replicas all the time, and serve metrics.
func comparing(cfg *broker.Config) {
	withMetrics(cfg)
	cfg.CompareEvery = 100 * time.Millisecond
}

// forgeSegment changes one byte of the last record batch of a segment and makes the frame's CRC right again: damage that happened before the CRC was
// made, in memory. Neither reading nor recovery nor scrubbing can see it.
func forgeSegment(t *testing.T, path string) {
	t.Helper()
	edit(t, path, func(b []byte) []byte {
		salt, last := b[16:24], 0
		for at := 64; at+40 <= len(b) && binary.LittleEndian.Uint64(b[at+8:]) != 0; {
			n := int(binary.LittleEndian.Uint32(b[at:]))
			if b[at+36] == 0 && b[at+40] < 0x80 && n > 61 { // a command that is a batch
				last = at
			}
			at += (40 + n + int(binary.LittleEndian.Uint16(b[at+38:])) + 7) &^ 7
		}
		if last == 0 {
			t.Fatalf("no batch in %s", path)
		}
		end := last + 40 + int(binary.LittleEndian.Uint32(b[last:]))
		b[end-2] ^= 1
		table := crc32.MakeTable(crc32.Castagnoli)
		sum := crc32.Checksum(salt, table)
		sum = crc32.Update(sum, table, b[last:last+4])
		sum = crc32.Update(sum, table, b[last+8:end+int(binary.LittleEndian.Uint16(b[last+38:]))])
		binary.LittleEndian.PutUint32(b[last+4:], sum)
		return b
	})
}

// newestSegment is the newest segment of a broker's only replica.
func newestSegment(t *testing.T, c *brokertest.Cluster, id api.BrokerID) string {
	t.Helper()
	dirs := c.ReplicaDirs(id)
	if len(dirs) != 1 {
		t.Fatalf("broker %d has %v", id, dirs)
	}
	files, err := filepath.Glob(filepath.Join(c.Node(id).Dir, "partitions", dirs[0], "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	return files[len(files)-1]
}

// forgeReplica kills a broker, forges its replica, and starts it again: it applies the forged batch.
func forgeReplica(t *testing.T, c *brokertest.Cluster, id api.BrokerID) {
	t.Helper()
	c.Crash(id)
	forgeSegment(t, newestSegment(t, c, id))
	c.Restart(id)
}

// TestDivergenceIsRepaired: one replica of three applied something else than the others. The alarm names it, and it is rebuilt from them without a
// restart of its broker.
func TestDivergenceIsRepaired(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: comparing})
	c.CreateTopic("t", 1, 3)
	for i := range 20 {
		c.Produce("t", 0, fmt.Sprint("record ", i))
	}
	c.WaitReplicated("t", 0, 1, 2, 3)
	victim := c.Leader("t", 0)%3 + 1
	tp := api.TopicPartition{Topic: "t"}
	before, _ := c.Broker(victim).LocalReplica(tp)
	forgeReplica(t, c, victim)
	eventually(c, "flotilla_divergence_alarms_total", func(v float64) bool { return v >= 1 })
	c.Eventually("the replica is back under another name", func() error {
		st, ok := c.Broker(victim).LocalReplica(tp)
		if !ok || st.LocalID == before.LocalID {
			return fmt.Errorf("open: %v, as %s, was %s", ok, st.LocalID, before.LocalID)
		}
		return nil
	})
	c.WaitReplicated("t", 0, 1, 2, 3)
	c.EnsureSame("t", 0)
	eventually(c, `flotilla_damage_detected_total{found_by="digest"}`, is(1))
	eventually(c, "flotilla_replica_quarantines_total", is(1))
	eventually(c, "flotilla_replica_rebuilds_total", is(1))
	eventually(c, "flotilla_diverged_partitions", is(0))
	c.Eventually("the damaged files are gone", func() error { return c.FilesMatch("t") })
	for i, r := range c.ReadAll("t", 0) {
		if want := fmt.Sprint("record ", i); string(r.GetValue()) != want {
			t.Errorf("record %d is %q, want %q", i, r.GetValue(), want)
		}
	}
}

// problemsOf are a cluster's problems with a partition, in words.
func problemsOf(c *brokertest.Cluster, topic string) string {
	c.T.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	st, err := c.Broker(c.Running()[0]).Status(ctx)
	if err != nil {
		c.T.Fatal(err)
	}
	var out []string
	for _, p := range st.Problems {
		if p.Topic == topic {
			out = append(out, p.Problem)
		}
	}
	return strings.Join(out, "; ")
}

// TestDivergenceOfTwo: with two replicas nobody knows which one is right. The alarm names both and the place, and nothing is set aside.
func TestDivergenceOfTwo(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 2, Tune: comparing})
	c.CreateTopic("t", 1, 2)
	for i := range 20 {
		c.Produce("t", 0, fmt.Sprint("record ", i))
	}
	c.WaitReplicated("t", 0, 1, 2)
	victim := 3 - c.Leader("t", 0)
	forgeReplica(t, c, victim)
	last := uint64(0)
	c.Eventually("the status names both", func() error {
		st, _ := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t"})
		last = st.AppliedIndex
		want := "at the latest: those on brokers 1, 2, and no majority tells which of them is right"
		if got := problemsOf(c, "t"); !strings.Contains(got, want) {
			return fmt.Errorf("problems: %q", got)
		}
		return nil
	})
	if got := problemsOf(c, "t"); !strings.Contains(got, fmt.Sprintf("from entry %d ", last)) {
		t.Errorf("the alarm does not name entry %d: %s", last, got)
	}
	eventually(c, "flotilla_diverged_partitions", is(1))
	if n := sumMetric(c, "flotilla_replica_quarantines_total"); n != 0 {
		t.Errorf("%v replicas were set aside", n)
	}
}

// TestNoFalseDivergence: kills, restarts, trims and replicas that are rebuilt from a checkpoint raise no alarm, while comparisons go on all the time.
func TestNoFalseDivergence(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		comparing(cfg)
		cfg.CompareEvery = 20 * time.Millisecond
	}})
	c.CreateTopic("t", 1, 3, "segment.bytes", "65536")
	tp := api.TopicPartition{Topic: "t"}
	value := strings.Repeat("x", 1000)
	ctx, cancel := c.Context()
	defer cancel()
	offset := int64(0)
	for round := range 6 {
		victim := api.BrokerID(round%3 + 1)
		c.Crash(victim)
		for range 100 {
			offset = c.Produce("t", 0, value)
		}
		if _, err := c.Broker(c.Leader("t", 0)).DeleteRecords(ctx, tp, record.Offset(offset)+1); err != nil && round > 0 {
			t.Logf("trimming: %v", err)
		}
		if round == 3 { // what it has is gone: it begins with a checkpoint of the leader's
			for _, dir := range c.ReplicaDirs(victim) {
				if err := os.RemoveAll(filepath.Join(c.Node(victim).Dir, "partitions", dir)); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Restart(victim)
		for range 100 {
			offset = c.Produce("t", 0, value)
		}
		c.WaitReplicated("t", 0, 1, 2, 3)
		c.Eventually("all replicas vote", func() error { // else the next kill takes the quorum
			if got := problemsOf(c, "t"); got != "" {
				return errors.New(got)
			}
			return nil
		})
	}
	checks := sumMetric(c, "flotilla_digest_checks_total")
	eventually(c, "flotilla_digest_checks_total", func(v float64) bool { return v > checks+10 })
	if n := sumMetric(c, "flotilla_divergence_alarms_total"); n != 0 {
		t.Errorf("%v alarms, of a cluster in which nothing differs: %s", n, problemsOf(c, "t"))
	}
}
