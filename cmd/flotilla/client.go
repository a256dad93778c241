package main

import (
	"context"
	"fmt"

	"github.com/flotilla-log/flotilla/client"
)

// withClient connects to --brokers for the duration of f.
func (a *app) withClient(f func(c *client.Client) error, opts ...client.Option) error {
	for _, addr := range a.brokers {
		if addr == "" {
			return usageErrorf("--brokers has an empty address")
		}
	}
	opts = append([]client.Option{client.WithClientID("flotilla-cli"), client.WithRequestTimeout(a.timeout)}, opts...)
	c, err := client.New(a.brokers, opts...)
	if err != nil {
		return withCode(exitUsage, err)
	}
	err = f(c)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}

// withAdmin is withClient for administrative requests, each of which the client bounds by --timeout.
func (a *app) withAdmin(f func(admin *client.Admin) error) error {
	return a.withClient(func(c *client.Client) error { return f(c.Admin()) })
}

// requireTopic finds out whether a topic exists, so that a misspelt name fails at once rather than after all retries, and returns its
// number of partitions.
func requireTopic(ctx context.Context, c *client.Client, topic string) (partitions int32, err error) {
	m, err := c.Metadata(ctx, topic)
	if err != nil {
		return 0, err
	}
	for _, t := range m.Topics {
		if t.Topic == topic && !t.Unknown {
			return int32(len(t.Partitions)), nil
		}
	}
	return 0, withCode(exitNotFound, fmt.Errorf("no topic %q: create it with 'flotilla topic create %s'", topic, topic))
}
