package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// FindCoordinator, versions 0 to 6. v1: kinds of coordinator, of which only groups have any here; v3: flexible; v4: several at once (KIP-699).

const coordinatesGroups = 0

func (s *Server) findCoordinator(ctx context.Context, r *request, req *kmsg.FindCoordinatorRequest) reply {
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	if req.Version < 4 {
		c := s.coordinator(ctx, r.conn.listener, req.CoordinatorType, req.CoordinatorKey)
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = c.ErrorCode, c.ErrorMessage, c.NodeID, c.Host, c.Port
		return resp
	}
	resp.Coordinators = make([]kmsg.FindCoordinatorResponseCoordinator, len(req.CoordinatorKeys))
	each(len(req.CoordinatorKeys), func(i int) {
		resp.Coordinators[i] = s.coordinator(ctx, r.conn.listener, req.CoordinatorType, req.CoordinatorKeys[i])
	})
	return resp
}

func (s *Server) coordinator(ctx context.Context, listener string, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	out := kmsg.NewFindCoordinatorResponseCoordinator()
	out.Key, out.NodeID, out.Port = key, -1, -1
	refuse := func(code int16, message string) kmsg.FindCoordinatorResponseCoordinator {
		out.ErrorCode, out.ErrorMessage = code, text(message)
		return out
	}
	switch {
	case kind != coordinatesGroups:
		return refuse(errInvalidRequest, "only consumer groups have coordinators: transactions and share groups are not supported")
	case key == "":
		return refuse(errInvalidGroupID, "the group has no name")
	}
	e, err := s.broker.FindCoordinator(ctx, key)
	if err != nil {
		code := codeOf(err, group)
		if api.CodeOf(err).Retriable() {
			code = errCoordinatorNotAvailable
		}
		return refuse(code, err.Error())
	}
	b, ok := toBroker(e, listener)
	if !ok {
		return refuse(errCoordinatorNotAvailable, fmt.Sprintf("the coordinator, broker %d, has no Kafka listener %s", e.ID, listener))
	}
	out.NodeID, out.Host, out.Port = b.id, b.host, b.port
	return out
}
