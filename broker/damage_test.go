package broker_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// harm is one way to damage a file of a replica.
type harm struct {
	name string
	// file chooses among the files of the replica's directory: by extension, and the how-manieth of those, from the end if it is negative.
	ext string
	nth int
	do  func(b []byte) []byte // what becomes of it; nil: it is deleted
}

// flipAt flips a bit at a share of the file's length.
func flipAt(share float64) func([]byte) []byte {
	return func(b []byte) []byte {
		end := len(b)
		for end > 0 && b[end-1] == 0 { // what is preallocated carries nothing
			end--
		}
		b[min(int(share*float64(end)), end-1)] ^= 1
		return b
	}
}

// flipByte flips a bit at a place.
func flipByte(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= 0x10
		return b
	}
}

func cutTo(share float64) func([]byte) []byte {
	return func(b []byte) []byte { return b[:int(share*float64(len(b)))] }
}

// harms are all that is done to a replica; each has a partition of its own.
var harms = []harm{
	{"magic of a sealed segment", ".log", 0, flipByte(1)},
	{"header of a sealed segment", ".log", 0, flipByte(20)},
	{"length of the first frame", ".log", 0, flipByte(64)},
	{"CRC of the first frame", ".log", 0, flipByte(69)},
	{"index of the first frame", ".log", 0, flipByte(72)},
	{"payload, a third in", ".log", 0, flipAt(0.34)},
	{"payload, two thirds in", ".log", 1, flipAt(0.67)},
	{"end of a sealed segment", ".log", 0, flipAt(1)},
	{"sealed segment cut in half", ".log", 0, cutTo(0.5)},
	{"sealed segment emptied", ".log", 1, cutTo(0)},
	{"sealed segment deleted", ".log", 0, nil},
	{"header of the newest segment", ".log", -1, flipByte(30)},
	{"payload of the newest segment", ".log", -1, flipAt(0.5)},
	{"newest segment cut in half", ".log", -1, cutTo(0.1)},
	{"newest segment deleted", ".log", -1, nil},
	{"header of a checkpoint", ".ckpt", -1, flipByte(17)},
	{"state in a checkpoint", ".ckpt", -1, flipAt(0.9)},
	{"checkpoint cut in half", ".ckpt", -1, cutTo(0.5)},
	{derived, ".ckpt", -1, nil},
	{"record of the start", "start", 0, flipByte(16)},
	{"record of the start deleted", "start", 0, nil},
}

// derived is what a replica that does not run can do without: it replays its log from an earlier checkpoint, or from the beginning.
const derived = "checkpoint deleted"

// indexHarms are repaired in place.
var indexHarms = []harm{
	{"header of an index", ".idx", 0, flipByte(24)},
	{"point of an index", ".idx", 0, flipAt(0.9)},
	{"index cut in half", ".idx", 0, cutTo(0.5)},
	{"index deleted", ".idx", 0, nil},
}

const damageRecords = 24

// damageValue makes a partition's records, of which four or so fill a segment.
func damageValue(partition int32, n int) string {
	return fmt.Sprintf("%d/%d ", partition, n) + strings.Repeat("x", 16_000)
}

// damageCluster makes a partition for each harm, with some sealed segments and checkpoints.
func damageCluster(t *testing.T, partitions int, scrubEvery time.Duration) *brokertest.Cluster {
	t.Helper()
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		withMetrics(cfg)
		cfg.Scrub = broker.ScrubConfig{BytesPerSecond: 256 << 20, Every: scrubEvery}
		cfg.AutoBalanceLeaders = false
	}})
	c.CreateTopic("t", int32(partitions), 3, "segment.bytes", "65536")
	for p := range int32(partitions) {
		for n := range damageRecords {
			c.Produce("t", p, damageValue(p, n))
		}
	}
	for p := range int32(partitions) {
		c.WaitReplicated("t", p, 1, 2, 3)
	}
	return c
}

// replicaFile finds the file that a harm is meant for, in a broker's replica of a partition of t.
func replicaFile(c *brokertest.Cluster, id api.BrokerID, partition int32, h harm) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(c.Node(id).Dir, "partitions", fmt.Sprintf("t-%d.*", partition)))
	if err != nil || len(dirs) != 1 {
		return "", fmt.Errorf("broker %d has %v of partition %d: %v", id, dirs, partition, err)
	}
	files, err := filepath.Glob(filepath.Join(dirs[0], "*"+h.ext))
	if err != nil {
		return "", err
	}
	if h.nth < 0 {
		h.nth += len(files)
	}
	if h.nth < 0 || h.nth >= len(files) {
		return "", fmt.Errorf("%s: only %v in %s", h.name, files, dirs[0])
	}
	return files[h.nth], nil
}

