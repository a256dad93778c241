package broker_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

// flipStored flips a bit in each copy of what the vote store's file has of a group under a key; pages that are free by now may have it too.
func flipStored(t *testing.T, path string, group uint64, key string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := append(binary.BigEndian.AppendUint64(nil, group), key...)
	n := 0
	for at := 0; ; n++ {
		i := bytes.Index(b[at:], full)
		if i < 0 {
			break
		}
		at += i + len(full)
		b[at+8] ^= 1 // behind the checks
	}
	if n == 0 {
		t.Fatalf("%s has no %s of group %d", path, key, group)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedVotes: a replica whose term, vote or marker is damaged on the disk does not come back under its name; it is rebuilt from the others, under
// another one, while the other replicas of the broker go on. Another restart finds nothing wrong.
func TestDamagedVotes(t *testing.T) {
	keys := []string{"CurrentTerm", "replica", ""}
	c := damageCluster(t, len(keys), time.Hour)
	const victim = api.BrokerID(2)
	names := make([]string, len(keys))
	for i := range keys {
		st, _ := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t", Partition: int32(i)})
		names[i] = string(st.LocalID)
	}
	c.Stop(victim)
	for i, key := range keys {
		path, err := replicaFile(c, victim, int32(i), harms[0])
		if err != nil {
			t.Fatal(err)
		}
		_, id, _ := strings.Cut(filepath.Base(filepath.Dir(path)), ".")
		id, _, _ = strings.Cut(id, "-")
		group, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			flipStored(t, filepath.Join(c.Node(victim).Dir, "stable.db"), group, key)
		}
	}
	c.Restart(victim)
	for i, key := range keys {
		if key != "" {
			awaitRebuilt(c, victim, int32(i), names[i], key)
		}
		checkRecords(t, c, int32(i), key)
	}
	if n := metricsOf(c, victim)["flotilla_replica_quarantines_total"]; n != 2 {
		t.Errorf("%v replicas were set aside", n)
	}
	c.Stop(victim)
	c.Restart(victim)
	for i, key := range keys {
		checkRecords(t, c, int32(i), key+", again")
	}
	if n := metricsOf(c, victim)["flotilla_replica_quarantines_total"]; n != 0 {
		t.Errorf("%v replicas were set aside after another restart", n)
	}
	st, _ := c.Broker(victim).LocalReplica(api.TopicPartition{Topic: "t", Partition: 2})
	if string(st.LocalID) != names[2] {
		t.Errorf("the replica whose vote was sound is %s now, was %s", st.LocalID, names[2])
	}
}
