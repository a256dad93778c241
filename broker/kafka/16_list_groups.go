package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups, versions 0 to 5. v3: flexible; v4: filter by state (KIP-518); v5: filter by type (KIP-848), of which there is one, "classic". Each
// broker lists the groups that it coordinates: clients ask all of them.

func (s *Server) listGroups(ctx context.Context, _ *request, req *kmsg.ListGroupsRequest) reply {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	groups, err := s.broker.ListGroups(ctx)
	if err != nil {
		resp.ErrorCode = codeOf(err, group)
		return resp
	}
	for _, g := range groups {
		if g.Coordinator != s.opts.Self || !among(req.StatesFilter, g.State) || !among(req.TypesFilter, groupType) {
			continue
		}
		out := kmsg.NewListGroupsResponseGroup()
		out.Group, out.ProtocolType, out.GroupState, out.GroupType = g.Group, g.ProtocolType, g.State, groupType
		resp.Groups = append(resp.Groups, out)
	}
	return resp
}

const groupType = "classic"

// among is true without a filter. Kafka does not care for case.
func among(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
}
