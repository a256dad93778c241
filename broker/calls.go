package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Methods that brokers call on one another. 0x0200 to 0x02FF are this package's. Requests and replies are JSON, of which unknown
// fields are ignored; a change that an older release would misunderstand gets a new number.
const (
	methodReplicaStatus transport.Method = 0x0200 + iota
	methodListOffset
	methodGroups
	methodProblems
	methodElect
	methodClients
)

// reply is what every method answers with.
type reply[T any] struct {
	Error *wireError `json:"error,omitempty"`
	Body  T          `json:"body"`
}

// wireError is an *api.Error between brokers.
type wireError struct {
	Code          api.Code            `json:"code"`
	Message       string              `json:"message"`
	Leader        *api.Endpoint       `json:"leader,omitempty"`
	TP            *api.TopicPartition `json:"tp,omitempty"`
	LogStart      record.Offset       `json:"log_start,omitempty"`
	HighWatermark record.Offset       `json:"high_watermark,omitempty"`
}

func toWire(e *api.Error) *wireError {
	return &wireError{Code: e.Code, Message: e.Message, Leader: e.Leader, TP: e.TP, LogStart: e.LogStart, HighWatermark: e.HighWatermark}
}

func (w *wireError) err() error {
	return &api.Error{Code: w.Code, Message: w.Message, Leader: w.Leader, TP: w.TP, LogStart: w.LogStart, HighWatermark: w.HighWatermark}
}

// handle registers a method.
func handle[Req, Resp any](b *Broker, m transport.Method, f func(context.Context, Req) (Resp, error)) {
	b.transport.Handle(m, func(ctx context.Context, _ raft.ServerAddress, payload []byte) ([]byte, error) {
		var req Req
		if err := json.Unmarshal(payload, &req); err != nil {
			return nil, fmt.Errorf("method %#x: %w", m, err)
		}
		var out reply[Resp]
		body, err := f(ctx, req)
		if err != nil {
			e, _ := b.apiError(err, nil).(*api.Error)
			out.Error = toWire(e)
		} else {
			out.Body = body
		}
		return json.Marshal(out)
	})
}

// call asks a broker, which may be this one. An error of the method itself is an *api.Error as it was there.
func call[Req, Resp any](ctx context.Context, b *Broker, to raft.ServerAddress, m transport.Method, req Req) (Resp, error) {
	var out reply[Resp]
	payload, err := json.Marshal(req)
	if err != nil {
		return out.Body, fmt.Errorf("calling broker %s: %w", to, err)
	}
	answer, err := b.transport.Call(ctx, to, m, payload)
	if err != nil {
		return out.Body, fmt.Errorf("calling broker %s: %w", to, err)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out.Body, fmt.Errorf("calling broker %s: %w", to, err)
	}
	if out.Error != nil {
		return out.Body, out.Error.err()
	}
	return out.Body, nil
}

// handleCalls registers all methods. They answer as soon as the transport listens, so each of them copes with a broker that
// is still starting.
func (b *Broker) handleCalls() {
	handle(b, methodReplicaStatus, b.onReplicaStatus)
	handle(b, methodListOffset, b.onListOffset)
	handle(b, methodGroups, b.onGroups)
	handle(b, methodProblems, b.onProblems)
	handle(b, methodDigests, b.onDigests)
	handle(b, methodCondemn, b.onCondemn)
	handle(b, methodElect, b.onElect)
	handle(b, methodClients, b.onClients)
}

// started is nil, or the error of a broker that is not up yet.
func (b *Broker) started() error {
	if !b.up.Load() {
		return &api.Error{Code: api.CodeLeaderNotAvailable, Message: fmt.Sprintf("broker %d is starting", b.cfg.ID)}
	}
	return nil
}

// replicaName is a replica as the one who asks knows it. An empty ServerID means whatever replica is there.
type replicaName struct {
	Group    transport.GroupID `json:"group"`
	ServerID string            `json:"server_id,omitempty"`
}

type statusRequest struct {
	Replicas []replicaName `json:"replicas"`
}

// replicaStatus is a replica at a glance. All else is meaningless unless Open.
type replicaStatus struct {
	Open          bool          `json:"open"`
	Leads         bool          `json:"leads"`
	Stopping      bool          `json:"stopping,omitempty"` // the broker is: no leadership for it
	Full          bool          `json:"full,omitempty"`     // its disk is: no leadership either
	LastIndex     uint64        `json:"last_index"`
	LogStart      record.Offset `json:"log_start"`
	HighWatermark record.Offset `json:"high_watermark"`
	Bytes         int64         `json:"bytes"`
}

func (b *Broker) onReplicaStatus(_ context.Context, req statusRequest) ([]replicaStatus, error) {
	if err := b.started(); err != nil {
		return nil, err
	}
	out := make([]replicaStatus, len(req.Replicas))
	for i, name := range req.Replicas {
		out[i] = b.replicaStatus(name)
	}
	return out, nil
}

func (b *Broker) replicaStatus(name replicaName) replicaStatus {
	h := b.replicas.byGroup(name.Group)
	if h == nil || name.ServerID != "" && name.ServerID != h.serverID {
		return replicaStatus{}
	}
	r := h.open()
	if r == nil {
		return replicaStatus{}
	}
	s := r.Status()
	return replicaStatus{
		Open: s.Err == nil, Leads: s.Ready, Stopping: b.stopping.Load(), Full: r.StorageFull() != nil, LastIndex: s.LastIndex, LogStart: s.LogStart, HighWatermark: s.HighWatermark, Bytes: s.Bytes,
	}
}

type listOffsetRequest struct {
	TP       api.TopicPartition `json:"tp"`
	Position api.Position       `json:"position"`
}

func (b *Broker) onListOffset(ctx context.Context, req listOffsetRequest) (api.ListedOffset, error) {
	if err := b.started(); err != nil {
		return api.ListedOffset{}, err
	}
	return b.ListOffset(ctx, req.TP, req.Position)
}

func (b *Broker) onProblems(context.Context, struct{}) ([]api.PartitionProblem, error) {
	if err := b.started(); err != nil {
		return nil, err
	}
	return b.replicas.problems(), nil
}

// LocalReplica describes this broker's replica of a partition, for tests and tools; false if there is none, or it is not open.
func (b *Broker) LocalReplica(tp api.TopicPartition) (partition.Status, bool) {
	p := b.node.State().Find(tp)
	if p == nil {
		return partition.Status{}, false
	}
	h := b.replicas.get(p)
	if h == nil {
		return partition.Status{}, false
	}
	r := h.open()
	if r == nil {
		return partition.Status{}, false
	}
	return r.Status(), true
}
