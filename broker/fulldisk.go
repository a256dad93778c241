package broker

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// fullDiskEvery is how often a broker looks whether its disk is full: that bounds for how long a partition refuses records that others have space for.
const fullDiskEvery = 200 * time.Millisecond

// leaveFullDisk hands leaderships to replicas that have space, while this broker's disk is full, until the broker stops. Where a quorum has space the
// partition can then be written to again; otherwise leadership stays.
func (b *Broker) leaveFullDisk() {
	for b.sleep(fullDiskEvery) == nil {
		var g errgroup.Group
		g.SetLimit(transfersAtOnce)
		for _, h := range b.replicas.all() {
			if r := h.open(); r != nil && r.ShortOfSpace() && r.IsLeader() && r.StorageFull() != nil && !h.alone() {
				g.Go(func() error {
					h.handToSpace()
					return nil
				})
			}
		}
		_ = g.Wait()
	}
}

// handToSpace hands leadership to the first voter that is caught up and has space. It may fail, and is tried again.
func (h *hosted) handToSpace() {
	r := h.open()
	if r == nil {
		return
	}
	for _, s := range r.Status().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == h.serverID || !h.mayLead(r, s) {
			continue
		}
		h.log.Info("the disk is full: handing leadership over", "to", s.Address)
		ctx, cancel := context.WithTimeout(h.ctx, h.m.b.cfg.Timing.CallTimeout)
		defer cancel()
		if err := r.TransferLeadership(ctx, &s); err != nil {
			h.log.Debug("handing leadership over from a full disk", "error", err)
		}
		return
	}
}
