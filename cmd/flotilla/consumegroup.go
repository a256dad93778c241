package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// closeTimeout bounds the last commit and the goodbye of a group member, also when the command was interrupted.
const closeTimeout = 10 * time.Second

// groupSource reads as a member of a group. It commits by itself and not by the client, which would count all that was polled as dealt with: with
// --count, or when standard output is closed, that is more than was printed. Everything happens on one goroutine, callbacks included.
type groupSource struct {
	join      func() (*client.GroupConsumer, error)
	member    *client.GroupConsumer // nil before the first poll
	admin     *client.Admin
	group     string
	ends      map[client.TopicPartition]int64 // nil: no end in view
	positions map[client.TopicPartition]int64 // after what was polled by this member
	asked     time.Time

	every    time.Duration
	dirty    map[client.TopicPartition]client.Commit // after what was printed and is not committed
	commitAt time.Time                               // when dirty is due
}

func newGroupSource(c *client.Client, topic string, ends map[client.TopicPartition]int64, o consumeOptions) (*groupSource, error) {
	s := &groupSource{
		admin: c.Admin(), group: o.group, ends: ends, positions: map[client.TopicPartition]int64{},
		every: o.commitInterval, dirty: map[client.TopicPartition]client.Commit{},
	}
	opts := []client.GroupOption{
		client.WithAutoCommit(0), client.WithStart(o.start.position()), client.WithOnRevoked(s.revoked), client.WithOnLost(s.lost),
	}
	if o.instanceID != "" {
		opts = append(opts, client.WithInstanceID(o.instanceID))
	}
	if o.strategy != "" {
		strategy, err := client.ParseStrategy(o.strategy)
		if err != nil {
			return nil, usageErrorf("--strategy: %w", err)
		}
		opts = append(opts, client.WithStrategies(strategy))
	}
	s.join = func() (*client.GroupConsumer, error) { return c.NewGroupConsumer(o.group, []string{topic}, opts...) }
	return s, nil
}

// poll joins the group if that is still to be done: a group that has nothing left to read is not disturbed.
func (s *groupSource) poll(ctx context.Context) (records []*client.Record, err error) {
	if s.member == nil {
		if s.member, err = s.join(); err != nil {
			return nil, err
		}
	}
	if len(s.dirty) == 0 {
		return pollFor(ctx, s.ends != nil, pollInterval, s.member.Poll)
	}
	if wait := time.Until(s.commitAt); s.ends == nil || wait < pollInterval {
		return pollFor(ctx, true, max(wait, time.Millisecond), s.member.Poll)
	}
	return pollFor(ctx, true, pollInterval, s.member.Poll)
}

// finished asks the group's coordinator, not more often than every second: partitions may have been read by other members, or earlier.
// It is the group that is to be at the end, not this member alone, which may own nothing.
func (s *groupSource) finished(ctx context.Context) (bool, error) {
	if s.ends == nil {
		return false, nil
	}
	remaining := s.remaining(nil)
	if remaining > 0 && time.Since(s.asked) < time.Second {
		return false, nil
	}
	if remaining == 0 {
		return true, nil
	}
	s.asked = time.Now()
	committed, err := s.admin.FetchOffsets(ctx, s.group)
	switch {
	case errors.Is(err, client.CodeUnknownGroup) || client.IsRetriable(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return s.remaining(committed) == 0, nil
}

// remaining counts the partitions that neither this member nor, as far as committed tells, the group has read to the end.
func (s *groupSource) remaining(committed map[client.TopicPartition]client.Commit) int {
	n := 0
	for tp, end := range s.ends {
		if end > s.positions[tp] && end > committed[tp].Offset {
			n++
		}
	}
	return n
}

func (s *groupSource) printed(ctx context.Context, records []*client.Record) error {
	if len(s.dirty) == 0 {
		s.commitAt = time.Now().Add(s.every)
	}
	for _, r := range records {
		s.positions[r.TopicPartition()] = r.Offset + 1
		s.dirty[r.TopicPartition()] = client.Commit{Offset: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
	}
	if len(s.dirty) == 0 || time.Now().Before(s.commitAt) {
		return nil
	}
	err := s.commit(ctx, maps.Clone(s.dirty))
	if client.IsRetriable(err) || errors.Is(err, context.DeadlineExceeded) {
		return nil // the next commit has it all
	}
	return err
}

// commit commits what was printed of some partitions. A rebalance in between is no failure: what could not be committed is read again by the
// new owner.
func (s *groupSource) commit(ctx context.Context, offsets map[client.TopicPartition]client.Commit) error {
	if len(offsets) == 0 {
		return nil
	}
	s.commitAt = time.Now().Add(s.every)
	err := s.member.CommitOffsets(ctx, offsets)
	if err == nil {
		maps.DeleteFunc(s.dirty, func(tp client.TopicPartition, c client.Commit) bool { return offsets[tp] == c })
		return nil
	}
	for _, benign := range []error{client.CodeIllegalGeneration, client.CodeUnknownMember, client.CodeRebalanceInProgress, client.ErrNotAssigned} {
		if errors.Is(err, benign) {
			return nil
		}
	}
	return err
}

// revoked commits what was printed of partitions that go to others.
func (s *groupSource) revoked(ctx context.Context, tps []client.TopicPartition) {
	going := maps.Clone(s.dirty)
	maps.DeleteFunc(going, func(tp client.TopicPartition, _ client.Commit) bool { return !slices.Contains(tps, tp) })
	_ = s.commit(ctx, going) // else they print it again
	s.lost(ctx, tps)
}

func (s *groupSource) lost(_ context.Context, tps []client.TopicPartition) {
	for _, tp := range tps {
		delete(s.dirty, tp)
	}
}

// close commits and leaves the group.
func (s *groupSource) close() error {
	if s.member == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return errors.Join(s.commit(ctx, maps.Clone(s.dirty)), s.member.Close(ctx))
}
