package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// SyncGroup, versions 0 to 5. v3: static members; v4: flexible; v5: protocol type and name.

func (s *Server) syncGroup(ctx context.Context, _ *request, req *kmsg.SyncGroupRequest) reply {
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	in := api.SyncRequest{
		MemberRef:    api.MemberRef{Group: req.Group, MemberID: req.MemberID, InstanceID: orEmpty(req.InstanceID), Generation: req.Generation},
		ProtocolType: orEmpty(req.ProtocolType), Protocol: orEmpty(req.Protocol), Assignments: map[string][]byte{},
	}
	for _, a := range req.GroupAssignment {
		in.Assignments[a.MemberID] = a.MemberAssignment
	}
	res, err := s.broker.SyncGroup(ctx, in)
	if err != nil {
		resp.ErrorCode, resp.MemberAssignment = codeOf(err, group), []byte{}
		return resp
	}
	resp.ProtocolType, resp.Protocol, resp.MemberAssignment = orNil(res.ProtocolType), orNil(res.Protocol), res.Assignment
	if resp.MemberAssignment == nil {
		resp.MemberAssignment = []byte{}
	}
	return resp
}
