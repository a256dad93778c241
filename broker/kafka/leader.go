package kafka

import (
	"errors"
	"sync"

	"github.com/flotilla-log/flotilla/broker/api"
)

// leaderHint tells a client which broker leads a partition instead, so that it need not ask for metadata (KIP-951). id -1: not known.
type leaderHint struct{ id, epoch int32 }

var noHint = leaderHint{-1, -1}

// hints collects the addresses of the brokers that a response names as leaders.
type hints struct {
	listener string // that the client uses
	mu       sync.Mutex
	brokers  []kafkaBroker
}

// of is the hint in an error, if there is one.
func (h *hints) of(err error) leaderHint {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeNotLeader || e.Leader == nil || e.LeaderEpoch <= 0 {
		return noHint
	}
	return h.at(*e.Leader, e.LeaderEpoch)
}

func (h *hints) at(e api.Endpoint, epoch int32) leaderHint {
	b, ok := toBroker(e, h.listener)
	if !ok {
		return noHint
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, known := range h.brokers {
		if known.id == b.id {
			return leaderHint{b.id, epoch}
		}
	}
	h.brokers = append(h.brokers, b)
	return leaderHint{b.id, epoch}
}
