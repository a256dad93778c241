package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

const (
	groupName      = "readers"
	groupMembers   = 2
	sessionTimeout = 6 * time.Second
	watchPause     = 400 * time.Millisecond
)

// group starts members that stay, one that comes and goes, and one that looks on from outside.
func (w *workload) group(rng *rand.Rand) error {
	for i := range groupMembers {
		c, err := w.newClient()
		if err != nil {
			return err
		}
		w.wg.Go(func() {
			for n := 0; w.ctx.Err() == nil; n++ {
				w.member(w.ctx, c, fmt.Sprintf("member%d.%d", i, n))
			}
		})
	}
	c, err := w.newClient()
	if err != nil {
		return err
	}
	w.wg.Go(func() {
		for n := 0; w.ctx.Err() == nil; n++ {
			stay, cancel := context.WithTimeout(w.ctx, 2*time.Second+time.Duration(rng.Int64N(int64(4*time.Second))))
			w.member(stay, c, fmt.Sprintf("guest.%d", n))
			cancel()
			_ = sleep(w.ctx, 2*time.Second)
		}
	})
	w.wg.Go(func() {
		for w.ctx.Err() == nil {
			w.look()
			_ = w.idle(watchPause)
		}
	})
	return nil
}

// member is one membership, until ctx ends or an error that no retry mends.
func (w *workload) member(ctx context.Context, c *client.Client, name string) {
	session := map[client.TopicPartition]string{}
	k, err := c.NewGroupConsumer(groupName, []string{eventsTopic, condTopic},
		client.WithAutoCommit(0), client.WithSessionTimeout(sessionTimeout), client.WithRebalanceTimeout(15*time.Second), client.WithMaxWait(200*time.Millisecond),
		client.WithOnAssigned(func(_ context.Context, tps []client.TopicPartition) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, tp := range tps {
				w.sessions++
				session[tp] = fmt.Sprintf("%s/%d", name, w.sessions)
			}
		}))
	if err != nil {
		w.note("group", err)
		_ = sleep(ctx, 100*time.Millisecond)
		return
	}
	for ctx.Err() == nil && w.round(ctx, k, name, session) {
	}
	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := k.Close(closing); err != nil {
		w.note("group close", err)
	}
}

// round polls once and commits; false: the membership is over.
func (w *workload) round(ctx context.Context, k *client.GroupConsumer, name string, session map[client.TopicPartition]string) bool {
	start := w.rec.Now()
	records, err := k.Poll(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		w.note("group poll", err)
		_ = sleep(ctx, 20*time.Millisecond)
		return !errors.Is(err, client.CodeFencedInstance)
	}
	w.polled(groupName, start, records, func(tp client.TopicPartition) string { return session[tp] })
	w.commit(k, name, records)
	return true
}

func (w *workload) commit(k *client.GroupConsumer, name string, records []*client.Record) {
	offsets := map[client.TopicPartition]client.Commit{}
	for _, r := range records {
		offsets[r.TopicPartition()] = client.Commit{Offset: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
	}
	if len(offsets) == 0 {
		return
	}
	start := w.rec.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	outcome := history.OK
	if err := k.CommitOffsets(ctx, offsets); err != nil {
		outcome = history.Unknown // a refusal may follow a try that took effect
		w.note("commit", err)
	}
	for tp, c := range offsets {
		w.rec.Commit(history.Commit{Span: w.rec.Since(start), Group: groupName, Member: name, Partition: partitionOf(tp), Offset: c.Offset, Outcome: outcome})
	}
}

// grouped are the partitions that the group reads.
func grouped() []client.TopicPartition {
	all := partitions()
	return all[:len(all)-1]
}

// look reads committed offsets, and who has what in which generation.
func (w *workload) look() {
	ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
	defer cancel()
	start := w.rec.Now()
	offsets, err := w.client.Admin().FetchOffsets(ctx, groupName, grouped()...)
	if err == nil {
		for tp, c := range offsets {
			w.rec.Committed(history.Committed{Span: w.rec.Since(start), Group: groupName, Partition: partitionOf(tp), Offset: c.Offset})
		}
	}
	d, err := w.client.Admin().DescribeGroup(ctx, groupName)
	if err != nil || d.State != "Stable" {
		return
	}
	for _, m := range d.Members {
		for _, tp := range m.Assignment {
			w.rec.Assign(history.Assign{At: w.rec.Now(), Group: groupName, Generation: d.Generation, Member: m.MemberID, Partition: partitionOf(tp)})
		}
	}
}

// behind is nil when the group has committed up to these ends.
func (w *workload) behind(ctx context.Context, ends map[client.TopicPartition]int64) error {
	offsets, err := w.client.Admin().FetchOffsets(ctx, groupName, grouped()...)
	if err != nil {
		return err
	}
	for _, tp := range grouped() {
		if offsets[tp].Offset < ends[tp] && ends[tp] > 0 {
			return fmt.Errorf("%s: committed %d of %d", tp, offsets[tp].Offset, ends[tp])
		}
	}
	return nil
}
