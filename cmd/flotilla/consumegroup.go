package main

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// closeTimeout bounds the last commit and the goodbye of a group member, also when the command was interrupted.
const closeTimeout = 10 * time.Second

// groupSource reads as a member of a group. The client commits by itself what was polled before the last poll; since that was printed by then,
// and the rest is committed by close, no record is committed that was not printed.
type groupSource struct {
	join      func() (*client.GroupConsumer, error)
	member    *client.GroupConsumer // nil before the first poll
	admin     *client.Admin
	group     string
	ends      map[client.TopicPartition]int64 // nil: no end in view
	positions map[client.TopicPartition]int64 // after what was polled by this member
	last      []*client.Record                // printed after the last poll
	asked     time.Time
}

func newGroupSource(c *client.Client, topic string, ends map[client.TopicPartition]int64, o consumeOptions) (*groupSource, error) {
	opts := []client.GroupOption{client.WithAutoCommit(o.commitInterval), client.WithStart(o.start.position())}
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
	return &groupSource{
		join:  func() (*client.GroupConsumer, error) { return c.NewGroupConsumer(o.group, []string{topic}, opts...) },
		admin: c.Admin(), group: o.group, ends: ends, positions: map[client.TopicPartition]int64{},
	}, nil
}

// poll joins the group if that is still to be done: a group that has nothing left to read is not disturbed.
func (s *groupSource) poll(ctx context.Context) (records []*client.Record, err error) {
	if s.member == nil {
		if s.member, err = s.join(); err != nil {
			return nil, err
		}
	}
	return pollFor(ctx, s.ends != nil, s.member.Poll)
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

func (s *groupSource) printed(_ context.Context, records []*client.Record) error {
	for _, r := range records {
		s.positions[r.TopicPartition()] = r.Offset + 1
	}
	s.last = records
	return nil
}

// commitLast commits what was printed last. A rebalance in between is no failure: what could not be committed is read again by the new owner.
func (s *groupSource) commitLast(ctx context.Context) error {
	if len(s.last) == 0 {
		return nil
	}
	err := s.member.CommitRecords(ctx, s.last...)
	for _, benign := range []error{client.CodeIllegalGeneration, client.CodeUnknownMember, client.CodeRebalanceInProgress, client.ErrNotAssigned} {
		if errors.Is(err, benign) {
			return nil
		}
	}
	return err
}

// close commits and leaves the group.
func (s *groupSource) close() error {
	if s.member == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return errors.Join(s.commitLast(ctx), s.member.Close(ctx))
}
