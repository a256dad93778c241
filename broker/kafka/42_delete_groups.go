package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups, versions 0 to 3. v2: flexible; v3: messages.

func (s *Server) deleteGroups(ctx context.Context, _ *request, req *kmsg.DeleteGroupsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, name := range req.Groups {
		out := kmsg.NewDeleteGroupsResponseGroup()
		out.Group = name
		err := s.broker.DeleteGroup(ctx, name)
		out.ErrorCode, out.ErrorMessage = codeOf(err, group), messageOf(err)
		resp.Groups = append(resp.Groups, out)
	}
	return resp
}
