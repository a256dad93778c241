package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// LeaveGroup, versions 0 to 5. v3: several members, also by instance ID (KIP-345); v4: flexible; v5: reason.

func (s *Server) leaveGroup(ctx context.Context, _ *request, req *kmsg.LeaveGroupRequest) reply {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if req.Version < 3 {
		resp.ErrorCode = codeOf(s.broker.LeaveGroup(ctx, api.MemberRef{Group: req.Group, MemberID: req.MemberID, Generation: -1}), group)
		return resp
	}
	for _, m := range req.Members {
		err := s.broker.LeaveGroup(ctx, api.MemberRef{Group: req.Group, MemberID: m.MemberID, InstanceID: orEmpty(m.InstanceID), Generation: -1})
		code := codeOf(err, group)
		if code == errCoordinatorNotAvailable || code == errNotCoordinator || code == errCoordinatorLoading {
			resp.ErrorCode, resp.Members = code, nil
			return resp
		}
		out := kmsg.NewLeaveGroupResponseMember()
		out.MemberID, out.InstanceID, out.ErrorCode = m.MemberID, m.InstanceID, code
		resp.Members = append(resp.Members, out)
	}
	return resp
}
