package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Client is a connection to a cluster, shared by any number of producers, consumers and goroutines. Close those first, then the client.
//
// It owns one goroutine, which keeps the metadata fresh and ends in Close.
type Client struct {
	cfg   config
	seeds []string
	pool  *pool
	meta  *metaCache

	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns a client for the cluster of which brokers (host:port) are some members; one that answers is enough. It connects when
// first used, so a cluster that is down is not an error yet: Ping tells.
func New(brokers []string, opts ...Option) (*Client, error) {
	if len(brokers) == 0 {
		return nil, errors.New("client: no broker addresses")
	}
	cfg := defaultConfig()
	for _, o := range opts {
		o(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, seeds: append([]string(nil), brokers...), pool: newPool(cfg.dialOptions()), meta: newMetaCache()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.refreshLoop)
	return c, nil
}

// Close ends all connections. Calls under way fail.
func (c *Client) Close() error {
	c.cancel()
	err := c.pool.close()
	c.wg.Wait()
	return err
}

// Ping returns nil as soon as one broker answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.fetchMetadata(ctx, nil)
	return err
}

// bounded gives ctx the request timeout unless it ends earlier.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.requestTimeout)
}

// candidates are the addresses to ask when any broker will do: brokers in random order, then seeds that are none of them; and last those that did not answer lately.
func (c *Client) candidates() []string {
	addrs := c.meta.addresses()
	known := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		known[a] = true
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	first := len(addrs)
	for _, s := range c.seeds {
		if !known[s] {
			addrs = append(addrs, s)
		}
	}
	rest := addrs[first:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	var good, doubted []string
	for _, a := range addrs {
		if c.pool.doubted(a) {
			doubted = append(doubted, a)
		} else {
			good = append(good, a)
		}
	}
	return append(good, doubted...)
}

// callAny runs fn against one broker after another until it succeeds, fails for good, or the request timeout is over.
func (c *Client) callAny(ctx context.Context, op string, fn func(context.Context, *conn) error) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var last error
	for attempt := 0; ; attempt++ {
		for _, addr := range c.candidates() {
			err := c.callOne(ctx, op, addr, fn)
			if interrupted(ctx, err) {
				return giveUp(op, ctx, last, err)
			}
			if err == nil || !retryElsewhere(err) {
				return err
			}
			if last = err; ctx.Err() != nil {
				return giveUp(op, ctx, last)
			}
		}
		if err := c.pause(ctx, attempt); err != nil {
			return giveUp(op, ctx, last, err)
		}
	}
}

// callOne runs fn against one broker. A broker that does not answer may take a third of the request timeout.
func (c *Client) callOne(ctx context.Context, op, addr string, fn func(context.Context, *conn) error) error {
	cn, err := c.pool.get(addr)
	if err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, c.cfg.requestTimeout/3)
	defer cancel()
	err = toError(ctx, op, fn(attempt, cn))
	if code := CodeOf(err); ctx.Err() == nil && (code == CodeUnavailable || code == CodeRequestTimedOut) {
		c.pool.doubt(addr)
	}
	return err
}

// retryElsewhere tells errors that another broker, or the same one a little later, may not have.
func retryElsewhere(err error) bool {
	return IsRetriable(err) && !errors.Is(err, CodeUnknownTopicOrPartition)
}

// interrupted tells a call that ctx ended from one that a broker answered.
func interrupted(ctx context.Context, err error) bool {
	var e *Error
	return err != nil && ctx.Err() != nil && !errors.As(err, &e)
}

// giveUp makes the error of a call that ran out of time: the last answer says more than the deadline.
func giveUp(op string, ctx context.Context, errs ...error) error {
	for _, err := range errs {
		var e *Error
		if errors.As(err, &e) {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), e)
			}
			return e
		}
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		silent := &Error{Op: op, Code: CodeUnavailable, Message: "no broker answered in time", Retriable: true, Partition: -1}
		return fmt.Errorf("%w: %w", context.Cause(ctx), silent)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", op, ErrClosed)
}

// pause waits before a retry; it fails when ctx ends or the client is closed.
func (c *Client) pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(backoffFor(attempt, c.cfg.backoffMin, c.cfg.backoffMax))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return ErrClosed
	}
}

// callLeader runs fn against the leader of a partition, following leader changes, until it succeeds, fails for good, or the request
// timeout is over.
func (c *Client) callLeader(ctx context.Context, op string, tp TopicPartition, fn func(context.Context, *conn) error) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var last error
	var h hunt
	for attempt := 0; ; attempt++ {
		n, err := c.partitions(ctx, tp.Topic)
		if err != nil {
			return giveUp(op, ctx, err, last)
		}
		if tp.Partition < 0 || tp.Partition >= n {
			last = noSuchPartition(op, tp, n)
		} else if leader, epoch, ok := c.meta.leadership(tp); ok {
			h.tries(leader, epoch)
			err := c.callOne(ctx, op, leader.Address, fn)
			if interrupted(ctx, err) {
				return giveUp(op, ctx, last, err)
			}
			if err == nil || !IsRetriable(err) {
				return err
			}
			last = err
			if c.follow(tp, err) && attempt == 0 {
				continue
			}
		} else if last == nil {
			last = &Error{Op: op, Code: CodeLeaderNotAvailable, Message: "no leader is known", Retriable: true, Topic: tp.Topic, Partition: tp.Partition}
		}
		if errors.Is(last, CodeUnknownTopicOrPartition) && attempt > 3 {
			return last
		}
		if err := c.pauseFor(ctx, tp, attempt, &h); err != nil {
			return giveUp(op, ctx, last, err)
		}
	}
}

func noSuchPartition(op string, tp TopicPartition, partitions int32) *Error {
	return &Error{
		Op: op, Code: CodeUnknownTopicOrPartition, Retriable: true,
		Topic: tp.Topic, Partition: tp.Partition, Message: fmt.Sprintf("there is no partition %v: the topic has %d", tp, partitions),
	}
}

// follow takes a leader hint out of an error and tells whether there was one.
func (c *Client) follow(tp TopicPartition, err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Leader == nil || e.Code != CodeNotLeader {
		return false
	}
	c.meta.setLeader(tp, *e.Leader)
	return true
}
