package partition

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
)

func TestRetainedFrom(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	seg := func(base, next record.Offset, maxMs int64, sealed bool) raftlog.SegmentInfo {
		return raftlog.SegmentInfo{BaseOffset: base, NextOffset: next, Bytes: 100, MaxTimestamp: maxMs, Sealed: sealed, CreatedAt: time.UnixMilli(maxMs)}
	}
	segments := []raftlog.SegmentInfo{seg(0, 10, 100_000, true), seg(10, 10, 150_000, true), seg(10, 30, 500_000, true), seg(30, 40, 900_000, true), seg(40, 45, 1_000_000, false)}
	for name, tc := range map[string]struct {
		age   time.Duration
		bytes int64
		want  record.Offset
	}{
		"no limits":                           {-1, -1, 0},
		"age, none":                           {1000 * time.Second, -1, 0},
		"age, one":                            {800 * time.Second, -1, 10},
		"age, up to one that is young":        {450 * time.Second, -1, 30},
		"age, never the active one":           {1, -1, 40},
		"bytes, all fit":                      {-1, 500, 0},
		"bytes, exactly one too many":         {-1, 400, 10},
		"bytes, at least what is asked stays": {-1, 199, 30},
		"bytes 0, never the active one":       {-1, 0, 40},
		"both, the stricter counts":           {450 * time.Second, 100, 40},
	} {
		s := &Settings{RetentionAge: tc.age, RetentionBytes: tc.bytes}
		if got := retainedFrom(segments, s, now); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// A record from the future (nanoseconds taken for milliseconds, say) does not keep its segment, and all after it, until then.
func TestRetentionOfTheFuture(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	segments := []raftlog.SegmentInfo{
		{BaseOffset: 0, NextOffset: 10, MaxTimestamp: 1 << 60, Sealed: true, CreatedAt: time.UnixMilli(1000)},
		{BaseOffset: 10, NextOffset: 20, MaxTimestamp: 1 << 60, Sealed: true, CreatedAt: time.UnixMilli(200_000)},
		{BaseOffset: 20, NextOffset: 30, MaxTimestamp: 1 << 60, CreatedAt: time.UnixMilli(700_000)},
	}
	for age, want := range map[time.Duration]record.Offset{801 * time.Second: 0, 799 * time.Second: 10, 301 * time.Second: 10, 299 * time.Second: 20, 1: 20} {
		if got := retainedFrom(segments, &Settings{RetentionAge: age, RetentionBytes: -1}, now); got != want {
			t.Errorf("retention.ms %s: from %d, want %d", age, got, want)
		}
	}
}

func TestRetentionByBytes(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Settings.SegmentBytes = 4 << 10; cfg.Settings.RetentionBytes = 12 << 10 })
	c.fill(100, 300)
	// A replica that wrote its checkpoints more slowly than it rolled has dropped some, and removes those segments together with the next
	// one that has a checkpoint: so more has to come.
	c.eventually("segments go, on all replicas", func() bool {
		c.fill(2, 300)
		c.leader().rep.upkeep.kick()
		for _, n := range c.nodes {
			if n.rep.log.Size() > 20<<10 {
				return false
			}
		}
		return true
	})
	start, hw := c.leader().rep.Bounds()
	if start < 50 || hw < 100 || c.leader().rep.log.Size() < 12<<10 {
		t.Errorf("[%d, %d] is left, %d bytes", start, hw, c.leader().rep.log.Size())
	}
	c.ensureSame()
}

func TestRetentionByAgeOfAnIdlePartition(t *testing.T) {
	var now atomic.Int64
	now.Store(1_700_000_000_000)
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Settings.RetentionAge = 20 * time.Minute
		cfg.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	})
	for range 10 {
		c.mustAppend(recordtest.Batch(1, 1000, recordtest.Time(now.Load())))
	}
	r := c.leader().rep
	r.runUpkeep()
	if start, _ := r.Bounds(); start != 0 {
		t.Fatalf("the log start moved to %d at once", start)
	}
	now.Add(10 * 365 * 24 * 3600 * 1000) // a clock that was set wrong makes nothing old
	r.runUpkeep()
	if start, _ := r.Bounds(); start != 0 {
		t.Fatalf("the log start moved to %d when the clock jumped", start)
	}
	now.Add(-10 * 365 * 24 * 3600 * 1000)
	now.Add(40 * 60 * 1000)
	c.eventually("all that is old goes, on all replicas, although nobody appends", func() bool {
		c.leader().rep.upkeep.kick()
		for _, n := range c.nodes {
			if start, hw := n.rep.Bounds(); start != 10 || hw != 10 || n.rep.log.Size() > 5000 {
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
	if res := c.mustAppend(recordtest.Batch(1, 10)); res.BaseOffset != 10 || res.LogStart != 10 {
		t.Errorf("append after a restart: %+v", res)
	}
	c.ensureSame()
}

func TestUpdateSettings(t *testing.T) {
	c := newCluster(t, 1)
	r := c.leader().rep
	c.fill(1, 5000)
	r.UpdateSettings(Settings{MaxMessageBytes: 1000, SegmentBytes: 4096})
	if _, err := r.Append(testContext(t), AppendRequest{Batch: recordtest.Batch(1, 5000)}); err == nil {
		t.Error("a batch above the new max.message.bytes was stored")
	}
	c.fill(20, 500)
	if n := len(r.log.Segments()); n < 2 {
		t.Errorf("%d segments after the size was lowered", n)
	}
}
