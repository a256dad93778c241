package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// transfersAtOnce bounds the leaderships handed over at a time in a graceful stop.
const transfersAtOnce = 16

// Shutdown hands leaderships over, leaves the gossip and closes everything in order. It returns when all goroutines have ended; ctx bounds
// the polite part, after which it only closes. While Start still runs, it ends that and nothing more.
//
// The order:
//
//  1. Health says NOT_SERVING, so that load balancers turn away.
//  2. Leaderships are handed over while this broker still answers: appends in flight finish, later ones hear who leads now.
//  3. Gossip is left, so that nobody takes the silence to come for a failure.
//  4. The front ends close: from here on nobody calls into the parts below.
//  5. Controller, gossip, replicas (with a checkpoint each, so that the next start replays nothing), metadata, transport, vote store, lock: each
//     before those it calls.
func (b *Broker) Shutdown(ctx context.Context) error {
	var err error
	b.stopOnce.Do(func() { err = b.shutdown(ctx) })
	return err
}

func (b *Broker) shutdown(ctx context.Context) error {
	b.life.stop()
	if !b.up.Load() { // never started, or the start failed or was ended
		b.stopAll()
		return nil
	}
	b.log.Info("stopping")
	b.server.SetServing(false)
	b.stopping.Store(true)
	b.handOver(ctx)
	if m := b.members.Load(); m != nil {
		if err := m.Leave(ctx); err != nil {
			b.log.Warn("leaving the gossip", "error", err)
		}
	}
	// What was on its way here when the hand-over ended has come by now; nothing more comes from those who know that this broker left.
	b.handOver(ctx)
	b.route.notify()
	grace, cancel := context.WithTimeout(ctx, 2*time.Second)
	b.stopFronts(grace)
	cancel()
	b.stopAll()
	b.log.Info("stopped")
	return nil
}

// stopFronts ends all front ends at the same time.
func (b *Broker) stopFronts(ctx context.Context) {
	var g errgroup.Group
	if b.kafka != nil {
		g.Go(func() error { b.kafka.Stop(ctx); return nil })
	}
	if b.metricsSrv != nil {
		g.Go(func() error { b.metricsSrv.Stop(ctx); return nil })
	}
	b.server.Stop(ctx)
	_ = g.Wait()
}

// handOver gives all leaderships away, several at a time, and again those that come back meanwhile: another broker may just have begun to
// give this one a leadership that it prefers. What cannot be given away within Timing.HandOver is left to an election.
func (b *Broker) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.HandOver)
	defer cancel()
	for ctx.Err() == nil {
		routes := b.route.wait()
		if b.handOverOnce(ctx) == 0 {
			break
		}
		again := time.NewTimer(50 * time.Millisecond)
		select {
		case <-routes:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
	if err := b.node.TransferLeadership(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		b.log.Debug("handing the metadata's leadership over", "error", err)
	}
}

// handOverOnce tries each leadership once and says how many there were. Those of partitions with a single replica do not count.
func (b *Broker) handOverOnce(ctx context.Context) int {
	var g errgroup.Group
	g.SetLimit(transfersAtOnce)
	n := 0
	for _, h := range b.replicas.all() {
		if !h.leads() || h.alone() {
			continue
		}
		n++
		g.Go(func() error {
			if err := h.transferAway(ctx); err != nil && ctx.Err() == nil {
				b.log.Debug("handing leadership over", "partition", h.name, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait()
	return n
}

// stopAll ends the loops and closes the parts in reverse order of their start.
func (b *Broker) stopAll() {
	b.stopping.Store(true)
	b.cancel()
	closers := b.closers
	b.closers = nil
	for _, c := range slices.Backward(closers) {
		c()
	}
	b.wg.Wait()
}

// Kill ends the broker as a crash would, as far as one process can: the connections go first, so nothing polite gets out: no hand-over, no leave, no
// final checkpoints. For tests.
func (b *Broker) Kill() {
	b.stopOnce.Do(func() {
		b.killed.Store(true)
		b.stopping.Store(true)
		b.life.stop()
		if b.transport != nil {
			_ = b.transport.Close()
		}
		if b.server != nil {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			b.stopFronts(now)
		}
		b.stopAll()
	})
}
