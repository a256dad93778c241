package client

import (
	"context"
	"errors"
	"sync"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// coordinator remembers where a group's coordinator is. The zero value knows nothing.
type coordinator struct {
	mu   sync.Mutex
	addr string
}

// find returns the coordinator's connection, asking any broker if it is not known.
func (co *coordinator) find(ctx context.Context, c *Client, group string) (*conn, error) {
	co.mu.Lock()
	addr := co.addr
	co.mu.Unlock()
	if addr == "" {
		err := c.callAny(ctx, "FindCoordinator", func(ctx context.Context, cn *conn) error {
			r, err := cn.groups.FindCoordinator(ctx, &pb.FindCoordinatorRequest{Group: group})
			addr = r.GetCoordinator().GetAddress()
			return err
		})
		if err != nil {
			return nil, err
		}
		if addr == "" {
			return nil, &Error{Op: "FindCoordinator", Code: CodeCoordinatorNotAvailable, Message: "the broker named none", Retriable: true, Partition: -1}
		}
		co.set(addr)
	}
	return c.pool.get(addr)
}

func (co *coordinator) set(addr string) {
	co.mu.Lock()
	defer co.mu.Unlock()
	co.addr = addr
}

// learn draws the consequence of an error: another coordinator, or that it must be looked for.
func (co *coordinator) learn(err error) {
	var e *Error
	if !errors.As(err, &e) {
		return
	}
	switch e.Code {
	case CodeNotCoordinator, CodeCoordinatorNotAvailable, CodeUnavailable, CodeShuttingDown, CodeRequestTimedOut:
		addr := ""
		if e.Leader != nil && e.Code == CodeNotCoordinator {
			addr = e.Leader.Address
		}
		co.set(addr)
	}
}

// once runs fn against the coordinator, one time, for at most as long as ctx.
func (co *coordinator) once(ctx context.Context, c *Client, group, op string, fn func(context.Context, *conn) error) error {
	cn, err := co.find(ctx, c, group)
	if err != nil {
		return err
	}
	err = toError(ctx, op, fn(ctx, cn))
	co.learn(err)
	return err
}

// call runs fn against the coordinator, following it to other brokers, until it succeeds, fails for good, or the request timeout is over.
func (co *coordinator) call(ctx context.Context, c *Client, group, op string, fn func(context.Context, *conn) error) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var last error // that a broker gave: it says more than a deadline that passed at a later try
	for attempt := 0; ; attempt++ {
		err := co.try(ctx, c, group, op, fn)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil:
			return giveUp(op, ctx, last)
		case !retryCoordinator(err):
			return err
		}
		if last == nil || CodeOf(err) != CodeUnavailable && CodeOf(err) != CodeRequestTimedOut {
			last = err
		}
		if err := c.pause(ctx, attempt); err != nil {
			return giveUp(op, ctx, last, err)
		}
	}
}

// try is once with a third of the request timeout, so that a silent broker leaves time for another.
func (co *coordinator) try(ctx context.Context, c *Client, group, op string, fn func(context.Context, *conn) error) error {
	return co.once(ctx, c, group, op, func(ctx context.Context, cn *conn) error {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.requestTimeout/3)
		defer cancel()
		return fn(ctx, cn)
	})
}

// retryCoordinator leaves out what concerns the member rather than the coordinator: the caller must join again first.
func retryCoordinator(err error) bool {
	return IsRetriable(err) && !errors.Is(err, CodeRebalanceInProgress) && !errors.Is(err, CodeUnknownTopicOrPartition)
}

func commitsTo(offsets map[TopicPartition]Commit) []*pb.OffsetCommit {
	out := make([]*pb.OffsetCommit, 0, len(offsets))
	for tp, o := range offsets {
		out = append(out, &pb.OffsetCommit{Topic: tp.Topic, Partition: tp.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata})
	}
	return out
}

func fetchOffsets(ctx context.Context, c *Client, co *coordinator, group string, tps []TopicPartition) (map[TopicPartition]Commit, error) {
	q := &pb.FetchOffsetsRequest{Group: group, Partitions: partitionsTo(tps)}
	var r *pb.FetchOffsetsResponse
	err := co.call(ctx, c, group, "FetchOffsets", func(ctx context.Context, cn *conn) (err error) {
		r, err = cn.groups.FetchOffsets(ctx, q)
		return err
	})
	out := make(map[TopicPartition]Commit, len(r.GetOffsets()))
	for _, o := range r.GetOffsets() {
		out[TopicPartition{o.Topic, o.Partition}] = Commit{Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata}
	}
	return out, err
}
