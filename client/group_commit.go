package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Commit commits the offsets after all records that Poll has returned.
func (g *GroupConsumer) Commit(ctx context.Context) error {
	g.mu.Lock()
	offsets := maps.Clone(g.delivered)
	g.mu.Unlock()
	return g.CommitOffsets(ctx, offsets)
}

// CommitRecords commits, for each partition, the offset after the last of these records.
func (g *GroupConsumer) CommitRecords(ctx context.Context, records ...*Record) error {
	offsets := make(map[TopicPartition]Commit)
	for _, r := range records {
		tp := r.TopicPartition()
		if c, ok := offsets[tp]; !ok || c.Offset <= r.Offset {
			offsets[tp] = Commit{Offset: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
		}
	}
	return g.CommitOffsets(ctx, offsets)
}

// CommitOffsets commits any offsets of partitions that the member has. It fails with ErrNotAssigned for others. If the group rebalances meanwhile, it
// waits for the new generation and commits for the partitions that stay, outside of callbacks.
func (g *GroupConsumer) CommitOffsets(ctx context.Context, offsets map[TopicPartition]Commit) error {
	if len(offsets) == 0 {
		return nil
	}
	g.mu.Lock()
	for tp := range offsets {
		if !g.owned[tp] {
			g.mu.Unlock()
			return fmt.Errorf("commit %v: %w", tp, ErrNotAssigned)
		}
	}
	wait := !g.inTask
	g.mu.Unlock()
	return g.commit(ctx, offsets, wait)
}

// Committed returns the group's committed offsets of partitions; Offset is -1 where there is none.
func (g *GroupConsumer) Committed(ctx context.Context, tps ...TopicPartition) (map[TopicPartition]Commit, error) {
	return fetchOffsets(ctx, g.client, &g.co, g.group, tps)
}

// commit sends a commit, again in the next generation if the present one is over and wait is set.
func (g *GroupConsumer) commit(ctx context.Context, offsets map[TopicPartition]Commit, wait bool) error {
	ctx, cancel := g.client.bounded(ctx)
	defer cancel()
	for {
		changed, err := g.commitOnce(ctx, offsets)
		stale := errors.Is(err, CodeIllegalGeneration) || errors.Is(err, CodeRebalanceInProgress)
		if err == nil || !stale || !wait {
			if errors.Is(err, CodeUnknownMember) || stale {
				signal(g.beat) // the heartbeat finds out what is the matter
			}
			return err
		}
		signal(g.beat)
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		case <-g.ctx.Done():
			return err
		}
		if offsets = g.stillOwned(offsets); len(offsets) == 0 {
			return err
		}
	}
}

// commitOnce also returns a channel that is closed when there is another generation than the one used.
func (g *GroupConsumer) commitOnce(ctx context.Context, offsets map[TopicPartition]Commit) (<-chan struct{}, error) {
	g.mu.Lock()
	q := &pb.CommitOffsetsRequest{
		Group: g.group, MemberId: g.memberID, InstanceId: g.cfg.instanceID, Generation: g.generation, Offsets: commitsTo(offsets),
	}
	changed, joined := g.changed, g.generation >= 0
	g.mu.Unlock()
	if !joined {
		return changed, &Error{Op: "CommitOffsets", Code: CodeIllegalGeneration, Message: "not a member of the group at the moment", Partition: -1}
	}
	err := g.co.call(ctx, g.client, g.group, "CommitOffsets", func(ctx context.Context, cn *conn) error {
		_, err := cn.groups.CommitOffsets(ctx, q)
		return err
	})
	if err == nil {
		g.mu.Lock()
		for tp, c := range offsets {
			if g.owned[tp] {
				g.committed[tp] = c.Offset
			}
		}
		g.mu.Unlock()
	}
	return changed, err
}

func (g *GroupConsumer) stillOwned(offsets map[TopicPartition]Commit) map[TopicPartition]Commit {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[TopicPartition]Commit, len(offsets))
	for tp, c := range offsets {
		if g.owned[tp] {
			out[tp] = c
		}
	}
	return out
}

// commitProcessed commits what has been dealt with of some partitions, or of all, unless it is committed already.
func (g *GroupConsumer) commitProcessed(ctx context.Context, tps []TopicPartition) error {
	g.mu.Lock()
	offsets := make(map[TopicPartition]Commit)
	for tp, c := range g.processed {
		at, done := g.committed[tp]
		if (!done || at != c.Offset) && (tps == nil || slices.Contains(tps, tp)) {
			offsets[tp] = c
		}
	}
	g.mu.Unlock()
	if len(offsets) == 0 {
		return nil
	}
	return g.commit(ctx, offsets, false)
}

// autoCommit is the periodic commit of the member's goroutine; what fails is committed the next time.
func (g *GroupConsumer) autoCommit() {
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.sessionTimeout/3) // heartbeats wait meanwhile
	defer cancel()
	if err := g.commitProcessed(ctx, nil); err != nil && g.ctx.Err() == nil {
		g.client.cfg.logger.Warn("automatic commit failed", "group", g.group, "error", err)
	}
}
