package kafka

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Options bound what clients may ask for. Zero values get the defaults. Sizes are bytes.
type Options struct {
	// Self is this broker's ID.
	Self api.BrokerID
	// MaxMessageBytes is the largest record batch; a produce request may be 1 MiB larger. Default 64 MiB.
	MaxMessageBytes int
	// MaxFetchBytes is the most data in one response. Default 32 MiB. A single batch larger than that is still sent.
	MaxFetchBytes int
	// MaxConnections bounds the connections accepted at once; more wait in the listen queue. Default 10000.
	MaxConnections int
	// MaxInflight bounds the produce requests of one connection that have no response yet. Default 128.
	MaxInflight int
	// MaxRequestBytes bounds the requests of all connections that are in memory. Default 512 MiB.
	MaxRequestBytes int64
	// MaxResponseBytes bounds the records in fetch responses of all connections that were not taken yet. Default 512 MiB.
	MaxResponseBytes int64
	// MaxFetchSessions bounds the fetch sessions of all clients, as max.incremental.fetch.session.cache.slots does. Default 1000.
	MaxFetchSessions int
	// MaxFetchSessionBytes bounds what they take. Default 64 MiB.
	MaxFetchSessionBytes int64
	// IdleTimeout closes connections without requests, as connections.max.idle.ms does. Default 10 min.
	IdleTimeout time.Duration
	// StallTimeout closes connections whose client does not go on sending a request that it has begun, or does not take its
	// response. Default 30 s.
	StallTimeout time.Duration
	// AppendTimeout is for produce requests that set none. Default 30 s.
	AppendTimeout time.Duration
	// OnRequest is told of each request that was answered, by Kafka's name of its API. Nil: nobody is.
	OnRequest func(api string, took time.Duration)
	Logger    hclog.Logger
}

const (
	requestOverhead = 1 << 20
	// plainRequestMax bounds requests that carry no records. Decoded, a request may take a hundred times its size.
	plainRequestMax = 2 << 20
	// groupRequestMax bounds JoinGroup and SyncGroup, which carry subscriptions and assignments.
	groupRequestMax = 8 << 20
	maxWait         = 5 * time.Minute
	maxAppendWait   = 10 * time.Minute
	// callTimeout bounds requests that are not meant to wait.
	callTimeout = 30 * time.Second
	// createWait bounds the wait for the leaders of a topic that a metadata request creates.
	createWait = 5 * time.Second
	// workers bounds what one request does at the same time.
	workers = 16
)

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (o Options) withDefaults() Options {
	o.MaxMessageBytes = orDefault(o.MaxMessageBytes, 64<<20)
	o.MaxFetchBytes = orDefault(o.MaxFetchBytes, 32<<20)
	o.MaxConnections = orDefault(o.MaxConnections, 10000)
	o.MaxInflight = orDefault(o.MaxInflight, 128)
	o.MaxRequestBytes = max(orDefault(o.MaxRequestBytes, 512<<20), int64(max(o.MaxMessageBytes+requestOverhead, groupRequestMax)))
	o.MaxResponseBytes = max(orDefault(o.MaxResponseBytes, 512<<20), int64(o.MaxFetchBytes))
	o.MaxFetchSessions = orDefault(o.MaxFetchSessions, 1000)
	o.MaxFetchSessionBytes = orDefault(o.MaxFetchSessionBytes, 64<<20)
	o.IdleTimeout = orDefault(o.IdleTimeout, 10*time.Minute)
	o.StallTimeout = orDefault(o.StallTimeout, 30*time.Second)
	o.AppendTimeout = orDefault(o.AppendTimeout, 30*time.Second)
	if o.OnRequest == nil {
		o.OnRequest = func(string, time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// requestMax is the most bytes that a request of the API may have.
func (o *Options) requestMax(key int16) int {
	switch key {
	case keyProduce:
		return o.MaxMessageBytes + requestOverhead
	case keyJoinGroup, keySyncGroup:
		return groupRequestMax
	}
	return plainRequestMax
}
