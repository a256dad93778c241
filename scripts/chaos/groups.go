package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

const (
	groupName    = "readers"
	groupMembers = 3
	// churnEvery is how long the one member stays that comes and goes.
	churnEvery     = 4 * time.Second
	sessionTimeout = 6 * time.Second
	watchPause     = 250 * time.Millisecond
)

// groupWork is a consumer group of three members that stay and one that comes and goes.
type groupWork struct {
	w        *workload
	sessions atomic.Int64
}

func (w *workload) startGroup(ctx context.Context) error {
	w.group = &groupWork{w: w}
	for i := range groupMembers {
		w.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.group.member(ctx, fmt.Sprintf("member%d.%d", i, n))
			}
		})
	}
	w.wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			stay, cancel := context.WithTimeout(ctx, churnEvery)
			w.group.member(stay, fmt.Sprintf("guest.%d", n))
			cancel()
			_ = measure.Pause(ctx, churnEvery/2)
		}
	})
	w.wg.Go(func() { w.group.watch(ctx) })
	return nil
}

// member is one membership, until ctx ends or an error that no retry mends.
func (g *groupWork) member(ctx context.Context, name string) {
	session := map[client.TopicPartition]string{}
	var k *client.GroupConsumer
	k, err := g.w.client.NewGroupConsumer(groupName, []string{eventsTopic, condTopic},
		client.WithAutoCommit(0), client.WithSessionTimeout(sessionTimeout), client.WithRebalanceTimeout(20*time.Second), client.WithMaxWait(200*time.Millisecond),
		client.WithOnAssigned(func(_ context.Context, tps []client.TopicPartition) {
			for _, tp := range tps {
				session[tp] = fmt.Sprintf("%s/%d", name, g.sessions.Add(1))
				g.w.rec.Assign(history.Assign{At: g.w.rec.Now(), Group: groupName, Generation: k.Generation(), Member: k.MemberID(), Partition: partitionOf(tp)})
			}
		}))
	if err != nil {
		g.w.note("group", err)
		return
	}
	for ctx.Err() == nil {
		if !g.round(ctx, k, name, session) {
			break
		}
	}
	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := k.Close(closing); err != nil {
		g.w.note("group close", err)
	}
}

// round polls once and commits; false: the membership is over.
func (g *groupWork) round(ctx context.Context, k *client.GroupConsumer, name string, session map[client.TopicPartition]string) bool {
	start := g.w.rec.Now()
	records, err := k.Poll(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		g.w.note("group poll", err)
		_ = measure.Pause(ctx, 20*time.Millisecond)
		return !errors.Is(err, client.CodeFencedInstance)
	}
	recordPoll(g.w.rec, groupName, start, records, func(tp client.TopicPartition) string { return session[tp] })
	g.commit(k, name, records)
	return true
}

func (g *groupWork) commit(k *client.GroupConsumer, name string, records []*client.Record) {
	offsets := map[client.TopicPartition]client.Commit{}
	for _, r := range records {
		offsets[r.TopicPartition()] = client.Commit{Offset: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
	}
	if len(offsets) == 0 {
		return
	}
	start := g.w.rec.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err := k.CommitOffsets(ctx, offsets)
	outcome := history.OK
	if err != nil {
		// Also a refusal may follow a try that took effect.
		outcome = history.Unknown
		g.w.note("commit", err)
	}
	for tp, c := range offsets {
		g.w.rec.Commit(history.Commit{Span: g.w.rec.Since(start), Group: groupName, Member: name, Partition: partitionOf(tp), Offset: c.Offset, Outcome: outcome})
	}
}

// watch looks at the group from outside: committed offsets, and who has what in which generation.
func (g *groupWork) watch(ctx context.Context) {
	for ctx.Err() == nil {
		g.look(ctx)
		_ = measure.Pause(ctx, watchPause)
	}
}

func (g *groupWork) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	start := g.w.rec.Now()
	offsets, err := g.w.client.Admin().FetchOffsets(ctx, groupName, allPartitions()...)
	if err == nil {
		for tp, c := range offsets {
			g.w.rec.Committed(history.Committed{Span: g.w.rec.Since(start), Group: groupName, Partition: partitionOf(tp), Offset: c.Offset})
		}
	}
	d, err := g.w.client.Admin().DescribeGroup(ctx, groupName)
	if err != nil || d.State != "Stable" {
		return
	}
	for _, m := range d.Members {
		for _, tp := range m.Assignment {
			g.w.rec.Assign(history.Assign{At: g.w.rec.Now(), Group: groupName, Generation: d.Generation, Member: m.MemberID, Partition: partitionOf(tp)})
		}
	}
}

// caughtUp tells whether the group has committed up to these ends.
func (g *groupWork) caughtUp(ctx context.Context, ends map[history.Partition]int64) (bool, error) {
	offsets, err := g.w.client.Admin().FetchOffsets(ctx, groupName, allPartitions()...)
	if err != nil {
		return false, err
	}
	for _, tp := range allPartitions() {
		if offsets[tp].Offset < ends[partitionOf(tp)] {
			return false, fmt.Errorf("%s: committed %d of %d", tp, offsets[tp].Offset, ends[partitionOf(tp)])
		}
	}
	return true, nil
}
