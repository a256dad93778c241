package broker

import (
	"context"
	"errors"
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

// scrub checks one replica after the other, over and over, until the broker stops.
func (b *Broker) scrub() {
	if b.cfg.Scrub.BytesPerSecond < 0 {
		return
	}
	for b.sleep(b.cfg.Scrub.Every) == nil {
		for _, h := range b.replicas.all() {
			r := h.open()
			if r == nil {
				continue
			}
			err := r.Scrub(b.ctx, b.scrubPace)
			var damage *raftlog.DamageError
			switch {
			case b.ctx.Err() != nil:
				return
			case errors.As(err, &damage):
				b.log.Error("scrubbing found damage", "partition", h.name, "error", err)
			}
		}
	}
}

// scrubPace waits for as long as reading so many bytes may take.
func (b *Broker) scrubPace(_ context.Context, bytes int) error {
	return b.sleep(time.Duration(float64(bytes) / float64(b.cfg.Scrub.BytesPerSecond) * float64(time.Second)))
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
