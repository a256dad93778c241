package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Heartbeat, versions 0 to 4. v3: static members; v4: flexible.

func (s *Server) heartbeat(ctx context.Context, _ *request, req *kmsg.HeartbeatRequest) reply {
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	err := s.broker.Heartbeat(ctx, api.MemberRef{
		Group: req.Group, MemberID: req.MemberID, InstanceID: orEmpty(req.InstanceID), Generation: req.Generation,
	})
	resp.ErrorCode = codeOf(err, group)
	return resp
}
