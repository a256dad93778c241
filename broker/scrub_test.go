package broker_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// TestScrubRepairs damages a stored segment of a follower that runs and that nobody reads from: scrubbing alone finds it, and the replica is
// rebuilt from the others while the broker goes on.
func TestScrubRepairs(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Tune: func(cfg *broker.Config) {
		cfg.Scrub = broker.ScrubConfig{BytesPerSecond: 64 << 20, Every: 100 * time.Millisecond}
	}})
	c.CreateTopic("t", 1, 3, "segment.bytes", "65536")
	for range 10 {
		c.Produce("t", 0, strings.Repeat("x", 20_000))
	}
	c.WaitReplicated("t", 0, 1, 2, 3)
	victim := c.Leader("t", 0)%3 + 1
	tp := api.TopicPartition{Topic: "t"}
	before, _ := c.Broker(victim).LocalReplica(tp)
	dirs := c.ReplicaDirs(victim)
	if len(dirs) != 1 {
		t.Fatalf("broker %d has %v", victim, dirs)
	}
	dir := filepath.Join(c.Node(victim).Dir, "partitions", dirs[0])
	if files, err := filepath.Glob(filepath.Join(dir, "*.log")); err != nil || len(files) < 2 {
		t.Fatalf("no sealed segment: %v, %v", files, err)
	}
	flipBytes(t, dir)
	c.Eventually("the replica is back under another name", func() error {
		st, ok := c.Broker(victim).LocalReplica(tp)
		if !ok || st.LocalID == before.LocalID {
			return fmt.Errorf("open: %v, as %s, was %s", ok, st.LocalID, before.LocalID)
		}
		return nil
	})
	c.WaitReplicated("t", 0, 1, 2, 3)
	c.EnsureSame("t", 0)
	c.Eventually("the damaged files are gone", func() error { return c.FilesMatch("t") })
	if got := c.ReadAll("t", 0); len(got) != 10 {
		t.Errorf("%d records of 10", len(got))
	}
}
