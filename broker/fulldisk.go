package broker

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

const (
	// fullDiskEvery is how often a broker looks whether its disk is full: that bounds for how long a partition refuses records that others have space for.
	fullDiskEvery = 200 * time.Millisecond
	// fullDiskAll is how many looks go by until all replicas are asked although there is space: one may have failed to write for another reason, such as a quota. To ask a
	// thousand takes a millisecond.
	fullDiskAll = 5
)

// leaveFullDisk hands leaderships to replicas that have space, while this broker's disk is full, until the broker stops. Where a quorum has space the
// partition can then be written to again; otherwise leadership stays.
func (b *Broker) leaveFullDisk() {
	for look := 1; b.sleep(fullDiskEvery) == nil; look++ {
		if look%fullDiskAll != 0 && !b.diskShort() {
			continue
		}
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

// diskShort says that less than the reserve is free, or that nobody can tell.
func (b *Broker) diskShort() bool {
	free, err := b.replicas.fs().FreeBytes(b.replicas.dir)
	return err != nil || free < b.cfg.DiskReserve
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
