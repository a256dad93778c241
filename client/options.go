package client

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Option configures a Client.
type Option func(*config)

type config struct {
	clientID       string
	logger         hclog.Logger
	tls            *tls.Config
	dial           []grpc.DialOption
	requestTimeout time.Duration
	metadataMaxAge time.Duration
	// metadataMaxIdle: see WithMetadataMaxIdle
	metadataMaxIdle time.Duration
	backoffMin      time.Duration
	backoffMax      time.Duration
}

func defaultConfig() config {
	return config{
		clientID:        "flotilla-go",
		logger:          hclog.NewNullLogger(),
		requestTimeout:  30 * time.Second,
		metadataMaxAge:  time.Minute,
		metadataMaxIdle: 5 * time.Minute,
		backoffMin:      50 * time.Millisecond,
		backoffMax:      2 * time.Second,
	}
}

func (c *config) validate() error {
	switch {
	case c.requestTimeout <= 0 || c.metadataMaxAge <= 0 || c.metadataMaxIdle <= 0:
		return fmt.Errorf("client: request timeout %v, metadata age %v and idle time %v must be above 0", c.requestTimeout, c.metadataMaxAge, c.metadataMaxIdle)
	case c.backoffMin <= 0 || c.backoffMax < c.backoffMin:
		return fmt.Errorf("client: retry backoff from %v to %v", c.backoffMin, c.backoffMax)
	}
	return nil
}

func (c *config) dialOptions() []grpc.DialOption {
	opts := defaultDialOptions()
	if c.tls != nil {
		opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(c.tls)))
	}
	return append(opts, c.dial...)
}

// WithClientID names the program to the brokers' operators. Default "flotilla-go".
func WithClientID(id string) Option { return func(c *config) { c.clientID = id } }

// WithLogger lets the client say what it does. Default: it is silent.
func WithLogger(l hclog.Logger) Option {
	return func(c *config) {
		if l != nil {
			c.logger = l
		}
	}
}

// WithTLS encrypts connections. Default: plain TCP.
func WithTLS(t *tls.Config) Option { return func(c *config) { c.tls = t } }

// WithDialOptions adds gRPC options; they go last, so they can override what the client sets.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(c *config) { c.dial = append(c.dial, opts...) }
}

// WithRequestTimeout bounds how long one call may take in all, with retries on other brokers, where the context has no
// earlier deadline. Default 30 s.
func WithRequestTimeout(d time.Duration) Option { return func(c *config) { c.requestTimeout = d } }

// WithMetadataMaxAge is how often the topics in use are looked up again without a reason: it bounds how long a producer takes to notice
// new partitions. Default 1 min.
func WithMetadataMaxAge(d time.Duration) Option { return func(c *config) { c.metadataMaxAge = d } }

// WithMetadataMaxIdle is how long a topic that the client does not use any more is still looked up, as metadata.max.idle.ms has it in Kafka; at least three times
// what WithMetadataMaxAge says. Default 5 min.
func WithMetadataMaxIdle(d time.Duration) Option {
	return func(c *config) { c.metadataMaxIdle = d }
}

// idleTopics is after which time without use a topic is forgotten. Producers look at metadata when it is new, so at least once in metadataMaxAge while they are busy.
func (c *config) idleTopics() time.Duration { return max(c.metadataMaxIdle, 3*c.metadataMaxAge) }

// WithRetryBackoff sets the pause before a retry, which doubles from min to max and is jittered by half. Default 50 ms to 2 s.
func WithRetryBackoff(min, max time.Duration) Option {
	return func(c *config) { c.backoffMin, c.backoffMax = min, max }
}