// apply harms the file as a disk would: the same inode, in place.
func (h harm) apply(t *testing.T, path string) {
	t.Helper()
	if h.do == nil {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(b))
	b = h.do(b)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) < size {
		if err := f.Truncate(int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
}

// harmAll damages one replica of each partition: the leader's where the harm's number is even, else a follower's.
func harmAll(t *testing.T, c *brokertest.Cluster, list []harm) (victims []api.BrokerID, names []string) {
	t.Helper()
	for i, h := range list {
		victim := c.Leader("t", int32(i))
		if i%2 == 1 {
			victim = victim%3 + 1
		}
		c.Eventually(h.name, func() error { // checkpoints and indexes are written in the background
			_, err := replicaFile(c, victim, int32(i), h)
			return err
		})
		path, err := replicaFile(c, victim, int32(i), h)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t", Partition: int32(i)})
		victims, names = append(victims, victim), append(names, string(st.LocalID))
		h.apply(t, path)
	}
	return victims, names
}

// rebuildPatience is for all replicas together: a broker builds two at a time, and the machine may have more to do.
const rebuildPatience = 4 * time.Minute

// awaitRebuilt waits until a broker's replica of a partition is back under another name.
func awaitRebuilt(c *brokertest.Cluster, victim api.BrokerID, partition int32, before, why string) {
	c.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(rebuildPatience); ; <-tick.C {
		st, ok := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t", Partition: partition})
		if ok && string(st.LocalID) != before {
			return
		}
		if time.Now().After(deadline) {
			c.T.Fatalf("%s: partition %d on broker %d is not rebuilt: open: %v, as %s; %s", why, partition, victim, ok, st.LocalID, problemsOf(c, "t"))
		}
	}
}

// checkRecords: every record is there once, as it was written, whichever replica is asked through its leader.
func checkRecords(t *testing.T, c *brokertest.Cluster, partition int32, why string) {
	t.Helper()
	c.WaitReplicated("t", partition, 1, 2, 3)
	c.EnsureSame("t", partition)
	next := 0
	for _, r := range c.ReadAll("t", partition) {
		got := string(r.GetValue())
		if got == damageValue(partition, next) {
			next++
		} else if next == 0 || got != damageValue(partition, next-1) { // a retry, which has no producer ID, may be there twice
			t.Fatalf("%s: record %d of partition %d is %.20q", why, next, partition, got)
		}
	}
	if next != damageRecords {
		t.Errorf("%s: %d records of %d", why, next, damageRecords)
	}
}

// TestDamageUnderRunningBrokers harms a replica of each partition in another way while all brokers run. Without any restart, each is found by the
// background check (or by a read that comes first), is rebuilt from the others, and nothing is lost or served wrong. The metrics count each.
func TestDamageUnderRunningBrokers(t *testing.T) {
	c := damageCluster(t, len(harms), 200*time.Millisecond)
	victims, names := harmAll(t, c, harms)
	for i, h := range harms {
		awaitRebuilt(c, victims[i], int32(i), names[i], h.name)
	}
	for i, h := range harms {
		checkRecords(t, c, int32(i), h.name)
	}
	found := 0.0
	for _, by := range []string{"open", "use", "scrub"} {
		found += sumMetric(c, fmt.Sprintf("flotilla_damage_detected_total{found_by=%q}", by))
	}
	if found != float64(len(harms)) {
		t.Errorf("%v cases of damage were counted, of %d", found, len(harms))
	}
	eventually(c, "flotilla_replica_quarantines_total", is(float64(len(harms))))
	eventually(c, "flotilla_replica_rebuilds_total", is(float64(len(harms))))
	eventually(c, "flotilla_damaged_replicas", is(0))
	c.Eventually("nothing is left to tell", func() error {
		if got := problemsOf(c, "t"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

// TestDamageOfIndexes: an index is a copy of what its segment says. The replica goes on, and the file is written anew.
func TestDamageOfIndexes(t *testing.T) {
	c := damageCluster(t, len(indexHarms), 200*time.Millisecond)
	_, names := harmAll(t, c, indexHarms)
	eventually(c, "flotilla_index_repairs_total", is(float64(len(indexHarms))))
	for i, h := range indexHarms {
		checkRecords(t, c, int32(i), h.name)
		st := map[string]bool{}
		for _, id := range c.Running() {
			if s, ok := c.Broker(id).LocalReplica(api.TopicPartition{Topic: "t", Partition: int32(i)}); ok {
				st[string(s.LocalID)] = true
			}
		}
		if !st[names[i]] {
			t.Errorf("%s: replica %s was replaced: %v", h.name, names[i], st)
		}
	}
}

// TestDamageWhileDown harms the files of a broker that does not run, in every way, half of the times after it was killed. When it is back, all of it is found,
// at the start or by the background check, and rebuilt, without another restart.
func TestDamageWhileDown(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			c := damageCluster(t, len(harms), 200*time.Millisecond)
			const victim = api.BrokerID(2)
			names := map[int]string{}
			for i, h := range harms {
				c.Eventually(h.name, func() error {
					_, err := replicaFile(c, victim, int32(i), h)
					return err
				})
				st, _ := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t", Partition: int32(i)})
				names[i] = string(st.LocalID)
			}
			if killed {
				c.Crash(victim)
			} else {
				c.Stop(victim)
			}
			for i, h := range harms {
				path, err := replicaFile(c, victim, int32(i), h)
				if err != nil {
					t.Fatal(err)
				}
				h.apply(t, path)
			}
			c.Restart(victim)
			rebuilt := 0
			for i, h := range harms {
				if h.name != derived {
					awaitRebuilt(c, victim, int32(i), names[i], h.name)
					rebuilt++
				}
				checkRecords(t, c, int32(i), h.name)
			}
			if n := metricsOf(c, victim)["flotilla_replica_quarantines_total"]; n != float64(rebuilt) {
				t.Errorf("%v replicas were set aside, of %d", n, rebuilt)
			}
		})
	}
}
