package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeGroups, versions 0 to 6. v3: authorized operations (not told); v4: static members; v5: flexible; v6: an error for groups that are not
// there, which are "Dead" before. Any broker answers, not only the coordinator.

func (s *Server) describeGroups(ctx context.Context, _ *request, req *kmsg.DescribeGroupsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(req.Groups))
	each(len(req.Groups), func(i int) { resp.Groups[i] = s.describeGroup(ctx, req.Groups[i], req.Version) })
	return resp
}

func (s *Server) describeGroup(ctx context.Context, name string, version int16) kmsg.DescribeGroupsResponseGroup {
	out := kmsg.NewDescribeGroupsResponseGroup()
	out.Group = name
	d, err := s.broker.DescribeGroup(ctx, name)
	if err != nil {
		out.ErrorCode, out.ErrorMessage = codeOf(err, group), messageOf(err)
		if out.ErrorCode == errGroupIDNotFound {
			out.State = "Dead"
			if version < 6 {
				out.ErrorCode, out.ErrorMessage = errNone, nil
			}
		}
		return out
	}
	out.State, out.ProtocolType, out.Protocol = d.State, d.ProtocolType, d.Protocol
	for _, m := range d.Members {
		out.Members = append(out.Members, toGroupMember(m))
	}
	return out
}

func toGroupMember(m api.GroupMember) kmsg.DescribeGroupsResponseGroupMember {
	out := kmsg.NewDescribeGroupsResponseGroupMember()
	out.MemberID, out.InstanceID, out.ClientID, out.ClientHost = m.MemberID, orNil(m.InstanceID), m.ClientID, m.ClientHost
	out.ProtocolMetadata, out.MemberAssignment = append([]byte{}, m.Metadata...), append([]byte{}, m.Assignment...)
	return out
}
