package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/raftlog"
)

// ScrubConfig says how stored segments are checked in the background. Damage that is found quarantines the replica, which is rebuilt from the
// others.
type ScrubConfig struct {
	// BytesPerSecond bounds the rate at which all of a broker's replicas together are read. Default 8 MiB; negative: no scrubbing.
	BytesPerSecond int64
	// Every is the pause between two passes over everything, and before the first one. Default 1 h.
	Every time.Duration
}

func (c *ScrubConfig) setDefaults() {
	setDefault(&c.BytesPerSecond, 8<<20)
	setDefault(&c.Every, time.Hour)
}

// scrubbing is what the metrics tell of the pass under way and the last one.
type scrubbing struct {
	mu          sync.Mutex
	done, total int64
	completed   time.Time
}

func (s *scrubbing) begin(total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total = 0, total
}

func (s *scrubbing) add(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done += int64(bytes)
	s.total = max(s.total, s.done) // what was written since the beginning counts too
}

func (s *scrubbing) end(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total, s.completed = 0, 0, at
}

func (s *scrubbing) progress() (done, total int64, completed time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done, s.total, s.completed
}

// errScrubOff ends the scrub of a replica when scrubbing is turned off meanwhile.
var errScrubOff = errors.New("scrubbing was turned off")

// scrub checks one replica after the other, over and over, until the broker stops.
func (b *Broker) scrub() {
	for b.sleep(b.cfg.Scrub.Every) == nil {
		if b.scrubRate() < 0 {
			continue // until it is altered
		}
		if b.scrubAll() != nil {
			return
		}
	}
}

// scrubAll is one pass. The error says that the broker stops.
func (b *Broker) scrubAll() error {
	list := b.replicas.all()
	total := int64(0)
	for _, h := range list {
		if r := h.open(); r != nil {
			total += r.Status().Bytes
		}
	}
	b.scrubbing.begin(total)
	for _, h := range list {
		b.scrubReplica(h)
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	b.scrubbing.end(b.cfg.Seams.Now())
	b.metrics.ScrubPasses.Inc()
	return nil
}

func (b *Broker) scrubReplica(h *hosted) {
	r := h.open()
	if r == nil {
		return
	}
	h.foundBy.CompareAndSwap(nil, &foundByScrub) // before it fails the replica
	err := r.Scrub(b.ctx, b.scrubPace)
	var damage *raftlog.DamageError
	if !errors.As(err, &damage) {
		h.foundBy.CompareAndSwap(&foundByScrub, nil)
		return
	}
	if b.ctx.Err() == nil {
		b.log.Error("scrubbing found damage", "partition", h.name, "error", err)
	}
}

// scrubPace waits for as long as reading so many bytes may take.
func (b *Broker) scrubPace(_ context.Context, bytes int) error {
	b.metrics.ScrubBytes.Add(float64(bytes))
	b.scrubbing.add(bytes)
	rate := b.scrubRate()
	if rate < 0 {
		return errScrubOff
	}
	return b.sleep(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
}

// sleep waits; the error says that the broker stops.
func (b *Broker) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}
