package kafka

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// JoinGroup, versions 0 to 9. v1: rebalance timeout; v4: the member ID is handed out first (KIP-394); v5: static members (KIP-345); v6:
// flexible; v7: protocol type in the response; v8: reason (logged by nobody); v9: the leader may be told to skip the assignment (KIP-814).

func (s *Server) joinGroup(ctx context.Context, r *request, req *kmsg.JoinGroupRequest) reply {
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	join := api.JoinRequest{
		MemberRef: api.MemberRef{Group: req.Group, MemberID: req.MemberID, InstanceID: orEmpty(req.InstanceID), Generation: -1},
		ClientID:  r.clientID, ClientHost: r.conn.host(),
		SessionTimeout: milliseconds(req.SessionTimeoutMillis), RebalanceTimeout: milliseconds(req.RebalanceTimeoutMillis),
		ProtocolType: req.ProtocolType, RequireMemberID: req.Version >= 4 && req.InstanceID == nil,
	}
	for _, p := range req.Protocols {
		join.Protocols = append(join.Protocols, api.GroupProtocol{Name: p.Name, Metadata: p.Metadata})
	}
	if req.Group == "" {
		return refuseJoin(resp, req, errInvalidGroupID)
	}
	res, err := s.broker.JoinGroup(ctx, join)
	if err != nil {
		refuseJoin(resp, req, codeOf(err, group))
		var e *api.Error
		if errors.As(err, &e) && e.MemberID != "" {
			resp.MemberID = e.MemberID
		}
		return resp
	}
	fillJoin(resp, res)
	return resp
}

func refuseJoin(resp *kmsg.JoinGroupResponse, req *kmsg.JoinGroupRequest, code int16) reply {
	resp.ErrorCode, resp.Generation, resp.MemberID = code, -1, req.MemberID
	if req.Version < 7 {
		resp.Protocol = text("")
	}
	return resp
}

func fillJoin(resp *kmsg.JoinGroupResponse, res api.JoinResult) {
	resp.Generation, resp.MemberID, resp.LeaderID = res.Generation, res.MemberID, res.Leader
	resp.ProtocolType, resp.Protocol, resp.SkipAssignment = orNil(res.ProtocolType), text(res.Protocol), res.SkipAssignment
	if res.SkipAssignment && resp.Version < 9 {
		// The client cannot be told to skip the assignment. It does if it does not think that it leads.
		resp.LeaderID = ""
		return
	}
	for _, m := range res.Members {
		rm := kmsg.NewJoinGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = m.MemberID, orNil(m.InstanceID), m.Metadata
		resp.Members = append(resp.Members, rm)
	}
}

func milliseconds(ms int32) time.Duration { return time.Duration(max(ms, 0)) * time.Millisecond }

// host is the client's address as Kafka shows it.
func (c *conn) host() string {
	host, _, err := net.SplitHostPort(c.nc.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return "/" + host
}
